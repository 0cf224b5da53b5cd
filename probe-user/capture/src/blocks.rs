//! Cuts a stream of pcapng that this program wrote into whole blocks, so that a copy of it never ends in
//! the middle of one.

use pcap_parser::{EPB_MAGIC, ISB_MAGIC, pcapng::parse_interfacestatisticsblock_le};

/// Type and length of a block, and its length again at its end.
const MIN_BLOCK_BYTES: usize = 12;

/// A stream, as far as it has come.
#[derive(Clone, Debug, Default)]
pub struct BlockSplitter {
    rest: Vec<u8>,
    packets: u64,
    missed: u64,
}

impl BlockSplitter {
    /// Takes more of the stream, and gives the blocks that are whole by now.
    pub fn split(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.rest.extend(bytes);
        let mut whole = 0;
        while let Some((kind, length)) = block_header(&self.rest[whole..]) {
            if length < MIN_BLOCK_BYTES || self.rest.len() - whole < length {
                break;
            }
            self.packets += u64::from(kind == EPB_MAGIC);
            if kind == ISB_MAGIC {
                self.missed = missed(&self.rest[whole..whole + length]).unwrap_or(self.missed);
            }
            whole += length;
        }
        let rest = self.rest.split_off(whole);
        std::mem::replace(&mut self.rest, rest)
    }

    /// How many of the blocks so far were packets.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// How many packets are missing so far, as the stream itself says.
    pub fn missed(&self) -> u64 {
        self.missed
    }
}

/// What a block of statistics says of packets that are missing so far.
fn missed(block: &[u8]) -> Option<u64> {
    let (_, statistics) = parse_interfacestatisticsblock_le(block).ok()?;
    statistics.isb_osdrop()?.ok()
}

/// Type and length of the block that begins here.
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
    fn only_whole_blocks_come_out_whatever_the_pieces() {
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
    fn what_the_stream_says_of_missing_packets_is_heard() {
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
    fn nonsense_is_kept_back() {
        let mut blocks = BlockSplitter::default();
        assert!(blocks.split(&[0; 100]).is_empty());
        assert!(blocks.split(&[0xff; 100]).is_empty());
    }
}
