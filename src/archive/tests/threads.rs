//! Archives that several threads make.

use std::io::{self, Write};
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::super::deflate::BLOCK;
use super::super::pack::{PackError, PackOptions, pack};
use super::super::testing::Scratch;
use super::super::workers::{THREADS_MAX, Threads};
use super::*;
use crate::sys::{Cause, Interrupt};

fn with(threads: u8, level: u8) -> PackOptions {
    PackOptions {
        threads: Threads::of(threads, 1),
        level: level.try_into().unwrap(),
        ..PackOptions::default()
    }
}

/// Zeros, text, or what does not compress.
fn content(kind: u8, length: usize) -> Vec<u8> {
    let mut x = 0x2545_F491_4F6C_DD1D_u64 ^ length as u64;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.to_be_bytes()[2]
    };
    match kind {
        0 => vec![0; length],
        1 => std::iter::repeat_with(|| b"the quick brown fox jumps\n"[usize::from(next() % 26)])
            .take(length)
            .collect(),
        _ => std::iter::repeat_with(next).take(length).collect(),
    }
}

/// A tree of 28 blocks: more than are under way with any number of threads.
fn mixed() -> Scratch {
    let tree = Scratch::new();
    for (n, kind) in [1, 2, 0, 1, 2, 1].into_iter().enumerate() {
        tree.write(format!("d{}/file-{n}", n % 2), content(kind, 600_000 + n * 7));
    }
    tree
}

#[test]
fn gzip_tar_and_python_read_what_threads_made() {
    let tree = mixed();
    let one = packed_with(tree.path(), &with(1, 3));
    for threads in 2..=THREADS_MAX {
        assert!(packed_with(tree.path(), &with(threads, 3)) == one, "{threads} threads");
    }
    let out = Scratch::new();
    let archive = out.path().join("archive.tar.gz");
    let archive_of_threads = packed_with(tree.path(), &with(4, 3));
    fs::write(&archive, &archive_of_threads).unwrap();
    assert!(Command::new("gzip").arg("-t").arg(&archive).status().expect("gzip is installed").success());
    // One member, and nothing behind it.
    let mut decoder = flate2::bufread::GzDecoder::new(&archive_of_threads[..]);
    io::copy(&mut decoder, &mut io::sink()).unwrap();
    assert!(decoder.into_inner().is_empty());

    let dest = Scratch::new();
    let tar = Command::new("tar").arg("-xzpf").arg(&archive).arg("-C").arg(dest.path()).output();
    let tar = tar.expect("tar is installed");
    assert!(tar.status.success() && tar.stderr.is_empty(), "{}", String::from_utf8_lossy(&tar.stderr));
    assert!(snapshot(dest.path()) == snapshot(tree.path()));

    let script = "import sys, tarfile, hashlib\n\
                  t = tarfile.open(sys.argv[1], 'r:gz')\n\
                  for m in t:\n\
                  \x20 if m.isfile(): print(m.name, hashlib.sha256(t.extractfile(m).read()).hexdigest())\n";
    let python = Command::new("python3").args(["-c", script]).arg(&archive).stderr(Stdio::inherit()).output();
    let python = String::from_utf8(python.expect("python3 is installed").stdout).unwrap();
    let wanted: String = snapshot(tree.path())
        .iter()
        .filter_map(|(path, node)| match node {
            Node::File { bytes, .. } => {
                Some(format!("{} {}\n", path.display(), crate::model::Sha256::of(bytes)))
            }
            _ => None,
        })
        .collect();
    assert_eq!(python, wanted);
}

/// Fails, or raises an interrupt, once so many bytes were written.
struct Until<'a> {
    left: usize,
    stop: Option<&'a Interrupt>,
}

impl Write for Until<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let over = bytes.len() >= self.left;
        self.left = self.left.saturating_sub(bytes.len());
        match self.stop {
            Some(interrupt) if over => interrupt.raise(Cause::Cancelled),
            None if over => return Err(io::ErrorKind::StorageFull.into()),
            _ => {}
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// That no thread stays is shown where they are; this would wait for ever for one that did.
#[test]
fn a_full_disk_or_an_interrupt_in_the_middle_ends_it() {
    let tree = mixed();
    for threads in 1..=4 {
        for left in [1, 100_000, 500_000] {
            let mut full = Until { left, stop: None };
            match pack(tree.path(), &mut full, &with(threads, 3), &Interrupt::new()) {
                Err(PackError::Write(error)) => assert_eq!(error.kind(), io::ErrorKind::StorageFull),
                other => panic!("{threads} threads, {left}: {other:?}"),
            }
            let interrupt = Interrupt::new();
            let mut stopped = Until { left, stop: Some(&interrupt) };
            let result = pack(tree.path(), &mut stopped, &with(threads, 3), &interrupt);
            let ended = matches!(result, Err(PackError::Interrupted(Cause::Cancelled)));
            assert!(ended, "{threads} threads, {left}: {result:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_number_of_threads_changes_no_byte(
        files in proptest::collection::vec((0u8..3, 0usize..4 * BLOCK), 1..5),
        level in 0u8..=9,
    ) {
        let tree = Scratch::new();
        for (n, (kind, length)) in files.into_iter().enumerate() {
            tree.write(format!("f{n}"), content(kind, length));
        }
        let one = packed_with(tree.path(), &with(1, level));
        for threads in 2..=4 {
            prop_assert!(packed_with(tree.path(), &with(threads, level)) == one, "{} threads", threads);
        }
    }

    #[test]
    fn lengths_at_the_edge_of_a_block_change_nothing_either(blocks in 1usize..5, edge in 0usize..3) {
        // A header of 512 bytes for `.`, one for the file, two empty ones at the end; padding makes the rest.
        let tree = Scratch::new();
        tree.write("f", content(1, blocks * BLOCK - 5 * 512 + edge * 512));
        let one = packed_with(tree.path(), &with(1, 1));
        for threads in 2..=4 {
            prop_assert!(packed_with(tree.path(), &with(threads, 1)) == one, "{} threads", threads);
        }
    }
}
