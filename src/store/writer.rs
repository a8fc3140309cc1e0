//! The one thread that commits. It takes every batch that is waiting, makes one transaction of them for each
//! database, and answers when that is done: what arrives together shares a commit.
//!
//! It sleeps without a timeout unless lazy commits wait to become durable or a database is out of order: an idle
//! store that is well wakes up never and writes nothing.

use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::backend::{Backend, Change, Durability};
use super::{Stats, StoreError};
use crate::model::Trouble;

/// Batches that may wait; more from outside get [`StoreError::Busy`].
pub const QUEUE_MAX: usize = 1024;

/// Bytes of keys and values that may wait; more from outside get [`StoreError::Busy`].
pub const QUEUE_MAX_BYTES: u64 = 4 << 20;

/// How long a batch waits for others while they come in crowds: about as long as a good card takes for one commit.
const GATHER: Duration = Duration::from_millis(4);

/// As many do not wait for more.
const GATHER_MAX: usize = 64;

/// Stack of the writer thread. Measured with 1000 jobs in the store: 48 KiB are enough for a program made small,
/// one that is not optimised needs more than 80.
const STACK: usize = if cfg!(debug_assertions) { 256 << 10 } else { 128 << 10 };

/// The answer to a write: wait for it by `.await`, or with [`Ticket::wait`] on a plain thread.
///
/// A dropped ticket takes nothing back.
#[must_use = "a write may fail, and only its ticket says so"]
#[derive(Debug)]
pub struct Ticket(State);

#[derive(Debug)]
enum State {
    Answered(Result<(), StoreError>),
    Waiting(oneshot::Receiver<Result<(), StoreError>>),
}

impl Ticket {
    /// A ticket that is answered already.
    pub(super) fn answered(result: Result<(), StoreError>) -> Self {
        Self(State::Answered(result))
    }

    /// Blocks until the write is committed. Not for threads that run a tokio runtime: it panics there.
    ///
    /// # Errors
    /// The write was refused or failed, and nothing of it was stored; or, after `write_soon`, it is visible but may
    /// not survive a power cut.
    pub fn wait(self) -> Result<(), StoreError> {
        match self.0 {
            State::Answered(result) => result,
            State::Waiting(answer) => answer.blocking_recv().unwrap_or(Err(StoreError::Closed)),
        }
    }
}

impl Future for Ticket {
    type Output = Result<(), StoreError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let result = match &mut self.0 {
            State::Answered(result) => result.clone(),
            State::Waiting(answer) => {
                ready!(Pin::new(answer).poll(context)).unwrap_or(Err(StoreError::Closed))
            }
        };
        self.0 = State::Answered(result.clone());
        Poll::Ready(result)
    }
}

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
        Ticket(State::Waiting(answered))
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
        Ticket(State::Waiting(answered))
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

struct Target {
    /// Its position among the databases.
    number: usize,
    backend: Arc<dyn Backend>,
    /// When the oldest lazy commit was made that is not durable yet.
    lazy_since: Option<Instant>,
    /// Who waits for that.
    later: Vec<Answer>,
}

struct Thread {
    shared: Arc<Shared>,
    databases: Vec<Target>,
    flush_after: Duration,
    /// Whether several batches shared the last durable commit.
    crowded: bool,
}

impl Thread {
    fn run(mut self) -> Result<(), StoreError> {
        loop {
            let (batches, pings, closed) = self.next();
            let idle = batches.is_empty();
            self.commit_batches(batches);
            self.recover_due();
            self.flush_due();
            answer(pings, &Ok(()));
            if closed && idle {
                return self.close();
            }
        }
    }

    /// Sleeps until there is something to do: batches, a question, a flush or a recovery that is due, or the end.
    fn next(&self) -> (VecDeque<Batch>, Vec<Answer>, bool) {
        let mut queue = self.shared.lock();
        while queue.waiting.is_empty() && queue.pings.is_empty() && !queue.closed {
            let due = self.databases.iter().filter_map(|target| target.due(self.flush_after)).min();
            let Some(due) = due else {
                queue = self.shared.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            queue = self.shared.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        if self.crowded {
            queue = self.gather(queue);
        }
        queue.bytes = 0;
        (std::mem::take(&mut queue.waiting), std::mem::take(&mut queue.pings), queue.closed)
    }

    /// Lets more batches come. Where many wait for commits, each of them waits a little longer and the flash is
    /// written less often; one that comes alone is never kept waiting.
    fn gather<'a>(&self, mut queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        let until = Instant::now() + GATHER;
        while !queue.closed && queue.waiting.len() < GATHER_MAX {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || queue.waiting.is_empty() {
                break;
            }
            queue = self.shared.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        queue
    }

    /// One transaction for each database that the batches name; then the answers.
    fn commit_batches(&mut self, batches: VecDeque<Batch>) {
        let durable = batches.iter().filter(|batch| batch.mode.is_durable()).count();
        if durable > 0 {
            self.crowded = durable > 1;
        }
        let mut groups: Vec<Group> = self.databases.iter().map(|_| Group::default()).collect();
        for batch in batches {
            match groups.get_mut(batch.database) {
                Some(group) => group.add(batch),
                None => drop(batch.answer.send(Err(StoreError::Closed))),
            }
        }
        for (target, group) in self.databases.iter_mut().zip(groups) {
            if group.parts.is_empty() {
                continue;
            }
            let durability = group.durability();
            let result = target.commit(&self.shared, &group.changes, durability);
            if result.is_ok() || durability == Durability::Lazy {
                target.tell(group.parts, durability, &result);
                continue;
            }
            // What need not be durable yet is not lost with its neighbours.
            let (refused, kept) = group.split();
            target.tell(refused.parts, durability, &result);
            if !kept.parts.is_empty() {
                let result = target.commit(&self.shared, &kept.changes, Durability::Lazy);
                target.tell(kept.parts, Durability::Lazy, &result);
            }
        }
    }

    /// Lets databases that are out of order try again.
    fn recover_due(&mut self) {
        let now = Instant::now();
        for target in &mut self.databases {
            if target.backend.retry_at().is_some_and(|at| at <= now) {
                // It says itself what is wrong, once, and when it is well again.
                let _ = target.recover(&self.shared);
            }
        }
    }

    /// Makes durable what has been lazy for long enough.
    fn flush_due(&mut self) {
        for target in &mut self.databases {
            if target.backend.retry_at().is_some() {
                // The recovery makes them durable.
                target.lazy_since = None;
                continue;
            }
            let due = target.lazy_since.is_some_and(|since| since.elapsed() >= self.flush_after);
            if due && let Err(error) = target.commit(&self.shared, &[], Durability::Durable) {
                // Perhaps nobody waits for this. The next durable commit, the recovery or the close tries again.
                log::error!(target: "store", "recent changes may not survive a power cut: {error}");
                target.lazy_since = None;
                answer(std::mem::take(&mut target.later), &Err(error));
            }
        }
    }

    fn close(mut self) -> Result<(), StoreError> {
        let mut result = Ok(());
        for target in &mut self.databases {
            let flushed = match target.lazy_since {
                Some(_) => target.commit(&self.shared, &[], Durability::Durable),
                None => Ok(()),
            };
            answer(std::mem::take(&mut target.later), &flushed);
            result = result.and(flushed).and(target.backend.close());
        }
        result
    }
}

/// Batches that go into one transaction.
#[derive(Default)]
struct Group {
    changes: Vec<Change>,
    parts: Vec<Part>,
}

/// One of them.
struct Part {
    /// How many of the group's changes are its own; they follow those of the part before.
    changes: usize,
    mode: Mode,
    answer: Answer,
}

impl Group {
    fn add(&mut self, batch: Batch) {
        let Batch { changes, mode, answer, database: _ } = batch;
        self.parts.push(Part { changes: changes.len(), mode, answer });
        self.changes.extend(changes);
    }

    fn durability(&self) -> Durability {
        let durable = self.parts.iter().any(|part| part.mode.is_durable());
        if durable { Durability::Durable } else { Durability::Lazy }
    }

    /// Those that must be durable, and the others.
    fn split(self) -> (Self, Self) {
        let (mut durable, mut others) = (Self::default(), Self::default());
        let mut changes = self.changes.into_iter();
        for part in self.parts {
            let group = if part.mode.is_durable() { &mut durable } else { &mut others };
            group.changes.extend(changes.by_ref().take(part.changes));
            group.parts.push(part);
        }
        (durable, others)
    }
}

impl Target {
    /// When it wants attention.
    fn due(&self, flush_after: Duration) -> Option<Instant> {
        let flush = self.lazy_since.map(|since| since + flush_after);
        flush.into_iter().chain(self.backend.retry_at()).min()
    }

    /// After this, what was lazy is durable.
    fn recover(&mut self, shared: &Shared) -> Result<(), StoreError> {
        self.backend.recover()?;
        if let Some(failure) = shared.failures().get_mut(self.number) {
            *failure = None;
        }
        shared.commits.fetch_add(1, Ordering::Relaxed);
        self.lazy_since = None;
        answer(std::mem::take(&mut self.later), &Ok(()));
        Ok(())
    }

    /// Answers batches whose commit ended so, or has them wait until it is durable.
    fn tell(&mut self, parts: Vec<Part>, durability: Durability, result: &Result<(), StoreError>) {
        let waits = |part: &Part| part.mode == Mode::Soon && durability == Durability::Lazy && result.is_ok();
        let (later, now): (Vec<Part>, Vec<Part>) = parts.into_iter().partition(waits);
        self.later.extend(later.into_iter().map(|part| part.answer));
        answer(now.into_iter().map(|part| part.answer).collect(), result);
    }

    fn try_commit(&self, changes: &[Change], durability: Durability) -> Result<(), StoreError> {
        // A bug in a back end must not leave callers waiting for ever.
        catch_unwind(AssertUnwindSafe(|| self.backend.commit(changes, durability)))
            .unwrap_or_else(|panic| Err(StoreError::Panicked { what: panic_text(&*panic) }))
    }

    fn commit(
        &mut self,
        shared: &Shared,
        changes: &[Change],
        durability: Durability,
    ) -> Result<(), StoreError> {
        let mut result = self.try_commit(changes, durability);
        if matches!(&result, Err(error) if error.trouble() == Some(Trouble::Full))
            && shared.relief.get().is_some_and(|relief| relief())
            && self.recover(shared).is_ok()
        {
            result = self.try_commit(changes, durability);
        }
        if let Some(failure) = shared.failures().get_mut(self.number)
            && (result.is_err() || durability == Durability::Durable)
        {
            // A lazy commit shows nothing of the disk.
            *failure = result.as_ref().err().cloned();
        }
        result?;
        match durability {
            Durability::Durable => {
                shared.commits.fetch_add(1, Ordering::Relaxed);
                self.lazy_since = None;
                answer(std::mem::take(&mut self.later), &Ok(()));
            }
            Durability::Lazy => {
                shared.lazy_commits.fetch_add(1, Ordering::Relaxed);
                self.lazy_since.get_or_insert_with(Instant::now);
            }
        }
        Ok(())
    }
}

fn answer(waiting: Vec<Answer>, result: &Result<(), StoreError>) {
    for answer in waiting {
        // Who dropped the ticket does not want to know.
        let _ = answer.send(result.clone());
    }
}

pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().map(String::from);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "unknown panic".into())
}
