//! Raw deflate, one block of input at a time.
//!
//! Each block is encoded from nothing but its own bytes and ends on a byte boundary, so blocks can be encoded in any
//! order, on any number of threads, and their outputs joined: the bytes are the same. The price, measured on libraries,
//! logs and text, is 1 to 2.4% of the archive against one window that slides over everything; the clean start of each
//! block pays it back in speed.

use miniz_oxide::deflate::core::{
    CompressorOxide, TDEFLFlush, TDEFLStatus, compress_to_output, deflate_flags,
};

use super::probe;

/// Input that is encoded as one.
pub(super) const BLOCK: usize = 128 * 1024;

/// The most that a block takes, however it is encoded.
pub(super) const ENCODED_MAX: usize = stored_len(BLOCK);

/// The most that one stored block of RFC 1951 holds.
const STORED_MAX: usize = 65_535;
/// What each stored block costs besides its bytes: type, length and its complement.
const STORED_HEAD: usize = 5;

/// How hard to try: 0 stores, 1 is fast, 9 is small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(u8);

/// A compression level above 9.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("compression level {0} is not between 0 (store) and 9 (smallest)")]
pub struct LevelError(pub u8);

impl Level {
    /// Nothing is compressed.
    pub const STORE: Self = Self(0);

    /// The level as a number from 0 to 9.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// What the compressor is told: match candidates to look at, and whether to take the first good match (greedy) or
    /// to look one byte ahead for a better one. Few candidates with the look ahead beat many without it: the library's
    /// own level 3 (32, greedy) is slower and no smaller than this one's.
    const fn flags(self) -> u32 {
        const GREEDY: u32 = deflate_flags::TDEFL_GREEDY_PARSING_FLAG;
        match self.0 {
            0 | 1 => 1 | GREEDY,
            2 => 6 | GREEDY,
            3 => 8,
            4 => 12,
            5 => 32,
            6 => 128,
            7 => 256,
            8 => 512,
            _ => 1500,
        }
    }
}

impl Default for Level {
    /// 2.2 to 3.2 times the speed of `gzip -6` on logs, text and libraries, for at most 6% more bytes
    /// (`benches/pack.rs`).
    fn default() -> Self {
        Self(3)
    }
}

impl TryFrom<u8> for Level {
    type Error = LevelError;
    fn try_from(level: u8) -> Result<Self, LevelError> {
        if level <= 9 { Ok(Self(level)) } else { Err(LevelError(level)) }
    }
}

/// Turns blocks into deflate.
pub(super) struct BlockEncoder {
    /// None at level 0: its buffers are 300 KiB.
    compressor: Option<Box<CompressorOxide>>,
}

impl BlockEncoder {
    pub(super) fn new(level: Level) -> Self {
        let compressor = (level != Level::STORE).then(|| Box::new(CompressorOxide::new(level.flags())));
        Self { compressor }
    }

    /// Appends the deflate form of `block` to `out`, and the end of the stream if it is the last.
    pub(super) fn encode(&mut self, block: &[u8], last: bool, out: &mut Vec<u8>) {
        let start = out.len();
        let limit = start + stored_len(block.len());
        let compressed = match &mut self.compressor {
            Some(compressor) if !probe::is_incompressible(block) => {
                deflate(compressor, block, last, limit, out)
            }
            _ => false,
        };
        if !compressed {
            out.truncate(start);
            store(block, last, out);
        }
    }
}

/// Whether the block could be deflated, and no longer than `limit`. Otherwise `out` holds rubbish at its end.
fn deflate(c: &mut CompressorOxide, block: &[u8], last: bool, limit: usize, out: &mut Vec<u8>) -> bool {
    // `reset` also forgets how far the stream has come: on 32 bits that counter would overflow after 4 GiB.
    c.reset();
    let (flush, wanted) =
        if last { (TDEFLFlush::Finish, TDEFLStatus::Done) } else { (TDEFLFlush::Sync, TDEFLStatus::Okay) };
    let (status, consumed) = compress_to_output(c, block, flush, |bytes| {
        let fits = out.len() + bytes.len() <= limit;
        if fits {
            out.extend_from_slice(bytes);
        }
        fits
    });
    status == wanted && consumed == block.len()
}

/// Appends `block` as stored blocks.
fn store(block: &[u8], last: bool, out: &mut Vec<u8>) {
    let mut rest = block;
    loop {
        let (chunk, behind) = rest.split_at(rest.len().min(STORED_MAX));
        rest = behind;
        #[expect(clippy::cast_possible_truncation, reason = "at most STORED_MAX, which has 16 bits")]
        let length = chunk.len() as u16;
        out.push(u8::from(last && rest.is_empty()));
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(chunk);
        if rest.is_empty() {
            return;
        }
    }
}

/// What `length` bytes take at most, however they are encoded.
const fn stored_len(length: usize) -> usize {
    let chunks = if length == 0 { 1 } else { length.div_ceil(STORED_MAX) };
    length + chunks * STORED_HEAD
}

/// What `length` bytes of input take at most after [`BlockEncoder`] has encoded them in blocks of [`BLOCK`].
pub(super) const fn worst_case(length: u64) -> u64 {
    let blocks = length / BLOCK as u64 + 1;
    length.saturating_add(blocks * (BLOCK.div_ceil(STORED_MAX) * STORED_HEAD) as u64)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;

    fn inflate(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        flate2::read::DeflateDecoder::new(bytes).read_to_end(&mut out).unwrap();
        out
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut x = 0x2545_F491_4F6C_DD1D_u64;
        std::iter::repeat_with(|| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x.to_be_bytes()[3]
        })
        .take(length)
        .collect()
    }

    #[test]
    fn levels_are_0_to_9_and_later_ones_are_no_larger() {
        assert_eq!(Level::try_from(10), Err(LevelError(10)));
        let text: Vec<u8> =
            (0..20_000u32).flat_map(|n| format!("line {} of {}\n", n * n, n % 7).into_bytes()).collect();
        let mut sizes = Vec::new();
        for level in 0..=9 {
            let mut out = Vec::new();
            BlockEncoder::new(Level::try_from(level).unwrap()).encode(&text, true, &mut out);
            assert_eq!(inflate(&out), text);
            sizes.push(out.len());
        }
        assert_eq!(sizes[0], stored_len(text.len()));
        assert!(sizes.windows(2).all(|pair| pair[1] <= pair[0]), "{sizes:?}");
    }

    #[test]
    fn noise_between_text_is_stored_and_deflating_goes_on() {
        let text = b"the quick brown fox ".repeat(BLOCK / 20);
        let noise = noise(BLOCK);
        let mut encoder = BlockEncoder::new(Level::default());
        let mut out = Vec::new();
        let mut lengths = Vec::new();
        for (block, last) in [(&text, false), (&noise, false), (&text, true)] {
            let before = out.len();
            encoder.encode(block, last, &mut out);
            lengths.push(out.len() - before);
        }
        assert_eq!(inflate(&out), [text.clone(), noise.clone(), text].concat());
        assert_eq!(lengths[1], stored_len(noise.len()));
        assert!(lengths[0] < 2000 && lengths[2] < 2000, "{lengths:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn blocks_stand_alone_and_never_grow_beyond_the_worst_case(
            blocks in proptest::collection::vec((0usize..150_000, 0u8..4, any::<bool>()), 1..4),
            level in 0u8..=9,
        ) {
            let noise = noise(150_000);
            let block = |&(length, alphabet, shift): &(usize, u8, bool)| -> Vec<u8> {
                let mask = [0xFF, 0x0F, 0x01, 0x00][usize::from(alphabet)];
                noise[..length].iter().map(|b| if shift { b & mask } else { b | !mask }).collect()
            };
            let mut shared = BlockEncoder::new(Level::try_from(level).unwrap());
            let mut out = Vec::new();
            let mut plain = Vec::new();
            for (i, spec) in blocks.iter().enumerate() {
                let bytes = block(spec);
                let last = i + 1 == blocks.len();
                let start = out.len();
                shared.encode(&bytes, last, &mut out);
                let mut alone = Vec::new();
                BlockEncoder::new(Level::try_from(level).unwrap()).encode(&bytes, last, &mut alone);
                prop_assert_eq!(&out[start..], &alone[..]);
                prop_assert!(alone.len() <= stored_len(bytes.len()));
                plain.extend_from_slice(&bytes);
            }
            prop_assert_eq!(inflate(&out), plain);
        }

        #[test]
        fn the_worst_case_covers_any_cut_into_blocks(length in 0usize..2_000_000) {
            let mut left = length;
            let mut sum = 0;
            loop {
                let block = left.min(BLOCK);
                sum += stored_len(block);
                left -= block;
                if left == 0 {
                    break;
                }
            }
            prop_assert!(sum as u64 <= worst_case(length as u64));
        }
    }
}
