//! What is in a capture, block by block: its interfaces, and the ARP frames that they saw.

use std::collections::HashMap;

use pcap_parser::{
    Block, EnhancedPacketBlock, InterfaceDescriptionBlock, Linktype, OptionCode, PcapBlockOwned,
    PcapNGOption, traits::PcapNGPacketBlock as _,
};
use probe_common::{
    event::{ArpEvent, Hook},
    parse::{Parsed, parse},
    wire::{ArpFrame, MacAddr, VlanTag},
};

use super::{
    frame_comment::FrameComment,
    host_comments::{CapturedHost, CapturedInterface},
    writer::{EPB_FLAGS, OUTBOUND},
};

/// Interfaces that a capture may have; the packets of more are left out.
const MAX_INTERFACES: usize = 4_096;
/// The name of the interface of a capture that names none.
pub(super) const UNNAMED: &str = "capture";
const NANOS: u128 = 1_000_000_000;

/// How much was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaptureStatistics {
    /// Bytes.
    pub bytes: u64,
    /// Packets, of any protocol.
    pub packets: u64,
    /// ARP frames.
    pub frames: u64,
    /// Frames with the ARP ethertype that are none that can be read.
    pub malformed: u64,
    /// Packets of interfaces that are not Ethernet.
    pub other_link_type_packets: u64,
}

/// What is in a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureItem {
    /// Something that does not concern ARP.
    Other,
    /// An ARP frame.
    Frame(CapturedFrame),
    /// The host, as [`Reader::host`] gives it, is another now.
    Host,
    /// Until then was listened, in nanoseconds since 1970.
    End(u64),
}

/// An ARP frame and its circumstances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapturedFrame {
    /// When, in nanoseconds since 1970; never 0.
    pub at_ns: u64,
    /// On which interface of [`Reader::host`].
    pub interface: u32,
    /// Received or sent. What does not say is taken for received.
    pub hook: Hook,
    /// The frame.
    pub frame: ArpFrame,
    /// What the kernel side added, if this program wrote the capture.
    pub note: Option<FrameComment>,
}

impl CapturedFrame {
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
struct DescribedInterface {
    /// Its index in [`Reader::host`].
    index: u32,
    ethernet: bool,
    /// Units in a second.
    resolution: u128,
    /// Seconds.
    offset: i64,
}

/// What is known of a capture so far.
#[derive(Debug, Default)]
pub(super) struct CaptureDecoder {
    pub statistics: CaptureStatistics,
    pub host: CapturedHost,
    /// Whether it has an Ethernet interface.
    pub ethernet: bool,
    /// The link type of the first interface that is none.
    pub other_link: Option<i32>,
    /// The interfaces of the present section.
    section: Vec<DescribedInterface>,
    /// The index of each interface, by its name.
    indices: HashMap<String, u32>,
}

impl CaptureDecoder {
    /// Takes the next block.
    pub fn decode_block(&mut self, block: PcapBlockOwned<'_>) -> Option<CaptureItem> {
        match block {
            PcapBlockOwned::LegacyHeader(header) => {
                let nanos = header.is_nanosecond_precision();
                let resolution = if nanos { NANOS } else { 1_000_000 };
                // The upper bits may say how long a frame check sequence is.
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
            PcapBlockOwned::NG(Block::SectionHeader(_)) => {
                self.section.clear();
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
            // It has no time: there is nothing to judge it by.
            PcapBlockOwned::NG(Block::SimplePacket(_)) => {
                self.statistics.packets += 1;
                None
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
        let ethernet = link == Linktype::ETHERNET;
        if ethernet {
            self.ethernet = true;
        } else {
            self.other_link.get_or_insert(link.0);
        }
        if self.indices.len() >= MAX_INTERFACES || self.section.len() >= MAX_INTERFACES {
            return;
        }
        // Sections that were joined describe the same interfaces again.
        let next = u32::try_from(self.indices.len()).unwrap_or(u32::MAX - 1) + 1;
        let index = *self.indices.entry(name.to_owned()).or_insert(next);
        let name = name.to_owned();
        self.host
            .interfaces
            .insert(index, CapturedInterface { name, ..interface });
        self.section.push(DescribedInterface {
            index,
            ethernet,
            resolution,
            offset,
        });
    }

    fn decode_packet(
        &mut self,
        described: DescribedInterface,
        units: u128,
        bytes: &[u8],
        hook: Hook,
        note: Option<FrameComment>,
    ) -> Option<CaptureItem> {
        self.statistics.packets += 1;
        if !described.ethernet {
            self.statistics.other_link_type_packets += 1;
            return None;
        }
        match parse(&bytes, VlanTag::NONE) {
            Parsed::NotArp => None,
            Parsed::Malformed(_) => {
                self.statistics.malformed += 1;
                None
            }
            Parsed::Arp(frame) => {
                self.statistics.frames += 1;
                Some(CaptureItem::Frame(CapturedFrame {
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

impl DescribedInterface {
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

fn frame_comment(packet: &EnhancedPacketBlock<'_>) -> Option<FrameComment> {
    comments(&packet.options, OptionCode::Comment).find_map(|text| text.parse().ok())
}

fn comments<'a>(
    options: &'a [PcapNGOption<'_>],
    code: OptionCode,
) -> impl Iterator<Item = &'a str> {
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
