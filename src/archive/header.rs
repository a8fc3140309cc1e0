//! What stands before an entry's bytes in a tar file: GNU headers, which GNU tar, Go and Python read alike.

use tar::{EntryType, Header};

/// Size of everything in a tar file.
pub(super) const TAR_BLOCK: usize = 512;
/// The longest name or link target in a header of its own; longer ones stand in an entry before it.
const SHORT_MAX: usize = 99;
/// What GNU tar calls the entry that holds a long name.
const LONG_NAME: &[u8] = b"././@LongLink";

/// One entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    /// Relative, no `./` before it, no `/` after it.
    pub(super) path: &'a [u8],
    pub(super) kind: EntryType,
    pub(super) size: u64,
    /// Permission bits.
    pub(super) mode: u32,
    /// Seconds since 1970.
    pub(super) mtime: u64,
    pub(super) owner: (u32, u32),
    /// Where a link leads, otherwise empty.
    pub(super) target: &'a [u8],
}

impl Entry<'_> {
    /// Appends the entry's header, and before it the entries for a long name or target.
    pub(super) fn append_to(&self, out: &mut Vec<u8>) {
        if self.target.len() > SHORT_MAX {
            append_long(EntryType::GNULongLink, self.target, out);
        }
        if self.path.len() > SHORT_MAX {
            append_long(EntryType::GNULongName, self.path, out);
        }
        let mut header = plain(self.kind, self.path, self.target);
        header.set_size(self.size);
        header.set_mode(self.mode);
        header.set_mtime(self.mtime);
        header.set_uid(self.owner.0.into());
        header.set_gid(self.owner.1.into());
        header.set_cksum();
        out.extend_from_slice(header.as_bytes());
    }
}

/// A header that holds as much of name and target as fits.
fn plain(kind: EntryType, path: &[u8], target: &[u8]) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    let names = header.as_old_mut();
    for (field, text) in [(&mut names.name, path), (&mut names.linkname, target)] {
        let n = text.len().min(SHORT_MAX);
        field[..n].copy_from_slice(&text[..n]);
    }
    header
}

fn append_long(kind: EntryType, text: &[u8], out: &mut Vec<u8>) {
    let mut header = plain(kind, LONG_NAME, b"");
    // GNU tar ends the text with a zero byte and counts it.
    header.set_size(text.len() as u64 + 1);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(text);
    out.resize(out.len() + 1 + padding(text.len() as u64 + 1), 0);
}

/// Zeros behind `size` bytes up to the next block.
pub(super) const fn padding(size: u64) -> usize {
    #[expect(clippy::cast_possible_truncation, reason = "a remainder of 512")]
    let over = (size % TAR_BLOCK as u64) as usize;
    (TAR_BLOCK - over) % TAR_BLOCK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_above_8_gib_and_long_names_are_kept() {
        for length in [1, 99, 100, 101, 511, 512, 4000] {
            let name = "n".repeat(length);
            let entry = Entry {
                path: name.as_bytes(),
                kind: EntryType::Symlink,
                size: 9 << 30,
                mode: 0o755,
                mtime: 1,
                owner: (3_000_000, 7),
                target: name.as_bytes(),
            };
            let mut bytes = Vec::new();
            entry.append_to(&mut bytes);
            assert_eq!(bytes.len() % TAR_BLOCK, 0);
            let mut archive = tar::Archive::new(&bytes[..]);
            let read = archive.entries().unwrap().next().unwrap().unwrap();
            assert_eq!(read.path_bytes(), name.as_bytes());
            assert_eq!(read.link_name_bytes().unwrap(), name.as_bytes());
            assert_eq!(read.header().size().unwrap(), 9 << 30);
            assert_eq!(read.header().uid().unwrap(), 3_000_000);
            assert_eq!(read.header().mode().unwrap(), 0o755);
        }
    }

    #[test]
    fn padding_fills_the_block() {
        for (size, zeros) in [(0, 0), (1, 511), (511, 1), (512, 0), (u64::MAX, 1)] {
            assert_eq!(padding(size), zeros);
        }
    }
}
