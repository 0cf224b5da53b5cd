//! Reads pcap and pcapng: the frames of Ethernet interfaces, whatever the byte order and the unit of time.

use std::{fmt, io::Read};

use pcap_parser::{PcapError, create_reader, traits::PcapReaderIterator};

use super::{
    decode::{CaptureDecoder, CaptureItem, CaptureStatistics, UNNAMED},
    host_comments::CapturedHost,
};

/// A block has to fit; the buffer grows for those that do not.
const BUFFER: usize = 1 << 20;
/// A block larger than this is damage: tools write packets of at most 256 KiB.
const LARGEST_BLOCK: usize = 16 << 20;

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

/// Reads a capture.
pub struct CaptureReader<'a> {
    blocks: Box<dyn PcapReaderIterator + Send + 'a>,
    content: CaptureDecoder,
}

impl fmt::Debug for CaptureReader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("tally", &self.content.statistics)
            .finish_non_exhaustive()
    }
}

impl<'a> CaptureReader<'a> {
    /// Looks at the beginning of a capture.
    pub fn new(source: impl Read + Send + 'a) -> Result<Self, CaptureError> {
        let blocks =
            create_reader(BUFFER, WithoutShortReads(source)).map_err(|error| match error {
                PcapError::ReadError => CaptureError::Unreadable(0),
                _ => CaptureError::NotACapture,
            })?;
        Ok(Self {
            blocks,
            content: CaptureDecoder::default(),
        })
    }

    /// How much was read.
    pub fn tally(&self) -> CaptureStatistics {
        self.content.statistics
    }

    /// What the capture says of the host that it was made on.
    pub fn host(&self) -> &CapturedHost {
        &self.content.host
    }

    /// The name of an interface.
    pub fn interface(&self, index: u32) -> &str {
        let interface = self.content.host.interfaces.get(&index);
        interface.map_or(UNNAMED, |interface| &interface.name)
    }

    /// The next thing in the capture; `None` at the end.
    pub fn next_entry(&mut self) -> Result<Option<CaptureItem>, CaptureError> {
        loop {
            let (length, item) = match self.blocks.next() {
                Ok((length, block)) => (length, self.content.decode_block(block)),
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
                    return Err(CaptureError::Truncated(self.content.statistics.packets));
                }
                Err(PcapError::ReadError) => return Err(self.unreadable()),
                Err(_) => return Err(self.damaged()),
            };
            if length == 0 {
                return Err(self.damaged());
            }
            self.content.statistics.bytes += length as u64;
            self.blocks.consume(length);
            return Ok(Some(item.unwrap_or(CaptureItem::Other)));
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

    fn end(&self) -> Result<Option<CaptureItem>, CaptureError> {
        match self.content.other_link {
            Some(link) if !self.content.ethernet => Err(CaptureError::LinkType(link)),
            _ => Ok(None),
        }
    }

    fn unreadable(&self) -> CaptureError {
        CaptureError::Unreadable(self.content.statistics.packets)
    }

    fn damaged(&self) -> CaptureError {
        CaptureError::Damaged {
            packets: self.content.statistics.packets,
            offset: self.content.statistics.bytes,
        }
    }
}

/// Reads as much as fits, so that the first look at a pipe sees enough.
struct WithoutShortReads<R>(R);

impl<R: Read> Read for WithoutShortReads<R> {
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
