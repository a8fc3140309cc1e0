//! Packing takes the same memory whatever is packed. A program of its own, because it counts every allocation.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use codling::archive::{PackOptions, Threads, pack};
use codling::sys::Interrupt;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call goes to the system's allocator as it is; only numbers are kept beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::SeqCst) + layout.size();
        PEAK.fetch_max(now, Ordering::SeqCst);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::SeqCst);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// What one packing run may take.
const MOST: usize = 2 << 20;
/// What it may take more for each thread: two blocks of 128 KiB with their encoded forms, and a compressor.
const MOST_PER_THREAD: usize = 1 << 20;
/// Stack of the thread that packs.
const STACK: usize = 256 << 10;

/// Heap that packing a directory took at its peak.
fn peak_of_packing(dir: &Path, threads: u8) -> usize {
    let dir = dir.to_owned();
    let options = PackOptions { threads: Threads::of(threads, 1), ..PackOptions::default() };
    let packing = std::thread::Builder::new().stack_size(STACK).spawn(move || {
        let before = NOW.load(Ordering::SeqCst);
        PEAK.store(before, Ordering::SeqCst);
        pack(&dir, &mut io::sink(), &options, &Interrupt::new()).unwrap();
        PEAK.load(Ordering::SeqCst) - before
    });
    packing.unwrap().join().unwrap()
}

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("codling-memory-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// One test, so that nothing else allocates meanwhile.
#[test]
fn neither_many_files_nor_large_ones_take_more_memory() {
    let few = Scratch::new("few");
    let many = Scratch::new("many");
    // More names than are held at once, and fewer.
    for (dir, count) in [(&few, 10), (&many, 20_000)] {
        for n in 0..count {
            File::create(dir.0.join(format!("a-small-output-file-{n:06}"))).unwrap();
        }
    }
    let large = Scratch::new("large");
    File::create(large.0.join("holes")).unwrap().set_len(96 << 20).unwrap();
    let peaks = [&few, &many, &large].map(|dir| peak_of_packing(&dir.0, 1));
    assert!(peaks.iter().all(|peak| *peak < MOST), "{peaks:?}");
    assert!(peaks[1] - peaks[0] < 1 << 20, "{peaks:?}");
    assert!(peaks[2].abs_diff(peaks[0]) < 64 << 10, "{peaks:?}");
    // Reading zeros is far faster than compressing them: without a bound they would pile up.
    for threads in 1..=8 {
        let peak = peak_of_packing(&large.0, threads);
        assert!(peak < MOST + usize::from(threads) * MOST_PER_THREAD, "{threads} threads: {peak}");
    }
}
