//! One ordinary gzip member (RFC 1952), written as a stream; its digest and size come out of the same pass.

use std::io::{self, Write};

use sha2::Digest;

use super::deflate::{BLOCK, BlockEncoder, ENCODED_MAX, Level, worst_case};
use super::workers::{Threads, Workers};
use crate::model::{Bytes, Sha256};

/// Magic, deflate, no flags (so no name), no time, no hint, and 255 for "unknown system" as Go writes it.
const HEADER: [u8; 10] = [0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 255];
/// CRC-32 and length, each of 32 bits.
const TRAILER: u64 = 8;

/// What `length` bytes of input take at most, headers included.
pub(super) const fn worst_size(length: Bytes) -> Bytes {
    Bytes(worst_case(length.0).saturating_add(HEADER.len() as u64 + TRAILER))
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) size: Bytes,
    pub(super) sha256: Sha256,
}

/// Input that is encoded as one, and what becomes of it.
struct Block {
    input: Box<[u8]>,
    filled: usize,
    last: bool,
    encoded: Vec<u8>,
}

impl Block {
    fn new() -> Self {
        // All that it will ever need, allocated by the thread that packs.
        let encoded = Vec::with_capacity(HEADER.len() + ENCODED_MAX);
        Self { input: vec![0; BLOCK].into_boxed_slice(), filled: 0, last: false, encoded }
    }

    fn encode(&mut self, encoder: &mut BlockEncoder) {
        encoder.encode(&self.input[..self.filled], self.last, &mut self.encoded);
    }

    /// Empty again.
    fn reset(&mut self) {
        self.filled = 0;
        self.encoded.clear();
    }
}

/// Who encodes.
enum Encoding {
    /// Nobody yet: what fits into one block needs no threads.
    Undecided,
    /// The thread that writes.
    Here(BlockEncoder),
    /// Others.
    Beside(Workers<Block>),
}

/// Compresses what is written to it. Holds one block of input and its encoded form, and with several threads
/// [`super::workers::BLOCKS_PER_THREAD`] more for each, whatever the stream's length.
pub(super) struct GzipWriter<W: Write> {
    level: Level,
    threads: Threads,
    encoding: Encoding,
    /// The one that is being filled.
    block: Block,
    crc: crc32fast::Hasher,
    input: u64,
    out: Hashed<W>,
}

impl<W: Write> GzipWriter<W> {
    /// Starts a member; nothing is written before the first block is full or the end is there.
    pub(super) fn new(out: W, level: Level, threads: Threads) -> Self {
        let mut block = Block::new();
        block.encoded.extend_from_slice(&HEADER);
        Self {
            level,
            threads,
            encoding: Encoding::Undecided,
            block,
            crc: crc32fast::Hasher::new(),
            input: 0,
            out: Hashed { inner: out, sha256: sha2::Sha256::new(), size: 0 },
        }
    }

    /// Where the next bytes of input go, never empty: files are read straight into it. [`Self::advance`] takes them.
    pub(super) fn room(&mut self) -> io::Result<&mut [u8]> {
        if self.block.filled == self.block.input.len() {
            self.encode(false)?;
        }
        Ok(&mut self.block.input[self.block.filled..])
    }

    /// Takes the first `n` bytes of [`Self::room`].
    pub(super) fn advance(&mut self, n: usize) {
        self.block.filled = self.block.input.len().min(self.block.filled + n);
    }

    /// Ends the member and hands everything to the writer below.
    pub(super) fn finish(mut self) -> io::Result<Written> {
        self.encode(true)?;
        if let Encoding::Beside(workers) = &self.encoding {
            while let Some(block) = workers.take().map_err(io::Error::other)? {
                self.out.write_all(&block.encoded)?;
            }
        }
        #[expect(clippy::cast_possible_truncation, reason = "the format keeps the length modulo 2^32")]
        let length = self.input as u32;
        self.out.write_all(&self.crc.finalize().to_le_bytes())?;
        self.out.write_all(&length.to_le_bytes())?;
        self.out.inner.flush()?;
        Ok(Written { size: Bytes(self.out.size), sha256: Sha256(self.out.sha256.finalize().into()) })
    }

    fn encode(&mut self, last: bool) -> io::Result<()> {
        let input = &self.block.input[..self.block.filled];
        self.crc.update(input);
        self.input += input.len() as u64;
        self.block.last = last;
        if matches!(self.encoding, Encoding::Undecided) {
            self.encoding = decide(self.level, if last { Threads::ONE } else { self.threads });
        }
        match &mut self.encoding {
            Encoding::Undecided => {}
            Encoding::Here(encoder) => {
                self.block.encode(encoder);
                self.out.write_all(&self.block.encoded)?;
                self.block.reset();
            }
            Encoding::Beside(workers) => {
                let taken = if workers.is_full() { workers.take().map_err(io::Error::other)? } else { None };
                let next = match taken {
                    Some(mut block) => {
                        self.out.write_all(&block.encoded)?;
                        block.reset();
                        block
                    }
                    None => Block::new(),
                };
                workers.give(std::mem::replace(&mut self.block, next));
            }
        }
        Ok(())
    }
}

fn decide(level: Level, threads: Threads) -> Encoding {
    let encoder = || {
        let mut encoder = BlockEncoder::new(level);
        move |block: &mut Block| block.encode(&mut encoder)
    };
    let workers = if threads == Threads::ONE { None } else { Workers::start(threads, encoder) };
    workers.map_or_else(|| Encoding::Here(BlockEncoder::new(level)), Encoding::Beside)
}

impl<W: Write> Write for GzipWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.room()?;
        let n = room.len().min(bytes.len());
        room[..n].copy_from_slice(&bytes[..n]);
        self.advance(n);
        Ok(n)
    }

    /// Does nothing: an early end of a block would cost bytes. [`GzipWriter::finish`] flushes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Counts and digests what goes through.
struct Hashed<W> {
    inner: W,
    sha256: sha2::Sha256,
    size: u64,
}

impl<W: Write> Hashed<W> {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sha256.update(bytes);
        self.size += bytes.len() as u64;
        self.inner.write_all(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::{Command, Stdio};

    use super::*;

    fn gzip(chunks: &[&[u8]], level: Level) -> (Vec<u8>, Written) {
        gzip_with(chunks, level, Threads::ONE)
    }

    fn gzip_with(chunks: &[&[u8]], level: Level, threads: Threads) -> (Vec<u8>, Written) {
        let mut out = Vec::new();
        let mut writer = GzipWriter::new(&mut out, level, threads);
        for chunk in chunks {
            writer.write_all(chunk).unwrap();
        }
        let written = writer.finish().unwrap();
        (out, written)
    }

    #[test]
    fn writes_one_member_that_gzip_itself_accepts() {
        let text = b"a line that comes again and again\n".repeat(20_000);
        for input in [&text[..], b"", b"x"] {
            let (bytes, written) = gzip(&[input], Level::default());
            assert_eq!(bytes[..10], HEADER);
            assert_eq!(written.size.0, bytes.len() as u64);
            assert_eq!(written.sha256, Sha256::of(&bytes));
            assert!(written.size <= worst_size(Bytes(input.len() as u64)));
            // Not MultiGzDecoder: one member must hold it all, and nothing may follow.
            let mut decoder = flate2::bufread::GzDecoder::new(&bytes[..]);
            let mut back = Vec::new();
            decoder.read_to_end(&mut back).unwrap();
            assert_eq!(back, input);
            assert!(decoder.into_inner().is_empty());
            let mut child =
                Command::new("gzip").arg("-t").stdin(Stdio::piped()).spawn().expect("gzip is installed");
            child.stdin.take().unwrap().write_all(&bytes).unwrap();
            assert!(child.wait().unwrap().success());
        }
    }

    #[test]
    fn how_the_input_is_cut_does_not_change_a_byte() {
        let text: Vec<u8> = (0..60_000u64).flat_map(|n| (n * n * 7919).to_string().into_bytes()).collect();
        let (whole, _) = gzip(&[&text], Level::default());
        let pieces: Vec<&[u8]> = text.chunks(4099).collect();
        assert_eq!(gzip(&pieces, Level::default()).0, whole);
        // At an exact multiple of the block the last one is full, not empty.
        let (exact, _) = gzip(&[&text[..2 * BLOCK]], Level::default());
        let mut back = Vec::new();
        flate2::read::GzDecoder::new(&exact[..]).read_to_end(&mut back).unwrap();
        assert_eq!(back, &text[..2 * BLOCK]);
    }

    #[test]
    fn errors_of_the_writer_below_come_through() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut writer = GzipWriter::new(Full, Level::STORE, Threads::ONE);
        assert!(writer.write_all(&[0; BLOCK]).is_ok());
        assert_eq!(writer.write_all(&[0]).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(
            GzipWriter::new(Full, Level::STORE, Threads::ONE).finish().unwrap_err().kind(),
            io::ErrorKind::StorageFull
        );
    }
}
