//! Decodes the blocks of a capture: interfaces and ARP frames.

use std::collections::HashMap;

use pcap_parser::{
    Block, EnhancedPacketBlock, InterfaceDescriptionBlock, Linktype, OptionCode, PcapBlockOwned,
    PcapNGOption, traits::PcapNGPacketBlock as _,
};
use probe_common::{
    event::{ArpEvent, Hook},
    parse::{ParsedFrame, parse},
    wire::{ArpFrame, MacAddr, VlanTag},
};

use super::{
    cooked::{CookedHeader, CookedPacket},
    frame_comment::FrameComment,
    host_comments::{CapturedHost, CapturedInterface},
    writer::{EPB_FLAGS, OUTBOUND},
};

/// The maximum number of interfaces in a capture; packets of further interfaces are ignored.
const MAX_INTERFACES: usize = 4_096;
/// The name of an interface without a name in the capture.
pub(super) const UNNAMED: &str = "capture";
const NANOS: u128 = 1_000_000_000;
/// The type of an obsolete packet block (pcapng, appendix A).
const OBSOLETE_PACKET: u32 = 2;

/// The amount of data that was read from a capture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaptureStatistics {
    /// The number of bytes.
    pub bytes: u64,
    /// The number of packets of any protocol.
    pub packets: u64,
    /// The number of ARP frames.
    pub frames: u64,
    /// The number of malformed frames with the ARP ethertype.
    pub malformed: u64,
    /// The number of packets of interfaces that are not Ethernet.
    pub other_link_type_packets: u64,
    /// The number of packets without a time stamp (pcapng simple packets): they are not processed.
    pub untimed_packets: u64,
}

/// A decoded item of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureItem {
    /// An item without relation to ARP.
    Other,
    /// An ARP frame.
    Frame(CapturedFrame),
    /// A change of the host's description, [`CaptureReader::host`].
    Host,
    /// The end of the capture on an interface, in nanoseconds since 1970.
    End(u64),
}

/// An ARP frame in a capture, with its metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapturedFrame {
    /// The time of the frame, in nanoseconds since 1970; never 0.
    pub at_ns: u64,
    /// The index of the interface in [`CaptureReader::host`].
    pub interface: u32,
    /// The hook, which implies the direction. Ingress if the capture does not contain the direction.
    pub hook: Hook,
    /// The frame.
    pub frame: ArpFrame,
    /// The metadata of the event, if this program wrote the capture.
    pub comment: Option<FrameComment>,
}

impl CapturedFrame {
    /// The event of the BPF programs, if this program wrote the capture.
    pub fn event(&self) -> Option<ArpEvent> {
        let comment = self.comment?;
        Some(ArpEvent {
            ktime_ns: self.at_ns,
            request_ns: comment.request_ns,
            previous: comment.previous,
            ifindex: self.interface,
            kind: self.frame.kind().number(),
            hook: comment.hook.number(),
            frame: self.frame,
        })
    }
}

/// An interface description of a section.
#[derive(Clone, Copy, Debug)]
struct DescribedInterface {
    /// The index of the interface in [`CaptureReader::host`].
    index: u32,
    link: LinkLayer,
    /// The resolution of time stamps, in units per second.
    resolution: u128,
    /// The offset of time stamps, in seconds.
    offset: i64,
}

/// The link layer of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LinkLayer {
    Ethernet,
    /// The pseudo-device `any`.
    Cooked(CookedHeader),
    Unsupported,
}

impl LinkLayer {
    const fn of(link: Linktype) -> Self {
        match link {
            Linktype::ETHERNET => Self::Ethernet,
            Linktype::LINUX_SLL => Self::Cooked(CookedHeader::Sll),
            LINUX_SLL2 => Self::Cooked(CookedHeader::Sll2),
            _ => Self::Unsupported,
        }
    }
}

/// `LINKTYPE_LINUX_SLL2`.
const LINUX_SLL2: Linktype = Linktype(276);

/// Decodes the blocks of a capture in order.
#[derive(Debug, Default)]
pub(super) struct CaptureDecoder {
    pub statistics: CaptureStatistics,
    pub host: CapturedHost,
    /// Whether the packets of an interface can be read.
    pub is_supported: bool,
    /// The link type of the first interface whose packets cannot be read.
    pub other_link: Option<i32>,
    /// Whether the current section is big-endian.
    big_endian: bool,
    /// The interfaces of the current section.
    section: Vec<DescribedInterface>,
    /// The index of each interface, by name.
    indices: HashMap<String, u32>,
}

impl CaptureDecoder {
    /// Decodes the next block; `None` if it is of no interest.
    pub fn decode_block(&mut self, block: PcapBlockOwned<'_>) -> Option<CaptureItem> {
        match block {
            PcapBlockOwned::LegacyHeader(header) => {
                let nanos = header.is_nanosecond_precision();
                let resolution = if nanos { NANOS } else { 1_000_000 };
                // The upper bits may contain the length of the frame check sequence.
                let link = Linktype(header.network.0 & 0xffff);
                self.describe_interface(UNNAMED, link, resolution, 0, CapturedInterface::default());
                Some(CaptureItem::Host)
            }
            PcapBlockOwned::Legacy(packet) => {
                let described = *self.section.first()?;
                let units =
                    u128::from(packet.ts_sec) * described.resolution + u128::from(packet.ts_usec);
                self.decode_packet(described, units, packet.data, Hook::TcIngress, None)
            }
            PcapBlockOwned::NG(Block::SectionHeader(header)) => {
                self.section.clear();
                self.big_endian = header.big_endian();
                None
            }
            PcapBlockOwned::NG(Block::InterfaceDescription(description)) => {
                self.interface(&description);
                Some(CaptureItem::Host)
            }
            PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                let described = *self.section.get(usize::try_from(packet.if_id).ok()?)?;
                let units = units(packet.ts_high, packet.ts_low);
                let data = packet.packet_data();
                self.decode_packet(
                    described,
                    units,
                    data,
                    hook(&packet),
                    frame_comment(&packet),
                )
            }
            // Simple packets have no time stamp, which detection requires.
            PcapBlockOwned::NG(Block::SimplePacket(_)) => {
                self.statistics.packets += 1;
                self.statistics.untimed_packets += 1;
                None
            }
            PcapBlockOwned::NG(Block::Unknown(block)) if block.block_type == OBSOLETE_PACKET => {
                self.decode_obsolete(block.data)
            }
            PcapBlockOwned::NG(Block::InterfaceStatistics(statistics)) => {
                let described = *self.section.get(usize::try_from(statistics.if_id).ok()?)?;
                let units = units(statistics.ts_high, statistics.ts_low);
                Some(CaptureItem::End(described.nanos(units)))
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
        let comments = || comments(&description.options, OptionCode::Comment);
        let interface = CapturedInterface {
            name: String::new(),
            mac: mac.and_then(|bytes| Some(MacAddr(bytes.try_into().ok()?))),
            addresses: comments().filter_map(|text| text.parse().ok()).collect(),
            gateways: comments().filter_map(|text| text.parse().ok()).collect(),
        };
        let resolution = match description.if_tsresol {
            power if power & 0x80 != 0 => 1 << (power & 0x7f),
            power => 10_u128.checked_pow(power.into()).unwrap_or(u128::MAX),
        };
        let offset = description.if_tsoffset;
        self.describe_interface(&name, description.linktype, resolution, offset, interface);
    }

    fn describe_interface(
        &mut self,
        name: &str,
        link: Linktype,
        resolution: u128,
        offset: i64,
        interface: CapturedInterface,
    ) {
        let layer = LinkLayer::of(link);
        if layer == LinkLayer::Unsupported {
            self.other_link.get_or_insert(link.0);
        } else {
            self.is_supported = true;
        }
        if self.indices.len() >= MAX_INTERFACES || self.section.len() >= MAX_INTERFACES {
            return;
        }
        let index = self.index(name, interface);
        self.section.push(DescribedInterface {
            index,
            link: layer,
            resolution,
            offset,
        });
    }

    /// The index of an interface by its name, because concatenated sections describe the same interfaces again.
    fn index(&mut self, name: &str, interface: CapturedInterface) -> u32 {
        let next = u32::try_from(self.indices.len()).unwrap_or(u32::MAX - 1) + 1;
        let index = *self.indices.entry(name.to_owned()).or_insert(next);
        let name = name.to_owned();
        self.host
            .interfaces
            .insert(index, CapturedInterface { name, ..interface });
        index
    }

    /// The index of an interface that only packets name, by its index on the captured host. Beyond the limit they are
    /// taken for one.
    fn cooked_index(&mut self, described: DescribedInterface, number: u32) -> u32 {
        let name = format!("if{number}");
        match self.indices.get(&name) {
            Some(&index) => index,
            None if self.indices.len() >= MAX_INTERFACES => described.index,
            None => self.index(&name, CapturedInterface::default()),
        }
    }

    /// Decodes an obsolete packet block (type 2, replaced by enhanced packet blocks in 2009): interface and drop count in
    /// 16 bits each, time stamp, captured and original length in 32 bits each, the packet.
    fn decode_obsolete(&mut self, block: &[u8]) -> Option<CaptureItem> {
        let big_endian = self.big_endian;
        let half = |at: usize| {
            let bytes = *block.get(at..)?.first_chunk()?;
            Some(if big_endian {
                u16::from_be_bytes(bytes)
            } else {
                u16::from_le_bytes(bytes)
            })
        };
        let word = |at: usize| {
            let bytes = *block.get(at..)?.first_chunk()?;
            Some(if big_endian {
                u32::from_be_bytes(bytes)
            } else {
                u32::from_le_bytes(bytes)
            })
        };
        let described = *self.section.get(usize::from(half(0)?))?;
        let length = usize::try_from(word(12)?).ok()?;
        let packet = block.get(20..)?.get(..length)?;
        let units = units(word(4)?, word(8)?);
        self.decode_packet(described, units, packet, Hook::TcIngress, None)
    }

    fn decode_packet(
        &mut self,
        described: DescribedInterface,
        units: u128,
        bytes: &[u8],
        hook: Hook,
        comment: Option<FrameComment>,
    ) -> Option<CaptureItem> {
        self.statistics.packets += 1;
        let cooked = match described.link {
            LinkLayer::Cooked(header) => CookedPacket::parse(header, bytes),
            LinkLayer::Ethernet | LinkLayer::Unsupported => None,
        };
        if described.link != LinkLayer::Ethernet && cooked.is_none() {
            self.statistics.other_link_type_packets += 1;
            return None;
        }
        let (bytes, hook, interface) = match &cooked {
            None => (bytes, hook, described.index),
            Some(packet) => {
                let number = packet.interface;
                let index = number.map_or(described.index, |number| {
                    self.cooked_index(described, number)
                });
                (packet.frame.as_slice(), packet.hook, index)
            }
        };
        match parse(&bytes, VlanTag::NONE) {
            ParsedFrame::NotArp => None,
            ParsedFrame::Malformed(_) => {
                self.statistics.malformed += 1;
                None
            }
            ParsedFrame::Arp(frame) => {
                self.statistics.frames += 1;
                Some(CaptureItem::Frame(CapturedFrame {
                    at_ns: described.nanos(units).max(1),
                    interface,
                    hook: comment.map_or(hook, |comment| comment.hook),
                    frame,
                    comment,
                }))
            }
        }
    }
}

impl DescribedInterface {
    fn nanos(&self, units: u128) -> u64 {
        let seconds = (units / self.resolution).saturating_mul(NANOS);
        // Higher resolutions are rounded down to nanoseconds. The product fits, because the remainder is below 2^64.
        let rest = (units % self.resolution) * NANOS / self.resolution;
        let nanos = i128::try_from(seconds.saturating_add(rest)).unwrap_or(i128::MAX);
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

fn frame_comment(packet: &EnhancedPacketBlock<'_>) -> Option<FrameComment> {
    comments(&packet.options, OptionCode::Comment).find_map(|text| text.parse().ok())
}

fn comments<'a>(
    options: &'a [PcapNGOption<'_>],
    code: OptionCode,
) -> impl Iterator<Item = &'a str> {
    let matching = options.iter().filter(move |option| option.code == code);
    matching.filter_map(|option| option.as_str().ok())
}

/// Replaces control characters in a name from an untrusted file and limits its length.
fn printable(name: &str) -> String {
    let letters = name.chars().take(64);
    letters
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}
