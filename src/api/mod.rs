//! The HTTP API and the results server: tiny_http behind the gate.
//!
//! Routes are Bacalhau's, for its clients of both generations, and the node's own below `/api/v1/codling/`. The
//! handlers translate between [`crate::wire`] and the model, read stores and shelf directly, and ask the core thread
//! ([`Node`]) for what changes a job. They decide nothing.

mod advertise;
mod archives;
mod ask;
mod auth;
mod bases;
mod executions;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod health;
mod history;
mod hosts;
mod jobs;
mod links;
mod logs;
mod metrics;
mod node;
mod openapi;
mod page;
mod range;
mod results;
mod routes;
mod serve;
mod table;
mod urls;
mod versions;

use std::sync::Arc;

use crate::gate::{Parcels, Token};
use crate::model::validate::Problems;
use crate::model::{
    DiskEvent, DiskReport, DiskState, EvaluationId, ExecutionId, JobId, JobSpec, Resources, Timestamp,
    with_causes,
};
use crate::orchestrator::keep::JobKeeper;
use crate::results::Shelf;
use crate::store::{ExecutionStore, JobStore, StoreError};
use crate::sys::{Clock, Health};
use crate::wire::{ApiError, Code, NodeFacts};

pub use ask::{Ask, Reply};
pub use bases::Bases;
pub use hosts::Hosts;
pub use links::Links;
pub use metrics::EndedJobs;
pub use routes::{API, RESULTS, handle, rules_of_api, rules_of_results};
pub use serve::Handlers;
pub use urls::{ResultUrls, UrlSettings};
pub use versions::Names;

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

/// What the node is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeLoad {
    /// Executions that run.
    pub running: u32,
    /// Executions that wait for room.
    pub queued: u32,
    /// What nobody has now.
    pub available: Resources,
}

/// Why the core did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The job is not acceptable.
    #[error(transparent)]
    Invalid(#[from] Problems),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// It is in a state in which this cannot be done.
    #[error("{0}")]
    Conflict(String),
    /// An update that changes nothing.
    #[error("{0}")]
    Unchanged(String),
    /// Too much is active already.
    #[error("{0}")]
    TooMany(String),
    /// The disk is full or fails: no new work is taken.
    #[error("the job was not taken: {}", .0.message())]
    Disk(DiskReport),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The node is stopping.
    #[error("{0}")]
    Unavailable(String),
    /// Cannot happen; said all the same.
    #[error("{0}")]
    Internal(String),
}

impl From<NodeError> for ApiError {
    fn from(error: NodeError) -> Self {
        let code = match &error {
            NodeError::Store(error) => return store_error(error),
            NodeError::Disk(report) => return disk_error(report, error.to_string()),
            NodeError::Invalid(_) => Code::ValidationError,
            NodeError::NotFound(_) => Code::NotFound,
            NodeError::Conflict(_) => Code::Conflict,
            NodeError::Unchanged(_) => {
                return Self::new(Code::BadRequest, error.to_string()).component("Orchestrator").hint(
                    "send it with Force (--force) for a new version all the same, or run the job again (job rerun)",
                );
            }
            NodeError::TooMany(_) => Code::ResourceExhausted,
            NodeError::Unavailable(_) => Code::ServiceUnavailable,
            NodeError::Internal(_) => Code::InternalError,
        };
        Self::new(code, error.to_string()).component("Orchestrator")
    }
}

/// What the core does for the handlers. Each call blocks its thread until it is answered.
pub trait Node: Send + Sync {
    /// Takes a job; when this returns, it is on disk.
    ///
    /// # Errors
    /// See [`NodeError`].
    fn submit(&self, spec: JobSpec) -> Result<Submitted, NodeError>;

    /// Makes this the next version of a job; when this returns, it is on disk.
    ///
    /// # Errors
    /// See [`NodeError`].
    fn update(&self, id: &JobId, spec: JobSpec, force: bool) -> Result<Submitted, NodeError>;

    /// Runs a job once more, with this body, as its next version; when this returns, that is on disk.
    ///
    /// # Errors
    /// See [`NodeError`].
    fn rerun(&self, id: &JobId, spec: JobSpec, reason: &str) -> Result<Submitted, NodeError>;

    /// The job as it would be stored: with everything filled in.
    ///
    /// # Errors
    /// See [`NodeError`].
    fn complete(&self, spec: JobSpec) -> Result<JobSpec, NodeError>;

    /// Stops a job for good.
    ///
    /// # Errors
    /// See [`NodeError`].
    fn stop(&self, id: &JobId, reason: &str) -> Result<EvaluationId, NodeError>;

    /// What the node is doing.
    ///
    /// # Errors
    /// The node is stopping.
    fn load(&self) -> Result<NodeLoad, NodeError>;

    /// Whether the core answers, and the store's thread answers the core.
    ///
    /// # Errors
    /// One of them does not.
    fn check(&self) -> Result<(), NodeError>;
}

/// Everything that answers are made of.
pub struct App {
    /// The core.
    pub node: Box<dyn Node>,
    /// Jobs and their history.
    pub jobs: JobStore,
    /// Executions and the results ledger.
    pub executions: ExecutionStore,
    /// Published results.
    pub shelf: Arc<Shelf>,
    /// What keeps the node from taking work.
    pub health: Arc<Health>,
    /// Lets jobs leave that have ended.
    pub keeper: Arc<JobKeeper>,
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
    /// Who the node is; what it is doing is asked for each time.
    pub facts: NodeFacts,
    /// Where results are fetched from.
    pub urls: ResultUrls,
    /// The API's token, if it has one.
    pub token: Option<Token>,
    /// The names that it answers to if it has none.
    pub hosts: Hosts,
    /// Whose turn it is to submit under a name.
    pub names: Names,
    /// Where files are put for the gate to send.
    pub parcels: Parcels,
    /// How many jobs have ended how, for who watches.
    pub ended: EndedJobs,
    /// When the node started.
    pub started: Timestamp,
}

/// An error of the store, as a client is told. What is wrong inside is for the log.
fn store_error(error: &StoreError) -> ApiError {
    match error {
        StoreError::Busy => {
            ApiError::new(Code::ServiceUnavailable, error.to_string()).hint("try again in a moment")
        }
        _ if error.trouble().is_some() => {
            let state =
                error.trouble().map_or(DiskState::Fine, |t| DiskState::Fine.next(DiskEvent::Trouble(t)));
            let report = DiskReport { state, ..DiskReport::default() };
            disk_error(&report, with_causes(&error))
        }
        StoreError::Closed => ApiError::new(Code::ServiceUnavailable, "the node is stopping"),
        _ => {
            log::error!("store: {}", with_causes(error));
            ApiError::new(Code::DatastoreFailure, with_causes(error)).hint("the node's log says more")
        }
    }
    .component("Store")
}

/// Why nothing can be written now, and what to do: 507 if room is what is missing, else 503.
fn disk_error(report: &DiskReport, message: String) -> ApiError {
    let code = if report.state.wants_room() { Code::InsufficientStorage } else { Code::ServiceUnavailable };
    ApiError::new(code, message)
        .component("Disk")
        .hint(report.hint())
        .detail("DiskState", report.state.as_str())
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        store_error(&error)
    }
}

impl App {
    /// The execution that a user means: by its whole id, or by the beginning of one.
    fn execution(&self, text: &str) -> Result<ExecutionId, ApiError> {
        if let Ok(id) = text.parse::<ExecutionId>() {
            return Ok(id);
        }
        let found = self.executions.find(text, 2)?;
        match found.as_slice() {
            [id] => Ok(id.clone()),
            [] => Err(not_found("execution", text)),
            _ => Err(ApiError::new(Code::Conflict, format!("several executions begin with '{}'", cut(text)))
                .hint("use the full execution id")),
        }
    }
}

/// 404 for a thing of that kind.
fn not_found(kind: &str, text: &str) -> ApiError {
    ApiError::new(Code::NotFound, format!("{kind} not found: {}", cut(text)))
}

fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests;
