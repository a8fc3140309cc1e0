//! One run of a job's task on one node, as each of the two roles keeps it.

use serde::{Deserialize, Serialize};

use super::failure::Failure;
use super::ids::{ExecutionId, JobDigest, JobId};
use super::resources::Resources;
use super::state::{DesiredState, ExecutionEvent, ExecutionState, IllegalTransition};
use super::time::Timestamp;

/// Bytes of each stream that go into the record (job-spec.md section 11).
pub const STREAM_HEAD: usize = 2048;

/// What a finished run left: the first 2 KiB of each stream and the exit code.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunOutput {
    /// First [`STREAM_HEAD`] bytes of standard output, invalid UTF-8 replaced.
    pub stdout: String,
    /// Whether there was more.
    pub stdout_truncated: bool,
    /// First [`STREAM_HEAD`] bytes of standard error, invalid UTF-8 replaced.
    pub stderr: String,
    /// Whether there was more.
    pub stderr_truncated: bool,
    /// What the program returned; -1 if it never ran.
    pub exit_code: i32,
}

/// The compute role's record of an execution (`executions.db`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutionRecord {
    /// Its id.
    pub id: ExecutionId,
    /// Its job.
    pub job_id: JobId,
    /// Where the job's body is.
    pub digest: JobDigest,
    /// Which of the job's `Count` this is.
    pub partition: u32,
    /// How many executions of this partition a restart has cut off before this one.
    #[serde(default)]
    pub restarts: u32,
    /// Its state.
    pub state: ExecutionState,
    /// Changes so far, from 1.
    pub revision: u64,
    /// What is reserved for it.
    pub resources: Resources,
    /// Accepted.
    pub created: Timestamp,
    /// Last changed.
    pub modified: Timestamp,
    /// Why it failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// What the run left, once it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<RunOutput>,
    /// Whether the orchestrator has acknowledged the end: `false` rows are the outbox.
    #[serde(default)]
    pub reported: bool,
}

/// The orchestrator role's row of an execution (`jobs.db`): what it asked for and what it was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutionRow {
    /// Its id.
    pub id: ExecutionId,
    /// Its job.
    pub job_id: JobId,
    /// Version of the job's body that it runs.
    pub job_version: u64,
    /// Which of the job's `Count` this is.
    pub partition: u32,
    /// How many executions of this partition a restart has cut off before this one; of a job that runs for ever, how
    /// many have ended in a row.
    #[serde(default)]
    pub restarts: u32,
    /// The execution that this one replaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<ExecutionId>,
    /// What the orchestrator wants.
    pub desired: DesiredState,
    /// What it knows.
    pub state: ExecutionState,
    /// Why; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Exit code, once it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Whether a result was published.
    #[serde(default)]
    pub published: bool,
    /// Changes so far, from 1.
    pub revision: u64,
    /// Made.
    pub created: Timestamp,
    /// Last changed.
    pub modified: Timestamp,
}

impl ExecutionRecord {
    /// Moves on. The one place where a record's state changes.
    ///
    /// # Errors
    /// The event makes no sense in this state; nothing changed.
    pub fn advance(&mut self, event: ExecutionEvent, now: Timestamp) -> Result<(), IllegalTransition> {
        self.state = self.state.next(event)?;
        self.revision += 1;
        self.modified = now;
        Ok(())
    }
}

impl ExecutionRow {
    /// Moves on. The one place where a row's state changes.
    ///
    /// # Errors
    /// The event makes no sense in this state; nothing changed.
    pub fn advance(&mut self, event: ExecutionEvent, now: Timestamp) -> Result<(), IllegalTransition> {
        self.state = self.state.next(event)?;
        self.revision += 1;
        self.modified = now;
        Ok(())
    }
}
