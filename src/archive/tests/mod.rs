//! Archives against real trees, real GNU tar and hostile hands.

mod pack;
mod round_trip;
mod threads;
mod unpack;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::pack::{PackOptions, pack, upper_bound};
use crate::sys::Interrupt;

/// What a test compares: everything that an archive keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    Directory { mode: u32 },
    File { mode: u32, bytes: Vec<u8>, links: u64 },
    Symlink { target: OsString },
    Other,
}

/// Everything below `root`.
pub(super) fn snapshot(root: &Path) -> BTreeMap<PathBuf, Node> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let mode = metadata.mode() & 0o7777;
            let node = if metadata.is_dir() {
                waiting.push(path.clone());
                Node::Directory { mode }
            } else if metadata.is_file() {
                Node::File { mode, bytes: fs::read(&path).unwrap(), links: metadata.nlink() }
            } else if metadata.is_symlink() {
                Node::Symlink { target: fs::read_link(&path).unwrap().into_os_string() }
            } else {
                assert!(metadata.file_type().is_fifo() || metadata.file_type().is_socket());
                Node::Other
            };
            found.insert(path.strip_prefix(root).unwrap().to_owned(), node);
        }
    }
    found
}

/// The archive of a directory, with the default options.
pub(super) fn packed(dir: &Path) -> Vec<u8> {
    packed_with(dir, &PackOptions::default())
}

pub(super) fn packed_with(dir: &Path, options: &PackOptions) -> Vec<u8> {
    let mut out = Vec::new();
    let bound = upper_bound(dir, options, &Interrupt::new()).unwrap();
    let done = pack(dir, &mut out, options, &Interrupt::new()).unwrap();
    assert_eq!(done.size.0, out.len() as u64);
    assert_eq!(done.sha256, crate::model::Sha256::of(&out));
    assert!(done.size <= bound, "{} > {bound}", done.size);
    out
}

/// Names and types in an archive, in order, as another program's reader sees them.
pub(super) fn entries(archive: &[u8]) -> Vec<(Vec<u8>, tar::EntryType)> {
    tar::Archive::new(flate2::read::GzDecoder::new(archive))
        .entries()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.path_bytes().into_owned(), entry.header().entry_type())
        })
        .collect()
}

/// Whether two paths, as bytes, are a directory and something directly in it.
pub(super) fn is_parent(parent: &[u8], child: &[u8]) -> bool {
    let child = Path::new(std::ffi::OsStr::from_bytes(child));
    let wanted = child.parent().unwrap();
    if wanted.as_os_str().is_empty() { parent == b"." } else { wanted.as_os_str().as_bytes() == parent }
}
