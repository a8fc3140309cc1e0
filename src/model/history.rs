//! What happened to a job, in order, with reasons.

use serde::{Deserialize, Serialize};

use super::failure::Failure;
use super::ids::ExecutionId;
use super::state::{ExecutionState, JobState};
use super::time::Timestamp;

/// What an event is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Level {
    /// The job: its state before and after (equal if only something was noted).
    Job {
        /// Before; absent at submission.
        previous: Option<JobState>,
        /// After.
        new: JobState,
    },
    /// One execution: its state before and after.
    Execution {
        /// Which.
        id: ExecutionId,
        /// Before; absent when it was made.
        previous: Option<ExecutionState>,
        /// After.
        new: ExecutionState,
    },
}

/// Bacalhau's words for where an event comes from (persistence.md section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Topic {
    /// A job came in.
    Submission,
    /// Executions were made or refused.
    Scheduling,
    /// Waiting for room.
    Queueing,
    /// An execution moved on.
    Execution,
    /// The job's state changed.
    StateUpdate,
    /// An execution took too long.
    ExecTimeout,
    /// The job took too long.
    JobTimeout,
    /// A result was deleted, pinned or unpinned.
    Results,
    /// The node restarted.
    Restart,
}

impl Topic {
    /// As printed and sent.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Submission => "Submission",
            Self::Scheduling => "Scheduling",
            Self::Queueing => "Queueing",
            Self::Execution => "Execution",
            Self::StateUpdate => "State Update",
            Self::ExecTimeout => "Exec Timeout",
            Self::JobTimeout => "Job Timeout",
            Self::Results => "Results",
            Self::Restart => "Restart",
        }
    }
}

/// One entry of a job's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEvent {
    /// Position in the job's history, from 1 without gaps.
    pub seq: u64,
    /// What it is about.
    pub level: Level,
    /// Where it comes from.
    pub topic: Topic,
    /// What happened.
    pub message: String,
    /// Why, if something failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// When.
    pub time: Timestamp,
}
