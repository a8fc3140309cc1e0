//! Which file of a tree a further name of it refers to.

use std::collections::BTreeMap;

/// Files with several names that are remembered at once; the names of further ones are stored as files of their own.
pub(super) const LINKS_MAX: usize = 2048;
/// Bytes of their names.
pub(super) const LINK_BYTES_MAX: usize = 128 * 1024;

/// A file of this machine: device and inode.
pub(super) type FileId = (u64, u64);

#[derive(Default)]
pub(super) struct Links {
    known: BTreeMap<FileId, (Box<[u8]>, u64)>,
    bytes: usize,
}

impl Links {
    /// The name under which the file was stored before. If there is none, remembers `path` while there is room.
    pub(super) fn first_name(&mut self, id: FileId, names: u64, path: &[u8]) -> Option<Box<[u8]>> {
        if let Some((first, left)) = self.known.get_mut(&id) {
            *left -= 1;
            let (first, done) = (first.clone(), *left == 0);
            if done {
                self.bytes -= first.len();
                self.known.remove(&id);
            }
            return Some(first);
        }
        if names > 1 && self.known.len() < LINKS_MAX && self.bytes + path.len() <= LINK_BYTES_MAX {
            self.bytes += path.len();
            self.known.insert(id, (path.into(), names - 1));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_forgotten_with_its_last_name() {
        let mut links = Links::default();
        assert_eq!(links.first_name((1, 1), 3, b"a"), None);
        assert_eq!(links.first_name((1, 2), 1, b"alone"), None);
        assert_eq!(links.first_name((1, 1), 3, b"b").as_deref(), Some(&b"a"[..]));
        assert_eq!(links.first_name((1, 1), 3, b"c").as_deref(), Some(&b"a"[..]));
        assert!(links.known.is_empty());
        assert_eq!(links.bytes, 0);
    }

    #[test]
    fn both_bounds_hold() {
        let mut links = Links::default();
        for inode in 0..2 * LINKS_MAX as u64 {
            assert_eq!(links.first_name((0, inode), 2, b"name"), None);
        }
        assert_eq!(links.known.len(), LINKS_MAX);
        let mut links = Links::default();
        let long = vec![b'n'; LINK_BYTES_MAX / 2 + 1];
        assert_eq!(links.first_name((0, 0), 2, &long), None);
        assert_eq!(links.first_name((0, 1), 2, &long), None);
        assert_eq!(links.known.len(), 1);
    }
}
