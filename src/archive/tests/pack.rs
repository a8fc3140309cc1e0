use std::ffi::OsStr;
use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use super::super::pack::{HardLinks, ModifiedTime, PackError, PackOptions, pack};
use super::super::testing::Scratch;
use super::super::walk::DEPTH_MAX;
use super::super::warning::Oddity;
use super::*;
use crate::sys::{Cause, Interrupt};

/// One of everything that an archive keeps.
fn everything() -> Scratch {
    let tree = Scratch::new();
    tree.write("stdout", b"hello\n");
    tree.write("stderr", b"");
    tree.write("exitCode", b"0");
    tree.write("outputs/a.txt", b"a".repeat(100_000));
    tree.write("outputs/a/below", b"sorts before a.txt");
    tree.write("outputs/run.sh", b"#!/bin/sh\n");
    fs::set_permissions(tree.path().join("outputs/run.sh"), Permissions::from_mode(0o750)).unwrap();
    tree.write("outputs/secret", b"s");
    fs::set_permissions(tree.path().join("outputs/secret"), Permissions::from_mode(0o600)).unwrap();
    fs::create_dir(tree.path().join("empty")).unwrap();
    tree.write(format!("long/{}/{}", "d".repeat(200), "f".repeat(255)), b"long");
    tree.write(format!("{}/x", "e".repeat(97)), b"exactly 99");
    tree.write(format!("{}/xy", "e".repeat(97)), b"exactly 100");
    tree.write(OsStr::from_bytes(b"odd/\xff\xfe name\nwith \\ all"), b"odd");
    fs::hard_link(tree.path().join("outputs/a.txt"), tree.path().join("outputs/same")).unwrap();
    for (name, target) in [("dangling", "no/where"), ("absolute", "/etc/hostname"), ("to-dir", "outputs")] {
        symlink(target, tree.path().join(name)).unwrap();
    }
    symlink("t".repeat(300), tree.path().join("long-target")).unwrap();
    tree
}

#[test]
fn gnu_tar_extracts_the_same_tree() {
    let tree = everything();
    let archive = packed(tree.path());
    let out = Scratch::new();
    let mut tar = Command::new("tar")
        .args(["-xzpf", "-", "-C"])
        .arg(out.path())
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("tar is installed");
    tar.stdin.take().unwrap().write_all(&archive).unwrap();
    let done = tar.wait_with_output().unwrap();
    assert!(done.status.success());
    assert_eq!(String::from_utf8_lossy(&done.stderr), "");
    assert_eq!(snapshot(out.path()), snapshot(tree.path()));
    assert_eq!(fs::metadata(out.path()).unwrap().permissions().mode() & 0o777, 0o755);
}

#[test]
fn python_reads_the_same_names_and_types() {
    let tree = everything();
    let archive = tree.path().with_extension("tar.gz");
    fs::write(&archive, packed(tree.path())).unwrap();
    let script = "import sys, tarfile\n\
                  for m in tarfile.open(sys.argv[1], 'r:gz'):\n\
                  \x20 print(m.name.encode('utf-8', 'surrogateescape').hex(), m.type.decode(), m.size, m.linkname)\n";
    let listed = Command::new("python3").args(["-c", script]).arg(&archive).output();
    fs::remove_file(&archive).unwrap();
    // Not everybody has it; GNU tar has read the same bytes above.
    let Ok(listed) = listed else { return };
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert_eq!(listed.lines().next(), Some("2e 5 0 "));
    let hex: String = b"outputs/same".iter().map(|b| format!("{b:02x}")).collect();
    assert!(listed.contains(&format!("{hex} 1 0 outputs/a.txt\n")), "{listed}");
    // Everything, and `.`.
    assert_eq!(listed.lines().count(), snapshot(tree.path()).len() + 1);
}

#[test]
fn the_layout_is_that_of_bacalhaus_publisher() {
    let tree = Scratch::new();
    for name in ["stdout", "stderr", "exitCode", "outputs/a.txt", "outputs/a/b", "outputs/a-b"] {
        tree.write(name, name);
    }
    let names: Vec<_> =
        entries(&packed(tree.path())).into_iter().map(|(name, _)| String::from_utf8(name).unwrap()).collect();
    let wanted = [
        ".",
        "exitCode",
        "outputs",
        "outputs/a",
        "outputs/a/b",
        "outputs/a-b",
        "outputs/a.txt",
        "stderr",
        "stdout",
    ];
    assert_eq!(names, wanted);
}

#[test]
fn each_directory_comes_before_what_is_in_it() {
    let tree = everything();
    let mut directories = Vec::new();
    for (name, kind) in entries(&packed(tree.path())) {
        if name != b"." {
            assert!(directories.iter().any(|dir: &Vec<u8>| is_parent(dir, &name)), "{name:?}");
        }
        if kind.is_dir() {
            directories.push(name);
        }
    }
}

#[test]
fn equal_trees_give_equal_bytes() {
    let (one, two) = (Scratch::new(), Scratch::new());
    let names: Vec<String> = (0..50).map(|n| format!("d{}/f{n}", n % 3)).collect();
    names.iter().for_each(|name| one.write(name, name));
    names.iter().rev().for_each(|name| two.write(name, name));
    let old = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000));
    File::options().write(true).open(two.path().join("d0/f0")).unwrap().set_times(old).unwrap();
    assert_eq!(packed(one.path()), packed(two.path()));

    let keep = PackOptions { modified: ModifiedTime::Keep, ..PackOptions::default() };
    let archive = packed_with(two.path(), &keep);
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&archive[..]));
    let kept =
        archive.entries().unwrap().map(Result::unwrap).find(|e| e.path_bytes() == &b"d0/f0"[..]).unwrap();
    assert_eq!(kept.header().mtime().unwrap(), 1_000_000_000);
    two.write("d0/f0", b"other");
    assert_ne!(packed(one.path()), packed(two.path()));
}

#[test]
fn nothing_of_the_node_gets_in() {
    let tree = everything();
    fs::set_permissions(tree.path(), Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(tree.path().join("outputs/run.sh"), Permissions::from_mode(0o6755)).unwrap();
    let archive = packed(tree.path());
    for entry in tar::Archive::new(flate2::read::GzDecoder::new(&archive[..])).entries().unwrap() {
        let entry = entry.unwrap();
        let header = entry.header();
        assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, 0));
        assert_eq!(header.username_bytes(), Some(&b""[..]));
        assert_eq!(header.mode().unwrap() & !0o777, 0);
        if entry.path_bytes() == &b"."[..] {
            assert_eq!(header.mode().unwrap(), 0o755);
        }
    }
}

#[test]
fn sockets_and_fifos_are_left_out_with_a_warning() {
    let tree = Scratch::new();
    tree.write("file", b"1");
    let _socket = std::os::unix::net::UnixListener::bind(tree.path().join("socket")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        tree.path().join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let mut out = Vec::new();
    let done = pack(tree.path(), &mut out, &PackOptions::default(), &Interrupt::new()).unwrap();
    let warnings: Vec<String> = done.warnings.kept().iter().map(ToString::to_string).collect();
    assert_eq!(warnings, ["\"fifo\" is a FIFO: left out", "\"socket\" is a socket: left out"]);
    assert_eq!(done.files, 1);
    assert_eq!(entries(&out).len(), 2);
}

#[test]
fn hard_links_can_be_stored_as_files_for_bacalhaus_client() {
    let tree = everything();
    let copy = PackOptions { hard_links: HardLinks::Copy, ..PackOptions::default() };
    let kinds = entries(&packed_with(tree.path(), &copy));
    assert!(kinds.iter().all(|(_, kind)| *kind != tar::EntryType::Link));
    assert!(entries(&packed(tree.path())).contains(&(b"outputs/same".to_vec(), tar::EntryType::Link)));
}

/// Does something when the first bytes of the archive arrive: in the middle of a large file.
struct Meddler<F: FnMut()> {
    out: Vec<u8>,
    meddle: Option<F>,
}

impl<F: FnMut()> Meddler<F> {
    fn new(meddle: F) -> Self {
        Self { out: Vec::new(), meddle: Some(meddle) }
    }
}

impl<F: FnMut()> Write for Meddler<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(mut meddle) = self.meddle.take() {
            meddle();
        }
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A tree with one file of 1 MiB between two small ones.
fn large() -> (Scratch, PathBuf) {
    let tree = Scratch::new();
    tree.write("a", b"before");
    tree.write("large", vec![b'x'; 1 << 20]);
    tree.write("z", b"after");
    let path = tree.path().join("large");
    (tree, path)
}

fn pack_meddled(tree: &Path, meddle: impl FnMut()) -> (super::super::Packed, BTreeMap<PathBuf, Node>) {
    let mut out = Meddler::new(meddle);
    let done = pack(tree, &mut out, &PackOptions::default(), &Interrupt::new()).unwrap();
    let dest = Scratch::new();
    super::super::unpack(&out.out[..], dest.path(), &super::super::UnpackLimits::default()).unwrap();
    (done, snapshot(dest.path()))
}

fn bytes_of<'a>(tree: &'a BTreeMap<PathBuf, Node>, name: &str) -> &'a [u8] {
    let Some(Node::File { bytes, .. }) = tree.get(Path::new(name)) else { panic!("no file {name}") };
    bytes
}

#[test]
fn a_file_that_shrinks_is_filled_with_zeros() {
    let (tree, path) = large();
    let cut = || File::options().write(true).open(&path).unwrap().set_len(200_000).unwrap();
    let (done, unpacked) = pack_meddled(tree.path(), cut);
    assert_eq!(done.warnings.kept()[0].oddity, Oddity::Shrunk);
    let bytes = bytes_of(&unpacked, "large");
    assert_eq!(bytes.len(), 1 << 20);
    assert!(bytes[..100_000].iter().all(|&b| b == b'x') && bytes[300_000..].iter().all(|&b| b == 0));
    assert_eq!(bytes_of(&unpacked, "z"), b"after");
}

#[test]
fn a_file_that_grows_is_cut_at_its_first_length() {
    let (tree, path) = large();
    let grow = || OpenOptions::new().append(true).open(&path).unwrap().write_all(&[b'y'; 100_000]).unwrap();
    let (done, unpacked) = pack_meddled(tree.path(), grow);
    assert_eq!(done.warnings.kept()[0].oddity, Oddity::Grew);
    assert_eq!(bytes_of(&unpacked, "large"), vec![b'x'; 1 << 20]);
    assert_eq!(bytes_of(&unpacked, "z"), b"after");
}

#[test]
fn a_file_that_vanishes_is_left_out() {
    let (tree, _) = large();
    let remove = || fs::remove_file(tree.path().join("z")).unwrap();
    let (done, unpacked) = pack_meddled(tree.path(), remove);
    assert_eq!(done.warnings.kept()[0].to_string(), "\"z\" vanished before it was read: left out");
    assert_eq!(unpacked.len(), 2);
}

#[test]
fn links_are_not_followed_when_they_take_a_directorys_place() {
    let (tree, _) = large();
    let secret = Scratch::new();
    secret.write("secret", b"secret");
    tree.write("later/inner", b"1");
    let swap = || {
        fs::remove_dir_all(tree.path().join("later")).unwrap();
        symlink(secret.path(), tree.path().join("later")).unwrap();
    };
    // `large` is read before `later` is listed.
    fs::rename(tree.path().join("large"), tree.path().join("b")).unwrap();
    let mut out = Meddler::new(swap);
    pack(tree.path(), &mut out, &PackOptions::default(), &Interrupt::new()).unwrap();
    let names = entries(&out.out);
    assert!(names.contains(&(b"later".to_vec(), tar::EntryType::Symlink)), "{names:?}");
    assert!(names.iter().all(|(name, _)| !name.ends_with(b"secret")));
}

#[test]
fn stops_when_told() {
    let (tree, _) = large();
    let interrupt = Interrupt::new();
    let mut out = Meddler::new(|| interrupt.raise(Cause::Cancelled));
    let error = pack(tree.path(), &mut out, &PackOptions::default(), &interrupt).unwrap_err();
    assert!(matches!(error, PackError::Interrupted(Cause::Cancelled)));
    let before = out.out.len();
    assert!(before < 1000, "it went on for {before} bytes");
    let error = pack(tree.path(), &mut out, &PackOptions::default(), &interrupt).unwrap_err();
    assert!(matches!(error, PackError::Interrupted(Cause::Cancelled)));
    assert_eq!(out.out.len(), before);
}

#[test]
fn a_full_disk_is_an_error() {
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let n = bytes.len().min(self.0);
            self.0 -= n;
            if n == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(n) }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (tree, _) = large();
    let length = packed(tree.path()).len();
    for room in (0..length).step_by(7).chain([length - 1]) {
        match pack(tree.path(), &mut Full(room), &PackOptions::default(), &Interrupt::new()) {
            Err(PackError::Write(e)) if e.kind() == io::ErrorKind::StorageFull => {}
            other => panic!("{other:?} with {room} of {length} bytes"),
        }
    }
    assert!(pack(tree.path(), &mut Full(length), &PackOptions::default(), &Interrupt::new()).is_ok());
}

#[test]
fn an_unreadable_file_is_named() {
    let tree = Scratch::new();
    tree.write("outputs/locked", b"1");
    fs::set_permissions(tree.path().join("outputs/locked"), Permissions::from_mode(0o000)).unwrap();
    let path = tree.path().to_owned();
    let result = std::thread::spawn(move || {
        if rustix::process::geteuid().is_root() {
            let nobody = rustix::process::Uid::from_raw(65534);
            rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        }
        pack(&path, &mut Vec::new(), &PackOptions::default(), &Interrupt::new())
    });
    let error = result.join().unwrap().unwrap_err();
    assert_eq!(error.to_string(), "cannot read \"outputs/locked\"");
    let PackError::Read { source, .. } = error else { panic!("{error}") };
    assert_eq!(source.kind(), io::ErrorKind::PermissionDenied);
}

#[test]
fn a_root_that_is_a_link_or_missing_is_refused() {
    let (tree, other) = (Scratch::new(), Scratch::new());
    other.write("secret", b"secret");
    symlink(other.path(), tree.path().join("link")).unwrap();
    for name in ["link", "missing"] {
        let error =
            pack(&tree.path().join(name), &mut Vec::new(), &PackOptions::default(), &Interrupt::new());
        assert!(matches!(error, Err(PackError::Read { .. })), "{name}");
    }
}

#[test]
fn depth_and_path_length_have_bounds() {
    let tree = Scratch::new();
    let deep = |depth: usize| -> PathBuf { std::iter::repeat_n("d", depth).collect() };
    fs::create_dir_all(tree.path().join(deep(DEPTH_MAX))).unwrap();
    packed(tree.path());
    fs::create_dir(tree.path().join(deep(DEPTH_MAX + 1))).unwrap();
    let error = pack(tree.path(), &mut Vec::new(), &PackOptions::default(), &Interrupt::new()).unwrap_err();
    assert!(matches!(error, PackError::TooDeep { limit: DEPTH_MAX, .. }), "{error}");

    let tree = Scratch::new();
    let mut at = File::open(tree.path()).unwrap();
    for _ in 0..17 {
        let name = "n".repeat(250);
        rustix::fs::mkdirat(&at, &name, rustix::fs::Mode::RWXU).unwrap();
        at = File::from(
            rustix::fs::openat(&at, &name, rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap(),
        );
    }
    let error = pack(tree.path(), &mut Vec::new(), &PackOptions::default(), &Interrupt::new()).unwrap_err();
    assert!(matches!(error, PackError::PathTooLong { .. }), "{error}");
}
