//! A job that is not over, as the orchestrator keeps it in memory.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::task::AbortHandle;

use crate::model::history::giving_way;
use crate::model::message::Order;
use crate::model::state::{ExecutionEvent, JobEvent};
use crate::model::{
    DesiredState, ExecutionId, ExecutionRow, ExecutionState, Failure, HistoryEvent, IllegalTransition,
    JobRecord, JobSpec, JobState, Level, Timestamp, Topic,
};
use crate::store::JobChange;
use crate::sys::tally;

use super::{ENDED_KEPT, ENDED_SLACK, FOREVER_HISTORY_MAX, HISTORY_MAX};

/// A clock that stops when it is dropped.
pub(super) struct Timer(pub AbortHandle);

impl Drop for Timer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A job that is not over. Each change of it is put into a store change by the same call.
pub(super) struct Active {
    pub record: JobRecord,
    pub spec: Arc<JobSpec>,
    /// Its executions, of all versions that are still known; bounded by `Count` and the restarts that a job may have,
    /// or by [`ENDED_KEPT`].
    pub rows: Vec<ExecutionRow>,
    /// Number of the last history entry.
    pub seq: u64,
    pub queue_timer: Option<Timer>,
    pub total_timer: Option<Timer>,
    /// Of executions that run again, until they have run for long enough.
    pub steady: HashMap<ExecutionId, Timer>,
}

impl Active {
    pub fn new(record: JobRecord, spec: Arc<JobSpec>) -> Self {
        let (rows, steady) = (Vec::new(), HashMap::new());
        Self { record, spec, rows, seq: 0, queue_timer: None, total_timer: None, steady }
    }

    /// Whether it is a service or a daemon.
    pub fn runs_for_ever(&self) -> bool {
        !self.spec.job_type.runs_to_completion()
    }

    /// The row of an execution, if it is of the version that the job has now: what becomes of an earlier one does not
    /// matter to the job.
    pub fn current(&self, id: &ExecutionId) -> Option<&ExecutionRow> {
        self.rows.iter().find(|row| row.id == *id && row.job_version == self.record.version)
    }

    /// Executions that ended with nothing following from it, which a power cut kept from being decided.
    pub fn undecided(&self) -> Vec<ExecutionId> {
        let followed = |id| self.rows.iter().any(|row| row.previous.as_ref() == Some(id));
        let ends = self.rows.iter().filter(|row| {
            row.job_version == self.record.version
                && row.state.is_terminal()
                && (row.state != ExecutionState::Completed || self.runs_for_ever())
        });
        ends.filter(|row| !followed(&row.id)).map(|row| row.id.clone()).collect()
    }

    /// What the compute role is to be asked for an execution of this job.
    pub fn order(&self, id: &ExecutionId) -> Option<Order> {
        let row = self.current(id).filter(|row| !row.state.is_terminal())?;
        Some(Order {
            id: row.id.clone(),
            job_id: self.record.id.clone(),
            spec: Arc::clone(&self.spec),
            digest: self.record.digest,
            partition: row.partition,
            restarts: row.restarts,
        })
    }

    /// Adds a history entry. Where there are too many, the oldest but the first give way.
    pub fn note(
        &mut self,
        change: &mut JobChange,
        level: Level,
        topic: Topic,
        message: &str,
        failure: Option<&Failure>,
        time: Timestamp,
    ) {
        let version = match &level {
            Level::Job { .. } => self.record.version,
            Level::Execution { id, .. } => {
                self.rows.iter().find(|row| row.id == *id).map_or(self.record.version, |row| row.job_version)
            }
        };
        self.seq += 1;
        let event = HistoryEvent {
            seq: self.seq,
            version,
            level,
            topic,
            message: message.to_owned(),
            failure: failure.cloned(),
            time,
        };
        change.put_history(&self.record.id, &event);
        let limit = if self.runs_for_ever() { FOREVER_HISTORY_MAX } else { HISTORY_MAX };
        if let Some(range) = giving_way(self.seq, limit) {
            change.delete_history(&self.record, range);
        }
    }

    /// Adds an execution for `partition`, in place of `previous` if a restart cut that off, or it ended too soon.
    pub fn add_row(
        &mut self,
        change: &mut JobChange,
        partition: u32,
        previous: Option<(ExecutionId, u32)>,
        now: Timestamp,
    ) -> ExecutionId {
        let (previous, restarts) = match previous {
            Some((id, restarts)) => (Some(id), restarts.saturating_add(1)),
            None => (None, 0),
        };
        let row = ExecutionRow {
            id: ExecutionId::of_generation(self.record.id.generation()),
            job_id: self.record.id.clone(),
            job_version: self.record.version,
            partition,
            restarts,
            previous,
            desired: DesiredState::Pending,
            state: ExecutionState::New,
            message: String::new(),
            exit_code: None,
            published: false,
            revision: 1,
            created: now,
            modified: now,
        };
        let id = row.id.clone();
        change.put_execution(&row);
        self.rows.push(row);
        id
    }

    /// Moves the job on, with a history entry.
    pub fn advance(
        &mut self,
        change: &mut JobChange,
        event: JobEvent,
        topic: Topic,
        message: &str,
        failure: Option<&Failure>,
        now: Timestamp,
    ) -> Result<(), IllegalTransition> {
        let previous = self.record.state;
        self.record.advance(event, message, now)?;
        if self.record.state != JobState::Pending && self.record.state != JobState::Queued {
            self.queue_timer = None;
        }
        if self.record.state.is_terminal() {
            self.total_timer = None;
            tally::JOB_DURATION.observe(now.since(self.record.created));
        }
        let level = Level::Job { previous: Some(previous), new: self.record.state };
        let note =
            if message.is_empty() { format!("job is now {}", self.record.state) } else { message.to_owned() };
        self.note(change, level, topic, &note, failure, now);
        change.put_job(&self.record);
        Ok(())
    }

    /// Moves an execution on, with a history entry. `None`: there is no such execution or the event makes no sense
    /// (a repeated message), and nothing was changed.
    pub fn advance_row(
        &mut self,
        change: &mut JobChange,
        id: &ExecutionId,
        event: ExecutionEvent,
        note: Note<'_>,
        now: Timestamp,
    ) -> Option<&mut ExecutionRow> {
        let at = self.rows.iter().position(|row| row.id == *id)?;
        let row = &mut self.rows[at];
        let previous = row.state;
        if let Err(illegal) = row.advance(event, now) {
            log::debug!("execution {id}: {illegal}");
            return None;
        }
        if row.state.is_terminal() {
            self.steady.remove(id);
        }
        row.message = if row.state.is_terminal() { note.message.to_owned() } else { String::new() };
        row.desired = match row.state {
            state if state.is_terminal() => DesiredState::Stopped,
            state if state.is_executing() => DesiredState::Running,
            _ => row.desired,
        };
        let level = Level::Execution { id: id.clone(), previous: Some(previous), new: row.state };
        change.put_execution(row);
        self.note(change, level, note.topic, note.message, note.failure, now);
        self.rows.get_mut(at)
    }

    /// Marks every execution that is not over as one to be stopped, and names them.
    pub fn stop_rows(&mut self) -> Vec<ExecutionId> {
        let open = self.rows.iter_mut().filter(|row| !row.state.is_terminal());
        open.map(|row| {
            row.desired = DesiredState::Stopped;
            row.id.clone()
        })
        .collect()
    }

    /// Lets the oldest executions of a job that runs for ever leave, of those that have ended: a few at a time, so that
    /// not each end costs a commit more. Answers which.
    pub fn prune(&mut self, change: &mut JobChange) -> Vec<ExecutionId> {
        let mut ended: Vec<_> = self
            .rows
            .iter()
            .filter(|row| row.state.is_terminal())
            .map(|row| (row.created, row.id.clone()))
            .collect();
        if !self.runs_for_ever() || ended.len() < ENDED_KEPT + ENDED_SLACK {
            return Vec::new();
        }
        ended.sort_unstable();
        ended.truncate(ended.len() - ENDED_KEPT);
        let leaving: Vec<ExecutionId> = ended.into_iter().map(|(_, id)| id).collect();
        self.leave(change, |row| leaving.contains(&row.id))
    }

    /// Lets executions leave, of those that have ended. Answers which.
    pub fn leave(
        &mut self,
        change: &mut JobChange,
        leaves: impl Fn(&ExecutionRow) -> bool,
    ) -> Vec<ExecutionId> {
        let gone = self.rows.extract_if(.., |row| row.state.is_terminal() && leaves(row));
        gone.map(|row| {
            change.delete_execution(&row);
            row.id
        })
        .collect()
    }

    /// Whether every partition of this version has a completed execution.
    pub fn all_completed(&self) -> bool {
        let done = |partition| {
            self.rows.iter().any(|row| {
                row.partition == partition
                    && row.job_version == self.record.version
                    && row.state == ExecutionState::Completed
            })
        };
        (0..self.spec.count).all(done)
    }

    /// Whether nothing more can happen to the job or its executions.
    pub fn is_over(&self) -> bool {
        self.record.state.is_terminal() && self.rows.iter().all(|row| row.state.is_terminal())
    }
}

/// What a history entry says besides the states.
#[derive(Clone, Copy)]
pub(super) struct Note<'a> {
    pub topic: Topic,
    pub message: &'a str,
    pub failure: Option<&'a Failure>,
}
