//! The life of one execution, from the queue to its report, readable from top to bottom.
//!
//! States are durable before they are told: Running once the run has lasted a moment (before it begins, where the node
//! went down while there was work), Publishing before the result of a long run is packed, Completed together with the
//! ledger row of its archive.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;

use crate::archive::Warnings;
use crate::engine::Scratch;
use crate::model::message::{FromCompute, Order};
use crate::model::state::ExecutionEvent;
use crate::model::{
    ExecutionId, ExecutionRecord, ExecutionState, Failure, FailureCode, JobSpec, Pin, Resources, ResultEntry,
    Trouble, with_causes,
};
use crate::results::ScratchLease;
use crate::store::StoreError;
use crate::sys::{Cause, Interrupt};

use super::bid::execution_timeout;
use super::runner::{self, Ended, Work};
use super::scratch as directories;
use super::{Compute, no_output};

/// A run at least this long is not to be repeated for want of one commit.
const WORTH_A_COMMIT: Duration = Duration::from_secs(5);

/// A run that is over sooner does not get a commit of its own that says that it began.
const MOMENT: Duration = Duration::from_millis(100);

/// How long followers may read on at the files of an execution that has ended: more than the gate gives them.
const READ_ON: Duration = Duration::from_secs(90);

/// How often an execution that waits for the store tries again.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// Runs an accepted execution to its end.
pub(super) async fn live(
    compute: &Compute,
    order: Order,
    needs: Resources,
    interrupt: Interrupt,
) -> FromCompute {
    let now = compute.parts.clock.now();
    let mut record = ExecutionRecord {
        id: order.id.clone(),
        job_id: order.job_id.clone(),
        digest: order.digest,
        partition: order.partition,
        restarts: order.restarts,
        state: ExecutionState::BidAccepted,
        revision: 1,
        resources: needs,
        created: now,
        modified: now,
        failure: None,
        output: None,
        reported: false,
    };
    let spec = order.spec.clone();
    let started = match begin(compute, &mut record, &spec, &interrupt).await {
        Ok(started) => started,
        Err(failure) => {
            let failure = stop_reason(compute, &record, &spec, &interrupt).unwrap_or(failure);
            return end_failed(compute, record, None, failure).await;
        }
    };
    let scratch = directories::of(&compute.parts.scratch, &record.id);
    let work = Work { order, needs, scratch: scratch.clone(), interrupt: interrupt.clone() };
    let ended = run(compute, &spec, work, &interrupt).await;
    started.tell();
    record.output = Some(ended.output);
    // What was raised first stands: a guest that is being stopped may fail in any way.
    let failure =
        ended.failure.map(|failure| stop_reason(compute, &record, &spec, &interrupt).unwrap_or(failure));
    let id = record.id.clone();
    let report = match failure {
        Some(failure) => end_failed(compute, record, Some(&scratch), failure).await,
        None => publish(compute, record, &spec, &scratch, &interrupt).await,
    };
    if interrupt.cause() != Some(Cause::Shutdown) {
        leave(compute, &id, scratch, ended.lease).await;
    }
    report
}

/// Goes on publishing what a stop of the node cut off: the program had ended, its files are all there.
pub(super) async fn resume(compute: &Compute, record: ExecutionRecord, interrupt: Interrupt) -> FromCompute {
    let scratch = directories::of(&compute.parts.scratch, &record.id);
    let Some(spec) = (compute.parts.bodies)(&record) else {
        let failure = Failure::new(FailureCode::NodeRestart, "the node restarted and the job's body is gone");
        return end_failed(compute, record, None, failure).await;
    };
    let (shelf, id, room) = (Arc::clone(&compute.parts.shelf), record.id.clone(), record.resources.disk);
    let reserved = id.clone();
    let lease = match compute.parts.packer.run(move || shelf.reserve_scratch(&reserved, room)).await {
        Ok(Ok(lease)) => Some(lease),
        // The files are there already; only the room for what follows may be missing, and publishing will say so.
        Ok(Err(error)) => {
            log::warn!("execution {}: {error}", record.id);
            None
        }
        Err(_) => None,
    };
    let report = publish(compute, record, &spec, &scratch, &interrupt).await;
    if interrupt.cause() != Some(Cause::Shutdown) {
        leave(compute, &id, scratch, lease).await;
    }
    report
}

/// Waits for the guest, and for its time limit on the monotonic clock.
async fn run(compute: &Compute, spec: &JobSpec, work: Work, interrupt: &Interrupt) -> Ended {
    let failed = |message: String| Ended {
        output: no_output(),
        failure: Some(Failure::new(FailureCode::Internal, message)),
        lease: None,
    };
    let mut ended = match runner::spawn(&compute.parts.runner, work) {
        Ok(ended) => ended,
        Err(error) => return failed(format!("the system gives no thread for the execution: {error}")),
    };
    let limit = time_limit(compute, spec);
    let answer = if limit.is_zero() {
        ended.await
    } else {
        match tokio::time::timeout(limit, &mut ended).await {
            Ok(answer) => answer,
            Err(_) => {
                interrupt.raise(Cause::Timeout);
                ended.await
            }
        }
    };
    answer.unwrap_or_else(|_| failed("the execution's thread ended without an answer".into()))
}

/// How long the execution may take: what the job says, else the node's maximum; zero is no limit. What is to run for
/// ever has none.
fn time_limit(compute: &Compute, spec: &JobSpec) -> Duration {
    let own = execution_timeout(spec);
    let bounded = own.is_zero() && spec.job_type.runs_to_completion();
    if bounded { compute.parts.offer.timeout_max } else { own }
}

/// The failure that an interruption stands for.
fn stop_reason(
    compute: &Compute,
    record: &ExecutionRecord,
    spec: &JobSpec,
    interrupt: &Interrupt,
) -> Option<Failure> {
    match interrupt.cause()? {
        Cause::Timeout => {
            let seconds = time_limit(compute, spec).as_secs();
            Some(
                Failure::new(
                    FailureCode::Timeout,
                    format!("the execution took longer than its limit of {seconds} s"),
                )
                .hint("raise Tasks[0].Timeouts.ExecutionTimeout"),
            )
        }
        Cause::Cancelled => {
            let reason = compute.stop_reason(&record.id).unwrap_or_else(|| "stopped".into());
            Some(Failure::new(FailureCode::Cancelled, reason))
        }
        // Stopped for the sake of the others; else the engine's own words say what it could not write.
        Cause::DiskFull => compute.stop_reason(&record.id).map(Failure::disk_full),
        Cause::Shutdown => Some(Failure::new(FailureCode::NodeRestart, "the node was stopped while it ran")),
        // The engine's own words name the limit.
        Cause::Disk => None,
    }
}

/// From the end of the program to Completed.
pub(super) async fn publish(
    compute: &Compute,
    mut record: ExecutionRecord,
    spec: &JobSpec,
    scratch: &Scratch,
    interrupt: &Interrupt,
) -> FromCompute {
    let publishes = spec.task.publisher.as_ref().is_some_and(|p| p.is("local"));
    let (mut entry, mut notes) = (None, Vec::new());
    if publishes {
        // A record that is Publishing already comes from before a restart.
        if record.state != ExecutionState::Publishing
            && let Err(failure) = publishing(compute, &mut record, scratch, interrupt).await
        {
            let failure = stop_reason(compute, &record, spec, interrupt).unwrap_or(failure);
            return end_failed(compute, record, Some(scratch), failure).await;
        }
        let published = compute
            .parts
            .publisher
            .publish(&record.id, &record.job_id, scratch.result(), spec.retention(), interrupt.clone())
            .await;
        match published {
            Ok(mut made) => {
                made.entry.pin = spec.pin().then_some(Pin { until: None });
                notes = warnings(&made.warnings);
                entry = Some(made.entry);
            }
            Err(failure) => {
                let failure = stop_reason(compute, &record, spec, interrupt).unwrap_or(failure);
                if failure.code == FailureCode::NodeRestart
                    && let Err(error) = keep(compute, &record, scratch).await
                {
                    log::warn!("execution {} will be run again: {error}", record.id);
                }
                return end_failed(compute, record, Some(scratch), failure).await;
            }
        }
    }
    let id = record.id.clone();
    match advance(compute, &mut record, ExecutionEvent::Complete, entry.as_ref(), interrupt).await {
        Ok(()) => {
            if let Some(entry) = &entry {
                compute.parts.shelf.confirm(entry);
            }
            let output = record.output.unwrap_or_default();
            FromCompute::RunResult { id, output, published: entry.is_some(), notes }
        }
        Err(failure) => {
            if entry.is_some() {
                let shelf = Arc::clone(&compute.parts.shelf);
                let gone = record.id.clone();
                // If the packer is gone, the next start sweeps the archive.
                let _ = compute.parts.packer.run(move || shelf.abandon(&gone)).await;
            }
            let failure = stop_reason(compute, &record, spec, interrupt).unwrap_or(failure);
            end_failed(compute, record, Some(scratch), failure).await
        }
    }
}

/// What the job's owner should hear about the archive.
fn warnings(found: &Warnings) -> Vec<String> {
    let mut notes: Vec<String> = found.kept().iter().map(ToString::to_string).collect();
    if found.dropped() > 0 {
        notes.push(format!("and {} more", found.dropped()));
    }
    notes
}

/// Moves a record on to Publishing. That a long run has ended is worth a sync of its files and a commit of its own: it
/// need not be run again after a power cut. A short one is cheaper to repeat than to write down.
async fn publishing(
    compute: &Compute,
    record: &mut ExecutionRecord,
    scratch: &Scratch,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    let ran = compute.parts.clock.now().since(record.modified);
    if ran >= WORTH_A_COMMIT {
        sync(compute, scratch).await?;
        return advance(compute, record, ExecutionEvent::Publish, None, interrupt).await;
    }
    let next = step(compute, record, ExecutionEvent::Publish)?;
    // Nothing of its files need be on the disk yet: without its output the next start will not go on with them.
    write_lazily(compute, &ExecutionRecord { output: None, ..next.clone() }).await?;
    *record = next;
    Ok(())
}

/// Moves a record on to Running. A run that a power cut ends within a moment is simply begun again by the next start,
/// which finds it waiting: that costs less than a commit for each. A node that went down while there was work takes
/// each run down first, so that one that brings it down every time is counted, and given up in the end.
async fn begin(
    compute: &Compute,
    record: &mut ExecutionRecord,
    spec: &JobSpec,
    interrupt: &Interrupt,
) -> Result<Started, Failure> {
    let started = Started::new(compute, record);
    // What runs for ever is not given up: that it ended before says nothing about the node.
    let was_cut_off = record.restarts > 0 && spec.job_type.runs_to_completion();
    if compute.is_wary() || was_cut_off {
        advance(compute, record, ExecutionEvent::Start, None, interrupt).await?;
        started.tell();
        return Ok(started);
    }
    let next = step(compute, record, ExecutionEvent::Start)?;
    write_lazily(compute, &next).await?;
    *record = next;
    Ok(started.tell_soon())
}

/// Tells once that an execution has started: as soon as that is durable, at the latest when it has ended.
struct Started {
    compute: Compute,
    id: ExecutionId,
    told: Rc<Cell<bool>>,
    soon: Option<AbortHandle>,
}

impl Started {
    fn new(compute: &Compute, record: &ExecutionRecord) -> Self {
        Self { compute: compute.clone(), id: record.id.clone(), told: Rc::default(), soon: None }
    }

    fn tell(&self) {
        if !self.told.replace(true) {
            self.compute.report(FromCompute::Started(self.id.clone()));
        }
    }

    /// Lets a moment pass first, and then makes durable what was written lazily.
    fn tell_soon(mut self) -> Self {
        let later = Self {
            soon: None,
            told: Rc::clone(&self.told),
            compute: self.compute.clone(),
            id: self.id.clone(),
        };
        let task = tokio::task::spawn_local(async move {
            tokio::time::sleep(MOMENT).await;
            let store = &later.compute.parts.store;
            if let Err(error) = store.write_internal(store.change()).await {
                log::warn!("execution {} runs, and a power cut would make that forgotten: {error}", later.id);
            }
            later.tell();
        });
        self.soon = Some(task.abort_handle());
        self
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(task) = &self.soon {
            task.abort();
        }
    }
}

/// Has a record visible at once, and durable with the next commit.
async fn write_lazily(compute: &Compute, record: &ExecutionRecord) -> Result<(), Failure> {
    let mut change = compute.parts.store.change();
    change.put_execution(record);
    compute.parts.store.write_lazy(change).await.map_err(|error| not_stored(record, &error))
}

/// Makes what the program left durable, and then the record that says so.
async fn keep(compute: &Compute, record: &ExecutionRecord, scratch: &Scratch) -> Result<(), Failure> {
    sync(compute, scratch).await?;
    let mut change = compute.parts.store.change();
    change.put_execution(record);
    compute.parts.store.write_internal(change).await.map_err(|error| not_stored(record, &error))
}

/// Makes what the program left durable: the next start can go on from there.
async fn sync(compute: &Compute, scratch: &Scratch) -> Result<(), Failure> {
    let (files, dir) = (compute.parts.shelf.files(), scratch.dir().to_owned());
    let synced = compute.parts.packer.run(move || files.sync_tree(&dir).map_err(|e| (dir, e))).await;
    synced.map_err(|gone| Failure::new(FailureCode::Internal, gone.to_string()))?.map_err(|(dir, error)| {
        Failure::of_io(FailureCode::Internal, &format!("cannot sync {}", dir.display()), &error)
    })
}

fn step(
    compute: &Compute,
    record: &ExecutionRecord,
    event: ExecutionEvent,
) -> Result<ExecutionRecord, Failure> {
    let mut next = record.clone();
    next.advance(event, compute.parts.clock.now())
        .map_err(|illegal| Failure::new(FailureCode::Internal, illegal.to_string()))?;
    next.reported = next.state.is_terminal() && !compute.parts.outbox;
    Ok(next)
}

fn not_stored(record: &ExecutionRecord, error: &StoreError) -> Failure {
    let text = format!("cannot store that the execution is {}: {}", record.state, with_causes(&error));
    match error.trouble() {
        Some(Trouble::Full) => Failure::disk_full(text),
        _ => Failure::new(FailureCode::Internal, text),
    }
}

/// Moves a record on and waits until that is durable, also while the disk is out of order: what an execution has
/// done is not thrown away for that. Only its interruption ends the wait.
async fn advance(
    compute: &Compute,
    record: &mut ExecutionRecord,
    event: ExecutionEvent,
    entry: Option<&ResultEntry>,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    let next = step(compute, record, event)?;
    loop {
        let mut change = compute.parts.store.change();
        change.put_execution(&next);
        if let Some(entry) = entry {
            change.put_result(entry);
        }
        if next.state.is_terminal() {
            compute.parts.shelf.notes(&mut change);
        }
        match compute.parts.store.write_internal(change).await {
            Ok(()) => {
                *record = next;
                return Ok(());
            }
            Err(error) if error.trouble().is_none() || interrupt.cause().is_some() => {
                return Err(not_stored(&next, &error));
            }
            Err(_) => {
                compute.parts.shelf.look_at_disk();
                tokio::time::sleep(STORE_PAUSE).await;
            }
        }
    }
}

/// Moves a record to its end. If that cannot be stored now, it is kept, and stored with the first commit that can be.
async fn conclude(
    compute: &Compute,
    record: &mut ExecutionRecord,
    event: ExecutionEvent,
) -> Result<(), Failure> {
    let next = step(compute, record, event)?;
    let change = || {
        let mut change = compute.parts.store.change();
        change.put_execution(&next);
        compute.parts.shelf.notes(&mut change);
        change
    };
    let mut stored = compute.parts.store.write_internal(change()).await;
    if stored.as_ref().is_err_and(|error| error.trouble().is_some()) {
        stored = compute.parts.store.write_lazy(change()).await;
    }
    stored.map_err(|error| not_stored(&next, &error))?;
    *record = next;
    Ok(())
}

/// Records a failure and makes the report of it.
pub(super) async fn end_failed(
    compute: &Compute,
    mut record: ExecutionRecord,
    scratch: Option<&Scratch>,
    failure: Failure,
) -> FromCompute {
    log::info!("execution {}: {}: {failure}", record.id, failure.code);
    let (event, report) = Compute::failed(record.id.clone(), failure.clone());
    record.failure = Some(failure);
    record.output.get_or_insert_with(no_output);
    // A shut down node leaves Running and Publishing as they are: the next start decides, with the files at hand.
    if matches!(&record.failure, Some(f) if f.code == FailureCode::NodeRestart) && scratch.is_some() {
        return report;
    }
    if let Err(error) = conclude(compute, &mut record, event).await {
        log::error!("execution {}: its failure is reported but not stored: {error}", record.id);
    }
    report
}

/// Cleans up: at once, or, if somebody follows the log, when that has been read. Its end is reported all the same.
async fn leave(compute: &Compute, id: &ExecutionId, scratch: Scratch, lease: Option<ScratchLease>) {
    if !compute.parts.readers.has(id) {
        return clean_up(compute, scratch, lease).await;
    }
    let (compute, id) = (compute.clone(), id.clone());
    tokio::task::spawn_local(async move {
        if tokio::time::timeout(READ_ON, compute.parts.readers.released(&id)).await.is_err() {
            log::warn!("execution {id}: its log is still being read; its files go now");
        }
        clean_up(&compute, scratch, lease).await;
    });
}

/// Takes the execution's directory away, then gives its room back.
async fn clean_up(compute: &Compute, scratch: Scratch, lease: Option<ScratchLease>) {
    let files = compute.parts.shelf.files();
    let removed = compute
        .parts
        .packer
        .run(move || {
            let removed = directories::remove(&*files, &scratch);
            drop(lease);
            removed.map_err(|error| format!("{}: {error}", scratch.dir().display()))
        })
        .await;
    if let Ok(Err(error)) = removed {
        log::warn!(
            "cannot remove the directory of a finished execution, {error}; the next start tries again"
        );
    }
}
