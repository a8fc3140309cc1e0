//! A job that is not over, as the orchestrator keeps it in memory.

use std::sync::Arc;

use tokio::task::AbortHandle;

use crate::model::message::Order;
use crate::model::state::{ExecutionEvent, JobEvent};
use crate::model::{
    DesiredState, ExecutionId, ExecutionRow, ExecutionState, Failure, HistoryEvent, IllegalTransition,
    JobRecord, JobSpec, JobState, Level, Timestamp, Topic,
};
use crate::store::JobChange;

use super::HISTORY_MAX;

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
    /// Every execution so far; bounded by `Count` and the restarts a job may have.
    pub rows: Vec<ExecutionRow>,
    /// Number of the last history entry.
    pub seq: u64,
    pub queue_timer: Option<Timer>,
    pub total_timer: Option<Timer>,
}

impl Active {
    pub fn new(record: JobRecord, spec: Arc<JobSpec>) -> Self {
        Self { record, spec, rows: Vec::new(), seq: 0, queue_timer: None, total_timer: None }
    }

    /// What the compute role is to be asked for an execution of this job.
    pub fn order(&self, id: &ExecutionId) -> Option<Order> {
        let row = self.rows.iter().find(|row| row.id == *id)?;
        Some(Order {
            id: row.id.clone(),
            job_id: self.record.id.clone(),
            spec: Arc::clone(&self.spec),
            digest: self.record.digest,
            partition: row.partition,
            restarts: row.restarts,
        })
    }

    /// Adds a history entry.
    pub fn note(
        &mut self,
        change: &mut JobChange,
        level: Level,
        topic: Topic,
        message: &str,
        failure: Option<&Failure>,
        time: Timestamp,
    ) {
        if self.seq >= HISTORY_MAX {
            return;
        }
        self.seq += 1;
        let event = HistoryEvent {
            seq: self.seq,
            level,
            topic,
            message: message.to_owned(),
            failure: failure.cloned(),
            time,
        };
        change.put_history(&self.record.id, &event);
    }

    /// Adds an execution for `partition`, in place of `previous` if a restart cut that off.
    pub fn add_row(
        &mut self,
        change: &mut JobChange,
        partition: u32,
        previous: Option<(ExecutionId, u32)>,
        now: Timestamp,
    ) -> ExecutionId {
        let (previous, restarts) = match previous {
            Some((id, restarts)) => (Some(id), restarts + 1),
            None => (None, 0),
        };
        let row = ExecutionRow {
            id: ExecutionId::random(),
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

    /// Whether every partition has a completed execution.
    pub fn all_completed(&self) -> bool {
        let done = |partition| {
            self.rows.iter().any(|row| row.partition == partition && row.state == ExecutionState::Completed)
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
