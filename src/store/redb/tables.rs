//! One transaction: the changes applied to both tables, and what they replaced.

use ::redb::{ReadableTable, StorageError, Table, WriteTransaction};

use super::super::backend::Change;
use super::view::{Pending, bounds, is_hot, split};
use super::{COLD, HOT};

/// Bytes of replaced keys and values that are remembered of one transaction. One that replaces more is not taken
/// back if its outcome is in doubt: it is found whole or not at all.
const UNDO_MAX: usize = 1 << 20;

/// What a transaction replaced, first to last; `None` is a key that was not there.
#[derive(Debug, Default)]
pub(super) struct Undo {
    entries: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    bytes: usize,
}

impl Undo {
    fn note(&mut self, key: &[u8], old: Option<&[u8]>) {
        self.bytes += key.len() + old.map_or(0, <[u8]>::len);
        if self.bytes > UNDO_MAX {
            self.entries = Vec::new();
        } else {
            self.entries.push((key.to_vec(), old.map(<[u8]>::to_vec)));
        }
    }

    /// Changes that take the transaction back, whether or not it has come to pass, with `pending` after them.
    pub(super) fn then(self, pending: Pending) -> Pending {
        let mut all = Pending::default();
        for (key, old) in self.entries.into_iter().rev() {
            all.set(key, old);
        }
        pending.into_iter().for_each(|(key, value)| all.set(key, value));
        all
    }
}

/// Applies what waits and then the changes, noting in `undo` what they replace. Says whether that changed anything.
pub(super) fn transact(
    write: &WriteTransaction,
    pending: &Pending,
    changes: &[Change],
    undo: &mut Undo,
) -> Result<bool, ::redb::Error> {
    let mut tables = Tables { cold: write.open_table(COLD)?, hot: write.open_table(HOT)? };
    let mut changed = false;
    for change in pending.changes() {
        changed |= tables.apply(&change, undo)?;
    }
    for change in changes {
        changed |= tables.apply(change, undo)?;
    }
    Ok(changed)
}

type Entries<'txn> = Table<'txn, &'static [u8], &'static [u8]>;

/// Both tables in a transaction.
struct Tables<'txn> {
    cold: Entries<'txn>,
    hot: Entries<'txn>,
}

impl<'txn> Tables<'txn> {
    fn of(&mut self, key: &[u8]) -> &mut Entries<'txn> {
        if is_hot(key) { &mut self.hot } else { &mut self.cold }
    }

    /// One step of the transaction. Says whether it changed anything: what does not touches no page.
    fn apply(&mut self, change: &Change, undo: &mut Undo) -> Result<bool, StorageError> {
        match change {
            Change::Put(key, value) => self.put(key, value, undo),
            Change::PutBeside { key, value, witness } => {
                let there = self.of(witness).get(witness.as_slice())?.is_some();
                if there { self.put(key, value, undo) } else { Ok(false) }
            }
            Change::Delete(key) => self.delete(key, undo),
            Change::DeleteRange(from, to) => {
                let mut changed = false;
                for (table, (from, to)) in [&mut self.cold, &mut self.hot].into_iter().zip(split(from, to)) {
                    if !is_empty(table, from, to)? {
                        table.retain_in::<&[u8], _>(bounds(from, to), |key, old| {
                            undo.note(key, Some(old));
                            false
                        })?;
                        changed = true;
                    }
                }
                Ok(changed)
            }
            Change::DeleteOrphan { key, from, to } => {
                for (table, (from, to)) in [&self.cold, &self.hot].into_iter().zip(split(from, to)) {
                    if !is_empty(table, from, to)? {
                        return Ok(false);
                    }
                }
                self.delete(key, undo)
            }
            Change::Unless { witness, steps } => {
                if self.of(witness).get(witness.as_slice())?.is_some() {
                    return Ok(false);
                }
                let mut changed = false;
                for step in steps {
                    changed |= self.apply(step, undo)?;
                }
                Ok(changed)
            }
        }
    }

    fn put(&mut self, key: &[u8], value: &[u8], undo: &mut Undo) -> Result<bool, StorageError> {
        let table = self.of(key);
        let same = match table.get(key)? {
            Some(old) if old.value() == value => true,
            old => {
                undo.note(key, old.as_ref().map(::redb::AccessGuard::value));
                false
            }
        };
        if !same {
            table.insert(key, value)?;
        }
        Ok(!same)
    }

    fn delete(&mut self, key: &[u8], undo: &mut Undo) -> Result<bool, StorageError> {
        let table = self.of(key);
        match table.get(key)? {
            Some(old) => undo.note(key, Some(old.value())),
            None => return Ok(false),
        }
        table.remove(key)?;
        Ok(true)
    }
}

fn is_empty(table: &Entries<'_>, from: &[u8], to: &[u8]) -> Result<bool, StorageError> {
    table.range::<&[u8]>(bounds(from, to))?.next().transpose().map(|first| first.is_none())
}
