//! Reads pcap and pcapng: the frames of Ethernet interfaces, whatever the byte order and the unit of time.

use std::{collections::HashMap, fmt, io::Read};

use pcap_parser::{
    Block, EnhancedPacketBlock, InterfaceDescriptionBlock, Linktype, OptionCode, PcapBlockOwned,
    PcapError, PcapNGOption, create_reader,
    traits::{PcapNGPacketBlock as _, PcapReaderIterator},
};
use probe_common::{
    event::{ArpEvent, Hook},
    parse::{Parsed, parse},
    wire::{ArpFrame, MacAddr, VlanTag},
};

use super::{
    host::{Host, Interface},
    note::Note,
    writer::{EPB_FLAGS, OUTBOUND},
};

/// A block has to fit; the buffer grows for those that do not.
const BUFFER: usize = 1 << 20;
/// A block larger than this is damage: tools write packets of at most 256 KiB.
const LARGEST_BLOCK: usize = 16 << 20;
/// Interfaces that a capture may have; the packets of more are left out.
const INTERFACES: usize = 4_096;
/// The name of the interface of a capture that names none.
const UNNAMED: &str = "capture";
const NANOS: u128 = 1_000_000_000;

/// Why a capture could not be read, or not to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaptureError {
    /// Not a capture at all.
    #[error("this is no pcap or pcapng file (compressed ones have to be unpacked first)")]
    NotACapture,
    /// No packet in it starts with an Ethernet header.
    #[error(
        "its packets do not start with an Ethernet header (link type {0}): capture on one interface, \
         `tcpdump -i eth0 -w FILE arp`, not on `any`"
    )]
    LinkType(i32),
    /// It ends in the middle of a packet.
    #[error("it ends in the middle of a packet, after {0} whole ones: it was cut off")]
    Truncated(u64),
    /// It makes no sense from some point on.
    #[error("it is damaged after {packets} packets, at byte {offset}")]
    Damaged {
        /// Packets that could be read.
        packets: u64,
        /// Where what could be read ends.
        offset: u64,
    },
    /// The file could not be read.
    #[error("it could not be read after {0} packets: an error of the disk or the network")]
    Unreadable(u64),
}

/// How much was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Bytes.
    pub bytes: u64,
    /// Packets, of any protocol.
    pub packets: u64,
    /// ARP frames.
    pub frames: u64,
    /// Frames with the ARP ethertype that are none that can be read.
    pub malformed: u64,
    /// Packets of interfaces that are not Ethernet.
    pub other_links: u64,
}

/// What is in a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// Something that does not concern ARP.
    Other,
    /// An ARP frame.
    Frame(Sighted),
    /// The host, as [`Reader::host`] gives it, is another now.
    Host,
    /// Until then was listened, in nanoseconds since 1970.
    End(u64),
}

/// An ARP frame and its circumstances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighted {
    /// When, in nanoseconds since 1970; never 0.
    pub at_ns: u64,
    /// On which interface of [`Reader::host`].
    pub interface: u32,
    /// Received or sent. What does not say is taken for received.
    pub hook: Hook,
    /// The frame.
    pub frame: ArpFrame,
    /// What the kernel side added, if this program wrote the capture.
    pub note: Option<Note>,
}

impl Sighted {
    /// The event that the kernel side sent, if this program wrote the capture.
    pub fn event(&self) -> Option<ArpEvent> {
        let note = self.note?;
        Some(ArpEvent {
            ktime_ns: self.at_ns,
            request_ns: note.request_ns,
            previous: note.previous,
            ifindex: self.interface,
            kind: self.frame.kind().number(),
            hook: note.hook.number(),
            frame: self.frame,
        })
    }
}

/// An interface as its section of the file describes it.
#[derive(Clone, Copy, Debug)]
struct Described {
    /// Its index in [`Reader::host`].
    index: u32,
    ethernet: bool,
    /// Units in a second.
    resolution: u128,
    /// Seconds.
    offset: i64,
}

/// Reads a capture.
pub struct Reader<'a> {
    blocks: Box<dyn PcapReaderIterator + Send + 'a>,
    tally: Tally,
    /// The interfaces of the present section.
    section: Vec<Described>,
    host: Host,
    indices: HashMap<String, u32>,
    ethernet: bool,
    other_link: Option<i32>,
}

impl fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("tally", &self.tally)
            .finish_non_exhaustive()
    }
}

impl<'a> Reader<'a> {
    /// Looks at the beginning of a capture.
    pub fn new(source: impl Read + Send + 'a) -> Result<Self, CaptureError> {
        let blocks = create_reader(BUFFER, Whole(source)).map_err(|error| match error {
            PcapError::ReadError => CaptureError::Unreadable(0),
            _ => CaptureError::NotACapture,
        })?;
        Ok(Self {
            blocks,
            tally: Tally::default(),
            section: Vec::new(),
            host: Host::default(),
            indices: HashMap::new(),
            ethernet: false,
            other_link: None,
        })
    }

    /// How much was read.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// What the capture says of the host that it was made on.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The name of an interface.
    pub fn interface(&self, index: u32) -> &str {
        let interface = self.host.interfaces.get(&index);
        interface.map_or(UNNAMED, |interface| &interface.name)
    }

    /// The next thing in the capture; `None` at the end.
    pub fn next(&mut self) -> Result<Option<Item>, CaptureError> {
        loop {
            let (length, item) = match self.blocks.next() {
                Ok((length, block)) => {
                    let mut content = Content {
                        tally: &mut self.tally,
                        section: &mut self.section,
                        host: &mut self.host,
                        indices: &mut self.indices,
                        ethernet: &mut self.ethernet,
                        other_link: &mut self.other_link,
                    };
                    (length, content.block(block))
                }
                Err(PcapError::Eof) => return self.end(),
                Err(PcapError::Incomplete(_)) => {
                    self.refill()?;
                    continue;
                }
                Err(PcapError::BufferTooSmall) => {
                    self.grow()?;
                    continue;
                }
                Err(PcapError::UnexpectedEof) => {
                    return Err(CaptureError::Truncated(self.tally.packets));
                }
                Err(PcapError::ReadError) => return Err(self.unreadable()),
                Err(_) => return Err(self.damaged()),
            };
            if length == 0 {
                return Err(self.damaged());
            }
            self.tally.bytes += length as u64;
            self.blocks.consume(length);
            return Ok(Some(item.unwrap_or(Item::Other)));
        }
    }

    fn refill(&mut self) -> Result<(), CaptureError> {
        let before = self.blocks.data().len();
        if self.blocks.refill().is_err() {
            return Err(self.unreadable());
        }
        // Neither more data nor an end: what was announced does not fit.
        if self.blocks.data().len() == before && !self.blocks.reader_exhausted() {
            return self.grow();
        }
        Ok(())
    }

    fn grow(&mut self) -> Result<(), CaptureError> {
        let size = self.blocks.data().len().max(BUFFER) * 2;
        if size > LARGEST_BLOCK || !self.blocks.grow(size) {
            return Err(self.damaged());
        }
        if self.blocks.refill().is_err() {
            return Err(self.unreadable());
        }
        Ok(())
    }

    fn end(&self) -> Result<Option<Item>, CaptureError> {
        match self.other_link {
            Some(link) if !self.ethernet => Err(CaptureError::LinkType(link)),
            _ => Ok(None),
        }
    }

    fn unreadable(&self) -> CaptureError {
        CaptureError::Unreadable(self.tally.packets)
    }

    fn damaged(&self) -> CaptureError {
        CaptureError::Damaged {
            packets: self.tally.packets,
            offset: self.tally.bytes,
        }
    }
}

/// What a reader knows, apart from the blocks that it borrows from.
struct Content<'a> {
    tally: &'a mut Tally,
    section: &'a mut Vec<Described>,
    host: &'a mut Host,
    indices: &'a mut HashMap<String, u32>,
    ethernet: &'a mut bool,
    other_link: &'a mut Option<i32>,
}

impl Content<'_> {
    fn block(&mut self, block: PcapBlockOwned<'_>) -> Option<Item> {
        match block {
            PcapBlockOwned::LegacyHeader(header) => {
                let nanos = header.is_nanosecond_precision();
                let resolution = if nanos { NANOS } else { 1_000_000 };
                // The upper bits may say how long a frame check sequence is.
                let link = Linktype(header.network.0 & 0xffff);
                self.describe(UNNAMED, link, resolution, 0, Interface::default());
                Some(Item::Host)
            }
            PcapBlockOwned::Legacy(packet) => {
                let described = *self.section.first()?;
                let units =
                    u128::from(packet.ts_sec) * described.resolution + u128::from(packet.ts_usec);
                self.packet(described, units, packet.data, Hook::TcIngress, None)
            }
            PcapBlockOwned::NG(Block::SectionHeader(_)) => {
                self.section.clear();
                None
            }
            PcapBlockOwned::NG(Block::InterfaceDescription(description)) => {
                self.interface(&description);
                Some(Item::Host)
            }
            PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                let described = *self.section.get(usize::try_from(packet.if_id).ok()?)?;
                let units = units(packet.ts_high, packet.ts_low);
                let data = packet.packet_data();
                self.packet(described, units, data, hook(&packet), note(&packet))
            }
            // It has no time: there is nothing to judge it by.
            PcapBlockOwned::NG(Block::SimplePacket(_)) => {
                self.tally.packets += 1;
                None
            }
            PcapBlockOwned::NG(Block::InterfaceStatistics(statistics)) => {
                let described = *self.section.get(usize::try_from(statistics.if_id).ok()?)?;
                let units = units(statistics.ts_high, statistics.ts_low);
                Some(Item::End(described.nanos(units)))
            }
            PcapBlockOwned::NG(_) => None,
        }
    }

    fn interface(&mut self, description: &InterfaceDescriptionBlock<'_>) {
        let name = description
            .if_name()
            .and_then(Result::ok)
            .map_or_else(|| format!("{UNNAMED}{}", self.section.len()), printable);
        let mac = description.if_macaddr().and_then(Result::ok);
        let comments = texts(&description.options, OptionCode::Comment);
        let interface = Interface {
            name: String::new(),
            mac: mac.and_then(|bytes| Some(MacAddr(bytes.try_into().ok()?))),
            held: comments.filter_map(|text| text.parse().ok()).collect(),
        };
        let resolution = match description.if_tsresol {
            power if power & 0x80 != 0 => 1 << (power & 0x7f),
            power => 10_u128.checked_pow(power.into()).unwrap_or(u128::MAX),
        };
        let offset = description.if_tsoffset;
        self.describe(&name, description.linktype, resolution, offset, interface);
    }

    fn describe(
        &mut self,
        name: &str,
        link: Linktype,
        resolution: u128,
        offset: i64,
        interface: Interface,
    ) {
        let ethernet = link == Linktype::ETHERNET;
        if ethernet {
            *self.ethernet = true;
        } else {
            self.other_link.get_or_insert(link.0);
        }
        if self.indices.len() >= INTERFACES || self.section.len() >= INTERFACES {
            return;
        }
        // Sections that were joined describe the same interfaces again.
        let next = u32::try_from(self.indices.len()).unwrap_or(u32::MAX - 1) + 1;
        let index = *self.indices.entry(name.to_owned()).or_insert(next);
        let name = name.to_owned();
        self.host
            .interfaces
            .insert(index, Interface { name, ..interface });
        self.section.push(Described {
            index,
            ethernet,
            resolution,
            offset,
        });
    }

    fn packet(
        &mut self,
        described: Described,
        units: u128,
        bytes: &[u8],
        hook: Hook,
        note: Option<Note>,
    ) -> Option<Item> {
        self.tally.packets += 1;
        if !described.ethernet {
            self.tally.other_links += 1;
            return None;
        }
        match parse(&bytes, VlanTag::NONE) {
            Parsed::NotArp => None,
            Parsed::Malformed(_) => {
                self.tally.malformed += 1;
                None
            }
            Parsed::Arp(frame) => {
                self.tally.frames += 1;
                Some(Item::Frame(Sighted {
                    at_ns: described.nanos(units).max(1),
                    interface: described.index,
                    hook: note.map_or(hook, |note| note.hook),
                    frame,
                    note,
                }))
            }
        }
    }
}

impl Described {
    fn nanos(&self, units: u128) -> u64 {
        let whole = (units / self.resolution).saturating_mul(NANOS);
        // Finer than nanoseconds is rounded down; the product fits, because the rest is less than 2^64.
        let rest = (units % self.resolution) * NANOS / self.resolution;
        let nanos = i128::try_from(whole.saturating_add(rest)).unwrap_or(i128::MAX);
        let offset = i128::from(self.offset) * 1_000_000_000;
        u64::try_from(nanos.saturating_add(offset).max(0)).unwrap_or(u64::MAX)
    }
}

fn units(high: u32, low: u32) -> u128 {
    u128::from(high) << 32 | u128::from(low)
}

fn hook(packet: &EnhancedPacketBlock<'_>) -> Hook {
    let mut flags = packet
        .options
        .iter()
        .filter(|option| option.code == EPB_FLAGS);
    let flags = flags.find_map(|option| option.value().first_chunk().copied());
    let flags = flags.map(|bytes| {
        if packet.big_endian() {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        }
    });
    match flags {
        Some(flags) if flags & 0b11 == OUTBOUND => Hook::TcEgress,
        _ => Hook::TcIngress,
    }
}

fn note(packet: &EnhancedPacketBlock<'_>) -> Option<Note> {
    texts(&packet.options, OptionCode::Comment).find_map(|text| text.parse().ok())
}

fn texts<'a>(options: &'a [PcapNGOption<'_>], code: OptionCode) -> impl Iterator<Item = &'a str> {
    let wanted = options.iter().filter(move |option| option.code == code);
    wanted.filter_map(|option| option.as_str().ok())
}

/// A name from a file that anybody may have written, for a terminal.
fn printable(name: &str) -> String {
    let letters = name.chars().take(64);
    letters
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

/// Reads as much as fits, so that the first look at a pipe sees enough.
struct Whole<R>(R);

impl<R: Read> Read for Whole<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.0.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

#[cfg(test)]
mod tests;
