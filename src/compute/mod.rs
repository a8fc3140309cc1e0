//! The compute role: bids, queues, runs, publishes, reports. Whom it reports to, it cannot tell.
//!
//! Lives on the core thread. Everything that blocks happens elsewhere: guests on their own threads, files on the
//! packer's, commits on the store's.

pub mod bid;
mod life;
pub mod local;
pub mod queue;
mod recover;
pub mod runner;
pub mod scratch;
#[cfg(test)]
mod tests;
mod watch;

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;

use crate::logs::Readers;
use crate::model::backoff::pause_after;
use crate::model::message::{FromCompute, Order, ToCompute};
use crate::model::state::ExecutionEvent;
use crate::model::{
    ExecutionId, ExecutionRecord, ExecutionState, Failure, FailureCode, JobSpec, Resources, RunOutput,
};
use crate::publisher::{LocalPublisher, Packer};
use crate::results::Shelf;
use crate::store::{ExecutionStore, StoreError};
use crate::sys::{Cause, Clock, Interrupt};

use self::bid::Offer;
use self::queue::Queue;
use self::runner::Runner;

pub use self::recover::Recovered;

/// Executions at work at the same time, whatever the capacity says: each has a thread.
pub const RUNNING_MAX: usize = 64;

/// Finds the body of an execution's job.
pub type Bodies = Box<dyn Fn(&ExecutionRecord) -> Option<Arc<JobSpec>>>;

/// What the compute role is built from.
pub struct Parts {
    /// What this node offers.
    pub offer: Offer,
    /// Executions at work at the same time, at most [`RUNNING_MAX`].
    pub running_max: usize,
    /// Where executions work.
    pub scratch: PathBuf,
    /// Execution state.
    pub store: ExecutionStore,
    /// Finds a job's body by its digest.
    pub bodies: Bodies,
    /// Published results.
    pub shelf: Arc<Shelf>,
    /// Publishes.
    pub publisher: LocalPublisher,
    /// Handles files.
    pub packer: Packer,
    /// Who reads the files of executions.
    pub readers: Arc<Readers>,
    /// Runs guests.
    pub runner: Arc<dyn Runner>,
    /// Wall clock, for records.
    pub clock: Arc<dyn Clock>,
    /// Where reports go. One execution sends at most four: what waits is bounded by what may wait here.
    pub reports: UnboundedSender<FromCompute>,
    /// First pause before an execution is run again that restarts of the node have cut off twice; zero is none.
    pub restart_pause: Duration,
    /// Whether ends must be kept until they are acknowledged (a remote orchestrator).
    pub outbox: bool,
}

/// An execution at work.
struct Running {
    interrupt: Interrupt,
    needs: Resources,
    /// Why it is being stopped, if it is.
    stop_reason: Option<String>,
    /// It will not end by itself.
    for_ever: bool,
}

/// A bid that was made, or an accepted execution that waits for room.
struct Waiting {
    order: Order,
    needs: Resources,
    accepted: bool,
}

#[derive(Default)]
struct State {
    waiting: HashMap<ExecutionId, Waiting>,
    queue: Queue,
    running: HashMap<ExecutionId, Running>,
    used: Resources,
    draining: bool,
    /// Why nothing is started for now, if nothing is.
    held: Option<String>,
    /// One at a time: should one of them bring the node down, it is known which.
    cautious: bool,
    /// Runs are on the disk before they begin: should one of them bring the node down, it is counted.
    wary: bool,
    /// The node stops: what ends now is settled by the next start, with the files at hand.
    silent: bool,
}

/// The compute role.
#[derive(Clone)]
pub struct Compute {
    parts: Rc<Parts>,
    state: Rc<RefCell<State>>,
    ended: Rc<Notify>,
    released: Rc<Notify>,
    /// Rings when there is reason to look at the disk.
    bell: Arc<Notify>,
}

/// What the node is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Executions at work.
    pub running: usize,
    /// Executions that wait for room.
    pub queued: usize,
    /// What is not reserved.
    pub available: Resources,
}

impl Compute {
    /// The role, idle. Call [`Compute::recover`] before the first message.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self {
            parts: Rc::new(parts),
            state: Rc::default(),
            ended: Rc::default(),
            released: Rc::default(),
            bell: Arc::default(),
        }
    }

    /// What the node is doing.
    #[must_use]
    pub fn load(&self) -> Load {
        let state = self.state.borrow();
        Load {
            running: state.running.len(),
            queued: state.queue.len(),
            available: self.parts.offer.capacity.minus(&state.used),
        }
    }

    /// Waits until the next execution has ended.
    pub async fn changed(&self) {
        self.ended.notified().await;
    }

    /// Asks the thread that writes the store for a sign of life.
    ///
    /// # Errors
    /// The store is closed.
    pub async fn ping_store(&self) -> Result<(), StoreError> {
        self.parts.store.ping().await
    }

    /// Takes one message. Answers come through [`Parts::reports`].
    pub fn handle(&self, message: ToCompute) {
        match message {
            ToCompute::AskForBid { execution, run_now } => self.ask(*execution, run_now),
            ToCompute::BidAccepted(id) => self.accept(&id),
            ToCompute::BidRejected(id) => {
                self.state.borrow_mut().waiting.remove(&id);
            }
            ToCompute::Cancel { id, reason } => self.cancel(&id, &reason),
            ToCompute::Acknowledged(id) => self.acknowledged(&id),
            ToCompute::Forget(id) => self.forget(&id),
        }
    }

    /// Starts nothing any more; what is at work goes on, unless it would do so for ever: the next start goes on with
    /// that.
    pub fn drain(&self) {
        let mut state = self.state.borrow_mut();
        state.draining = true;
        for running in state.running.values().filter(|running| running.for_ever) {
            running.interrupt.raise(Cause::Shutdown);
        }
    }

    /// The node went down while there was work: until [`Compute::trust`] no run begins before it is on the disk.
    pub fn beware(&self) {
        self.state.borrow_mut().wary = true;
    }

    fn is_wary(&self) -> bool {
        self.state.borrow().wary
    }

    /// Starts nothing and resumes nothing until [`Compute::release`]; `why` is told to those who wait.
    pub fn hold(&self, why: &str) {
        self.state.borrow_mut().held = Some(why.to_owned());
    }

    /// Whether nothing is started for now.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.state.borrow().held.is_some()
    }

    /// Starts what waits, one execution at a time until [`Compute::trust`].
    pub fn release(&self) {
        {
            let mut state = self.state.borrow_mut();
            state.held = None;
            state.cautious = true;
        }
        self.released.notify_waiters();
        self.pump();
    }

    /// Starts as many as fit again, and takes them down as it is cheapest.
    pub fn trust(&self) {
        {
            let mut state = self.state.borrow_mut();
            state.cautious = false;
            state.wary = false;
        }
        self.pump();
    }

    /// Waits for as long as nothing is to be started.
    async fn until_released(&self) {
        loop {
            let released = self.released.notified();
            if !self.is_held() {
                return;
            }
            released.await;
        }
    }

    /// Stops what is at work because the node stops.
    pub fn shut_down(&self) {
        {
            let mut state = self.state.borrow_mut();
            state.draining = true;
            state.silent = true;
            state.held = None;
            for running in state.running.values() {
                running.interrupt.raise(Cause::Shutdown);
            }
        }
        self.released.notify_waiters();
    }

    fn report(&self, report: FromCompute) {
        if self.state.borrow().silent {
            return;
        }
        // What a stop cut off is settled by the next start, also where the rest is still given time.
        let cut_off = matches!(&report, FromCompute::ComputeError { failure, .. } if failure.code == FailureCode::NodeRestart);
        if cut_off && self.state.borrow().draining {
            return;
        }
        // No receiver: the node is stopping, and the store holds the state.
        let _ = self.parts.reports.send(report);
    }

    fn ask(&self, order: Order, run_now: bool) {
        let id = order.id.clone();
        // A repeated message must not run anything twice: what is known is answered from what is known.
        {
            let state = self.state.borrow();
            if state.waiting.contains_key(&id) || state.running.contains_key(&id) {
                return;
            }
        }
        match self.parts.store.get(&id) {
            Ok(Some(record)) if record.state != ExecutionState::BidAccepted => {
                return self.answer_again(record);
            }
            Ok(_) => {}
            Err(error) => {
                let failure = Failure::new(FailureCode::Internal, format!("cannot read the store: {error}"));
                return self.report(FromCompute::BidResult { id, refused: Some(failure) });
            }
        }
        match self.parts.offer.decide(&order.spec) {
            Err(failure) => self.report(FromCompute::BidResult { id, refused: Some(failure) }),
            Ok(needs) => {
                let waiting = Waiting { order, needs, accepted: false };
                self.state.borrow_mut().waiting.insert(id.clone(), waiting);
                self.report(FromCompute::BidResult { id: id.clone(), refused: None });
                if run_now {
                    self.accept(&id);
                }
            }
        }
    }

    /// Says again how an execution ended or that it is at work.
    fn answer_again(&self, record: ExecutionRecord) {
        let id = record.id;
        match record.state {
            ExecutionState::Completed => {
                let published = self.parts.store.result(&id).ok().flatten().is_some();
                let output = record.output.unwrap_or_default();
                self.report(FromCompute::RunResult { id, output, published, notes: Vec::new() });
            }
            state if state.is_terminal() => {
                let failure = record.failure.unwrap_or_else(|| {
                    Failure::new(
                        FailureCode::Internal,
                        format!("the execution ended as {state} without a reason"),
                    )
                });
                self.report(FromCompute::ComputeError { id, failure });
            }
            _ => {}
        }
    }

    fn accept(&self, id: &ExecutionId) {
        let (pause, restarts, ends) = {
            let mut state = self.state.borrow_mut();
            let Some(entry) = state.waiting.get_mut(id).filter(|w| !w.accepted) else { return };
            entry.accepted = true;
            let Order { restarts, spec, .. } = &entry.order;
            (pause_after(*restarts, self.parts.restart_pause), *restarts, spec.job_type.runs_to_completion())
        };
        if pause.is_zero() {
            return self.enqueue(id);
        }
        // How often it was cut off is on disk; the pause begins anew should the node restart meanwhile.
        let pause_text = humantime::format_duration(pause);
        let reason = if ends {
            format!("restarts of the node have cut it off {restarts} times: it is run again in {pause_text}")
        } else {
            format!("it has ended {restarts} times in a row: it is run again in {pause_text}")
        };
        self.report(FromCompute::Queued { id: id.clone(), reason });
        let (this, id) = (self.clone(), id.clone());
        tokio::task::spawn_local(async move {
            tokio::time::sleep(pause).await;
            this.enqueue(&id);
        });
    }

    /// Puts an accepted execution in line, unless it was cancelled meanwhile.
    fn enqueue(&self, id: &ExecutionId) {
        let full = {
            let mut state = self.state.borrow_mut();
            let State { waiting, queue, .. } = &mut *state;
            let Some(entry) = waiting.get(id) else { return };
            let full = queue.push(id.clone(), entry.order.spec.priority, entry.needs).err();
            if full.is_some() {
                waiting.remove(id);
            }
            full
        };
        if let Some(full) = full {
            let failure =
                Failure::new(FailureCode::Unsupported, full.to_string()).hint("submit it again later");
            return self.report(FromCompute::ComputeError { id: id.clone(), failure });
        }
        self.pump();
        let state = self.state.borrow();
        if state.waiting.contains_key(id) {
            let disk = self.parts.shelf.disk_report();
            let reason = state.held.clone().unwrap_or_else(|| {
                if disk.state.takes_work() {
                    let (running, queued) = (state.running.len(), state.queue.len());
                    format!("waits for room: {running} running, {queued} in the queue")
                } else {
                    format!("waits: {}", disk.message())
                }
            });
            drop(state);
            self.report(FromCompute::Queued { id: id.clone(), reason });
        }
    }

    fn cancel(&self, id: &ExecutionId, reason: &str) {
        let mut state = self.state.borrow_mut();
        if let Some(running) = state.running.get_mut(id) {
            running.stop_reason.get_or_insert_with(|| reason.to_owned());
            running.interrupt.raise(Cause::Cancelled);
            return;
        }
        let cancelled = || {
            let failure = Failure::new(FailureCode::Cancelled, reason);
            FromCompute::ComputeError { id: id.clone(), failure }
        };
        state.queue.remove(id);
        let was_waiting = state.waiting.remove(id).is_some();
        drop(state);
        if was_waiting {
            self.report(cancelled());
            return self.pump();
        }
        // It has ended, or a stop of the node came between: whoever asks is to hear how it stands.
        match self.parts.store.get(id) {
            Ok(Some(record)) => self.answer_again(record),
            Ok(None) => self.report(cancelled()),
            Err(error) => log::error!("execution {id}: cannot read the store: {error}"),
        }
    }

    /// The record of an execution that has ended goes: durably, before the orchestrator loses sight of it.
    fn forget(&self, id: &ExecutionId) {
        let ended = self.parts.store.get(id).map(|record| record.is_some_and(|r| r.state.is_terminal()));
        match ended {
            Ok(true) => {
                let mut change = self.parts.store.change();
                change.delete_execution(id);
                drop(self.parts.store.write_internal(change));
            }
            Ok(false) => {}
            Err(error) => log::warn!("execution {id}: its record stays, the store cannot be read: {error}"),
        }
    }

    fn acknowledged(&self, id: &ExecutionId) {
        if !self.parts.outbox {
            return;
        }
        if let Ok(Some(mut record)) = self.parts.store.get(id)
            && record.state.is_terminal()
        {
            record.reported = true;
            let mut change = self.parts.store.change();
            change.put_execution(&record);
            // Lost in a power cut, it is reported once more: at least once is what was promised.
            drop(self.parts.store.write_lazy(change));
        }
    }

    /// Starts whatever fits, if the disk is fine.
    fn pump(&self) {
        if self.state.borrow().queue.is_empty() || !self.parts.shelf.look_at_disk().state.takes_work() {
            return;
        }
        self.bell.notify_one();
        loop {
            let (order, interrupt, needs) = {
                let mut state = self.state.borrow_mut();
                let most = if state.cautious { 1 } else { self.parts.running_max.min(RUNNING_MAX) };
                if state.draining || state.held.is_some() || state.running.len() >= most {
                    return;
                }
                let room = self.parts.offer.capacity.minus(&state.used);
                let Some(id) = state.queue.pop(&room) else { return };
                let Some(Waiting { order, needs, .. }) = state.waiting.remove(&id) else { continue };
                let interrupt = Interrupt::new();
                state.used = state.used.plus(&needs);
                let for_ever = !order.spec.job_type.runs_to_completion();
                let running = Running { interrupt: interrupt.clone(), needs, stop_reason: None, for_ever };
                state.running.insert(id, running);
                (order, interrupt, needs)
            };
            let this = self.clone();
            tokio::task::spawn_local(async move {
                let id = order.id.clone();
                let report = life::live(&this, order, needs, interrupt).await;
                this.finished(&id, report);
            });
        }
    }

    /// Gives back what an execution held and reports its end.
    fn finished(&self, id: &ExecutionId, report: FromCompute) {
        let mut told_to_stop = false;
        {
            let mut state = self.state.borrow_mut();
            if let Some(running) = state.running.remove(id) {
                state.used = state.used.minus(&running.needs);
                told_to_stop = running.stop_reason.is_some();
            }
        }
        self.ended.notify_one();
        let full = matches!(&report, FromCompute::ComputeError { failure, .. } if failure.code == FailureCode::DiskFull);
        if full && !told_to_stop {
            self.parts.shelf.note_full();
        }
        self.report(report);
        self.pump();
    }

    /// Why a running execution is being stopped.
    fn stop_reason(&self, id: &ExecutionId) -> Option<String> {
        self.state.borrow().running.get(id).and_then(|running| running.stop_reason.clone())
    }

    /// The event and the report for an execution that failed.
    fn failed(id: ExecutionId, failure: Failure) -> (ExecutionEvent, FromCompute) {
        let event = if failure.code == FailureCode::Cancelled {
            ExecutionEvent::Cancel
        } else {
            ExecutionEvent::Fail
        };
        (event, FromCompute::ComputeError { id, failure })
    }
}

/// An execution that never ran has this output.
fn no_output() -> RunOutput {
    RunOutput { exit_code: -1, ..RunOutput::default() }
}
