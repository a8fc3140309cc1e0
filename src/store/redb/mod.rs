//! The database that lasts: a redb file.
//!
//! A commit writes every page that it touches, the path to it, and some five pages for itself: 4 KiB each. So
//! there are few tables, changes that are not to be durable at once wait in memory for a commit that is
//! ([`view`]), and what would change nothing touches nothing.
//!
//! redb refuses everything after a failed read or write, until the file is opened anew; [`outage`] does that.

mod compact;
#[cfg(test)]
mod faulty;
mod held;
mod open;
mod outage;
#[cfg(test)]
mod outage_tests;
mod tables;
#[cfg(test)]
mod tests;
mod view;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use ::redb::{Database, ReadableDatabase, StorageError, TableDefinition};

use super::StoreError;
use super::backend::{Backend, Change, Compacted, Durability, Visit};
use crate::model::Bytes;
pub use open::schema_in;
use open::{Reopen, redb_error};
use outage::{Outage, is_fatal};
use tables::{Undo, transact};
use view::View;

/// The table of nearly everything.
const COLD: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("codling");

/// The table of keys from [`view::HOT`] on.
const HOT: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("codling-hot");

/// Bytes of keys and values that may wait for a durable commit; one is made when there are more.
const PENDING_MAX: usize = 256 << 10;

/// The same while none can be made: more are refused.
const PENDING_MAX_IN_OUTAGE: usize = 2 << 20;

/// A redb file.
pub struct RedbBackend {
    path: PathBuf,
    reopen: Reopen,
    /// Held by whoever commits, closes, or opens anew; taken before `state`.
    commit: Mutex<()>,
    state: RwLock<State>,
    /// Called when a read has failed.
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// What is wrong, told without waiting for the file.
    trouble: Mutex<Option<StoreError>>,
    /// How often the file was opened again.
    reopened: AtomicU64,
}

enum State {
    Open(Box<Open>),
    /// Something failed.
    Out(Box<Outage>),
    Closed,
}

/// An open file. The view goes first: the file is let go of when its last reader is.
struct Open {
    view: View,
    db: Database,
}

impl fmt::Debug for RedbBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbBackend").field("path", &self.path).finish_non_exhaustive()
    }
}

impl RedbBackend {
    fn new(db: Database, path: PathBuf, reopen: Reopen) -> Result<Self, ::redb::Error> {
        let open = Open { view: view_of(&db)?, db };
        Ok(Self {
            path,
            reopen,
            commit: Mutex::new(()),
            state: RwLock::new(State::Open(Box::new(open))),
            wake: OnceLock::new(),
            trouble: Mutex::default(),
            reopened: AtomicU64::new(0),
        })
    }

    /// The database, for as long as the guard lives.
    fn state(&self) -> RwLockReadGuard<'_, State> {
        // It changes in single steps: what a panic leaves is whole.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed<E: Into<::redb::Error>>(&self, action: &'static str) -> impl Fn(E) -> StoreError {
        move |cause| redb_error(action, &self.path, cause.into())
    }

    /// Reads what there is. A failure that the open file does not survive begins an outage.
    fn read<T>(&self, read: impl FnOnce(&View) -> Result<T, StorageError>) -> Result<T, StoreError> {
        let guard = self.state();
        let opening = self.reopened.load(Ordering::Acquire);
        let cause = match read(guard.view(&self.path)?) {
            Ok(found) => return Ok(found),
            Err(cause) => ::redb::Error::from(cause),
        };
        drop(guard);
        let fatal = is_fatal(&cause);
        let error = self.failed("read")(cause);
        if fatal {
            {
                let _only = self.commit.lock().unwrap_or_else(PoisonError::into_inner);
                // What failed may have been opened again meanwhile.
                if self.reopened.load(Ordering::Acquire) == opening {
                    self.begin_outage(&error, Undo::default());
                }
            }
            if let Some(wake) = self.wake.get() {
                wake();
            }
        }
        Err(error)
    }

    /// Puts the changes where readers see them; returns how much waits.
    fn commit_lazily(&self, changes: &[Change]) -> Result<usize, StoreError> {
        let mut guard = self.state_mut();
        let (kept, max) = match &*guard {
            State::Closed => return Err(StoreError::Closed),
            State::Open(open) => (open.view.with(changes), usize::MAX),
            State::Out(outage) => (outage.with(changes)?, PENDING_MAX_IN_OUTAGE),
        };
        match kept {
            Ok(pending) if pending.bytes() <= max => {
                let waits = pending.bytes();
                *guard.pending_mut().ok_or(StoreError::Closed)? = pending;
                Ok(waits)
            }
            Ok(_) => Err(guard.error(&self.path)),
            Err(cause) => {
                drop(guard);
                let cause = ::redb::Error::from(cause);
                let fatal = is_fatal(&cause);
                let error = self.failed("read")(cause);
                if fatal {
                    self.begin_outage(&error, Undo::default());
                }
                Err(error)
            }
        }
    }

    /// Makes one transaction of what waits and the changes.
    fn commit_durably(&self, changes: &[Change]) -> Result<(), StoreError> {
        let guard = self.state();
        let open = match &*guard {
            State::Open(open) => open,
            State::Closed => return Err(StoreError::Closed),
            State::Out(outage) => return Err(outage.error(&self.path)),
        };
        if changes.is_empty() && open.view.pending.is_empty() {
            return Ok(());
        }
        let mut undo = Undo::default();
        let done = write(open, changes, &mut undo);
        let view = done.is_ok().then(|| view_of(&open.db));
        drop(guard);
        match (done, view) {
            (Ok(()), Some(Ok(view))) => {
                if let State::Open(open) = &mut *self.state_mut() {
                    open.view = view;
                }
                Ok(())
            }
            // It is written: whoever asked for that is to know.
            (Ok(()), view) => {
                if let State::Open(open) = &mut *self.state_mut() {
                    open.view.pending = view::Pending::default();
                }
                if let Some(Err(cause)) = view {
                    self.begin_outage(&self.failed("read")(cause), Undo::default());
                }
                Ok(())
            }
            (Err(cause), _) => {
                let fatal = is_fatal(&cause);
                let error = self.failed("write")(cause);
                if fatal {
                    self.begin_outage(&error, undo);
                }
                Err(error)
            }
        }
    }
}

/// Commits what waits and the changes.
fn write(open: &Open, changes: &[Change], undo: &mut Undo) -> Result<(), ::redb::Error> {
    let write = open.db.begin_write()?;
    if transact(&write, &open.view.pending, changes, undo)? {
        Ok(write.commit()?)
    } else {
        Ok(write.abort()?)
    }
}

/// The tables as they are now.
fn view_of(db: &Database) -> Result<View, ::redb::Error> {
    let read = db.begin_read()?;
    Ok(View::new(read.open_table(COLD)?, read.open_table(HOT)?))
}

impl Backend for RedbBackend {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(|view| view.get(key))
    }

    fn scan(&self, from: &[u8], to: &[u8], reverse: bool, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.read(|view| view.scan(from, to, reverse, visit))
    }

    fn commit(&self, changes: &[Change], durability: Durability) -> Result<(), StoreError> {
        let _only = self.commit.lock().unwrap_or_else(PoisonError::into_inner);
        match durability {
            Durability::Durable => {
                if self.is_due(Instant::now()) {
                    self.end_outage()?;
                }
                self.commit_durably(changes)
            }
            Durability::Lazy => {
                if self.commit_lazily(changes)? > PENDING_MAX && matches!(*self.state(), State::Open(_)) {
                    // Whether or not that goes well: they are kept.
                    let _ = self.commit_durably(&[]);
                }
                Ok(())
            }
        }
    }

    fn compact(&self) -> Result<Option<Compacted>, StoreError> {
        self.compact_file()
    }

    fn entry_bytes(&self) -> Result<Bytes, StoreError> {
        let _only = self.commit.lock().unwrap_or_else(PoisonError::into_inner);
        self.count_entries()
    }

    fn retry_at(&self) -> Option<Instant> {
        match &*self.state() {
            State::Out(outage) => Some(outage.retry_at),
            State::Open(_) | State::Closed => None,
        }
    }

    fn recover(&self) -> Result<(), StoreError> {
        let _only = self.commit.lock().unwrap_or_else(PoisonError::into_inner);
        self.end_outage()
    }

    fn trouble(&self) -> Option<StoreError> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn on_failed_read(&self, wake: Box<dyn Fn() + Send + Sync>) {
        // The first one stands; there is one writer.
        let _ = self.wake.set(wake);
    }

    fn close(&self) -> Result<(), StoreError> {
        let _only = self.commit.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*self.state(), State::Closed) {
            return Ok(());
        }
        let flushed = self.end_outage().and_then(|()| self.commit_durably(&[]));
        match std::mem::replace(&mut *self.state_mut(), State::Closed) {
            State::Open(open) => {
                let Open { view, db } = *open;
                drop(view);
                flushed.and(db.close().map_err(self.failed("close")))
            }
            State::Out(_) | State::Closed => flushed,
        }
    }
}
