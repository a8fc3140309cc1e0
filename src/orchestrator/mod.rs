//! The requester role on one board: takes jobs, stores them, has them run, times them out, keeps their history.
//!
//! Lives on the core thread and talks to the compute role only in messages. What must not be lost is durable before
//! it is answered or acted on: a submission, a stop. What the compute role can say again is written lazily and rides
//! along with the next durable commit.

mod forever;
mod generation;
pub mod handle;
mod job;
pub mod keep;
mod recover;
mod renew;
mod reports;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::model::history::giving_way;
use crate::model::message::ToCompute;
use crate::model::state::JobEvent;
use crate::model::validate::validate;
use crate::model::{
    Deletion, EvaluationId, ExecutionId, Failure, HistoryEvent, JobHead, JobId, JobRecord, JobSpec, JobState,
    JobType, Level, NodeId, Topic,
};
use crate::store::{JobStore, StoreError};
use crate::sys::Clock;

use self::generation::Generations;
use self::handle::{CoreError, Submitted};
use self::job::Active;

/// Jobs that are not over: each is kept in memory with its body.
pub const ACTIVE_MAX: usize = 10_000;

/// Sum of the executions of all jobs that are not over.
pub const EXECUTIONS_MAX: usize = 10_000;

/// Entries of one job's history: beyond that the oldest but the first [`HEAD`](crate::model::history::HEAD) give way.
pub const HISTORY_MAX: u64 = 10_000;

/// The same for a job that runs for ever: the end of the story is what people look for, and it never stops growing.
pub const FOREVER_HISTORY_MAX: u64 = 500;

/// Executions that have ended which a job that runs for ever keeps, over all its partitions.
pub const ENDED_KEPT: usize = 16;

/// How many more there may be before the oldest leave, all at once.
pub const ENDED_SLACK: usize = 8;

/// Versions of a job that are known, the present one included. An older one leaves with its executions.
pub const VERSIONS_MAX: u64 = 16;

/// What the orchestrator role is built from.
pub struct Parts {
    /// This node.
    pub node: NodeId,
    /// Jobs.
    pub store: JobStore,
    /// Wall clock, for records.
    pub clock: Arc<dyn Clock>,
    /// Fills in what a job does not say, from the node's settings.
    pub defaults: Box<dyn Fn(&mut JobSpec)>,
    /// To the compute role.
    pub link: Box<dyn Fn(ToCompute)>,
    /// What runs for ever has to run for so long that its ends before that do not count any more.
    pub steady: Duration,
}

#[derive(Default)]
struct State {
    active: HashMap<JobId, Active>,
    by_execution: HashMap<ExecutionId, JobId>,
    generations: Generations,
    /// The node stops: no job is taken any more.
    draining: bool,
}

/// The orchestrator role.
#[derive(Clone)]
pub struct Orchestrator {
    parts: Rc<Parts>,
    state: Rc<RefCell<State>>,
    ended: Rc<Ended>,
}

/// Counts jobs that end.
#[derive(Default)]
struct Ended {
    count: Cell<u64>,
    another: Notify,
}

impl Orchestrator {
    /// The role, idle. Call [`Orchestrator::recover`] before the first message.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self { parts: Rc::new(parts), state: Rc::default(), ended: Rc::default() }
    }

    /// Takes no job any more: the node stops.
    pub fn drain(&self) {
        self.state.borrow_mut().draining = true;
    }

    /// Takes a job. When this returns, it is on disk.
    ///
    /// # Errors
    /// It is not acceptable, too many are active, the node stops, or it could not be stored.
    pub async fn submit(&self, mut spec: JobSpec) -> Result<Submitted, CoreError> {
        if self.state.borrow().draining {
            return Err(CoreError::Stopping);
        }
        self.complete(&mut spec)?;
        self.room_for(&spec)?;
        let (digest, body) = spec.encode().map_err(|error| CoreError::Internal(error.to_string()))?;
        let now = self.parts.clock.now();
        let id = self.state.borrow_mut().generations.job();
        let record = JobRecord {
            head: JobHead::kept(&spec),
            name: if spec.name.is_empty() { id.to_string() } else { spec.name.clone() },
            id: id.clone(),
            digest,
            state: JobState::Pending,
            message: String::new(),
            version: 1,
            revision: 1,
            created: now,
            modified: now,
        };
        let mut active = Active::new(record, Arc::new(spec));
        let mut change = self.parts.store.change();
        change.put_body(&digest, &body);
        let level = Level::Job { previous: None, new: JobState::Pending };
        active.note(&mut change, level, Topic::Submission, "job submitted", None, now);
        for partition in 0..active.spec.count {
            active.add_row(&mut change, partition, None, now);
        }
        change.put_job(&active.record);
        self.parts.store.write(change).await?;
        let executions: Vec<ExecutionId> = active.rows.iter().map(|row| row.id.clone()).collect();
        {
            let mut state = self.state.borrow_mut();
            for execution in &executions {
                state.by_execution.insert(execution.clone(), id.clone());
            }
            state.active.insert(id.clone(), active);
        }
        self.begin(&id, &executions);
        Ok(Submitted { job_id: id, version: 1, evaluation_id: EvaluationId::random() })
    }

    /// Fills in what a job does not say, as it would be stored.
    ///
    /// # Errors
    /// It is not acceptable.
    pub fn complete(&self, spec: &mut JobSpec) -> Result<(), CoreError> {
        (self.parts.defaults)(spec);
        Ok(validate(spec)?)
    }

    fn room_for(&self, spec: &JobSpec) -> Result<(), CoreError> {
        let state = self.state.borrow();
        let executions = state.by_execution.len() + spec.count as usize;
        if state.active.len() >= ACTIVE_MAX || executions > EXECUTIONS_MAX {
            return Err(CoreError::TooManyJobs { active: state.active.len() });
        }
        Ok(())
    }

    /// Has a version of a job begin that is on disk.
    fn begin(&self, id: &JobId, executions: &[ExecutionId]) {
        self.start_timers(id);
        for execution in executions {
            self.ask(id, execution);
        }
        if executions.is_empty() {
            self.begin_nothing(id);
        }
    }

    /// A job of which nothing is wanted: one that ends is done, one that runs for ever waits for its next version.
    fn begin_nothing(&self, id: &JobId) {
        let mut change = self.parts.store.change();
        let now = self.parts.clock.now();
        {
            let mut state = self.state.borrow_mut();
            let Some(active) = state.active.get_mut(id).filter(|active| active.spec.count == 0) else {
                return;
            };
            let event = if active.runs_for_ever() { JobEvent::Start } else { JobEvent::Complete };
            let message = "no execution is wanted (Count is 0)";
            if active.advance(&mut change, event, Topic::StateUpdate, message, None, now).is_err() {
                return;
            }
        }
        self.commit(change);
        self.retire(id);
    }

    /// Stops a job for good. When this returns, that is on disk; its executions end soon after.
    ///
    /// # Errors
    /// There is no such job, it has completed, or the stop could not be stored.
    pub async fn stop(&self, id: &JobId, reason: &str) -> Result<EvaluationId, CoreError> {
        let now = self.parts.clock.now();
        let mut change = self.parts.store.change();
        let known = {
            let mut state = self.state.borrow_mut();
            match state.active.get_mut(id).filter(|active| !active.record.state.is_terminal()) {
                Some(active) => {
                    active.advance(&mut change, JobEvent::Stop, Topic::StateUpdate, reason, None, now)?;
                    true
                }
                None => false,
            }
        };
        if !known {
            self.stop_ended(id, &mut change, reason)?;
        }
        let again = change.clone();
        let stored = self.parts.store.write_internal(change).await;
        if stored.as_ref().is_err_and(|error| error.trouble().is_some()) {
            // It is kept, and stored with the first commit that can be.
            self.commit(again);
        }
        // The user wants it to end, whether or not the store could take that down.
        self.cancel_rows(id, reason);
        self.retire(id);
        stored?;
        Ok(EvaluationId::random())
    }

    /// A stop of a job that is over already.
    fn stop_ended(
        &self,
        id: &JobId,
        change: &mut crate::store::JobChange,
        reason: &str,
    ) -> Result<(), CoreError> {
        let Some(mut record) = self.parts.store.get(id)? else {
            return Err(CoreError::NotFound(format!("job not found: {id}")));
        };
        let previous = record.state;
        if previous == JobState::Stopped {
            return Ok(());
        }
        let now = self.parts.clock.now();
        record.advance(JobEvent::Stop, reason, now)?;
        let seq = self.parts.store.last_seq(id)? + 1;
        let level = Level::Job { previous: Some(previous), new: record.state };
        let (message, version, topic) = (reason.to_owned(), record.version, Topic::StateUpdate);
        change
            .put_history(id, &HistoryEvent { seq, version, level, topic, message, failure: None, time: now });
        change.put_job(&record);
        change.if_there(id);
        Ok(())
    }

    /// Writes into a job's history that one of its results was deleted. One after the other: the next entry of a job
    /// that is over is numbered by what can be read of its history.
    ///
    /// # Errors
    /// The store cannot be read or takes no changes: it is to be noted later.
    pub async fn note_deletion(&self, deletion: &Deletion) -> Result<(), StoreError> {
        let now = self.parts.clock.now();
        let mut change = self.parts.store.change();
        let message = deleted(deletion);
        let running = self.state.borrow_mut().active.get_mut(&deletion.job_id).map(|active| {
            let state = active.record.state;
            let level = Level::Job { previous: Some(state), new: state };
            active.note(&mut change, level, Topic::Results, &message, None, now);
        });
        if running.is_none() {
            self.note_ended(&deletion.job_id, &mut change, message)?;
        }
        change.if_there(&deletion.job_id);
        self.parts.store.write_lazy(change).await
    }

    /// Whether a job's history says that one of its results was deleted, or there is no such history.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn has_noted(&self, deletion: &Deletion) -> Result<bool, StoreError> {
        let message = deleted(deletion);
        if self.parts.store.get(&deletion.job_id)?.is_none() {
            return Ok(true);
        }
        let history = self.parts.store.history(&deletion.job_id, 0, usize::MAX)?;
        Ok(history.iter().any(|event| event.topic == Topic::Results && event.message == message))
    }

    /// An entry in the history of a job that is over.
    fn note_ended(
        &self,
        id: &JobId,
        change: &mut crate::store::JobChange,
        message: String,
    ) -> Result<(), StoreError> {
        // A job that is gone itself has no history to write into.
        let Some(record) = self.parts.store.get(id)? else { return Ok(()) };
        let seq = self.parts.store.last_seq(id)? + 1;
        let level = Level::Job { previous: Some(record.state), new: record.state };
        let (version, topic, time) = (record.version, Topic::Results, self.parts.clock.now());
        change.put_note(&record, &HistoryEvent { seq, version, level, topic, message, failure: None, time });
        if let Some(range) = giving_way(seq, HISTORY_MAX) {
            change.delete_history(&record, range);
        }
        Ok(())
    }

    /// Asks the compute role to run an execution.
    fn ask(&self, job: &JobId, execution: &ExecutionId) {
        let message = {
            let state = self.state.borrow();
            let Some(active) = state.active.get(job) else { return };
            let Some(order) = active.order(execution) else { return };
            let run_now = matches!(active.spec.job_type, JobType::Ops | JobType::Daemon);
            ToCompute::AskForBid { execution: Box::new(order), run_now }
        };
        (self.parts.link)(message);
    }

    /// Writes what need not be waited for.
    fn commit(&self, change: crate::store::JobChange) {
        let ticket = self.parts.store.write_lazy(change);
        tokio::task::spawn_local(async move {
            if let Err(error) = ticket.await {
                log::error!("cannot store a change of a job: {error}; it is repeated after a restart");
            }
        });
    }

    /// Gives a job up: its executions are stopped, the reason stands in its history.
    fn fail(&self, id: &JobId, topic: Topic, message: &str, failure: Option<&Failure>) {
        let now = self.parts.clock.now();
        let mut change = self.parts.store.change();
        {
            let mut state = self.state.borrow_mut();
            let Some(active) = state.active.get_mut(id) else { return };
            if active.advance(&mut change, JobEvent::Fail, topic, message, failure, now).is_err() {
                return;
            }
        }
        self.commit(change);
        self.cancel_rows(id, message);
        self.retire(id);
    }

    /// Stops the executions of a job that are not over.
    fn cancel_rows(&self, id: &JobId, reason: &str) {
        let stopping = match self.state.borrow_mut().active.get_mut(id) {
            Some(active) => active.stop_rows(),
            None => Vec::new(),
        };
        for execution in stopping {
            (self.parts.link)(ToCompute::Cancel { id: execution, reason: reason.to_owned() });
        }
    }

    /// Forgets a job that is over once all of its executions are.
    fn retire(&self, id: &JobId) {
        let is_over = self.state.borrow().active.get(id).is_some_and(Active::is_over);
        if is_over {
            self.drop_active(id);
            self.ended.count.set(self.ended.count.get() + 1);
            self.ended.another.notify_waiters();
        }
    }

    fn drop_active(&self, id: &JobId) {
        let mut state = self.state.borrow_mut();
        let rows = state.active.remove(id).map(|active| active.rows).unwrap_or_default();
        rows.iter().for_each(|row| drop(state.by_execution.remove(&row.id)));
    }

    /// Waits until so many more jobs have ended, counted from this call on.
    pub fn ended(&self, more: u64) -> impl Future<Output = ()> + use<> {
        let ended = Rc::clone(&self.ended);
        let target = ended.count.get().saturating_add(more);
        async move {
            while ended.count.get() < target {
                ended.another.notified().await;
            }
        }
    }

    /// Sets the clocks of the queue and total timeouts going. They are monotonic, and begin anew after a restart.
    fn start_timers(&self, id: &JobId) {
        let mut state = self.state.borrow_mut();
        let Some(active) = state.active.get_mut(id) else { return };
        let timeouts = active.spec.task.timeouts;
        let timer = |after: Duration, only_waiting: bool| {
            let (this, id) = (self.clone(), id.clone());
            let task = tokio::task::spawn_local(async move {
                tokio::time::sleep(after).await;
                this.timed_out(&id, after, only_waiting);
            });
            job::Timer(task.abort_handle())
        };
        if !timeouts.queue.is_zero() {
            active.queue_timer = Some(timer(timeouts.queue, true));
        }
        // What runs for ever takes as long as it takes, as upstream has it.
        if !timeouts.total.is_zero() && !active.runs_for_ever() {
            active.total_timer = Some(timer(timeouts.total, false));
        }
    }

    fn timed_out(&self, id: &JobId, after: Duration, only_waiting: bool) {
        let waiting = {
            let state = self.state.borrow();
            let Some(active) = state.active.get(id) else { return };
            matches!(active.record.state, JobState::Pending | JobState::Queued)
        };
        let seconds = after.as_secs();
        if only_waiting && waiting {
            let message = format!("the job waited longer than its QueueTimeout of {seconds} s");
            self.fail(id, Topic::JobTimeout, &message, None);
        } else if !only_waiting {
            let message = format!("the job took longer than its TotalTimeout of {seconds} s");
            self.fail(id, Topic::JobTimeout, &message, None);
        }
    }
}

/// What a history says of a result that went.
fn deleted(deletion: &Deletion) -> String {
    let Deletion { execution_id, size, reason, .. } = deletion;
    format!("the result of {} ({size}) was deleted: {reason}", execution_id.short())
}
