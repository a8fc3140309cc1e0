//! Jobs that run for ever: whatever ends is run again, after growing pauses while it ends soon.

use std::time::Duration;

use crate::model::message::ToCompute;
use crate::model::state::ExecutionEvent;
use crate::model::{ExecutionId, Failure, FailureCode, JobId, RunOutput, Topic};

use super::Orchestrator;
use super::job::{Note, Timer};
use crate::store::JobChange;

/// How often an execution that is to be run again tries to be stored while the disk is out of order.
const STORE_PAUSE: Duration = Duration::from_secs(1);

impl Orchestrator {
    /// Whether this is the present execution of a job that runs for ever and has not ended: one that is to go on.
    pub(super) fn is_to_go_on(&self, job: &JobId, id: &ExecutionId) -> bool {
        let state = self.state.borrow();
        state.active.get(job).is_some_and(|active| {
            active.runs_for_ever() && !active.record.state.is_terminal() && active.current(id).is_some()
        })
    }

    /// A program ended that was to run for ever. Says whether that was news.
    pub(super) fn exited(
        &self,
        job: &JobId,
        id: &ExecutionId,
        output: &RunOutput,
        published: bool,
        tail: &str,
    ) -> bool {
        let message = format!("completed unexpectedly with exit code {}{tail}", output.exit_code);
        let failure = Failure::new(FailureCode::Exited, message);
        let note = Note { topic: Topic::Execution, message: &failure.message, failure: Some(&failure) };
        let mut change = self.parts.store.change();
        let now = self.parts.clock.now();
        {
            let mut state = self.state.borrow_mut();
            let Some(active) = state.active.get_mut(job) else { return false };
            let Some(row) = active.advance_row(&mut change, id, ExecutionEvent::Fail, note, now) else {
                return false;
            };
            row.exit_code = Some(output.exit_code);
            row.published = published;
            change.put_execution(row);
        }
        self.commit(change);
        (self.parts.link)(ToCompute::Acknowledged(id.clone()));
        true
    }

    /// Has a new execution run in place of one that ended. It is on disk before it runs: the compute role has no
    /// execution that nobody knows. How often it has ended in a row goes with it; the compute role waits accordingly.
    pub(super) fn run_again(&self, job: &JobId, id: &ExecutionId) {
        let mut change = self.parts.store.change();
        let now = self.parts.clock.now();
        let (next, gone) = {
            let mut state = self.state.borrow_mut();
            let Some(active) = state.active.get_mut(job) else { return };
            let Some(row) = active.current(id) else { return };
            let (partition, restarts) = (row.partition, row.restarts);
            let next = active.add_row(&mut change, partition, Some((id.clone(), restarts)), now);
            let gone = active.prune(&mut change);
            state.by_execution.insert(next.clone(), job.clone());
            gone.iter().for_each(|id| drop(state.by_execution.remove(id)));
            (next, gone)
        };
        self.forget(gone);
        self.run_once_stored(job, next, change);
    }

    /// Has an execution run once the change that makes it is on disk. A disk that takes nothing now ends no job: what is
    /// lazy is kept until it can be written, up to a bound; the row itself is put again until it is durable.
    pub(super) fn run_once_stored(&self, job: &JobId, next: ExecutionId, change: JobChange) {
        // Before the end that it follows from is durable: the two share a commit.
        self.commit(change);
        let (this, job) = (self.clone(), job.clone());
        tokio::task::spawn_local(async move {
            loop {
                let mut change = this.parts.store.change();
                match this.state.borrow().active.get(&job).and_then(|active| active.current(&next)) {
                    Some(row) if !row.state.is_terminal() => change.put_execution(row),
                    // It was stopped meanwhile.
                    _ => return,
                }
                let Err(error) = this.parts.store.write_internal(change).await else { break };
                log::warn!("job {job}: it is to be run again, which cannot be stored: {error}");
                if error.trouble().is_none() {
                    let message = format!("the restart of the execution could not be stored: {error}");
                    return this.fail(&job, Topic::Restart, &message, None);
                }
                tokio::time::sleep(STORE_PAUSE).await;
            }
            this.ask(&job, &next);
        });
    }

    /// The compute role need not remember these any more. Said before their rows go: a row that is still there after a
    /// power cut leads to its record, a record without a row would stay for ever.
    pub(super) fn forget(&self, gone: Vec<ExecutionId>) {
        gone.into_iter().for_each(|id| (self.parts.link)(ToCompute::Forget(id)));
    }

    /// Begins to wait until an execution that was run again has run for long enough.
    pub(super) fn watch_steadiness(&self, job: &JobId, id: &ExecutionId) {
        let mut state = self.state.borrow_mut();
        let Some(active) = state.active.get_mut(job) else { return };
        if !active.runs_for_ever() || active.current(id).is_none_or(|row| row.restarts == 0) {
            return;
        }
        let (this, job, execution) = (self.clone(), job.clone(), id.clone());
        let task = tokio::task::spawn_local(async move {
            tokio::time::sleep(this.parts.steady).await;
            this.runs_steadily(&job, &execution);
        });
        active.steady.insert(id.clone(), Timer(task.abort_handle()));
    }

    /// An execution has run for so long that the ends before it do not count any more.
    fn runs_steadily(&self, job: &JobId, id: &ExecutionId) {
        let mut change = self.parts.store.change();
        {
            let mut state = self.state.borrow_mut();
            let Some(active) = state.active.get_mut(job) else { return };
            let row = active.rows.iter_mut().find(|row| row.id == *id && !row.state.is_terminal());
            let Some(row) = row else { return };
            row.restarts = 0;
            change.put_execution(row);
        }
        self.commit(change);
    }
}
