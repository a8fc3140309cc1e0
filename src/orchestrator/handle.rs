//! How other threads reach the core: a bounded channel of commands, answered one by one.

use tokio::sync::{mpsc, oneshot};

use crate::compute::Load;
use crate::model::validate::Problems;
use crate::model::{DiskReport, EvaluationId, IllegalTransition, JobId, JobSpec};
use crate::store::StoreError;

/// Commands that may wait for the core; one for each thread that can ask is enough.
const COMMANDS_MAX: usize = 64;

/// A job that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    /// Its id.
    pub job_id: JobId,
    /// What clients echo.
    pub evaluation_id: EvaluationId,
}

/// Why the core did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CoreError {
    /// The job is not acceptable.
    #[error(transparent)]
    Invalid(#[from] Problems),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// It is in a state in which this cannot be done.
    #[error("{0}")]
    Conflict(#[from] IllegalTransition),
    /// Too much is active already.
    #[error("the node has {active} active jobs and takes no more for now; submit it again later")]
    TooManyJobs {
        /// How many.
        active: usize,
    },
    /// The disk is full or fails: no new work is taken.
    #[error("the job was not taken: {}", .0.message())]
    Disk(DiskReport),
    /// The store refused.
    #[error("the job could not be stored: {0}")]
    Store(#[from] StoreError),
    /// The node is stopping: it takes no job, or its core thread does not answer any more.
    #[error("the node is stopping; try again when it is back")]
    Stopping,
    /// Cannot happen; said all the same.
    #[error("{0}")]
    Internal(String),
}

/// A command for the core.
#[derive(Debug)]
pub enum Command {
    /// Take a job.
    Submit(Box<JobSpec>, oneshot::Sender<Result<Submitted, CoreError>>),
    /// Stop one.
    Stop(JobId, String, oneshot::Sender<Result<EvaluationId, CoreError>>),
    /// What are you doing?
    Load(oneshot::Sender<Load>),
    /// Does the store's thread answer?
    Check(oneshot::Sender<Result<(), CoreError>>),
}

/// Talks to the core from any other thread; each call blocks until it is answered.
#[derive(Debug, Clone)]
pub struct NodeHandle {
    commands: mpsc::Sender<Command>,
}

impl NodeHandle {
    /// A handle and what the core listens on.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Command>) {
        let (commands, listener) = mpsc::channel(COMMANDS_MAX);
        (Self { commands }, listener)
    }

    fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, CoreError> {
        let (answer, wait) = oneshot::channel();
        self.commands.blocking_send(command(answer)).map_err(|_| CoreError::Stopping)?;
        wait.blocking_recv().map_err(|_| CoreError::Stopping)
    }

    /// Takes a job; when this returns, it is on disk.
    ///
    /// # Errors
    /// See [`CoreError`].
    pub fn submit(&self, spec: JobSpec) -> Result<Submitted, CoreError> {
        self.ask(|answer| Command::Submit(Box::new(spec), answer))?
    }

    /// Stops a job for good.
    ///
    /// # Errors
    /// See [`CoreError`].
    pub fn stop(&self, id: &JobId, reason: &str) -> Result<EvaluationId, CoreError> {
        self.ask(|answer| Command::Stop(id.clone(), reason.to_owned(), answer))?
    }

    /// What the node is doing.
    ///
    /// # Errors
    /// The node is stopping.
    pub fn load(&self) -> Result<Load, CoreError> {
        self.ask(Command::Load)
    }

    /// Whether the core answers, and the store's thread answers the core.
    ///
    /// # Errors
    /// One of them does not.
    pub fn check(&self) -> Result<(), CoreError> {
        self.ask(Command::Check)?
    }
}
