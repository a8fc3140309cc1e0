//! Picks up, at the start of the node, every job that is not over.

use std::cmp::Reverse;

use crate::model::message::ToCompute;
use crate::model::{ExecutionId, Failure, FailureCode, HistoryEvent, JobId, JobRecord, Level};
use crate::store::StoreError;

use super::Orchestrator;
use super::job::Active;

impl Orchestrator {
    /// Loads the jobs that are not over and asks again for each of their executions: what the compute role knows it
    /// answers from its records, the rest goes back into the queue, in the old order. Returns how many jobs there are.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn recover(&self) -> Result<usize, StoreError> {
        if let Some(newest) = self.parts.store.newest()? {
            self.state.borrow_mut().generations.follow(&newest);
        }
        let mut jobs = self.parts.store.active()?;
        jobs.sort_by_key(|job| (job.created, job.id.clone()));
        let mut asks: Vec<(Reverse<i32>, JobId, ExecutionId)> = Vec::new();
        let mut outdated: Vec<ExecutionId> = Vec::new();
        let mut undecided: Vec<(JobId, ExecutionId)> = Vec::new();
        let mut count = 0;
        for record in jobs {
            let id = record.id.clone();
            let Some(active) = self.load(record)? else { continue };
            count += 1;
            let mut state = self.state.borrow_mut();
            for row in &active.rows {
                state.by_execution.insert(row.id.clone(), id.clone());
                if !row.state.is_terminal() && row.job_version != active.record.version {
                    outdated.push(row.id.clone());
                } else if !row.state.is_terminal() {
                    asks.push((Reverse(active.spec.priority), id.clone(), row.id.clone()));
                }
            }
            undecided.extend(active.undecided().into_iter().map(|row| (id.clone(), row)));
            state.active.insert(id.clone(), active);
            drop(state);
            self.start_timers(&id);
        }
        self.end_what_had_to_end()?;
        for id in outdated {
            let reason = "a later version took the place of this one".to_owned();
            (self.parts.link)(ToCompute::Cancel { id, reason });
        }
        for (job, execution) in undecided {
            let failure = self.why_ended(&job, &execution)?;
            log::info!(
                "job {job}: nothing had followed from the end of execution {execution} before the restart"
            );
            self.follow(&job, &execution, &failure);
            self.retire(&job);
        }
        // Stable: within a priority the order of submission stays.
        asks.sort_by_key(|(priority, ..)| *priority);
        for (_, job, execution) in asks {
            self.ask(&job, &execution);
        }
        Ok(count)
    }

    /// Ends the executions of jobs that were over, by a stop or a failure, when the last run was cut off.
    fn end_what_had_to_end(&self) -> Result<(), StoreError> {
        for record in self.parts.store.ending()? {
            let (id, reason) = (record.id.clone(), record.message.clone());
            let Some(active) = self.load(record)? else { continue };
            {
                let mut state = self.state.borrow_mut();
                for row in &active.rows {
                    state.by_execution.insert(row.id.clone(), id.clone());
                }
                state.active.insert(id.clone(), active);
            }
            log::info!("job {id} had ended before the restart; its executions end now");
            self.cancel_rows(&id, &reason);
        }
        Ok(())
    }

    /// Why an execution ended, as the history of its job has it.
    fn why_ended(&self, job: &JobId, execution: &ExecutionId) -> Result<Failure, StoreError> {
        let of_it =
            |event: &HistoryEvent| matches!(&event.level, Level::Execution { id, .. } if id == execution);
        let history = self.parts.store.history(job, 0, usize::MAX)?;
        let last = history.into_iter().rev().find(of_it).and_then(|event| event.failure);
        Ok(last.unwrap_or_else(|| Failure::new(FailureCode::Internal, "it ended before the restart")))
    }

    pub(super) fn load(&self, record: JobRecord) -> Result<Option<Active>, StoreError> {
        let Some(spec) = self.parts.store.body(&record.digest)? else {
            log::error!("job {}: its body is not in the store; it cannot go on", record.id);
            return Ok(None);
        };
        let mut active = Active::new(record, spec);
        active.seq = self.parts.store.last_seq(&active.record.id)?;
        active.rows = self.parts.store.executions(&active.record.id)?;
        active.rows.sort_by_key(|row| (row.partition, row.restarts));
        Ok(Some(active))
    }
}
