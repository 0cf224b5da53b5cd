//! Writes pcap files with arbitrary timestamps.

use std::time::Duration;

use crate::frame::Frame;

/// 2023-11-14T22:13:20Z.
const BEGINNING: Duration = Duration::from_secs(1_700_000_000);

/// A pcap file (microseconds, little endian, Ethernet) of these frames, with timestamps relative to a fixed start.
pub fn pcap<'a>(frames: impl IntoIterator<Item = &'a (Duration, Frame)>) -> Vec<u8> {
    let mut file = Vec::new();
    let word = |file: &mut Vec<u8>, value: u32| file.extend(value.to_le_bytes());
    for value in [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1] {
        word(&mut file, value);
    }
    for (after, frame) in frames {
        let at = BEGINNING + *after;
        let bytes = frame.bytes();
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let seconds = u32::try_from(at.as_secs()).unwrap_or(u32::MAX);
        for value in [seconds, at.subsec_micros(), length, length] {
            word(&mut file, value);
        }
        file.extend(bytes);
    }
    file
}
