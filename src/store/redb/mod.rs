//! The database that lasts: a redb file.
//!
//! A commit writes every page that it touches, the path to it, and some five pages for itself: 4 KiB each. So
//! there are few tables, changes that are not to be durable at once wait in memory for a commit that is
//! ([`view`]), and what would change nothing touches nothing.

mod compact;
mod held;
mod open;
#[cfg(test)]
mod tests;
mod view;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};

use ::redb::{
    Database, ReadableDatabase, ReadableTable, StorageError, Table, TableDefinition, WriteTransaction,
};

use super::StoreError;
use super::backend::{Backend, Change, Compacted, Durability, Visit};
use open::redb_error;
use view::{Pending, View, bounds, is_hot, split};

/// The table of nearly everything.
const COLD: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("codling");

/// The table of keys from [`view::HOT`] on.
const HOT: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("codling-hot");

/// Bytes of keys and values that may wait for a durable commit; one is made when there are more.
const PENDING_MAX: usize = 256 << 10;

/// A redb file.
pub struct RedbBackend {
    path: PathBuf,
    /// Held by whoever commits or closes.
    commit: Mutex<()>,
    /// `None` once closed.
    open: RwLock<Option<Open>>,
}

struct Open {
    db: Database,
    view: View,
}

impl fmt::Debug for RedbBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbBackend").field("path", &self.path).finish_non_exhaustive()
    }
}

impl RedbBackend {
    fn new(db: Database, path: &Path) -> Result<Self, ::redb::Error> {
        let view = view_of(&db)?;
        Ok(Self { path: path.into(), commit: Mutex::new(()), open: RwLock::new(Some(Open { db, view })) })
    }

    /// The database, for as long as the guard lives.
    fn read(&self) -> RwLockReadGuard<'_, Option<Open>> {
        // It changes in single steps: what a panic leaves is whole.
        self.open.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed<E: Into<::redb::Error>>(&self, action: &'static str) -> impl Fn(E) -> StoreError {
        move |cause| redb_error(action, &self.path, cause.into())
    }

    /// Puts the changes where readers see them.
    fn commit_lazily(&self, changes: &[Change]) -> Result<usize, StoreError> {
        let mut guard = self.open.write().unwrap_or_else(PoisonError::into_inner);
        let view = &mut guard.as_mut().ok_or(StoreError::Closed)?.view;
        view.pending = view.with(changes).map_err(self.failed("read"))?;
        Ok(view.pending.bytes())
    }

    /// Makes one transaction of what waits and the changes.
    fn commit_durably(&self, changes: &[Change]) -> Result<(), StoreError> {
        let guard = self.read();
        let open = guard.as_ref().ok_or(StoreError::Closed)?;
        if changes.is_empty() && open.view.pending.is_empty() {
            return Ok(());
        }
        let write = open.db.begin_write().map_err(self.failed("write"))?;
        if transact(&write, &open.view.pending, changes).map_err(self.failed("write"))? {
            write.commit().map_err(self.failed("write"))?;
        } else {
            write.abort().map_err(self.failed("write"))?;
        }
        let view = view_of(&open.db).map_err(self.failed("read"));
        drop(guard);
        let mut guard = self.open.write().unwrap_or_else(PoisonError::into_inner);
        match view {
            Ok(view) => guard.as_mut().ok_or(StoreError::Closed)?.view = view,
            Err(error) => {
                // Written, but what waited would cover it: better no answer than a stale one.
                *guard = None;
                return Err(error);
            }
        }
        Ok(())
    }
}

/// The tables as they are now.
fn view_of(db: &Database) -> Result<View, ::redb::Error> {
    let read = db.begin_read()?;
    Ok(View::new(read.open_table(COLD)?, read.open_table(HOT)?))
}

/// Applies what waits and then the changes. Says whether that changed anything.
fn transact(write: &WriteTransaction, pending: &Pending, changes: &[Change]) -> Result<bool, ::redb::Error> {
    let mut tables = Tables { cold: write.open_table(COLD)?, hot: write.open_table(HOT)? };
    let mut changed = false;
    for change in pending.changes() {
        changed |= tables.apply(&change)?;
    }
    for change in changes {
        changed |= tables.apply(change)?;
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
    fn apply(&mut self, change: &Change) -> Result<bool, StorageError> {
        match change {
            Change::Put(key, value) => self.put(key, value),
            Change::PutBeside { key, value, witness } => {
                let there = self.of(witness).get(witness.as_slice())?.is_some();
                if there { self.put(key, value) } else { Ok(false) }
            }
            Change::Delete(key) => self.delete(key),
            Change::DeleteRange(from, to) => {
                let mut changed = false;
                for (table, (from, to)) in [&mut self.cold, &mut self.hot].into_iter().zip(split(from, to)) {
                    if !is_empty(table, from, to)? {
                        table.retain_in::<&[u8], _>(bounds(from, to), |_, _| false)?;
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
                self.delete(key)
            }
        }
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<bool, StorageError> {
        let table = self.of(key);
        let same = table.get(key)?.is_some_and(|old| old.value() == value);
        if !same {
            table.insert(key, value)?;
        }
        Ok(!same)
    }

    fn delete(&mut self, key: &[u8]) -> Result<bool, StorageError> {
        let table = self.of(key);
        let there = table.get(key)?.is_some();
        if there {
            table.remove(key)?;
        }
        Ok(there)
    }
}

fn is_empty(table: &Entries<'_>, from: &[u8], to: &[u8]) -> Result<bool, StorageError> {
    table.range::<&[u8]>(bounds(from, to))?.next().transpose().map(|first| first.is_none())
}

impl Backend for RedbBackend {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let guard = self.read();
        guard.as_ref().ok_or(StoreError::Closed)?.view.get(key).map_err(self.failed("read"))
    }

    fn scan(&self, from: &[u8], to: &[u8], reverse: bool, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let guard = self.read();
        let view = &guard.as_ref().ok_or(StoreError::Closed)?.view;
        view.scan(from, to, reverse, visit).map_err(self.failed("read"))
    }

    fn commit(&self, changes: &[Change], durability: Durability) -> Result<(), StoreError> {
        let _only = self.commit.lock().unwrap_or_else(PoisonError::into_inner);
        match durability {
            Durability::Durable => self.commit_durably(changes),
            Durability::Lazy if self.commit_lazily(changes)? > PENDING_MAX => self.commit_durably(&[]),
            Durability::Lazy => Ok(()),
        }
    }

    fn compact(&self) -> Result<Option<Compacted>, StoreError> {
        self.compact_file()
    }

    fn close(&self) -> Result<(), StoreError> {
        let _only = self.commit.lock().unwrap_or_else(PoisonError::into_inner);
        let flushed = match self.commit_durably(&[]) {
            Err(StoreError::Closed) => return Ok(()),
            result => result,
        };
        let open = self.open.write().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Open { db, view }) = open else { return flushed };
        drop(view);
        flushed.and(db.close().map_err(self.failed("close")))
    }
}
