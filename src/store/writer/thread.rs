//! What the thread does: takes what waits, commits it, answers.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Answer, Batch, Mode, Queue, Shared};
use crate::model::Trouble;
use crate::store::StoreError;
use crate::store::backend::{Backend, Change, Durability};

/// How long a batch waits for others while they come in crowds: about as long as a good card takes for one commit.
const GATHER: Duration = Duration::from_millis(4);

/// As many do not wait for more.
const GATHER_MAX: usize = 64;

/// A database, and what it owes.
pub(super) struct Target {
    /// Its position among the databases.
    pub(super) number: usize,
    pub(super) backend: Arc<dyn Backend>,
    /// When the oldest lazy commit was made that is not durable yet.
    pub(super) lazy_since: Option<Instant>,
    /// Who waits for that.
    pub(super) later: Vec<Answer>,
}

/// What the thread has.
pub(super) struct Thread {
    pub(super) shared: Arc<Shared>,
    pub(super) databases: Vec<Target>,
    pub(super) flush_after: Duration,
    /// Whether several batches shared the last durable commit.
    pub(super) crowded: bool,
}

impl Thread {
    pub(super) fn run(mut self) -> Result<(), StoreError> {
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

pub(in crate::store) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().map(String::from);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "unknown panic".into())
}
