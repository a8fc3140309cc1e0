//! Which jobs that have ended are remembered, and for how long: `Store.JobRetention` and `Store.MaxJobs`.
//!
//! A job leaves with its executions, its history, and its body if no other job has the same. It stays as long as
//! one of its results is stored, or the end of one of its executions is still to be acknowledged. That a result is gone
//! (`410`) is said by the ledger, which has a bound of its own.
//!
//! Everything here blocks: it is not for the core thread.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::model::{ExecutionId, ExecutionRow, JobId, JobRecord, Timestamp};
use crate::store::{ExecutionStore, JobStore, StoreError};
use crate::sys::{Clock, EARLIEST_BELIEVABLE};

/// Jobs that leave in one commit of each database.
const CHUNK: usize = 256;

/// What is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobPolicy {
    /// `Store.JobRetention`: for how long; 0 is for ever.
    pub retention: Duration,
    /// `Store.MaxJobs`: how many. Jobs whose results are stored stay beyond that.
    pub max_jobs: u32,
}

/// What has left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Left {
    /// Jobs that were older than their retention.
    pub by_age: u64,
    /// Jobs that were more than are kept.
    pub by_count: u64,
    /// Executions of both.
    pub executions: u64,
}

impl Left {
    /// All jobs.
    #[must_use]
    pub const fn jobs(self) -> u64 {
        self.by_age + self.by_count
    }
}

/// A job that is to leave.
struct Leaving {
    record: JobRecord,
    versions: Vec<JobRecord>,
    rows: Vec<ExecutionRow>,
    by_age: bool,
}

/// Lets jobs leave.
pub struct JobKeeper {
    policy: JobPolicy,
    /// As many as there is room for.
    room: AtomicU32,
    jobs: JobStore,
    executions: ExecutionStore,
    clock: Arc<dyn Clock>,
    /// Held by whoever lets jobs leave.
    turn: Mutex<()>,
    by_age: AtomicU64,
    by_count: AtomicU64,
    gone_executions: AtomicU64,
}

impl JobKeeper {
    /// One that has let nothing go yet.
    #[must_use]
    pub fn new(policy: JobPolicy, jobs: JobStore, executions: ExecutionStore, clock: Arc<dyn Clock>) -> Self {
        Self {
            policy,
            room: AtomicU32::new(u32::MAX),
            jobs,
            executions,
            clock,
            turn: Mutex::default(),
            by_age: AtomicU64::new(0),
            by_count: AtomicU64::new(0),
            gone_executions: AtomicU64::new(0),
        }
    }

    /// What is kept.
    #[must_use]
    pub fn policy(&self) -> JobPolicy {
        let max_jobs = self.policy.max_jobs.min(self.room.load(Ordering::Relaxed));
        JobPolicy { max_jobs, ..self.policy }
    }

    /// There is room for so many jobs from now on, whatever the policy says.
    pub fn set_room(&self, jobs: u32) {
        self.room.store(jobs, Ordering::Relaxed);
    }

    /// What has left since the node started.
    #[must_use]
    pub fn left(&self) -> Left {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Left { by_age: of(&self.by_age), by_count: of(&self.by_count), executions: of(&self.gone_executions) }
    }

    /// The jobs that would leave now if the results of `gone` had gone already, oldest first.
    ///
    /// # Errors
    /// A database cannot be read.
    pub fn due(&self, gone: &HashSet<ExecutionId>) -> Result<Vec<JobId>, StoreError> {
        let mut due = Vec::new();
        self.each_due(gone, &mut |leaving| {
            due.push(leaving.record.id);
            ControlFlow::Continue(())
        })?;
        Ok(due)
    }

    /// Lets go what is due, a few commits for all of it. Answers which jobs left.
    ///
    /// # Errors
    /// A database cannot be read or written; what left before that has left.
    pub fn sweep(&self) -> Result<Vec<JobId>, StoreError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.left();
        let mut gone = Vec::new();
        loop {
            let mut chunk = Vec::new();
            self.each_due(&HashSet::new(), &mut |leaving| {
                chunk.push(leaving);
                if chunk.len() < CHUNK { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            if chunk.is_empty() {
                break;
            }
            self.let_go(&chunk)?;
            gone.extend(chunk.into_iter().map(|leaving| leaving.record.id));
        }
        let after = self.left();
        if after != before {
            log::info!(
                target: "store",
                "{} job(s) left by Store.JobRetention and {} by Store.MaxJobs, with {} execution(s)",
                after.by_age - before.by_age,
                after.by_count - before.by_count,
                after.executions - before.executions
            );
        }
        Ok(gone)
    }

    /// How many jobs that have ended there are.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn ended(&self) -> Result<u64, StoreError> {
        let counts = self.jobs.counts()?;
        Ok(counts.total.saturating_sub(counts.active))
    }

    fn each_due(
        &self,
        gone: &HashSet<ExecutionId>,
        visit: &mut dyn FnMut(Leaving) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let mut excess = self.ended()?.saturating_sub(u64::from(self.policy().max_jobs));
        let before = self.too_old();
        self.jobs.each(&mut |record| {
            // No job ends before it is submitted: those behind this one are younger still.
            if excess == 0 && before.is_none_or(|before| record.created > before) {
                return Ok(ControlFlow::Break(()));
            }
            if !record.state.is_terminal() {
                return Ok(ControlFlow::Continue(()));
            }
            let by_count = excess > 0;
            // One that must stay takes the place of none that is younger.
            excess = excess.saturating_sub(1);
            let by_age = before.is_some_and(|before| self.ended_at(&record).is_some_and(|at| at <= before));
            if !by_age && !by_count {
                return Ok(ControlFlow::Continue(()));
            }
            let rows = self.jobs.executions(&record.id)?;
            for row in &rows {
                if !row.state.is_terminal() || self.is_needed(&row.id, gone)? {
                    return Ok(ControlFlow::Continue(()));
                }
            }
            let versions = self.jobs.versions(&record.id)?;
            Ok(visit(Leaving { record, versions, rows, by_age }))
        })
    }

    /// Jobs that ended by then are too old; none while nobody knows the time.
    fn too_old(&self) -> Option<Timestamp> {
        if self.policy.retention.is_zero() || !self.clock.is_trusted() {
            return None;
        }
        let retention = i64::try_from(self.policy.retention.as_nanos()).unwrap_or(i64::MAX);
        Some(Timestamp(self.clock.now().0.saturating_sub(retention)))
    }

    /// When a job ended, as far as its date can be believed: one from before the clock was set counts from then on,
    /// one from before any clock was leaves by count only.
    fn ended_at(&self, record: &JobRecord) -> Option<Timestamp> {
        let floor = self.clock.note().map_or(Timestamp(0), |note| note.floor);
        (record.modified >= EARLIEST_BELIEVABLE).then_some(record.modified.max(floor))
    }

    /// Whether an execution's result is stored, or its end not acknowledged.
    fn is_needed(&self, id: &ExecutionId, gone: &HashSet<ExecutionId>) -> Result<bool, StoreError> {
        let stored = self.executions.result(id)?.is_some_and(|row| row.is_stored());
        let open =
            self.executions.get(id)?.is_some_and(|record| !record.state.is_terminal() || !record.reported);
        Ok(open || (stored && !gone.contains(id)))
    }

    fn let_go(&self, chunk: &[Leaving]) -> Result<(), StoreError> {
        // Executions first: a job that is still there after a power cut leads to them again.
        let mut change = self.executions.change();
        let rows = || chunk.iter().flat_map(|leaving| &leaving.rows);
        rows().for_each(|row| change.delete_execution(&row.id));
        self.executions.write_internal(change).wait()?;
        let mut change = self.jobs.change();
        for leaving in chunk {
            let mut one = self.jobs.change();
            one.delete_job(&leaving.record, &leaving.versions, &leaving.rows);
            // It may have been run again meanwhile.
            one.unless_active(&leaving.record.id);
            change.append(one);
        }
        self.jobs.write_internal(change).wait()?;
        let by_age = chunk.iter().filter(|leaving| leaving.by_age).count() as u64;
        self.by_age.fetch_add(by_age, Ordering::Relaxed);
        self.by_count.fetch_add(chunk.len() as u64 - by_age, Ordering::Relaxed);
        self.gone_executions.fetch_add(rows().count() as u64, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
