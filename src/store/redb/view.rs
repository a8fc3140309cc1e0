//! What readers see: the tables as of the last durable commit, and over them the changes that are not durable yet.
//!
//! redb's own commits without durability would do, but each of them leaves its copies of pages to be written by the
//! next durable commit, as many bytes as if it had been durable itself. Changes kept here cost a commit nothing
//! but what they change.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use ::redb::{Range, ReadOnlyTable, StorageError};

use super::super::backend::{Change, Visit};

pub(super) type Entries = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// Keys from this byte on are in the table for what changes often and is little: its tree stays flat, so that a
/// commit writes one or two pages of it, where the large table takes a page for each level of its tree.
pub(super) const HOT: u8 = 0x80;

/// Which of the two tables a key is in.
pub(super) fn is_hot(key: &[u8]) -> bool {
    key.first().is_some_and(|first| *first >= HOT)
}

/// `[from, to)`; nothing if they are the wrong way round.
pub(super) fn bounds<'a>(from: &'a [u8], to: &'a [u8]) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
    (Bound::Included(from), Bound::Excluded(to.max(from)))
}

/// `[from, to)` as far as it lies in the large table, and as far as it lies in the small one.
pub(super) fn split<'a>(from: &'a [u8], to: &'a [u8]) -> [(&'a [u8], &'a [u8]); 2] {
    const BORDER: &[u8] = &[HOT];
    [(from, to.min(BORDER)), (from.max(BORDER), to)]
}

/// Changes that are not durable yet, by key; `None` is a deletion.
#[derive(Debug, Clone, Default)]
pub(super) struct Pending {
    map: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    bytes: usize,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Bytes of keys and values.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The changes, ready for a transaction.
    pub(super) fn changes(&self) -> impl Iterator<Item = Change> {
        self.map.iter().map(|(key, value)| match value {
            Some(value) => Change::Put(key.clone(), value.clone()),
            None => Change::Delete(key.clone()),
        })
    }

    /// The changes with these after them; None if that takes a look at what is stored.
    pub(super) fn blindly(&self, changes: &[Change]) -> Option<Self> {
        let mut pending = self.clone();
        for change in changes {
            match change {
                Change::Put(key, value) => pending.set(key.clone(), Some(value.clone())),
                Change::Delete(key) => pending.set(key.clone(), None),
                Change::PutBeside { .. }
                | Change::DeleteRange(..)
                | Change::DeleteOrphan { .. }
                | Change::Unless { .. } => return None,
            }
        }
        Some(pending)
    }

    pub(super) fn into_iter(self) -> impl Iterator<Item = (Vec<u8>, Option<Vec<u8>>)> {
        self.map.into_iter()
    }

    pub(super) fn set(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        let len = |value: &Option<Vec<u8>>| value.as_ref().map_or(0, Vec::len);
        self.bytes += key.len() + len(&value);
        let key_len = key.len();
        if let Some(old) = self.map.insert(key, value) {
            self.bytes -= key_len + len(&old);
        }
    }

    fn range(
        &self,
        from: &[u8],
        to: &[u8],
    ) -> std::collections::btree_map::Range<'_, Vec<u8>, Option<Vec<u8>>> {
        self.map.range::<[u8], _>(bounds(from, to))
    }
}

/// The tables as of one commit, and what lies over them.
pub(super) struct View {
    cold: Entries,
    hot: Entries,
    pub(super) pending: Pending,
}

impl View {
    pub(super) fn new(cold: Entries, hot: Entries) -> Self {
        Self { cold, hot, pending: Pending::default() }
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        if let Some(value) = self.pending.map.get(key) {
            return Ok(value.clone());
        }
        let table = if is_hot(key) { &self.hot } else { &self.cold };
        Ok(table.get(key)?.map(|value| value.value().to_vec()))
    }

    pub(super) fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        reverse: bool,
        visit: &mut Visit<'_>,
    ) -> Result<(), StorageError> {
        self.scan_under(&self.pending, from, to, reverse, visit)
    }

    /// The pending changes with these after them. Fails whole.
    pub(super) fn with(&self, changes: &[Change]) -> Result<Pending, StorageError> {
        let mut pending = self.pending.clone();
        self.apply(&mut pending, changes)?;
        Ok(pending)
    }

    fn apply(&self, pending: &mut Pending, changes: &[Change]) -> Result<(), StorageError> {
        let is_there = |pending: &Pending, key: &[u8]| match pending.map.get(key) {
            Some(value) => Ok(value.is_some()),
            None => Ok::<_, StorageError>(self.get(key)?.is_some()),
        };
        for change in changes {
            match change {
                Change::Put(key, value) => pending.set(key.clone(), Some(value.clone())),
                Change::PutBeside { key, value, witness } => {
                    if is_there(pending, witness)? {
                        pending.set(key.clone(), Some(value.clone()));
                    }
                }
                Change::Delete(key) => pending.set(key.clone(), None),
                Change::DeleteRange(from, to) => {
                    let mut keys = Vec::new();
                    self.scan_under(pending, from, to, false, &mut |key, _| {
                        keys.push(key.to_vec());
                        ControlFlow::Continue(())
                    })?;
                    keys.into_iter().for_each(|key| pending.set(key, None));
                }
                Change::DeleteOrphan { key, from, to } => {
                    let mut wanted = false;
                    self.scan_under(pending, from, to, false, &mut |_, _| {
                        wanted = true;
                        ControlFlow::Break(())
                    })?;
                    if !wanted {
                        pending.set(key.clone(), None);
                    }
                }
                Change::Unless { witness, steps } => {
                    if !is_there(pending, witness)? {
                        self.apply(pending, steps)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Visits what is in the tables, with `pending` over it.
    fn scan_under(
        &self,
        pending: &Pending,
        from: &[u8],
        to: &[u8],
        reverse: bool,
        visit: &mut Visit<'_>,
    ) -> Result<(), StorageError> {
        let mut stored = Stored::new(self, from, to)?;
        let mut over = pending.range(from, to);
        let mut below = stored.next(reverse)?;
        let mut above = if reverse { over.next_back() } else { over.next() };
        loop {
            let order = match (&below, above) {
                (None, None) => return Ok(()),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some((key, _)), Some((over, _))) if reverse => over.as_slice().cmp(key.value()),
                (Some((key, _)), Some((over, _))) => key.value().cmp(over),
            };
            let flow = match (&below, above) {
                (Some((key, value)), _) if order.is_lt() => visit(key.value(), value.value()),
                (_, Some((key, Some(value)))) if order.is_ge() => visit(key, value),
                _ => ControlFlow::Continue(()),
            };
            if flow.is_break() {
                return Ok(());
            }
            if order.is_le() {
                below = stored.next(reverse)?;
            }
            if order.is_ge() {
                above = if reverse { over.next_back() } else { over.next() };
            }
        }
    }
}

type Entry<'a> = (::redb::AccessGuard<'a, &'static [u8]>, ::redb::AccessGuard<'a, &'static [u8]>);

/// A range of both tables, from either end.
struct Stored<'a> {
    cold: Option<Range<'a, &'static [u8], &'static [u8]>>,
    hot: Option<Range<'a, &'static [u8], &'static [u8]>>,
}

impl<'a> Stored<'a> {
    fn new(view: &'a View, from: &[u8], to: &[u8]) -> Result<Self, StorageError> {
        let range = |table: &'a Entries, (from, to): (&[u8], &[u8])| {
            (from < to).then(|| table.range::<&[u8]>(bounds(from, to))).transpose()
        };
        let [cold, hot] = split(from, to);
        Ok(Self { cold: range(&view.cold, cold)?, hot: range(&view.hot, hot)? })
    }

    fn next(&mut self, reverse: bool) -> Result<Option<Entry<'a>>, StorageError> {
        let (first, second) =
            if reverse { (&mut self.hot, &mut self.cold) } else { (&mut self.cold, &mut self.hot) };
        for range in [first, second].into_iter().flatten() {
            if let Some(entry) = if reverse { range.next_back() } else { range.next() } {
                return entry.map(Some);
            }
        }
        Ok(None)
    }
}
