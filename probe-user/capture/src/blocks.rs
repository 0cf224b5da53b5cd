//! Splits a pcapng stream of this program into complete blocks, so that a copy never ends within a block.

use pcap_parser::{EPB_MAGIC, ISB_MAGIC, pcapng::parse_interfacestatisticsblock_le};

/// The minimum length of a block: its type, its length, and its length again.
const MIN_BLOCK_BYTES: usize = 12;

/// Splits a pcapng stream into blocks.
#[derive(Clone, Debug, Default)]
pub struct BlockSplitter {
    rest: Vec<u8>,
    packets: u64,
    missed: u64,
}

impl BlockSplitter {
    /// Appends bytes of the stream and returns all blocks that are complete now.
    pub fn split(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.rest.extend(bytes);
        let mut complete = 0;
        while let Some((kind, length)) = block_header(&self.rest[complete..]) {
            if length < MIN_BLOCK_BYTES || self.rest.len() - complete < length {
                break;
            }
            self.packets += u64::from(kind == EPB_MAGIC);
            if kind == ISB_MAGIC {
                self.missed =
                    missed(&self.rest[complete..complete + length]).unwrap_or(self.missed);
            }
            complete += length;
        }
        let rest = self.rest.split_off(complete);
        std::mem::replace(&mut self.rest, rest)
    }

    /// The number of packet blocks so far.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// The number of missing packets so far, as recorded in the stream.
    pub fn missed(&self) -> u64 {
        self.missed
    }
}

/// The number of missing packets in an interface statistics block.
fn missed(block: &[u8]) -> Option<u64> {
    let (_, statistics) = parse_interfacestatisticsblock_le(block).ok()?;
    statistics.isb_osdrop()?.ok()
}

/// The type and the length of the block at the start of `bytes`.
fn block_header(bytes: &[u8]) -> Option<(u32, usize)> {
    let (kind, bytes) = bytes.split_first_chunk()?;
    let (length, _) = bytes.split_first_chunk()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    Some((u32::from_le_bytes(*kind), length))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{host_comments::CapturedInterface, writer::CaptureWriter},
        *,
    };

    fn decode_block(kind: u32, length: u32) -> Vec<u8> {
        let mut block = [kind.to_le_bytes(), length.to_le_bytes()].concat();
        block.resize(usize::try_from(length).unwrap(), 7);
        block
    }

    #[test]
    fn only_complete_blocks_are_returned_for_any_chunk_size() {
        let stream = [
            decode_block(1, 20),
            decode_block(EPB_MAGIC, 64),
            decode_block(EPB_MAGIC, 12),
        ]
        .concat();
        for size in 1..stream.len() {
            let mut blocks = BlockSplitter::default();
            let mut out = Vec::new();
            for piece in stream.chunks(size) {
                out.extend(blocks.split(piece));
                assert!([0, 20, 84, 96].contains(&out.len()), "{}", out.len());
            }
            assert_eq!((out, blocks.packets()), (stream.clone(), 2));
        }
    }

    #[test]
    fn the_number_of_missing_packets_is_read_from_the_stream() {
        let mut stream = CaptureWriter::new(Vec::new()).unwrap();
        stream.interface(1, &CapturedInterface::default()).unwrap();
        stream.missed(3, 1).unwrap();
        stream.missed(70_000, 2).unwrap();
        let mut blocks = BlockSplitter::default();
        let bytes = stream.finish(3).unwrap();
        assert_eq!(blocks.split(&bytes), bytes);
        assert_eq!((blocks.packets(), blocks.missed()), (0, 70_000));
    }

    #[test]
    fn invalid_bytes_are_not_returned() {
        let mut blocks = BlockSplitter::default();
        assert!(blocks.split(&[0; 100]).is_empty());
        assert!(blocks.split(&[0xff; 100]).is_empty());
    }
}
