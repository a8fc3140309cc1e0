//! From a failure of the file to its being opened again.
//!
//! An outage begins with the failed commit or read, which is answered with its error. The file is opened again at
//! once for reading, with writes held back, so that a full or read-only file system costs no reads. After a pause,
//! each twice as long as the one before, a commit is tried: the outage ends with the first that is durable. What was
//! committed lazily before or during it is in that commit. What failed is not, whatever became of it in the file.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use ::redb::StorageError;

use super::super::StoreError;
use super::super::backend::Change;
use super::held::Held;
use super::open::{io_error, mark};
use super::tables::{Undo, transact};
use super::view::{Pending, View};
use super::{Open, RedbBackend, State, view_of};
use crate::model::with_causes;

/// Pause before the first attempt to commit again.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// Longest pause between two attempts: each reads the file once.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A file that has failed.
pub(super) struct Outage {
    /// The file as it can be read, with what waits over it.
    readable: Option<(Open, Held)>,
    /// What waits, while nothing can be read.
    pending: Pending,
    /// What failed last.
    cause: StoreError,
    since: Instant,
    pause: Duration,
    /// When to try again.
    pub(super) retry_at: Instant,
}

/// Whether redb refuses everything from now on.
pub(super) fn is_fatal(error: &::redb::Error) -> bool {
    use ::redb::Error as E;
    matches!(error, E::Io(_) | E::PreviousIo | E::LockPoisoned(_) | E::DatabaseClosed)
}

impl Outage {
    /// What callers are told meanwhile.
    pub(super) fn error(&self, path: &Path) -> StoreError {
        StoreError::OutOfOrder { path: path.into(), cause: Arc::new(self.cause.clone()) }
    }

    /// What would wait with these changes.
    pub(super) fn with(&self, changes: &[Change]) -> Result<Result<Pending, StorageError>, StoreError> {
        match &self.readable {
            Some((open, _)) => Ok(open.view.with(changes)),
            None => self.pending.blindly(changes).map(Ok).ok_or_else(|| self.cause.clone()),
        }
    }

    fn pending_mut(&mut self) -> &mut Pending {
        match &mut self.readable {
            Some((open, _)) => &mut open.view.pending,
            None => &mut self.pending,
        }
    }

    /// Takes the file away, so that nobody has it open; returns what waits.
    fn let_go(&mut self) -> Pending {
        let pending = std::mem::take(self.pending_mut());
        self.readable = None;
        pending
    }

    /// Gives what waits a file to lie over, or keeps it.
    fn keep(&mut self, pending: Pending, readable: Option<(Open, Held)>) {
        self.readable = readable;
        *self.pending_mut() = pending;
    }
}

impl State {
    pub(super) fn view(&self, path: &Path) -> Result<&View, StoreError> {
        match self {
            Self::Open(open) => Ok(&open.view),
            Self::Out(outage) => match &outage.readable {
                Some((open, _)) => Ok(&open.view),
                None => Err(outage.error(path)),
            },
            Self::Closed => Err(StoreError::Closed),
        }
    }

    pub(super) fn pending_mut(&mut self) -> Option<&mut Pending> {
        match self {
            Self::Open(open) => Some(&mut open.view.pending),
            Self::Out(outage) => Some(outage.pending_mut()),
            Self::Closed => None,
        }
    }

    pub(super) fn error(&self, path: &Path) -> StoreError {
        match self {
            Self::Out(outage) => outage.error(path),
            Self::Open(_) | Self::Closed => StoreError::Closed,
        }
    }
}

/// The methods here want `commit` to be held.
impl RedbBackend {
    /// Takes note that the file has failed, and opens it again for reading. `undo` takes back what failed.
    pub(super) fn begin_outage(&self, cause: &StoreError, undo: Undo) {
        let mut state = self.state_mut();
        match &mut *state {
            State::Closed => {}
            // What could still be read no longer can. The next attempt opens it again.
            State::Out(outage) => outage.pending = outage.let_go(),
            State::Open(open) => {
                let pending = undo.then(std::mem::take(&mut open.view.pending));
                self.go_out(&mut state, pending, cause);
            }
        }
    }

    /// Puts an outage in the place of whatever there was.
    pub(super) fn go_out(&self, state: &mut State, pending: Pending, cause: &StoreError) {
        log::error!(target: "codling::store", "{}; it is opened again when it can be", with_causes(cause));
        // Whoever has the file open must be gone before it is opened again.
        *state = State::Closed;
        let mut outage = Outage {
            readable: None,
            pending: Pending::default(),
            cause: cause.clone(),
            since: Instant::now(),
            pause: FIRST_PAUSE,
            retry_at: Instant::now() + FIRST_PAUSE,
        };
        self.say(Some(outage.error(&self.path)));
        outage.keep(pending, self.open_for_reading());
        *state = State::Out(Box::new(outage));
    }

    fn say(&self, trouble: Option<StoreError>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    fn open_for_reading(&self) -> Option<(Open, Held)> {
        self.reopened.fetch_add(1, Ordering::AcqRel);
        let (db, held) = (self.reopen)(&self.path)
            .map_err(|error| log::debug!(target: "codling::store", "{}", with_causes(&error)))
            .ok()?;
        let view = view_of(&db).ok()?;
        Some((Open { view, db }, held))
    }

    /// Whether it is time to try again.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        matches!(&*self.state(), State::Out(outage) if outage.retry_at <= now)
    }

    /// Tries to commit again; does nothing if nothing is wrong.
    pub(super) fn end_outage(&self) -> Result<(), StoreError> {
        let mut state = self.state_mut();
        let State::Out(outage) = &mut *state else { return Ok(()) };
        let readable = outage.readable.take().map_or_else(
            || (self.reopen)(&self.path),
            |(open, held)| {
                // The view goes, its database stays.
                let Open { view, db } = open;
                outage.pending = view.pending;
                Ok((db, held))
            },
        );
        let opened = readable.and_then(|(db, held)| {
            held.release().map_err(io_error("write database", &self.path))?;
            let committed = (|| {
                let write = db.begin_write()?;
                transact(&write, &outage.pending, &[], &mut Undo::default())?;
                mark(&write)?;
                write.commit()?;
                Ok(Open { view: view_of(&db)?, db })
            })();
            committed.map_err(self.failed::<::redb::Error>("write"))
        });
        match opened {
            Ok(open) => {
                log::info!(
                    target: "codling::store",
                    "database {} works again after {} s; nothing that was kept was lost",
                    self.path.display(),
                    outage.since.elapsed().as_secs()
                );
                *state = State::Open(Box::new(open));
                self.say(None);
                Ok(())
            }
            Err(error) => {
                outage.pause = (outage.pause * 2).min(PAUSE_MAX);
                outage.retry_at = Instant::now() + outage.pause;
                outage.cause = error;
                self.say(Some(outage.error(&self.path)));
                let pending = outage.let_go();
                outage.keep(pending, self.open_for_reading());
                Err(outage.error(&self.path))
            }
        }
    }
}
