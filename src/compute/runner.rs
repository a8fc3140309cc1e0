//! What happens on an execution's own thread: make room, fetch inputs, run the guest, read what it left.

use std::sync::Arc;

use crate::engine::Scratch;
use crate::model::message::Order;
use crate::model::{Failure, Resources, RunOutput};
use crate::results::ScratchLease;
use crate::sys::Interrupt;

/// One execution to be run.
#[derive(Debug)]
pub struct Work {
    /// What.
    pub order: Order,
    /// What is reserved for it.
    pub needs: Resources,
    /// Where.
    pub scratch: Scratch,
    /// What stops it.
    pub interrupt: Interrupt,
}

/// How a run ended.
pub struct Ended {
    /// What it left, also when it failed half way.
    pub output: RunOutput,
    /// Why it failed, if it did. A program that exits with another code than 0 did not fail.
    pub failure: Option<Failure>,
    /// Room for its files: to be held until they are gone.
    pub lease: Option<ScratchLease>,
}

/// Runs executions. Blocks its thread.
pub trait Runner: Send + Sync {
    /// Runs one, from its inputs to its output files.
    fn run(&self, work: &Work) -> Ended;
}

/// Runs on a thread of its own; the answer comes through the returned future.
///
/// # Errors
/// The system gives no thread.
pub fn spawn(runner: &Arc<dyn Runner>, work: Work) -> std::io::Result<tokio::sync::oneshot::Receiver<Ended>> {
    let (answer, ended) = tokio::sync::oneshot::channel();
    let runner = Arc::clone(runner);
    std::thread::Builder::new().name("engine".into()).stack_size(crate::engine::THREAD_STACK).spawn(
        move || {
            // The execution may have been given up; its record says how it ended.
            let _ = answer.send(runner.run(&work));
        },
    )?;
    Ok(ended)
}
