//! Where bytes of strangers come in, one function for each place: what `fuzz/` feeds, and what the tests replay.
//!
//! A function panics if what must hold does not. It is in no build but those of tests and of the fuzzing engine.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Takes any bytes; panics at a fault of the program.
pub type Target = fn(&[u8]);

/// All of them, by the name of their corpus.
pub const TARGETS: [(&str, Target); 16] = [
    ("addresses", crate::config::fuzz::addresses),
    ("ask", crate::api::fuzz::ask),
    ("bundle", crate::update::fuzz::bundle),
    ("chunked", crate::gate::fuzz::chunked),
    ("config", crate::config::fuzz::config),
    ("head", crate::gate::fuzz::head),
    ("inline", crate::input::fuzz::inline),
    ("job", crate::wire::fuzz::job),
    ("module", crate::engine::fuzz::module),
    ("pack", crate::archive::fuzz::pack),
    ("range", crate::api::fuzz::range),
    ("records", crate::store::fuzz::records),
    ("router", crate::api::fuzz::router),
    ("selectors", crate::api::fuzz::selectors),
    ("unpack", crate::archive::fuzz::unpack),
    ("websocket", crate::wire::fuzz::websocket),
];

/// Feeds one input to the target of that name.
///
/// # Panics
/// There is no such target, or it found a fault.
pub fn feed(target: &str, data: &[u8]) {
    let found = TARGETS.iter().find(|(name, _)| *name == target);
    assert!(found.is_some(), "no target {target}");
    found.into_iter().for_each(|(_, run)| run(data));
}

/// A directory for one input, removed when dropped. In memory where there is such a place.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// An empty one.
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = base.join(format!("codling-fuzz-{}-{n}", std::process::id()));
        let made = std::fs::create_dir(&path);
        assert!(made.is_ok(), "{made:?}");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A gzip file of the tar in `data`, uncompressed; what is a gzip file already stays as it is. The checksums of what
/// looks like tar headers are put right, so that what is behind them gets tested.
pub(crate) fn archive(data: &[u8]) -> Vec<u8> {
    if data.starts_with(b"\x1f\x8b") {
        return data.to_vec();
    }
    const BLOCK: usize = 512;
    let mut tar = data.to_vec();
    for block in tar.chunks_exact_mut(BLOCK).filter(|block| block[257..].starts_with(b"ustar")) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    // Writing to memory does not fail.
    let written = std::io::Write::write_all(&mut gzip, &tar).and_then(|()| gzip.finish());
    written.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files that a corpus may have, and bytes of all: they are cloned by everybody.
    const FILES: usize = 150;
    const BYTES: usize = 1 << 20;

    /// Every input that is kept, those that once failed among them.
    #[test]
    fn kept_inputs_are_taken_well() {
        let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        let mut bytes = 0;
        for (target, run) in TARGETS {
            let mut files: Vec<PathBuf> = std::fs::read_dir(corpora.join(target))
                .unwrap_or_else(|error| panic!("{target} has no corpus: {error}"))
                .map(|entry| entry.unwrap().path())
                .collect();
            files.sort();
            assert!((1..=FILES).contains(&files.len()), "{target}: {} files", files.len());
            for file in files {
                let data = std::fs::read(&file).unwrap();
                bytes += data.len();
                let taken = std::panic::catch_unwind(|| run(&data));
                assert!(taken.is_ok(), "{} fails", file.display());
            }
        }
        assert!(bytes <= BYTES, "the corpora have {bytes} bytes");
    }

    #[test]
    fn every_corpus_has_a_target() {
        let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        let mut names: Vec<String> = std::fs::read_dir(corpora)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, TARGETS.map(|(name, _)| name));
    }
}
