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
    /// Its version.
    pub version: u64,
    /// What clients echo.
    pub evaluation_id: EvaluationId,
}

/// The next version of a job that is there.
#[derive(Debug, Clone, PartialEq)]
pub struct Renewal {
    /// Which job.
    pub id: JobId,
    /// What it does from now on.
    pub spec: JobSpec,
    /// What for.
    pub why: Why,
}

/// Why a job gets another version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// It came in again under its name.
    Update {
        /// Also if nothing is different.
        force: bool,
    },
    /// A user wants it run once more.
    Rerun {
        /// What the user says to that; may be empty.
        reason: String,
    },
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
    /// An update that changes nothing.
    #[error("no changes: version {version} of job '{name}' is the same")]
    Unchanged {
        /// Its name.
        name: String,
        /// The version that it has.
        version: u64,
    },
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
    /// Give one its next version.
    Renew(Box<Renewal>, oneshot::Sender<Result<Submitted, CoreError>>),
    /// Fill in what a job does not say.
    Complete(Box<JobSpec>, oneshot::Sender<Result<JobSpec, CoreError>>),
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

    /// Gives a job its next version; when this returns, it is on disk.
    ///
    /// # Errors
    /// See [`CoreError`].
    pub fn renew(&self, renewal: Renewal) -> Result<Submitted, CoreError> {
        self.ask(|answer| Command::Renew(Box::new(renewal), answer))?
    }

    /// The job as it would be stored.
    ///
    /// # Errors
    /// See [`CoreError`].
    pub fn complete(&self, spec: JobSpec) -> Result<JobSpec, CoreError> {
        self.ask(|answer| Command::Complete(Box::new(spec), answer))?
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
