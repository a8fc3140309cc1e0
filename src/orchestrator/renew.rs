//! New versions of a job that is there: an update under its name, or a run once more.

use std::sync::Arc;

use crate::model::message::ToCompute;
use crate::model::state::JobEvent;
use crate::model::{
    EvaluationId, ExecutionId, JobDigest, JobHead, JobId, JobRecord, JobSpec, Level, Timestamp, Topic,
};
use crate::store::JobChange;

use super::handle::{CoreError, Renewal, Submitted, Why};
use super::job::Active;
use super::{Orchestrator, VERSIONS_MAX};

/// What follows once a version is on disk.
struct Begun {
    version: u64,
    /// To be asked for.
    executions: Vec<ExecutionId>,
    /// Of earlier versions, to be stopped.
    stopping: Vec<ExecutionId>,
    /// Of versions that nobody knows any more.
    gone: Vec<ExecutionId>,
}

impl Orchestrator {
    /// Gives a job its next version: what runs of the one before is stopped, the new one begins. When this returns, it
    /// is on disk.
    ///
    /// # Errors
    /// There is no such job, its state does not allow that, the new version is not acceptable or is the same as the
    /// one before, too much is active, the node stops, or it could not be stored.
    pub async fn renew(&self, renewal: Renewal) -> Result<Submitted, CoreError> {
        let Renewal { id, mut spec, why } = renewal;
        if self.state.borrow().draining {
            return Err(CoreError::Stopping);
        }
        match why {
            Why::Update { .. } => self.complete(&mut spec)?,
            // It was complete when it came in.
            Why::Rerun { .. } => {}
        }
        self.room_for(&spec)?;
        let (digest, body) = spec.encode().map_err(|error| CoreError::Internal(error.to_string()))?;
        if !self.state.borrow().active.contains_key(&id) {
            // What was written of its end is to be read now.
            self.parts.store.write_lazy(self.parts.store.change()).await?;
        }
        let mut change = self.parts.store.change();
        change.put_body(&digest, &body);
        let begun = self.put_next(&mut change, &id, spec, digest, &why)?;
        // It may be about to leave.
        change.if_there(&id);
        self.forget(begun.gone);
        let again = change.clone();
        let stored = self.parts.store.write_internal(change).await;
        if stored.as_ref().is_err_and(|error| error.trouble().is_some()) {
            // It is kept, and stored with the first commit that can be.
            self.commit(again);
        } else if stored.is_ok() && self.parts.store.get(&id)?.is_none() {
            self.drop_active(&id);
            return Err(CoreError::NotFound(format!("job not found: {id}")));
        }
        let reason = format!("version {} took the place of this one", begun.version);
        for execution in begun.stopping {
            (self.parts.link)(ToCompute::Cancel { id: execution, reason: reason.clone() });
        }
        self.begin(&id, &begun.executions);
        stored?;
        Ok(Submitted { job_id: id, version: begun.version, evaluation_id: EvaluationId::random() })
    }

    /// Changes the job, in memory and in `change`.
    fn put_next(
        &self,
        change: &mut JobChange,
        id: &JobId,
        spec: JobSpec,
        digest: JobDigest,
        why: &Why,
    ) -> Result<Begun, CoreError> {
        let now = self.parts.clock.now();
        let mut state = self.state.borrow_mut();
        let loaded = if state.active.contains_key(id) {
            None
        } else {
            let record = self.parts.store.get(id)?;
            let record = record.ok_or_else(|| CoreError::NotFound(format!("job not found: {id}")))?;
            let loaded = self.load(record)?;
            Some(loaded.ok_or_else(|| CoreError::Internal(format!("the body of job {id} is missing")))?)
        };
        let earlier = self.parts.store.versions(id)?;
        let before = loaded.as_ref().or_else(|| state.active.get(id)).map(|active| active.record.clone());
        let before = before.ok_or_else(|| CoreError::NotFound(format!("job not found: {id}")))?;
        let after = JobRecord { head: JobHead::kept(&spec), ..next(&before, digest, why, now)? };
        if let Some(loaded) = loaded {
            state.active.insert(id.clone(), loaded);
        }
        let Some(active) = state.active.get_mut(id) else {
            return Err(CoreError::NotFound(format!("job not found: {id}")));
        };
        let version = after.version;
        let stopping = active.stop_rows();
        replace(active, change, after, spec, why, now);
        let oldest = drop_versions(change, &earlier, &before, &active.record, now);
        let gone = active.leave(change, |row| row.job_version < oldest);
        let count = active.spec.count;
        let executions: Vec<_> = (0..count).map(|n| active.add_row(change, n, None, now)).collect();
        gone.iter().for_each(|id| drop(state.by_execution.remove(id)));
        for execution in &executions {
            state.by_execution.insert(execution.clone(), id.clone());
        }
        Ok(Begun { version, executions, stopping, gone })
    }
}

/// The record of the next version.
fn next(before: &JobRecord, digest: JobDigest, why: &Why, now: Timestamp) -> Result<JobRecord, CoreError> {
    let mut after = before.clone();
    let event = match why {
        Why::Update { force: false } if before.digest == digest => {
            return Err(CoreError::Unchanged { name: before.name.clone(), version: before.version });
        }
        Why::Update { .. } => JobEvent::Update,
        Why::Rerun { .. } => JobEvent::Rerun,
    };
    after.advance(event, "", now)?;
    after.version += 1;
    after.digest = digest;
    Ok(after)
}

/// Puts the next version in the place of the one before.
fn replace(
    active: &mut Active,
    change: &mut JobChange,
    after: JobRecord,
    spec: JobSpec,
    why: &Why,
    now: Timestamp,
) {
    let level = Level::Job { previous: Some(active.record.state), new: after.state };
    let message = match why {
        Why::Update { .. } => format!("job updated to version {}", after.version),
        Why::Rerun { reason } if reason.is_empty() => format!("job run again as version {}", after.version),
        Why::Rerun { reason } => format!("job run again as version {}: {reason}", after.version),
    };
    active.record = after;
    active.spec = Arc::new(spec);
    (active.queue_timer, active.total_timer) = (None, None);
    active.note(change, level, Topic::Submission, &message, None, now);
    change.put_job(&active.record);
}

/// Keeps the version before, and lets the oldest go. Answers the number of the oldest that is known.
fn drop_versions(
    change: &mut JobChange,
    earlier: &[JobRecord],
    before: &JobRecord,
    after: &JobRecord,
    now: Timestamp,
) -> u64 {
    let mut kept = before.clone();
    if !kept.state.is_terminal() {
        // Every state that is not the last one can be stopped.
        let _ = kept.advance(JobEvent::Stop, &format!("version {} took its place", after.version), now);
    }
    change.put_version(&kept);
    let oldest = (after.version + 1).saturating_sub(VERSIONS_MAX);
    let stays = |digest: &JobDigest| {
        let known = earlier.iter().filter(|old| old.version >= oldest);
        known.chain([before, after]).any(|record| record.digest == *digest)
    };
    for old in earlier.iter().filter(|old| old.version < oldest) {
        change.delete_version(old, stays(&old.digest));
    }
    oldest
}
