//! What the compute role reports, and what follows from it.

use crate::model::message::{FromCompute, ToCompute};
use crate::model::state::{ExecutionEvent, JobEvent};
use crate::model::{ExecutionId, Failure, FailureCode, JobId, JobState, Level, RunOutput, Topic};

use super::Orchestrator;
use super::job::Note;

impl Orchestrator {
    /// Takes one report. Repeated ones change nothing.
    pub fn on_report(&self, report: FromCompute) {
        match report {
            FromCompute::BidResult { id, refused: None } => self.accepted(&id),
            FromCompute::BidResult { id, refused: Some(failure) } => self.refused(&id, &failure),
            FromCompute::Queued { id, reason } => self.queued(&id, &reason),
            FromCompute::Started(id) => self.started(&id),
            FromCompute::RunResult { id, output, published, notes } => {
                self.completed(&id, &output, published, &notes)
            }
            FromCompute::ComputeError { id, failure } => self.failed(&id, &failure),
        }
    }

    fn job_of(&self, id: &ExecutionId) -> Option<JobId> {
        let job = self.state.borrow().by_execution.get(id).cloned();
        if job.is_none() {
            log::debug!("a report about {id}, which belongs to no active job");
        }
        job
    }

    /// Moves an execution on; says whether that made sense.
    fn step(&self, job: &JobId, id: &ExecutionId, event: ExecutionEvent, note: Note<'_>) -> bool {
        let mut change = self.parts.store.change();
        let now = self.parts.clock.now();
        let moved = {
            let mut state = self.state.borrow_mut();
            let Some(active) = state.active.get_mut(job) else { return false };
            active.advance_row(&mut change, id, event, note, now).is_some()
        };
        if moved {
            self.commit(change);
        }
        moved
    }

    /// Moves a job on where that makes sense.
    fn step_job(&self, job: &JobId, event: JobEvent, topic: Topic, message: &str) {
        let mut change = self.parts.store.change();
        let now = self.parts.clock.now();
        let moved = {
            let mut state = self.state.borrow_mut();
            let Some(active) = state.active.get_mut(job) else { return };
            active.advance(&mut change, event, topic, message, None, now).is_ok()
        };
        if moved {
            self.commit(change);
        }
    }

    fn job_state(&self, job: &JobId) -> Option<JobState> {
        self.state.borrow().active.get(job).map(|active| active.record.state)
    }

    /// Whether an execution is of the version that its job has now.
    fn is_current(&self, job: &JobId, id: &ExecutionId) -> bool {
        self.state.borrow().active.get(job).is_some_and(|active| active.current(id).is_some())
    }

    fn is_executing(&self, job: &JobId, id: &ExecutionId) -> bool {
        let state = self.state.borrow();
        let row = state.active.get(job).and_then(|active| active.rows.iter().find(|row| row.id == *id));
        row.is_some_and(|row| row.state.is_executing())
    }

    fn accepted(&self, id: &ExecutionId) {
        let Some(job) = self.job_of(id) else { return };
        let note = Note { topic: Topic::Scheduling, message: "the node takes it", failure: None };
        let wanted = self.job_state(&job).is_some_and(|state| !state.is_terminal());
        let event = if wanted { ExecutionEvent::Accept } else { ExecutionEvent::Reject };
        // After a restart the row says already that it was accepted; the compute role has to be told again.
        if self.step(&job, id, event, note) || (wanted && self.is_executing(&job, id)) {
            let answer = if wanted { ToCompute::BidAccepted } else { ToCompute::BidRejected };
            (self.parts.link)(answer(id.clone()));
            self.retire(&job);
        }
    }

    fn refused(&self, id: &ExecutionId, failure: &Failure) {
        let Some(job) = self.job_of(id) else { return };
        let note = Note { topic: Topic::Scheduling, message: &failure.message, failure: Some(failure) };
        let current = self.is_current(&job, id);
        let goes_on = self.is_to_go_on(&job, id);
        if self.step(&job, id, ExecutionEvent::Decline, note) && current {
            if goes_on && failure.code == FailureCode::Internal {
                return self.run_again(&job, id);
            }
            let message = format!("no node can run it; {}: {}", self.parts.node, failure.message);
            self.fail(&job, Topic::Scheduling, &message, Some(failure));
            self.retire(&job);
        }
    }

    fn queued(&self, id: &ExecutionId, reason: &str) {
        let Some(job) = self.job_of(id) else { return };
        if self.job_state(&job) == Some(JobState::Pending) && self.is_current(&job, id) {
            return self.step_job(&job, JobEvent::Queue, Topic::Queueing, reason);
        }
        // The job runs as far as people are concerned; that it waits because of restarts is worth a word.
        let mut change = self.parts.store.change();
        let now = self.parts.clock.now();
        let noted = {
            let mut state = self.state.borrow_mut();
            let Some(active) = state.active.get_mut(&job) else { return };
            let row = active.rows.iter().find(|row| row.id == *id && row.restarts > 0);
            let level = row.map(|row| row.state).map(|at| Level::Execution {
                id: id.clone(),
                previous: Some(at),
                new: at,
            });
            level.map(|level| active.note(&mut change, level, Topic::Restart, reason, None, now)).is_some()
        };
        if noted {
            self.commit(change);
        }
    }

    /// The node took an execution, and a power cut made us forget it: its later reports imply it.
    fn catch_up(&self, job: &JobId, id: &ExecutionId) {
        if !self.is_executing(job, id) {
            let note = Note { topic: Topic::Scheduling, message: "the node had taken it", failure: None };
            self.step(job, id, ExecutionEvent::Accept, note);
        }
    }

    fn started(&self, id: &ExecutionId) {
        let Some(job) = self.job_of(id) else { return };
        self.catch_up(&job, id);
        let note = Note { topic: Topic::Execution, message: "started", failure: None };
        if self.step(&job, id, ExecutionEvent::Start, note) && self.is_current(&job, id) {
            self.watch_steadiness(&job, id);
            if matches!(self.job_state(&job), Some(JobState::Pending | JobState::Queued)) {
                self.step_job(&job, JobEvent::Start, Topic::StateUpdate, "");
            }
        }
    }

    fn completed(&self, id: &ExecutionId, output: &RunOutput, published: bool, notes: &[String]) {
        let Some(job) = self.job_of(id) else { return };
        self.catch_up(&job, id);
        let mut tail = String::from(if published { ", result published" } else { "" });
        for note in notes {
            tail.push_str("; ");
            tail.push_str(note);
        }
        if self.is_to_go_on(&job, id) {
            if self.exited(&job, id, output, published, &tail) {
                self.run_again(&job, id);
            }
            return;
        }
        let message = format!("completed with exit code {}{tail}", output.exit_code);
        let note = Note { topic: Topic::Execution, message: &message, failure: None };
        let mut change = self.parts.store.change();
        let now = self.parts.clock.now();
        let done = {
            let mut state = self.state.borrow_mut();
            let Some(active) = state.active.get_mut(&job) else { return };
            let Some(row) = active.advance_row(&mut change, id, ExecutionEvent::Complete, note, now) else {
                return;
            };
            row.exit_code = Some(output.exit_code);
            row.published = published;
            change.put_execution(row);
            let all = active.all_completed() && !active.record.state.is_terminal();
            all && active.advance(&mut change, JobEvent::Complete, Topic::StateUpdate, "", None, now).is_ok()
        };
        self.commit(change);
        (self.parts.link)(ToCompute::Acknowledged(id.clone()));
        if done {
            log::info!("job {job}: completed");
        }
        self.retire(&job);
    }

    fn failed(&self, id: &ExecutionId, failure: &Failure) {
        let Some(job) = self.job_of(id) else { return };
        let (event, topic) = match failure.code {
            FailureCode::Cancelled => (ExecutionEvent::Cancel, Topic::Execution),
            FailureCode::Timeout => (ExecutionEvent::Fail, Topic::ExecTimeout),
            FailureCode::NodeRestart => (ExecutionEvent::Fail, Topic::Restart),
            _ => (ExecutionEvent::Fail, Topic::Execution),
        };
        let note = Note { topic, message: &failure.message, failure: Some(failure) };
        if !self.step(&job, id, event, note) {
            return;
        }
        (self.parts.link)(ToCompute::Acknowledged(id.clone()));
        self.follow(&job, id, failure);
        self.retire(&job);
    }

    /// Decides what follows for the job from an execution that did not complete.
    pub(super) fn follow(&self, job: &JobId, id: &ExecutionId, failure: &Failure) {
        let over = self.job_state(job).is_none_or(JobState::is_terminal);
        if self.is_to_go_on(job, id) {
            self.run_again(job, id);
        } else if !over && self.is_current(job, id) {
            let restarted = failure.code == FailureCode::NodeRestart && self.replace(job, id);
            if !restarted {
                self.fail(job, Topic::StateUpdate, &failure.message, Some(failure));
            }
        }
    }

    /// Has a new execution run in place of one that a restart of the node cut off, while the job may have more. It is
    /// on disk before it runs: a job that brings the node down must not lose count.
    fn replace(&self, job: &JobId, id: &ExecutionId) -> bool {
        let mut change = self.parts.store.change();
        let now = self.parts.clock.now();
        let next = {
            let mut state = self.state.borrow_mut();
            let Some(active) = state.active.get_mut(job) else { return false };
            let Some(row) = active.current(id) else { return false };
            if row.restarts >= active.spec.restarts() {
                return false;
            }
            let (partition, restarts) = (row.partition, row.restarts);
            let next = active.add_row(&mut change, partition, Some((id.clone(), restarts)), now);
            state.by_execution.insert(next.clone(), job.clone());
            next
        };
        self.run_once_stored(job, next, change);
        true
    }
}
