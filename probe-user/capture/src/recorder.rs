//! Chooses the frames that belong to findings.
//!
//! A frame belongs to a finding if it is about the finding's address, on its segment: those from before the
//! finding, of which the last ones are kept in mind, and those after it.

use std::{
    collections::VecDeque,
    io::{self, Write},
    mem,
    net::{IpAddr, Ipv4Addr},
    num::NonZeroUsize,
};

use lru::LruCache;
use probe_common::{
    event::{ArpEvent, Sighting},
    wire::Vlan,
};
use probe_model::FindingRecord;

use super::{host_comments::CapturedHost, writer::CaptureWriter};

/// Addresses without a finding whose frames are kept in mind.
const MAX_ADDRESSES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4_095);
/// Frames of an address that are kept in mind.
const MAX_FRAMES_PER_ADDRESS: usize = 32;

/// Descriptions of interfaces, after which none is described anew: a host whose addresses come and go fills no
/// file with them, nor with more than a reader takes.
const MAX_DESCRIPTIONS: u32 = 1_024;

/// Records to a pcapng file.
#[derive(Debug)]
pub struct CaptureRecorder<W: Write> {
    writer: CaptureWriter<W>,
    host: CapturedHost,
    addresses: LruCache<RecordedAddress, RecordingState>,
    /// From the clock of the events to the time since 1970. One for all, so that a request keeps its
    /// identity.
    offset_ns: u64,
    frames: u64,
    missed: u64,
    /// The time of the last event, on its own clock.
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
    /// No finding yet: the last frames.
    Waiting(VecDeque<ArpEvent>),
    /// There was one.
    Recorded,
}

impl<W: Write> CaptureRecorder<W> {
    /// Records on this host, whose clock is so far from the time since 1970.
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

    /// Takes a frame.
    pub fn event(&mut self, event: &ArpEvent) -> io::Result<()> {
        self.last_ns = event.ktime_ns;
        let address = RecordedAddress {
            ifindex: event.ifindex,
            vlan: event.frame.vlan(),
            ip: Ipv4Addr::from(event.frame.subject()).into(),
        };
        let waiting = || RecordingState::Waiting(VecDeque::new());
        match self.addresses.get_or_insert_mut(address, waiting) {
            RecordingState::Recorded => self.write(event),
            RecordingState::Waiting(frames) => {
                if frames.len() == MAX_FRAMES_PER_ADDRESS {
                    frames.pop_front();
                }
                frames.push_back(*event);
                Ok(())
            }
        }
    }

    /// Takes a finding: the frames about its address are wanted.
    pub fn finding(&mut self, record: &FindingRecord) -> io::Result<()> {
        let Some(ifindex) = self.host.index_of(&record.interface) else {
            return Ok(());
        };
        let address = RecordedAddress {
            ifindex,
            vlan: record.vlan,
            ip: record.ip,
        };
        let interest = self
            .addresses
            .get_or_insert_mut(address, || RecordingState::Recorded);
        match mem::replace(interest, RecordingState::Recorded) {
            RecordingState::Recorded => Ok(()),
            RecordingState::Waiting(frames) => {
                frames.iter().try_for_each(|event| self.write(event))
            }
        }
    }

    /// Interfaces, or what is held on them, may have changed.
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

    /// So many frames or findings came too fast to be recorded.
    pub fn record_missed(&mut self, missed: u64) -> io::Result<()> {
        self.missed += missed;
        let at = self.last_ns.saturating_add(self.offset_ns);
        self.writer.missed(self.missed, at)
    }

    /// How many frames and findings came too fast.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// What it writes to.
    pub fn get_mut(&mut self) -> &mut W {
        self.writer.get_mut()
    }

    /// How many frames were written.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Ends the file; `end_ns` is until when was listened.
    pub fn finish(self, end_ns: u64) -> io::Result<W> {
        self.writer.finish(end_ns.saturating_add(self.offset_ns))
    }

    fn write(&mut self, event: &ArpEvent) -> io::Result<()> {
        // Gone before its last frames came: there is nothing to file them under.
        if !self.writer.has_interface(event.ifindex) {
            return Ok(());
        }
        self.frames += 1;
        self.writer.event(&to_wall_clock(event, self.offset_ns))
    }
}

/// The event with all its times moved.
fn to_wall_clock(event: &ArpEvent, offset_ns: u64) -> ArpEvent {
    let moved = |nanos: u64| {
        if nanos == 0 {
            0
        } else {
            nanos.saturating_add(offset_ns)
        }
    };
    ArpEvent {
        ktime_ns: event.ktime_ns.saturating_add(offset_ns),
        request_ns: moved(event.request_ns),
        previous: Sighting {
            ktime_ns: moved(event.previous.ktime_ns),
            request_ns: moved(event.previous.request_ns),
            ..event.previous
        },
        ..*event
    }
}
