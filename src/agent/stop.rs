//! The end of a node, in order: told once, it finishes what is in hand as far as its deadline allows; told twice, it
//! ends at once.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::compute::Compute;
use crate::orchestrator::Orchestrator;
use crate::results::Shelf;
use crate::store::{StoreError, Stores};
use crate::sys::{Condition, Health, Notifier};

use super::AgentError;
use super::serve::Front;

/// How long executions that were cut off may take to let go. What has not by then is settled at the next start.
const LET_GO: Duration = Duration::from_secs(5);

/// What answers in hand get at least.
const ANSWER: Duration = Duration::from_secs(1);

/// What the last commit and the end of threads may take after all that.
const CLOSE: Duration = Duration::from_secs(10);

/// As a shell has it: ended by SIGTERM.
const CUT_OFF: i32 = 128 + 15;

/// SIGTERM and SIGINT.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From now on they no longer end the process.
    pub(super) fn listen() -> io::Result<Self> {
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt })
    }

    /// Waits for the next of them.
    pub(super) async fn next(&mut self) {
        std::future::poll_fn(|context| {
            let told =
                self.terminate.poll_recv(context).is_ready() || self.interrupt.poll_recv(context).is_ready();
            if told { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Ends the process when the next one comes.
    pub(super) async fn end_at_once(mut self) {
        self.next().await;
        log::warn!("told to stop again: ends at once, the next start settles what was in hand");
        // No destructor may wait: the disk may hang. The store survives worse.
        std::process::exit(CUT_OFF);
    }
}

/// What a stop has to do with.
pub(super) struct Stopping {
    pub health: Arc<Health>,
    pub notifier: Rc<Notifier>,
    pub orchestrator: Orchestrator,
    pub compute: Compute,
    pub front: Front,
    /// Brings reports to the orchestrator.
    pub pump: JoinHandle<()>,
    pub stores: Stores,
    pub shelf: Arc<Shelf>,
    /// `Compute.StopTimeout`.
    pub patience: Duration,
}

impl Stopping {
    /// Takes no work any more, lets executions, publications and answers end, cuts off what does not, and makes
    /// everything durable.
    pub(super) async fn stop(self) -> Result<(), AgentError> {
        let begin = Instant::now();
        log::info!("stopping: what is in hand has {} s", self.patience.as_secs_f32());
        self.health.raise(Condition::Stopping, "the node is stopping");
        let longest = self.patience.saturating_add(LET_GO + ANSWER + CLOSE);
        self.notifier.tell(&format!(
            "STOPPING=1\nSTATUS=stopping: {} execution(s) are in hand\nEXTEND_TIMEOUT_USEC={}",
            self.compute.load().running,
            longest.as_micros()
        ));
        self.orchestrator.drain();
        self.compute.drain();
        // What is held back has not begun.
        if !self.compute.is_held() && timeout(self.patience, idle(&self.compute)).await.is_err() {
            log::info!(
                "{} execution(s) are cut off; the next start goes on with them",
                self.compute.load().running
            );
        }
        self.compute.shut_down();
        if timeout(LET_GO, idle(&self.compute)).await.is_err() {
            log::warn!(
                "{} execution(s) did not end in time; the next start settles them",
                self.compute.load().running
            );
        }
        self.front.stop(self.patience.saturating_sub(begin.elapsed()).max(ANSWER)).await;
        self.pump.abort();
        let mut change = self.stores.executions.change();
        self.shelf.notes(&mut change);
        drop(self.stores.executions.write_lazy(change));
        Ok(close(self.stores).await?)
    }
}

/// Waits until nothing is at work.
async fn idle(compute: &Compute) {
    while compute.load().running > 0 {
        compute.changed().await;
    }
}

/// Closes the stores on a thread of its own: should the disk hang, a second signal is still heard.
async fn close(stores: Stores) -> Result<(), StoreError> {
    let (done, closed) = oneshot::channel();
    std::thread::Builder::new()
        .name("close".into())
        .spawn(move || {
            // The one who waits ends the process if it goes.
            let _ = done.send(stores.close());
        })
        .map_err(|cause| StoreError::Thread { cause: Arc::new(cause) })?;
    closed.await.unwrap_or(Err(StoreError::Closed))
}
