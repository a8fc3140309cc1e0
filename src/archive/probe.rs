//! Tells, in a few microseconds, whether a block is worth deflating: pictures, films and archives are not.
//!
//! Two things make deflate shorter: bytes that are not equally frequent, and sequences that come again. The first is
//! seen in a sample; only if the sample looks like noise is the second looked for.

/// Blocks shorter than this are deflated: there is nothing to gain, and too little to judge by.
const SHORTEST: usize = 4096;
/// Bytes that are counted, in runs spread over the block.
const SAMPLE_RUNS: usize = 16;
const SAMPLE_RUN: usize = 256;
/// How much likelier than in noise two sampled bytes may be equal, in percent. At 115 the bytes hold about 7.9 bits
/// each, so that coding them better would save no more than 2%.
const NOISE_PERCENT: u64 = 115;
/// What is searched for sequences that come again: as far back as deflate can see.
const WINDOW: usize = 32 * 1024;
const SLOTS_LOG2: u32 = 12;
/// Noise has none of them; one repeated position in 64 is worth the work.
const REPEATS_SHARE: usize = 64;

/// Whether deflate would gain next to nothing.
pub(super) fn is_incompressible(block: &[u8]) -> bool {
    block.len() >= SHORTEST && bytes_look_random(block) && !has_repeats(block)
}

/// Counts how often two bytes of a sample are equal; in noise that is one pair in 256.
fn bytes_look_random(block: &[u8]) -> bool {
    let mut counts = [0u16; 256];
    let stride = (block.len() - SAMPLE_RUN) / (SAMPLE_RUNS - 1);
    let runs = (0..SAMPLE_RUNS).filter_map(|i| block.get(i * stride..i * stride + SAMPLE_RUN));
    for byte in runs.flatten() {
        counts[usize::from(*byte)] += 1;
    }
    let samples = (SAMPLE_RUNS * SAMPLE_RUN) as u64;
    let pairs: u64 = counts.iter().map(|&n| u64::from(n) * u64::from(n.saturating_sub(1))).sum();
    pairs * 256 * 100 <= samples * (samples - 1) * NOISE_PERCENT
}

/// Whether four bytes in a row are often those that were seen shortly before.
fn has_repeats(block: &[u8]) -> bool {
    let window = &block[..block.len().min(WINDOW)];
    let mut slots = [0u32; 1 << SLOTS_LOG2];
    let mut repeats = 0;
    for bytes in window.array_windows::<4>() {
        let word = u32::from_le_bytes(*bytes);
        // Fibonacci hashing: the product's upper bits depend on all of the word's.
        let slot = &mut slots[(word.wrapping_mul(0x9E37_79B1) >> (32 - SLOTS_LOG2)) as usize];
        repeats += usize::from(*slot == word);
        *slot = word;
    }
    repeats > window.len() / REPEATS_SHARE
}
