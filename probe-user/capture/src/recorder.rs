//! Records the frames of findings.
//!
//! A frame is recorded if its address and segment are those of a finding: the last frames before the finding, which are
//! buffered per address, and all frames after it.

use std::{
    collections::VecDeque,
    io::{self, Write},
    mem,
    net::{IpAddr, Ipv4Addr},
    num::NonZeroUsize,
};

use lru::LruCache;
use probe_common::{
    event::{ArpEvent, ClaimObservation},
    wire::Vlan,
};
use probe_model::FindingRecord;

use super::{host_comments::CapturedHost, writer::CaptureWriter};

/// The maximum number of addresses whose frames are buffered or recorded.
const MAX_ADDRESSES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4_095);
/// The maximum number of buffered frames per address.
const MAX_FRAMES_PER_ADDRESS: usize = 32;

/// The maximum number of interface descriptions. Changed interfaces are not described again after that, so that a host
/// with frequent address changes does not fill the file with descriptions, and a reader accepts all of them.
const MAX_DESCRIPTIONS: u32 = 1_024;

/// Records the frames of findings to a pcapng file.
#[derive(Debug)]
pub struct CaptureRecorder<W: Write> {
    writer: CaptureWriter<W>,
    host: CapturedHost,
    addresses: LruCache<RecordedAddress, RecordingState>,
    /// The offset from the events' clock to the time since 1970, in nanoseconds. It is constant, because the time of a
    /// request is its identity.
    offset_ns: u64,
    frames: u64,
    missed: u64,
    /// The time of the last event, on the events' clock.
    last_ns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct RecordedAddress {
    ifindex: u32,
    vlan: Vlan,
    ip: IpAddr,
}

#[derive(Debug)]
enum RecordingState {
    /// The address has no finding; its last frames are buffered.
    Buffering(VecDeque<ArpEvent>),
    /// The address has a finding; its frames are recorded.
    Recording,
}

impl<W: Write> CaptureRecorder<W> {
    /// Creates a recorder that writes to `out`. `offset_ns` is added to time stamps to get the time since 1970.
    pub fn new(out: W, host: CapturedHost, offset_ns: u64) -> io::Result<Self> {
        let mut writer = CaptureWriter::new(out)?;
        for (&index, interface) in &host.interfaces {
            writer.interface(index, interface)?;
        }
        Ok(Self {
            writer,
            host,
            addresses: LruCache::new(MAX_ADDRESSES),
            offset_ns,
            frames: 0,
            missed: 0,
            last_ns: 0,
        })
    }

    /// Records or buffers the frame of an event.
    pub fn event(&mut self, event: &ArpEvent) -> io::Result<()> {
        self.last_ns = event.ktime_ns;
        let address = RecordedAddress {
            ifindex: event.ifindex,
            vlan: event.frame.vlan(),
            ip: Ipv4Addr::from(event.frame.subject()).into(),
        };
        let buffering = || RecordingState::Buffering(VecDeque::new());
        match self.addresses.get_or_insert_mut(address, buffering) {
            RecordingState::Recording => self.write(event),
            RecordingState::Buffering(frames) => {
                if frames.len() == MAX_FRAMES_PER_ADDRESS {
                    frames.pop_front();
                }
                frames.push_back(*event);
                Ok(())
            }
        }
    }

    /// Starts recording the frames of a finding's address, and writes those that are buffered.
    pub fn finding(&mut self, record: &FindingRecord) -> io::Result<()> {
        let Some(ifindex) = self.host.index_of(&record.interface) else {
            return Ok(());
        };
        let address = RecordedAddress {
            ifindex,
            vlan: record.vlan,
            ip: record.ip,
        };
        let state = self
            .addresses
            .get_or_insert_mut(address, || RecordingState::Recording);
        match mem::replace(state, RecordingState::Recording) {
            RecordingState::Recording => Ok(()),
            RecordingState::Buffering(frames) => {
                frames.iter().try_for_each(|event| self.write(event))
            }
        }
    }

    /// Updates the host: new interfaces and those with changes are described.
    pub fn set_host(&mut self, host: CapturedHost) -> io::Result<()> {
        for (&index, interface) in &host.interfaces {
            let changed = self.host.interfaces.get(&index) != Some(interface);
            let known = self.writer.has_interface(index);
            if !known || changed && self.writer.described() < MAX_DESCRIPTIONS {
                self.writer.interface(index, interface)?;
            }
        }
        self.host = host;
        Ok(())
    }

    /// Records that frames or findings were lost because the recorder was too slow.
    pub fn record_missed(&mut self, missed: u64) -> io::Result<()> {
        self.missed += missed;
        let at = self.last_ns.saturating_add(self.offset_ns);
        self.writer.missed(self.missed, at)
    }

    /// The number of lost frames and findings.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// Returns the underlying writer.
    pub fn get_mut(&mut self) -> &mut W {
        self.writer.get_mut()
    }

    /// The number of written frames.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Finishes the file. `end_ns` is the end of the recording, on the events' clock.
    pub fn finish(self, end_ns: u64) -> io::Result<W> {
        self.writer.finish(end_ns.saturating_add(self.offset_ns))
    }

    fn write(&mut self, event: &ArpEvent) -> io::Result<()> {
        // The interface was removed before its last frames were read, and has no description.
        if !self.writer.has_interface(event.ifindex) {
            return Ok(());
        }
        self.frames += 1;
        self.writer.event(&to_wall_clock(event, self.offset_ns))
    }
}

/// Adds an offset to all times of an event.
fn to_wall_clock(event: &ArpEvent, offset_ns: u64) -> ArpEvent {
    let shift = |nanos: u64| {
        if nanos == 0 {
            0
        } else {
            nanos.saturating_add(offset_ns)
        }
    };
    ArpEvent {
        ktime_ns: event.ktime_ns.saturating_add(offset_ns),
        request_ns: shift(event.request_ns),
        previous: ClaimObservation {
            ktime_ns: shift(event.previous.ktime_ns),
            request_ns: shift(event.previous.request_ns),
            ..event.previous
        },
        ..*event
    }
}
