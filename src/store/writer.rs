//! The one thread that commits. It takes every batch that is waiting, makes one transaction of them for each
//! database, and answers when that is done: what arrives together shares a commit.
//!
//! It sleeps without a timeout unless lazy commits wait to become durable or a database is out of order: an idle
//! store that is well wakes up never and writes nothing.

mod thread;
mod ticket;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

pub(super) use self::thread::panic_text;
use self::thread::{Target, Thread};
pub use self::ticket::Ticket;
use super::backend::{Backend, Change};
use super::{Stats, StoreError};

/// Batches that may wait; more from outside get [`StoreError::Busy`].
pub const QUEUE_MAX: usize = 1024;

/// Bytes of keys and values that may wait; more from outside get [`StoreError::Busy`].
pub const QUEUE_MAX_BYTES: u64 = 4 << 20;

/// Stack of the writer thread. Measured with 1000 jobs in the store: 48 KiB are enough for a program made small,
/// one that is not optimised needs more than 80.
const STACK: usize = if cfg!(debug_assertions) { 256 << 10 } else { 128 << 10 };

/// How a batch is written and when it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Durable, then answered. For somebody outside, who can be told to come again.
    Outside,
    /// Durable, then answered. For the node's own running work, which cannot come again: each execution waits
    /// for its last write before its next, so no more of these wait than a few for each execution that the
    /// node's capacity lets run. The same goes for the two below.
    Inside,
    /// Visible, then answered; durable with the next durable commit.
    Lazy,
    /// Visible at once; answered when durable, with the next durable commit.
    Soon,
}

impl Mode {
    /// Whether its batch is answered only after a commit of its own kind: a durable one.
    fn is_durable(self) -> bool {
        matches!(self, Self::Outside | Self::Inside)
    }
}

type Answer = oneshot::Sender<Result<(), StoreError>>;

/// What one caller wants done to one database, whole or not at all.
struct Batch {
    database: usize,
    changes: Vec<Change>,
    mode: Mode,
    answer: Answer,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Batch>,
    /// Who wants to know whether the thread lives: as many as ask at the same time.
    pings: Vec<Answer>,
    bytes: u64,
    closed: bool,
}

/// What gives the file system room when a commit found none. Says whether it did.
pub type Relief = Box<dyn Fn() -> bool + Send + Sync>;

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    commits: AtomicU64,
    lazy_commits: AtomicU64,
    /// For each database, why its last commit failed, if it did.
    failures: Mutex<Vec<Option<StoreError>>>,
    relief: OnceLock<Relief>,
}

impl Shared {
    fn failures(&self) -> MutexGuard<'_, Vec<Option<StoreError>>> {
        // An entry is set in one step.
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // The queue is whole between statements: a panic elsewhere does not spoil it.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The callers' end of the writer; clones share one thread.
#[derive(Clone)]
pub(super) struct Writer(Arc<Shared>);

impl Writer {
    /// Starts the thread that writes to `databases`, which batches name by their position.
    pub(super) fn start(
        databases: Vec<Arc<dyn Backend>>,
        flush_after: Duration,
    ) -> Result<(Self, JoinHandle<Result<(), StoreError>>), StoreError> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            changed: Condvar::new(),
            commits: AtomicU64::new(0),
            lazy_commits: AtomicU64::new(0),
            failures: Mutex::new(vec![None; databases.len()]),
            relief: OnceLock::new(),
        });
        for backend in &databases {
            let shared = Arc::downgrade(&shared);
            backend.on_failed_read(Box::new(move || {
                if let Some(shared) = shared.upgrade() {
                    // Under the lock: the thread is either before its look at the back ends, or asleep.
                    let _queue = shared.lock();
                    shared.changed.notify_one();
                }
            }));
        }
        let databases = databases
            .into_iter()
            .enumerate()
            .map(|(number, backend)| Target { number, backend, lazy_since: None, later: Vec::new() })
            .collect();
        let thread = Thread { shared: Arc::clone(&shared), databases, flush_after, crowded: false };
        let handle = std::thread::Builder::new()
            .name("store".into())
            .stack_size(STACK)
            .spawn(move || thread.run())
            .map_err(|cause| StoreError::Thread { cause: Arc::new(cause) })?;
        Ok((Self(shared), handle))
    }

    /// Queues a batch. Batches for one database are applied in the order of these calls.
    pub(super) fn submit(&self, database: usize, changes: Vec<Change>, mode: Mode) -> Ticket {
        let weight: u64 = changes.iter().map(Change::weight).sum();
        let mut queue = self.0.lock();
        if queue.closed {
            return Ticket::answered(Err(StoreError::Closed));
        }
        let full = queue.waiting.len() >= QUEUE_MAX
            || (!queue.waiting.is_empty() && queue.bytes.saturating_add(weight) > QUEUE_MAX_BYTES);
        if full && mode == Mode::Outside {
            return Ticket::answered(Err(StoreError::Busy));
        }
        let (answer, answered) = oneshot::channel();
        queue.waiting.push_back(Batch { database, changes, mode, answer });
        queue.bytes = queue.bytes.saturating_add(weight);
        drop(queue);
        self.0.changed.notify_one();
        Ticket::waiting(answered)
    }

    /// Asks the thread for a sign of life: answered once what waits has been committed, and nothing is written for it.
    pub(super) fn ping(&self) -> Ticket {
        let (answer, answered) = oneshot::channel();
        let mut queue = self.0.lock();
        if queue.closed {
            return Ticket::answered(Err(StoreError::Closed));
        }
        queue.pings.push(answer);
        drop(queue);
        self.0.changed.notify_one();
        Ticket::waiting(answered)
    }

    /// Why the last commit of a database failed, if one did.
    pub(super) fn failure(&self) -> Option<StoreError> {
        self.0.failures().iter().flatten().next().cloned()
    }

    /// Lets the thread commit what waits, make everything durable, and end. Later batches are refused.
    pub(super) fn close(&self) {
        self.0.lock().closed = true;
        self.0.changed.notify_one();
    }

    /// Has `relief` called when a commit finds no room; the commit is tried once more if it found some.
    pub(super) fn on_full(&self, relief: Relief) {
        // The first one stands.
        let _ = self.0.relief.set(relief);
    }

    pub(super) fn stats(&self) -> Stats {
        Stats {
            commits: self.0.commits.load(Ordering::Relaxed),
            lazy_commits: self.0.lazy_commits.load(Ordering::Relaxed),
            waiting: self.0.lock().waiting.len() as u64,
        }
    }
}
