//! The one port between the roles: what an orchestrator tells a compute node, and what that answers.
//!
//! The orchestrator in this process and a Bacalhau orchestrator over NATS speak these same messages.

use std::sync::Arc;

use super::execution::RunOutput;
use super::failure::Failure;
use super::ids::{ExecutionId, JobDigest, JobId};
use super::job::JobSpec;

/// To the compute role.
#[derive(Debug, Clone)]
pub enum ToCompute {
    /// Will you run this? With `run_now`, a yes is also the order to run it (ops jobs have no second round).
    AskForBid {
        /// The execution to be.
        execution: Box<Order>,
        /// Whether a yes starts it.
        run_now: bool,
    },
    /// Run it.
    BidAccepted(ExecutionId),
    /// Do not run it.
    BidRejected(ExecutionId),
    /// Stop it, whatever it is doing.
    Cancel {
        /// Which.
        id: ExecutionId,
        /// Why, for the record.
        reason: String,
    },
    /// The end of this execution has been stored: it need not be reported again.
    Acknowledged(ExecutionId),
    /// Nobody will ask for this execution, which has ended, any more: its record may go; a result stays as long as
    /// results do. Only an orchestrator in the same process says this.
    Forget(ExecutionId),
}

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Order {
    /// Its id.
    pub id: ExecutionId,
    /// Its job.
    pub job_id: JobId,
    /// The job's body.
    pub spec: Arc<JobSpec>,
    /// The digest of the body.
    pub digest: JobDigest,
    /// Which of the job's `Count` this is.
    pub partition: u32,
    /// How many executions of this partition a restart has cut off before this one; of a job that runs for ever, how
    /// many have ended in a row.
    pub restarts: u32,
}

/// From the compute role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromCompute {
    /// Answer to `AskForBid`.
    BidResult {
        /// Which.
        id: ExecutionId,
        /// Why not, if not.
        refused: Option<Failure>,
    },
    /// There is no room for it now; it waits in the node's queue. Only an orchestrator in the same process is told.
    Queued {
        /// Which.
        id: ExecutionId,
        /// What it waits for.
        reason: String,
    },
    /// It has begun. Bacalhau's orchestrators do not ask for this; one in the same process shows it.
    Started(ExecutionId),
    /// It ended by itself (whatever its exit code) and its result, if it has a publisher, is published.
    RunResult {
        /// Which.
        id: ExecutionId,
        /// What it left.
        output: RunOutput,
        /// Whether a result was published.
        published: bool,
        /// What the job's owner should hear about the result, one line each.
        notes: Vec<String>,
    },
    /// It failed.
    ComputeError {
        /// Which.
        id: ExecutionId,
        /// Why.
        failure: Failure,
    },
}
