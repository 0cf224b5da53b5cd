//! Reads pcap and pcapng in any byte order and time resolution: the ARP frames of Ethernet interfaces.

use std::{fmt, io::Read};

use pcap_parser::{PcapError, create_reader, traits::PcapReaderIterator};

use super::{
    compression::decompressed,
    decode::{CaptureDecoder, CaptureItem, CaptureStatistics, UNNAMED},
    host_comments::CapturedHost,
};

/// The initial size of the buffer, in bytes. It grows for larger blocks.
const BUFFER: usize = 1 << 20;
/// The maximum size of a block, in bytes. Tools write packets of at most 256 KiB, so larger blocks are corrupt.
const LARGEST_BLOCK: usize = 16 << 20;

/// Why a capture could not be read completely.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaptureError {
    /// The file is not a capture.
    #[error("not a pcap or pcapng file, nor one compressed with gzip or zstd")]
    NotACapture,
    /// No interface in the capture is Ethernet.
    #[error(
        "the packets have no Ethernet header ({name}): capture on an Ethernet interface, `tcpdump -i eth0 -w FILE arp`",
        name = link_name(*.0)
    )]
    LinkType(i32),
    /// No packet in the capture has a time stamp.
    #[error(
        "the packets have no time stamps (pcapng simple packets), without which takeovers and conflicts cannot be told apart"
    )]
    NoTimes,
    /// The capture ends within a packet.
    #[error("the file is truncated: it ends within a packet, after {0} complete packets")]
    Truncated(u64),
    /// The capture is corrupt.
    #[error("the file is corrupt after {packets} packets, at byte {offset}")]
    Corrupt {
        /// The number of complete packets before.
        packets: u64,
        /// The offset of the corrupt block, in bytes.
        offset: u64,
    },
    /// The file could not be read.
    #[error(
        "cannot read the file after {0} packets: disk or network error, or corrupt compression"
    )]
    Unreadable(u64),
}

/// The name of a link type that is not supported.
fn link_name(link: i32) -> String {
    match link {
        105 | 119 | 127 | 163 | 192 => format!("802.11 wireless, link type {link}"),
        _ => format!("link type {link}"),
    }
}

/// Reads a capture.
pub struct CaptureReader<'a> {
    blocks: Box<dyn PcapReaderIterator + Send + 'a>,
    decoder: CaptureDecoder,
}

impl fmt::Debug for CaptureReader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaptureReader")
            .field("statistics", &self.decoder.statistics)
            .finish_non_exhaustive()
    }
}

impl<'a> CaptureReader<'a> {
    /// Opens a capture and reads its header.
    pub fn new(source: impl Read + Send + 'a) -> Result<Self, CaptureError> {
        let source = decompressed(source).map_err(|_| CaptureError::Unreadable(0))?;
        let blocks = create_reader(BUFFER, FullReads(source)).map_err(|error| match error {
            PcapError::ReadError => CaptureError::Unreadable(0),
            _ => CaptureError::NotACapture,
        })?;
        Ok(Self {
            blocks,
            decoder: CaptureDecoder::default(),
        })
    }

    /// The amount of data that was read so far.
    pub fn statistics(&self) -> CaptureStatistics {
        self.decoder.statistics
    }

    /// The description of the capturing host.
    pub fn host(&self) -> &CapturedHost {
        &self.decoder.host
    }

    /// The name of the interface with this index.
    pub fn interface(&self, index: u32) -> &str {
        let interface = self.decoder.host.interfaces.get(&index);
        interface.map_or(UNNAMED, |interface| &interface.name)
    }

    /// Reads the next item of the capture; `None` at the end.
    pub fn next_item(&mut self) -> Result<Option<CaptureItem>, CaptureError> {
        loop {
            let (length, item) = match self.blocks.next() {
                Ok((length, block)) => (length, self.decoder.decode_block(block)),
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
                    return Err(CaptureError::Truncated(self.decoder.statistics.packets));
                }
                Err(PcapError::ReadError) => return Err(self.unreadable()),
                Err(_) => return Err(self.corrupt()),
            };
            if length == 0 {
                return Err(self.corrupt());
            }
            self.decoder.statistics.bytes += length as u64;
            self.blocks.consume(length);
            return Ok(Some(item.unwrap_or(CaptureItem::Other)));
        }
    }

    fn refill(&mut self) -> Result<(), CaptureError> {
        let before = self.blocks.data().len();
        if self.blocks.refill().is_err() {
            return Err(self.unreadable());
        }
        // Neither more data nor the end: the block does not fit into the buffer.
        if self.blocks.data().len() == before && !self.blocks.reader_exhausted() {
            return self.grow();
        }
        Ok(())
    }

    fn grow(&mut self) -> Result<(), CaptureError> {
        let size = self.blocks.data().len().max(BUFFER) * 2;
        if size > LARGEST_BLOCK || !self.blocks.grow(size) {
            return Err(self.corrupt());
        }
        if self.blocks.refill().is_err() {
            return Err(self.unreadable());
        }
        Ok(())
    }

    fn end(&self) -> Result<Option<CaptureItem>, CaptureError> {
        match self.decoder.other_link {
            Some(link) if !self.decoder.is_supported => Err(CaptureError::LinkType(link)),
            _ if self.is_without_times() => Err(CaptureError::NoTimes),
            _ => Ok(None),
        }
    }

    /// Whether there are packets, and none has a time stamp.
    fn is_without_times(&self) -> bool {
        let statistics = self.decoder.statistics;
        statistics.packets > 0 && statistics.untimed_packets == statistics.packets
    }

    fn unreadable(&self) -> CaptureError {
        CaptureError::Unreadable(self.decoder.statistics.packets)
    }

    fn corrupt(&self) -> CaptureError {
        CaptureError::Corrupt {
            packets: self.decoder.statistics.packets,
            offset: self.decoder.statistics.bytes,
        }
    }
}

/// Fills the buffer in each read, so that the first read from a pipe contains the complete header.
struct FullReads<R>(R);

impl<R: Read> Read for FullReads<R> {
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
