//! The names in one directory, in byte order, in bounded memory.
//!
//! What does not fit the budget is left for later: the directory is read again for the names behind the last one given
//! out. So a directory of any size costs some reading, never more memory.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use rustix::fs::{RawDir, SeekFrom, seek};

/// Length of a name, in front of it in the arena.
const LENGTH: usize = 2;
/// Where a name begins, in the order.
const OFFSET: usize = 4;

#[derive(Default)]
pub(super) struct Names {
    /// Names, each behind its length.
    arena: Vec<u8>,
    /// Where they begin, in byte order of the names once [`Names::fill`] is done.
    order: Vec<u32>,
    /// How many of them were given out.
    given: usize,
    /// Whether the directory holds more, behind these.
    more: bool,
    /// Whether it was read at all.
    started: bool,
}

impl Names {
    /// The next name. The directory is read when none is left, `budget` bytes of names at a time (but at least one).
    pub(super) fn next(&mut self, dir: BorrowedFd<'_>, budget: usize) -> io::Result<Option<&[u8]>> {
        if self.given == self.order.len() && (self.more || !self.started) {
            let last = self.order.last().map(|&offset| name_at(&self.arena, offset).to_vec());
            self.fill(dir, last.as_deref(), budget)?;
        }
        let Some(&offset) = self.order.get(self.given) else { return Ok(None) };
        self.given += 1;
        Ok(Some(name_at(&self.arena, offset)))
    }

    /// Memory that the names take.
    pub(super) const fn bytes(&self) -> usize {
        self.arena.len() + self.order.len() * OFFSET
    }

    /// Reads the directory for the first names behind `last`.
    fn fill(&mut self, dir: BorrowedFd<'_>, last: Option<&[u8]>, budget: usize) -> io::Result<()> {
        self.arena.clear();
        self.order.clear();
        self.given = 0;
        self.more = false;
        self.started = true;
        // Names from here on belong to a later pass.
        let mut end: Option<Vec<u8>> = None;
        seek(dir, SeekFrom::Start(0))?;
        let mut buffer = [MaybeUninit::uninit(); 8192];
        let mut entries = RawDir::new(dir, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." || last.is_some_and(|last| name <= last) {
                continue;
            }
            if end.as_deref().is_some_and(|end| name >= end) {
                continue;
            }
            self.push(name)?;
            // More than once if long names are among the earlier half.
            while self.bytes() > budget && self.order.len() > 1 {
                self.more = true;
                end = Some(self.drop_upper_half());
            }
        }
        self.sort();
        Ok(())
    }

    fn push(&mut self, name: &[u8]) -> io::Result<()> {
        let offset = u32::try_from(self.arena.len()).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let length = u16::try_from(name.len()).map_err(|_| io::ErrorKind::InvalidFilename)?;
        self.order.push(offset);
        self.arena.extend_from_slice(&length.to_le_bytes());
        self.arena.extend_from_slice(name);
        Ok(())
    }

    fn sort(&mut self) {
        let arena = &self.arena;
        self.order.sort_unstable_by(|&a, &b| name_at(arena, a).cmp(name_at(arena, b)));
    }

    /// Forgets the later half of the names and answers the first of those.
    fn drop_upper_half(&mut self) -> Vec<u8> {
        self.sort();
        let kept = self.order.len() / 2;
        let first_dropped = name_at(&self.arena, self.order[kept]).to_vec();
        self.order.truncate(kept);
        // Moved down in the order in which they lie, so that none is overwritten before it has moved.
        self.order.sort_unstable();
        let mut end = 0;
        for offset in &mut self.order {
            let start = *offset as usize;
            let length = LENGTH + name_at(&self.arena, *offset).len();
            self.arena.copy_within(start..start + length, end);
            #[expect(clippy::cast_possible_truncation, reason = "no larger than the offset that it replaces")]
            {
                *offset = end as u32;
            }
            end += length;
        }
        self.arena.truncate(end);
        first_dropped
    }
}

/// Offsets come from [`Names::push`] and so lie in the arena.
fn name_at(arena: &[u8], offset: u32) -> &[u8] {
    let start = offset as usize;
    let length = usize::from(u16::from_le_bytes([arena[start], arena[start + 1]]));
    &arena[start + LENGTH..start + LENGTH + length]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs::File;
    use std::os::fd::AsFd;

    use proptest::prelude::*;

    use super::super::testing::Scratch;
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn all_names_come_once_in_order_within_any_budget(
            names in proptest::collection::btree_set("[a-zA-Z0-9._-]{3,40}", 0..120),
            budget in 0usize..800,
        ) {
            let scratch = Scratch::new();
            for name in &names {
                scratch.write(name, b"");
            }
            let dir = File::open(scratch.path()).unwrap();
            let mut listing = Names::default();
            let mut seen = Vec::new();
            let longest = LENGTH + 40 + OFFSET;
            while let Some(name) = listing.next(dir.as_fd(), budget).unwrap() {
                seen.push(String::from_utf8(name.to_vec()).unwrap());
                prop_assert!(listing.bytes() <= budget.max(longest));
            }
            prop_assert!(seen.iter().eq(names.iter()));
            prop_assert_eq!(seen.len(), seen.iter().collect::<BTreeSet<_>>().len());
        }
    }
}
