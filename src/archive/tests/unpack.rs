use std::fs;
use std::io::{Cursor, Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use proptest::prelude::*;
use tar::{EntryType, Header};

use super::super::testing::Scratch;
use super::super::unpack::{UnpackError, UnpackLimits, Unpacked, unpack};
use super::*;
use crate::model::Bytes;
use crate::sys::{Cause, Interrupt, Meter};

/// A tar file made by hand: names go into headers as they are.
#[derive(Default)]
struct Hostile(Vec<u8>);

impl Hostile {
    fn entry(self, kind: EntryType, path: &[u8], target: &[u8], bytes: &[u8]) -> Self {
        self.header(kind, path, target, bytes.len() as u64, 0o644).raw(bytes)
    }

    fn file(self, path: &str, bytes: &[u8]) -> Self {
        self.entry(EntryType::Regular, path.as_bytes(), b"", bytes)
    }

    fn link(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, path.as_bytes(), target.as_bytes(), b"")
    }

    fn header(mut self, kind: EntryType, path: &[u8], target: &[u8], size: u64, mode: u32) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.as_old_mut().name[..path.len()].copy_from_slice(path);
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target);
        header.set_size(size);
        header.set_mode(mode);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        gzip(&self.0)
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Unpacks into a directory of its own inside another one, in which nothing else may appear.
fn attempt(archive: &[u8]) -> (Result<Unpacked, UnpackError>, BTreeMap<PathBuf, Node>) {
    attempt_within(archive, &UnpackLimits::default())
}

fn attempt_within(
    archive: &[u8],
    limits: &UnpackLimits,
) -> (Result<Unpacked, UnpackError>, BTreeMap<PathBuf, Node>) {
    let around = Scratch::new();
    around.write("sentinel", b"untouched");
    let dest = around.path().join("in/dest");
    fs::create_dir_all(&dest).unwrap();
    let result = unpack(archive, &dest, limits);
    let mut all = snapshot(around.path());
    let sentinel = all.remove(Path::new("sentinel"));
    assert!(matches!(sentinel, Some(Node::File { bytes, .. }) if bytes == b"untouched"));
    assert!(all.keys().all(|path| path.starts_with("in")));
    assert!(all.keys().all(|path| path == Path::new("in") || path.starts_with("in/dest")));
    let unpacked = snapshot(&dest);
    let inside = dest.canonicalize().unwrap();
    for path in unpacked.keys() {
        // What leads nowhere cannot be resolved, and is no danger.
        assert!(dest.join(path).canonicalize().map_or(true, |end| end.starts_with(&inside)), "{path:?}");
    }
    (result, unpacked)
}

#[test]
fn names_that_leave_the_directory_are_refused() {
    for name in ["../evil", "/tmp/codling-evil", "a/../../evil", "a/..", "..", "./../evil", "a//../b", ""] {
        let (result, tree) = attempt(&Hostile::default().file("first", b"1").file(name, b"evil").end());
        assert!(matches!(result, Err(UnpackError::Outside { .. })), "{name}: {result:?}");
        assert_eq!(tree.len(), 1, "{name}");
        let hard = Hostile::default().entry(EntryType::Link, b"hard", name.as_bytes(), b"").end();
        assert!(matches!(attempt(&hard).0, Err(UnpackError::Outside { .. })), "{name}");
    }
}

#[test]
fn links_that_lead_outside_are_left_out() {
    // The last one is inside by its letters, but through `up` it is not.
    let archive = Hostile::default()
        .link("absolute", "/etc")
        .link("above", "../x")
        .link("a/b/up", "../..")
        .link("a/b/too-far", "../../..")
        .link("a/b/sly", "c/../../../..")
        .link("sly", "a/b/up/../..")
        .link("empty", "")
        .link("fine", "a/b")
        .end();
    let (result, tree) = attempt(&archive);
    let warnings: Vec<String> = result.unwrap().warnings.kept().iter().map(|w| w.path.clone()).collect();
    assert_eq!(
        warnings,
        ["\"absolute\"", "\"above\"", "\"a/b/too-far\"", "\"a/b/sly\"", "\"sly\"", "\"empty\""]
    );
    let links: Vec<_> = tree.iter().filter(|(_, node)| matches!(node, Node::Symlink { .. })).collect();
    assert_eq!(links.len(), 2);
}

#[test]
fn nothing_is_written_through_a_link() {
    let through = [
        Hostile::default().link("l", ".").file("l/x", b"1").end(),
        Hostile::default().link("d/l", "..").file("d/l/x", b"1").end(),
        Hostile::default().link("l", "nowhere").file("l/x", b"1").end(),
        Hostile::default().link("l", "d").entry(EntryType::Directory, b"l", b"", b"").end(),
        Hostile::default().file("f", b"1").file("f/x", b"1").end(),
        Hostile::default().link("l", "d").file("d/f", b"1").entry(EntryType::Link, b"h", b"l/f", b"").end(),
    ];
    for (i, archive) in through.iter().enumerate() {
        let (result, _) = attempt(archive);
        assert!(matches!(result, Err(UnpackError::ThroughLink { .. })), "{i}: {result:?}");
    }
    // A link that a user has put there is no better.
    let (outside, dest) = (Scratch::new(), Scratch::new());
    symlink(outside.path(), dest.path().join("l")).unwrap();
    let archive = Hostile::default().file("l/x", b"1").end();
    let result = unpack(&archive[..], dest.path(), &UnpackLimits::default());
    assert!(matches!(result, Err(UnpackError::ThroughLink { .. })));
    assert!(snapshot(outside.path()).is_empty());
}

#[test]
fn what_exists_is_never_replaced() {
    let (outside, dest) = (Scratch::new(), Scratch::new());
    outside.write("f", b"mine");
    symlink(outside.path().join("f"), dest.path().join("link")).unwrap();
    dest.write("file", b"mine");
    for name in ["file", "link"] {
        for archive in [
            Hostile::default().file(name, b"evil").end(),
            Hostile::default().link(name, "elsewhere").end(),
            Hostile::default().file("f", b"1").entry(EntryType::Link, name.as_bytes(), b"f", b"").end(),
        ] {
            let result = unpack(&archive[..], dest.path(), &UnpackLimits::default());
            assert!(matches!(result, Err(UnpackError::Exists { .. })), "{name}: {result:?}");
            let _ = fs::remove_file(dest.path().join("f"));
        }
    }
    assert_eq!(fs::read(outside.path().join("f")).unwrap(), b"mine");
    assert_eq!(fs::read(dest.path().join("file")).unwrap(), b"mine");
    let (result, _) = attempt(&Hostile::default().file("f", b"1").file("f", b"2").end());
    assert!(matches!(result, Err(UnpackError::Exists { .. })));
}

#[test]
fn hard_links_lead_to_files_of_the_archive_only() {
    for target in ["missing", "dir", "link", "no/where"] {
        let archive = Hostile::default()
            .entry(EntryType::Directory, b"dir", b"", b"")
            .link("link", "file")
            .entry(EntryType::Link, b"hard", target.as_bytes(), b"")
            .end();
        let (result, _) = attempt(&archive);
        assert!(matches!(result, Err(UnpackError::BadHardLink { .. })), "{target}: {result:?}");
    }
    let archive = Hostile::default().file("d/f", b"1").entry(EntryType::Link, b"e/h", b"./d/f", b"").end();
    let (result, tree) = attempt(&archive);
    result.unwrap();
    assert!(matches!(tree[Path::new("e/h")], Node::File { links: 2, .. }));
}

#[test]
fn devices_are_left_out_and_modes_are_tamed() {
    let archive = Hostile::default()
        .entry(EntryType::Char, b"null", b"", b"")
        .entry(EntryType::Block, b"disk", b"", b"")
        .entry(EntryType::Fifo, b"fifo", b"", b"")
        .entry(EntryType::new(b'?'), b"odd", b"", b"some bytes")
        .header(EntryType::Regular, b"suid", b"", 0, 0o6777)
        .header(EntryType::Directory, b"locked", b"", 0, 0)
        .file("locked/inside", b"1")
        .end();
    let (result, tree) = attempt(&archive);
    assert_eq!(result.unwrap().warnings.kept().len(), 4);
    assert_eq!(tree.len(), 3);
    let Node::File { mode, .. } = tree[Path::new("suid")] else { panic!("no file") };
    assert_eq!(mode & 0o7000, 0);
    assert!(matches!(tree[Path::new("locked")], Node::Directory { mode: 0o700 }));
}

#[test]
fn bombs_are_stopped_early() {
    let limits = UnpackLimits { ratio: 20, ratio_from: Bytes::mib(4), ..UnpackLimits::default() };
    let zeros = vec![0; 16 << 20];
    let bomb = Hostile::default().file("zeros", &zeros).end();
    let (result, tree) = attempt_within(&bomb, &limits);
    assert!(matches!(result, Err(UnpackError::Bomb { .. })), "{result:?}");
    let Node::File { bytes, .. } = &tree[Path::new("zeros")] else { panic!("no file") };
    assert!(bytes.len() < 5 << 20);
    // Small ones are no danger.
    attempt(&bomb).0.unwrap();

    let limits = UnpackLimits { total: Bytes(1000), ..UnpackLimits::default() };
    attempt_within(&Hostile::default().file("a", &[1; 500]).file("b", &[2; 500]).end(), &limits).0.unwrap();
    let (result, tree) =
        attempt_within(&Hostile::default().file("a", &[1; 500]).file("b", &[2; 501]).end(), &limits);
    assert!(matches!(result, Err(UnpackError::TooLarge { .. })));
    assert_eq!(tree.len(), 1, "the second file was begun although its header said too much");

    let limits = UnpackLimits { entries: 3, ..UnpackLimits::default() };
    let three = Hostile::default().file("a", b"").file("b", b"").file("c", b"");
    let four = Hostile(three.0.clone()).file("d", b"");
    attempt_within(&three.end(), &limits).0.unwrap();
    assert!(matches!(attempt_within(&four.end(), &limits).0, Err(UnpackError::TooMany { limit: 3 })));
}

#[test]
fn a_meter_is_charged_before_anything_is_written() {
    let archive = || {
        Hostile::default()
            .entry(EntryType::Directory, b"d", b"", b"")
            .entry(EntryType::Directory, b"d", b"", b"")
            .file("d/implied/f", &[1; 5000])
            .file("g", b"22")
            .end()
    };
    let metered = |limit: u64| {
        let meter = Meter::new(Bytes(limit));
        let limits = UnpackLimits { meter: Some(&meter), ..UnpackLimits::default() };
        let (result, tree) = attempt_within(&archive(), &limits);
        (result, tree, meter.used().0)
    };
    // Two directories, one of them named twice, and two files.
    let all = 4 * 4096 + 5002;
    let (result, _, used) = metered(all);
    result.unwrap();
    assert_eq!(used, all);
    for limit in [all - 1, 4 * 4096 + 5000, 3 * 4096 + 4999, 3 * 4096, 3 * 4096 - 1, 4096, 4095, 0] {
        let (result, tree, used) = metered(limit);
        assert!(matches!(result, Err(UnpackError::NoRoom { .. })), "{limit}: {result:?}");
        let there: u64 = tree
            .values()
            .map(|node| 4096 + if let Node::File { bytes, .. } = node { bytes.len() as u64 } else { 0 })
            .sum();
        assert!(there <= used && used <= limit, "{limit}: {there} written, {used} charged");
    }
}

#[test]
fn an_interrupt_ends_it_within_a_file_too() {
    let interrupt = Interrupt::new();
    let limits = UnpackLimits { interrupt: Some(&interrupt), ..UnpackLimits::default() };
    /// Raises it once the file has begun.
    struct Raise<'a>(Cursor<Vec<u8>>, &'a Interrupt, usize);
    impl Read for Raise<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.2 += 1;
            if self.2 == 2 {
                self.1.raise(Cause::Timeout);
            }
            let n = buffer.len().min(512);
            self.0.read(&mut buffer[..n])
        }
    }
    let archive = Hostile::default().file("zeros", &vec![0; 8 << 20]).end();
    let dest = Scratch::new();
    let result = unpack(Raise(Cursor::new(archive), &interrupt, 0), dest.path(), &limits);
    assert!(matches!(result, Err(UnpackError::Interrupted(Cause::Timeout))), "{result:?}");
    assert!(fs::metadata(dest.path().join("zeros")).unwrap().len() < 8 << 20);
    let result = attempt_within(&Hostile::default().file("a", b"").end(), &limits).0;
    assert!(matches!(result, Err(UnpackError::Interrupted(_))));
}

#[test]
fn plain_archives_hold_files_and_directories_only() {
    let plain = UnpackLimits { plain: true, ..UnpackLimits::default() };
    attempt_within(&Hostile::default().file("d/f", b"1").end(), &plain).0.unwrap();
    for kind in [EntryType::Symlink, EntryType::Link, EntryType::Fifo, EntryType::Char] {
        let archive = Hostile::default().file("f", b"1").entry(kind, b"odd", b"f", b"").end();
        let (result, tree) = attempt_within(&archive, &plain);
        assert!(matches!(result, Err(UnpackError::NotPlain { .. })), "{kind:?}: {result:?}");
        assert_eq!(tree.len(), 1);
    }
}

#[test]
fn long_names_are_refused_before_they_are_read() {
    // Each claims 8 GiB of name; none of it is there, so reading it would say "cut off".
    for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader, EntryType::XGlobalHeader]
    {
        let archive = Hostile::default().header(kind, b"long", b"", 8 << 30, 0o644).end();
        let (result, _) = attempt(&archive);
        assert!(
            matches!(result, Err(UnpackError::LongName { .. } | UnpackError::Malformed(_))),
            "{kind:?}: {result:?}"
        );
    }
    let limits = UnpackLimits { depth: 3, ..UnpackLimits::default() };
    attempt_within(&Hostile::default().file("a/b/c", b"").end(), &limits).0.unwrap();
    let (result, _) = attempt_within(&Hostile::default().file("a/b/c/d", b"").end(), &limits);
    assert!(matches!(result, Err(UnpackError::LongName { .. })));
    let limits = UnpackLimits { path: 5, ..UnpackLimits::default() };
    attempt_within(&Hostile::default().file("a/b/c", b"").end(), &limits).0.unwrap();
    let (result, _) = attempt_within(&Hostile::default().file("a/b/cd", b"").end(), &limits);
    assert!(matches!(result, Err(UnpackError::LongName { .. })));
}

#[test]
fn extended_headers_are_checked_like_plain_ones() {
    let pax = |records: &str| Hostile::default().entry(EntryType::XHeader, b"pax", b"", records.as_bytes());
    let (result, tree) = attempt(&pax("13 path=a/bc\n").file("short", b"1").end());
    result.unwrap();
    assert!(tree.contains_key(Path::new("a/bc")));
    for (records, refusal) in [
        ("16 path=../evil\n", "leads out"),
        ("9 size=x\n", "is no number"),
        ("99 path=cut\n", "malformed"),
        ("25 GNU.sparse.realsize=9\n", "holes"),
    ] {
        let (result, _) = attempt(&pax(records).file("short", b"1").end());
        let error = result.unwrap_err().to_string();
        assert!(error.contains(refusal), "{records:?}: {error}");
    }
    // The extended size is the one that counts.
    let archive =
        pax("10 size=3\n").header(EntryType::Regular, b"f", b"", 0, 0o644).raw(b"abc").file("g", b"").end();
    let (result, tree) = attempt(&archive);
    assert_eq!(result.unwrap().size, Bytes(3));
    assert_eq!(tree.len(), 2);
}

#[test]
fn damage_is_found_wherever_it_is() {
    let tree = Scratch::new();
    let text: Vec<u8> = (0..9000u32).flat_map(|n| (n * 7919).to_string().into_bytes()).collect();
    tree.write("a", &text);
    tree.write("b/c", b"small");
    let archive = packed(tree.path());
    attempt(&archive).0.unwrap();
    for length in (0..archive.len()).step_by(397).chain(archive.len() - 12..archive.len()) {
        let (result, _) = attempt(&archive[..length]);
        assert!(matches!(result, Err(UnpackError::Damaged(_))), "cut to {length}: {result:?}");
    }
    let mut wrong = archive.clone();
    let crc = archive.len() - 8;
    wrong[crc] ^= 1;
    assert!(matches!(attempt(&wrong).0, Err(UnpackError::Damaged(_))));
    assert!(matches!(attempt(b"<html>404</html>").0, Err(UnpackError::Damaged(_))));
    let text = gzip(&[b'x'; 2000]);
    assert!(matches!(attempt(&text).0, Err(UnpackError::Malformed(_))));
}

#[test]
fn padding_behind_the_end_is_read_but_not_without_limit() {
    let mut padded = Hostile::default().file("f", b"1").0;
    padded.resize(padded.len() + 100_000, 0);
    attempt(&gzip(&padded)).0.unwrap();
    padded.resize(padded.len() + (8 << 20), 0);
    assert!(matches!(attempt(&gzip(&padded)).0, Err(UnpackError::Malformed(_))));
}

#[test]
fn reads_every_format_of_gnu_tar() {
    let tree = Scratch::new();
    tree.write("stdout", b"out\n");
    tree.write(format!("{}/{}", "d".repeat(90), "f".repeat(90)), b"long");
    symlink("stdout", tree.path().join("link")).unwrap();
    fs::hard_link(tree.path().join("stdout"), tree.path().join("hard")).unwrap();
    fs::set_permissions(tree.path().join("stdout"), fs::Permissions::from_mode(0o755)).unwrap();
    for format in ["gnu", "oldgnu", "pax", "posix", "ustar"] {
        let archive = Command::new("tar")
            .args(["-cz", "--format", format, "-C"])
            .arg(tree.path())
            .arg(".")
            .output()
            .expect("tar is installed");
        assert!(archive.status.success());
        let (result, unpacked) = attempt(&archive.stdout);
        result.unwrap();
        assert_eq!(unpacked, snapshot(tree.path()), "{format}");
    }
}

#[test]
fn a_stream_that_comes_in_drips_is_read() {
    struct Drips(Cursor<Vec<u8>>);
    impl Read for Drips {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let n = buffer.len().min(1);
            self.0.read(&mut buffer[..n])
        }
    }
    let (tree, dest) = (Scratch::new(), Scratch::new());
    tree.write("d/f", b"some text".repeat(1000));
    let drips = Drips(Cursor::new(packed(tree.path())));
    unpack(drips, dest.path(), &UnpackLimits::default()).unwrap();
    assert_eq!(snapshot(dest.path()), snapshot(tree.path()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever is done to an archive: no panic, and nothing outside the directory.
    #[test]
    fn mutilated_archives_stay_inside(
        names in proptest::collection::vec("(/|[.]{1,2}|[ab/])(/|[.]{1,2}|[ab]){0,5}", 1..8),
        targets in proptest::collection::vec("(/|[.]{1,2}|[ab/])(/|[.]{1,2}|[ab]){0,5}", 8),
        kinds in proptest::collection::vec(0usize..5, 8),
        flips in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..3),
    ) {
        let mut tar = Hostile::default();
        for ((name, target), kind) in names.iter().zip(&targets).zip(&kinds) {
            let kind = [
                EntryType::Regular,
                EntryType::Directory,
                EntryType::Symlink,
                EntryType::Link,
                EntryType::Symlink,
            ][*kind];
            let bytes: &[u8] = if kind == EntryType::Regular { b"bytes" } else { b"" };
            tar = tar.entry(kind, name.as_bytes(), target.as_bytes(), bytes);
        }
        for (at, mask) in flips {
            let at = usize::from(at) % tar.0.len();
            tar.0[at] ^= mask;
        }
        // `attempt` checks what is outside, and where links end.
        let _ = attempt(&tar.end());
    }
}
