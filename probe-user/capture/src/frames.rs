//! Writes a list of frames as a pcapng file.

use std::io;

use probe_common::event::ArpEvent;

use super::{host_comments::CapturedInterface, writer::CaptureWriter};

/// Returns a pcapng file with the frames of an interface. `offset_ns` is added to their time stamps to get the time since
/// 1970, in nanoseconds.
pub fn frames<'a>(
    events: impl IntoIterator<Item = &'a ArpEvent>,
    interface: &str,
    offset_ns: u64,
) -> io::Result<Vec<u8>> {
    let mut writer = CaptureWriter::new(Vec::new())?;
    let mut last = 0;
    for event in events {
        if !writer.has_interface(event.ifindex) {
            let interface = CapturedInterface {
                name: interface.to_owned(),
                ..CapturedInterface::default()
            };
            writer.interface(event.ifindex, &interface)?;
        }
        let at = event.ktime_ns.saturating_add(offset_ns);
        last = last.max(at);
        writer.event(&ArpEvent {
            ktime_ns: at,
            ..*event
        })?;
    }
    writer.finish(last)
}
