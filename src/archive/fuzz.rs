//! Archives of strangers, and trees of jobs.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::pack::{PackOptions, upper_bound};
use super::unpack::UnpackLimits;
use crate::fuzz::{Scratch, archive};
use crate::model::{Bytes, Sha256};
use crate::sys::Interrupt;

/// An archive: whatever is in it, nothing lands beside the directory and no link leads out of it.
pub(crate) fn unpack(data: &[u8]) {
    let limits = UnpackLimits {
        total: Bytes::mib(1),
        entries: 200,
        ratio: 200,
        ratio_from: Bytes::kib(256),
        path: 300,
        depth: 16,
        ..UnpackLimits::default()
    };
    let scratch = Scratch::new();
    let dest = scratch.path().join("dest");
    assert!(fs::create_dir(&dest).is_ok());
    let done = super::unpack(&archive(data)[..], &dest, &limits);
    assert_eq!(
        fs::read_dir(scratch.path()).map(Iterator::count).ok(),
        Some(1),
        "written beside the directory"
    );
    let found = snapshot(&dest);
    assert!(found.len() as u64 <= limits.entries * limits.depth as u64);
    let inside = fs::canonicalize(&dest).unwrap_or_default();
    let mut bytes = 0;
    for (path, node) in &found {
        match node {
            Node::File(contents) => bytes += contents.len() as u64,
            Node::Symlink(_) => {
                let leads = fs::canonicalize(dest.join(path));
                assert!(
                    leads.is_err() || leads.is_ok_and(|to| to.starts_with(&inside)),
                    "{path:?} leads out"
                );
            }
            Node::Directory => {}
        }
    }
    assert!(bytes <= limits.total.0);
    if let Ok(done) = done {
        let files = found.values().filter(|node| matches!(node, Node::File(_))).count() as u64;
        // Further names of a file are no further files.
        assert!(done.files <= files && done.size.0 <= bytes, "{done:?}, but {files} files, {bytes} bytes");
    }
}

/// A tree built from the bytes: what is packed has the size and digest that are said, and comes out again.
pub(crate) fn pack(data: &[u8]) {
    let (tree, dest) = (Scratch::new(), Scratch::new());
    let level = build(tree.path(), data);
    let options = PackOptions { level, ..PackOptions::default() };
    let mut out = Vec::new();
    let bound = upper_bound(tree.path(), &options, &Interrupt::new());
    let packed = super::pack(tree.path(), &mut out, &options, &Interrupt::new());
    let (Ok(bound), Ok(packed)) = (bound, packed) else { panic!("a tree that cannot be packed") };
    assert!(packed.size.0 == out.len() as u64 && packed.size <= bound && packed.sha256 == Sha256::of(&out));
    let done = super::unpack(&out[..], dest.path(), &UnpackLimits::default());
    let Ok(done) = done else { panic!("not taken by our own reader: {done:?}") };
    let mut wanted = snapshot(tree.path());
    if !done.warnings.kept().is_empty() {
        // Links that lead outside are left out, and nothing else.
        wanted.retain(|_, node| !matches!(node, Node::Symlink(_)));
    }
    let mut found = snapshot(dest.path());
    if !done.warnings.kept().is_empty() {
        found.retain(|_, node| !matches!(node, Node::Symlink(_)));
    }
    assert!(found == wanted, "{:?} became {:?}", wanted.keys(), found.keys());
}

/// Makes entries of the bytes: each is a kind, the length of a name, the name, and for files a length and contents.
/// Names that cannot be had are left out.
fn build(root: &Path, data: &[u8]) -> super::Level {
    let mut rest = data;
    let mut take = |n: usize| {
        let (taken, left) = rest.split_at(n.min(rest.len()));
        rest = left;
        taken
    };
    let level = take(1).first().copied().unwrap_or(1) % 7;
    let mut files: Vec<PathBuf> = Vec::new();
    for _ in 0..64 {
        let &[kind, length] = take(2) else { break };
        let name = take(length.into());
        let path = root.join(OsStr::from_bytes(name));
        let plain = name.split(|b| *b == b'/').all(|part| !matches!(part, b"" | b"." | b".."));
        if !plain || name.contains(&0) || fs::symlink_metadata(&path).is_ok() {
            continue;
        }
        // Made or not: a name may be too long, or lie behind a file.
        if path.parent().is_some_and(|parent| fs::create_dir_all(parent).is_err()) {
            continue;
        }
        match kind % 5 {
            0 => drop(fs::create_dir(&path)),
            1 => {
                let target = take(kind.into());
                drop(symlink(OsStr::from_bytes(target), &path));
            }
            2 => drop(files.last().map(|first| fs::hard_link(first, &path))),
            _ => {
                let (size, repeat) = match take(2) {
                    &[size, repeat] => (size, repeat),
                    _ => (0, 0),
                };
                let contents = take(size.into()).repeat(repeat.into());
                if fs::write(&path, contents).is_ok() {
                    files.push(path);
                }
            }
        }
    }
    super::Level::try_from(level).unwrap_or_default()
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Directory,
    File(Vec<u8>),
    Symlink(PathBuf),
}

fn snapshot(root: &Path) -> BTreeMap<PathBuf, Node> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(dir) = waiting.pop() {
        open_one(&dir);
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            let node = if metadata.is_dir() {
                waiting.push(path.clone());
                Node::Directory
            } else if metadata.is_symlink() {
                Node::Symlink(fs::read_link(&path).unwrap_or_default())
            } else {
                assert!(metadata.is_file(), "{} is neither file, link nor directory", path.display());
                assert_eq!(metadata.permissions().mode() & 0o7000, 0, "{}", path.display());
                open_one(&path);
                Node::File(fs::read(&path).unwrap_or_default())
            };
            found.insert(path.strip_prefix(root).unwrap_or(&path).to_owned(), node);
        }
    }
    found
}

/// What came without permissions can be looked at and removed all the same.
fn open_one(path: &Path) {
    let mode = if path.is_dir() { 0o700 } else { 0o600 };
    let _ = fs::set_permissions(path, fs::Permissions::from_mode(mode));
}
