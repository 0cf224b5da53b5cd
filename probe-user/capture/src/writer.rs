//! Writes pcapng (draft-ietf-opsawg-pcapng): interface descriptions and packets.

use std::{borrow::Cow, collections::HashMap, io, io::Write};

use pcap_parser::{
    BOM_MAGIC, EPB_MAGIC, EnhancedPacketBlock, IDB_MAGIC, ISB_MAGIC, InterfaceDescriptionBlock,
    InterfaceStatisticsBlock, Linktype, OptionCode, PcapNGOption, SHB_MAGIC, SectionHeaderBlock,
    ToVec,
};
use probe_common::{
    counter::Direction,
    encode::EncodedFrame,
    event::{ArpEvent, Hook},
};

use super::{
    frame_comment::FrameComment,
    host_comments::{CapturedAddress, CapturedGateway, CapturedInterface},
};

/// The value of `if_tsresol` for nanoseconds: 10^-9.
const NANOSECONDS: u8 = 9;
/// The option `epb_flags`; its two lowest bits are the direction.
pub(super) const EPB_FLAGS: OptionCode = OptionCode(2);
pub(super) const INBOUND: u32 = 0b01;
pub(super) const OUTBOUND: u32 = 0b10;

/// Writes one pcapng section.
#[derive(Debug)]
pub struct CaptureWriter<W> {
    out: W,
    /// The number of the last description of each interface in the file, by its index on the host.
    numbers: HashMap<u32, u32>,
    /// The number of interface descriptions so far.
    described: u32,
}

impl<W: Write> CaptureWriter<W> {
    /// Starts a section.
    pub fn new(out: W) -> io::Result<Self> {
        let mut writer = Self {
            out,
            numbers: HashMap::new(),
            described: 0,
        };
        let application = concat!("probe ", env!("CARGO_PKG_VERSION"));
        writer.write_block(&mut SectionHeaderBlock {
            block_type: SHB_MAGIC,
            block_len1: 0,
            bom: BOM_MAGIC,
            major_version: 1,
            minor_version: 0,
            section_len: -1,
            options: vec![option(OptionCode::ShbUserAppl, application.as_bytes())],
            block_len2: 0,
        })?;
        Ok(writer)
    }

    /// Whether the interface with this index on the host has been described.
    pub fn has_interface(&self, index: u32) -> bool {
        self.numbers.contains_key(&index)
    }

    /// The number of interface descriptions so far.
    pub const fn described(&self) -> u32 {
        self.described
    }

    /// Writes a description of the interface with this index on the host. Later packets refer to the last description.
    pub fn interface(&mut self, index: u32, interface: &CapturedInterface) -> io::Result<()> {
        let mut options = vec![option(OptionCode::IfName, interface.name.as_bytes())];
        if let Some(mac) = &interface.mac {
            options.push(option(OptionCode::IfMacAddr, &mac.0));
        }
        let addresses = interface.addresses.iter().map(CapturedAddress::comment);
        let comments = addresses.chain(interface.gateways.iter().map(CapturedGateway::comment));
        options.extend(comments.map(|text| owned(OptionCode::Comment, text.into_bytes())));
        options.push(option(OptionCode::IfTsresol, &[NANOSECONDS]));
        self.write_block(&mut InterfaceDescriptionBlock {
            block_type: IDB_MAGIC,
            block_len1: 0,
            linktype: Linktype::ETHERNET,
            reserved: 0,
            snaplen: 0,
            options,
            block_len2: 0,
            if_tsresol: NANOSECONDS,
            if_tsoffset: 0,
        })?;
        self.numbers.insert(index, self.described);
        self.described = self.described.saturating_add(1);
        Ok(())
    }

    /// Writes the frame of an event with times in nanoseconds since 1970.
    pub fn event(&mut self, event: &ArpEvent) -> io::Result<()> {
        let Some(&if_id) = self.numbers.get(&event.ifindex) else {
            return Err(io::Error::other(
                "the interface of the frame has no description",
            ));
        };
        let data = EncodedFrame::new(&event.frame);
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let direction = event.hook().map_or(Direction::Ingress, Hook::direction);
        let flags = match direction {
            Direction::Ingress => INBOUND,
            Direction::Egress => OUTBOUND,
        };
        let (ts_high, ts_low) = split_timestamp(event.ktime_ns);
        self.write_block(&mut EnhancedPacketBlock {
            block_type: EPB_MAGIC,
            block_len1: 0,
            if_id,
            ts_high,
            ts_low,
            caplen: length,
            origlen: length,
            data: &data,
            options: vec![
                owned(
                    OptionCode::Comment,
                    FrameComment::from_event(event).to_string().into_bytes(),
                ),
                owned(EPB_FLAGS, flags.to_le_bytes().to_vec()),
            ],
            block_len2: 0,
        })
    }

    /// Writes the total number of missing frames so far. pcapng counts them by interface; their interface is unknown, so
    /// they count for the first.
    pub fn missed(&mut self, missed: u64, at_ns: u64) -> io::Result<()> {
        if self.described == 0 {
            return Ok(());
        }
        let (ts_high, ts_low) = split_timestamp(at_ns);
        self.write_block(&mut InterfaceStatisticsBlock {
            block_type: ISB_MAGIC,
            block_len1: 0,
            if_id: 0,
            ts_high,
            ts_low,
            options: vec![owned(OptionCode::IsbOsDrop, missed.to_le_bytes().to_vec())],
            block_len2: 0,
        })
    }

    /// Writes the end time of all interfaces, in nanoseconds since 1970, and finishes the file.
    pub fn finish(mut self, end_ns: u64) -> io::Result<W> {
        let mut numbers: Vec<_> = self.numbers.values().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            self.out.write_all(&statistics_block(number, end_ns)?)?;
        }
        self.out.flush()?;
        Ok(self.out)
    }

    /// Returns the underlying writer.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.out
    }

    fn write_block(&mut self, block: &mut impl ToVec) -> io::Result<()> {
        let bytes = block
            .to_vec()
            .map_err(|error| io::Error::other(error.to_string()))?;
        self.out.write_all(&bytes)
    }
}

/// An interface statistics block with the end time of an interface, in nanoseconds since 1970.
pub fn statistics_block(number: u32, end_ns: u64) -> io::Result<Vec<u8>> {
    let (ts_high, ts_low) = split_timestamp(end_ns);
    let end = [ts_high.to_le_bytes(), ts_low.to_le_bytes()].concat();
    let mut block = InterfaceStatisticsBlock {
        block_type: ISB_MAGIC,
        block_len1: 0,
        if_id: number,
        ts_high,
        ts_low,
        options: vec![owned(OptionCode::IsbEndTime, end)],
        block_len2: 0,
    };
    let bytes = block.to_vec();
    bytes.map_err(|error| io::Error::other(error.to_string()))
}

/// Splits a time into the two words of a pcapng time stamp.
fn split_timestamp(nanos: u64) -> (u32, u32) {
    // Both halves have 32 bits.
    let half = |nanos: u64| u32::try_from(nanos & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    (half(nanos >> 32), half(nanos))
}

fn option(code: OptionCode, value: &[u8]) -> PcapNGOption<'_> {
    PcapNGOption {
        code,
        len: u16::try_from(value.len()).unwrap_or(u16::MAX),
        value: Cow::Borrowed(value),
    }
}

fn owned(code: OptionCode, value: Vec<u8>) -> PcapNGOption<'static> {
    PcapNGOption {
        code,
        len: u16::try_from(value.len()).unwrap_or(u16::MAX),
        value: Cow::Owned(value),
    }
}
