//! The node's memory: executions and results in one database, jobs and their history in another.
//!
//! Both are ordered maps behind [`Backend`]: redb files, or memory. Reads go straight to them from any thread;
//! one thread (`store`) writes, see [`Ticket`]. Everything stored is JSON of the [`crate::model`] types.

mod backend;
#[cfg(test)]
mod conformance;
mod executions;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod jobs;
mod keys;
mod memory;
#[cfg(test)]
mod old_schemas;
mod redb;
#[cfg(test)]
mod stores_tests;
mod writer;
#[cfg(test)]
mod writer_tests;

use std::fmt;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::model::{Bytes, Trouble};
use crate::sys::{Files, RealFiles};

pub use backend::{Backend, Change, Compacted, Durability, Visit};
pub use executions::{ExecutionChange, ExecutionCounts, ExecutionStore, Ledger};
pub use jobs::{Found, JobChange, JobCounts, JobStore, ListOrder, ListQuery, MANY_MAX, MIN_PREFIX};
pub use memory::MemoryBackend;
pub use redb::{RedbBackend, schema_in};
use writer::Writer;
pub use writer::{QUEUE_MAX, QUEUE_MAX_BYTES, Relief, Ticket};

/// The version of the keys and values that this program writes.
pub const SCHEMA: u32 = 1;

/// Why the store could not do what it was asked to. Clones share their cause.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The operating system refused something outside a database.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        cause: Arc<std::io::Error>,
    },
    /// A database file failed.
    #[error("cannot {action} database {}", path.display())]
    Redb {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        cause: Arc<::redb::Error>,
    },
    /// A database has failed, and is opened again as soon as its file works.
    #[error("database {} is out of order and is opened again as soon as its file works", path.display())]
    OutOfOrder {
        /// The file.
        path: PathBuf,
        /// What failed last.
        #[source]
        cause: Arc<StoreError>,
    },
    /// A later version of this program wrote the file; it was left as it is.
    #[error(
        "database {} has schema {found}, this version knows only {known}: use the version that wrote it, or another file",
        path.display()
    )]
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u32,
        /// The newest schema that this program knows: [`SCHEMA`].
        known: u32,
    },
    /// Another process has the file open.
    #[error("database {} is in use by another process: stop that one, or use another file", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// What was read makes no sense.
    #[error("{what} is damaged or is not what it should be")]
    Corrupt {
        /// What was read.
        what: String,
        /// What is wrong with it.
        #[source]
        cause: Option<Arc<dyn std::error::Error + Send + Sync>>,
    },
    /// A value could not be turned into JSON.
    #[error("cannot encode {what}")]
    Encode {
        /// Which.
        what: String,
        /// Why not.
        #[source]
        cause: Arc<serde_json::Error>,
    },
    /// Too many writes are waiting: come again.
    #[error("the store is busy: {QUEUE_MAX} writes are waiting")]
    Busy,
    /// The thread that writes has not answered for long: a commit takes that long, or the disk hangs.
    #[error("the store's thread has not answered for {} s: the disk hangs, or is very slow", after.as_secs())]
    Silent {
        /// For how long.
        after: Duration,
    },
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
    /// A commit panicked: a bug. Nothing of it was stored.
    #[error("the store failed: {what}")]
    Panicked {
        /// What the panic said.
        what: String,
    },
    /// The writer thread could not be started.
    #[error("cannot start the store's thread")]
    Thread {
        /// Why not.
        #[source]
        cause: Arc<std::io::Error>,
    },
}

impl StoreError {
    /// What the file system would not do, if that is the cause.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        match self {
            Self::Io { cause, .. } => Some(Trouble::of(cause)),
            Self::Redb { cause, .. } => match &**cause {
                ::redb::Error::Io(cause) => Some(Trouble::of(cause)),
                // Whatever it was, it was the file.
                ::redb::Error::PreviousIo => Some(Trouble::Failing),
                _ => None,
            },
            Self::OutOfOrder { cause, .. } => Some(cause.trouble().unwrap_or(Trouble::Failing)),
            _ => None,
        }
    }
}

/// Where a database is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A redb file, made with its directories if it is not there.
    Redb(PathBuf),
    /// Memory: gone when the store is closed.
    Memory,
}

impl Place {
    /// Whether there is a file to be read.
    fn is_there(&self) -> bool {
        matches!(self, Self::Redb(path) if path.exists())
    }
}

/// How the store is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSettings {
    /// The compute role's executions and the results ledger.
    pub executions: Place,
    /// The orchestrator role's jobs and their history.
    pub jobs: Place,
    /// Memory for each database's page cache.
    pub cache: Bytes,
    /// How long a lazy commit may wait for a durable one before one is made for its sake.
    pub flush_after: Duration,
}

impl StoreSettings {
    /// Memory for each database's page cache, if nothing else is said.
    pub const DEFAULT_CACHE: Bytes = Bytes::kib(256);
    /// How long a lazy commit waits, if nothing else is said.
    pub const DEFAULT_FLUSH_AFTER: Duration = Duration::from_secs(1);

    /// Both databases at these places, the rest by default.
    #[must_use]
    pub fn new(executions: Place, jobs: Place) -> Self {
        Self { executions, jobs, cache: Self::DEFAULT_CACHE, flush_after: Self::DEFAULT_FLUSH_AFTER }
    }

    /// Both databases in memory.
    #[must_use]
    pub fn memory() -> Self {
        Self::new(Place::Memory, Place::Memory)
    }
}

/// What the store has done since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Durable commits of both databases, each one `fdatasync`.
    pub commits: u64,
    /// Commits that left it to a later one to become durable.
    pub lazy_commits: u64,
    /// Batches that wait now.
    pub waiting: u64,
}

/// The open store. Dropping it closes it, too, but only [`Stores::close`] tells whether that went well.
pub struct Stores {
    /// Executions and the results ledger.
    pub executions: ExecutionStore,
    /// Jobs and their history.
    pub jobs: JobStore,
    writer: Writer,
    thread: Option<JoinHandle<Result<(), StoreError>>>,
}

impl fmt::Debug for Stores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stores").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// Opens both databases and starts the writer.
///
/// # Errors
/// A file is locked, damaged, from a later version, or cannot be made or read. Files that were there before are
/// left untouched then.
pub fn open(settings: &StoreSettings) -> Result<Stores, StoreError> {
    open_on(&(Arc::new(RealFiles) as Arc<dyn Files>), settings, |_| ()).map(|(stores, ())| stores)
}

/// As [`open`], on a file layer of one's own. `look` is shown the ledger as soon as that is open.
///
/// # Errors
/// As there.
pub fn open_on<T>(
    files: &Arc<dyn Files>,
    settings: &StoreSettings,
    look: impl FnOnce(Ledger<'_>) -> T,
) -> Result<(Stores, T), StoreError> {
    let open = |place| open_place(files, place, settings.cache);
    let open_executions = || {
        let executions = open(&settings.executions)?;
        let seen = look(Ledger::of(&*executions));
        Ok::<_, StoreError>((executions, seen))
    };
    let (executions, jobs) = if settings.executions.is_there() && settings.jobs.is_there() {
        // Each file is read once as it is opened, to see that it is whole. Jobs take longer: the ledger is looked
        // through meanwhile.
        std::thread::scope(|scope| {
            let other = std::thread::Builder::new().name("open".into());
            let other = other.spawn_scoped(scope, || open(&settings.jobs));
            let executions = open_executions();
            let jobs = match other {
                Ok(thread) => thread
                    .join()
                    .unwrap_or_else(|panic| Err(StoreError::Panicked { what: writer::panic_text(&*panic) })),
                Err(_) => open(&settings.jobs),
            };
            (executions, jobs)
        })
    } else {
        (open_executions(), open(&settings.jobs))
    };
    let ((executions, seen), jobs) = (executions?, jobs?);
    Ok((Stores::over(executions, jobs, settings.flush_after)?, seen))
}

fn open_place(files: &Arc<dyn Files>, place: &Place, cache: Bytes) -> Result<Arc<dyn Backend>, StoreError> {
    match place {
        Place::Memory => Ok(Arc::new(MemoryBackend::new())),
        Place::Redb(path) => Ok(Arc::new(RedbBackend::open_on(files, path, cache)?)),
    }
}

/// Positions of the databases in the writer.
const EXECUTIONS: usize = 0;
const JOBS: usize = 1;

impl Stores {
    /// A store over two back ends; this is how tests bring their own.
    ///
    /// # Errors
    /// The writer thread cannot be started.
    pub fn over(
        executions: Arc<dyn Backend>,
        jobs: Arc<dyn Backend>,
        flush_after: Duration,
    ) -> Result<Self, StoreError> {
        let (writer, thread) = Writer::start(vec![Arc::clone(&executions), Arc::clone(&jobs)], flush_after)?;
        Ok(Self {
            executions: ExecutionStore::new(executions, writer.clone()),
            jobs: JobStore::new(jobs, writer.clone()),
            writer,
            thread: Some(thread),
        })
    }

    /// What has been done so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.writer.stats()
    }

    /// What is wrong with a database, while something is: both can be told about it.
    #[must_use]
    pub fn trouble(&self) -> Option<StoreError> {
        self.executions.trouble().or_else(|| self.jobs.trouble())
    }

    /// Has `relief` called on the store's thread when a commit finds the disk full. If it says that it made room,
    /// the commit is tried once more before its callers are answered.
    pub fn on_full(&self, relief: Relief) {
        self.writer.on_full(relief);
    }

    /// Commits what waits, makes everything durable, lets go of the files and ends the thread. Clones of the two
    /// stores get [`StoreError::Closed`] from then on.
    ///
    /// # Errors
    /// A database could not be flushed: what was written lazily may be lost.
    pub fn close(mut self) -> Result<(), StoreError> {
        self.shut()
    }

    fn shut(&mut self) -> Result<(), StoreError> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        self.writer.close();
        thread.join().unwrap_or_else(|_| Err(StoreError::Panicked { what: "the store's thread".into() }))
    }
}

impl Drop for Stores {
    fn drop(&mut self) {
        if let Err(error) = self.shut() {
            log::error!(target: "store", "closing the store: {error}");
        }
    }
}

/// Reads a stored value.
fn decode<T: serde::de::DeserializeOwned>(
    bytes: &[u8],
    what: impl FnOnce() -> String,
) -> Result<T, StoreError> {
    serde_json::from_slice(bytes)
        .map_err(|cause| StoreError::Corrupt { what: what(), cause: Some(Arc::new(cause)) })
}

/// Writes a value to be stored.
fn encode<T: serde::Serialize>(value: &T, what: impl FnOnce() -> String) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|cause| StoreError::Encode { what: what(), cause: Arc::new(cause) })
}

/// Visits the entries of a range; ends at the first error.
fn scan_results(
    db: &dyn Backend,
    (from, to): (Vec<u8>, Vec<u8>),
    reverse: bool,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, StoreError>,
) -> Result<(), StoreError> {
    let mut result = Ok(());
    db.scan(&from, &to, reverse, &mut |key, value| {
        visit(key, value).unwrap_or_else(|error| {
            result = Err(error);
            ControlFlow::Break(())
        })
    })?;
    result
}

/// Visits the values of a range, decoded.
fn scan_values<T: serde::de::DeserializeOwned>(
    db: &dyn Backend,
    range: (Vec<u8>, Vec<u8>),
    reverse: bool,
    mut visit: impl FnMut(&[u8], T) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    scan_results(db, range, reverse, |key, value| {
        Ok(visit(key, decode(value, || format!("the record with key {key:02x?}"))?))
    })
}

/// What `read` makes of the keys of a range, at most `limit`.
fn scan_keys<T>(
    db: &dyn Backend,
    range: (Vec<u8>, Vec<u8>),
    limit: usize,
    read: impl Fn(&[u8]) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut found = Vec::new();
    if limit > 0 {
        scan_results(db, range, false, |key, _| {
            found.push(read(key)?);
            Ok(if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
    }
    Ok(found)
}
