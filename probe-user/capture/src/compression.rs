//! Reads captures that are compressed with gzip or zstd.

use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};

use flate2::read::MultiGzDecoder;
use ruzstd::decoding::StreamingDecoder;

/// The magic number of gzip (RFC 1952).
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// The magic number of a zstd frame (RFC 8878).
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// A source, with the bytes that were read to detect its format.
type Source<R> = BufReader<Chain<Cursor<Vec<u8>>, R>>;

/// The decompressed content of a source.
pub fn decompressed<'a, R: Read + Send + 'a>(
    mut source: R,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut magic = Vec::new();
    source
        .by_ref()
        .take(ZSTD.len() as u64)
        .read_to_end(&mut magic)?;
    let (is_gzip, is_zstd) = (magic.starts_with(&GZIP), magic == ZSTD);
    let source = BufReader::new(Cursor::new(magic).chain(source));
    Ok(if is_gzip {
        Box::new(MultiGzDecoder::new(source))
    } else if is_zstd {
        Box::new(ZstdFrames(ZstdState::Between(source)))
    } else {
        Box::new(source)
    })
}

/// Concatenated zstd frames.
struct ZstdFrames<R: Read>(ZstdState<R>);

enum ZstdState<R: Read> {
    Between(Source<R>),
    Frame(Box<StreamingDecoder<Source<R>, ruzstd::decoding::FrameDecoder>>),
    End,
}

impl<R: Read> Read for ZstdFrames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match std::mem::replace(&mut self.0, ZstdState::End) {
                ZstdState::Between(mut source) => {
                    if source.fill_buf()?.is_empty() {
                        return Ok(0);
                    }
                    let decoder = StreamingDecoder::new(source).map_err(io::Error::other)?;
                    self.0 = ZstdState::Frame(Box::new(decoder));
                }
                ZstdState::Frame(mut decoder) => {
                    let read = decoder.read(buffer)?;
                    if read > 0 || buffer.is_empty() {
                        self.0 = ZstdState::Frame(decoder);
                        return Ok(read);
                    }
                    self.0 = ZstdState::Between(decoder.into_inner());
                }
                ZstdState::End => return Ok(0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::GzEncoder};
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    fn content(source: &[u8]) -> Vec<u8> {
        let mut content = Vec::new();
        decompressed(source)
            .unwrap()
            .read_to_end(&mut content)
            .unwrap();
        content
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_format_gives_its_content_also_in_several_parts() {
        let zstd = |bytes: &[u8]| compress_to_vec(bytes, CompressionLevel::Fastest);
        let long = vec![7; 100_000];
        for bytes in [&b""[..], b"x", b"some words", &long] {
            assert_eq!(content(bytes), bytes);
            assert_eq!(content(&gzip(bytes)), bytes);
            assert_eq!(content(&zstd(bytes)), bytes);
            let twice = [bytes, bytes].concat();
            assert_eq!(content(&[gzip(bytes), gzip(bytes)].concat()), twice);
            assert_eq!(content(&[zstd(bytes), zstd(bytes)].concat()), twice);
        }
    }

    #[test]
    fn what_is_cut_off_or_corrupt_is_an_error() {
        let zstd = compress_to_vec(&b"some words and some words"[..], CompressionLevel::Fastest);
        for whole in [gzip(b"some words and some words"), zstd] {
            let cut = &whole[..whole.len() - 5];
            let mut content = Vec::new();
            let outcome = decompressed(cut).unwrap().read_to_end(&mut content);
            assert!(outcome.is_err(), "{content:?}");
        }
    }
}
