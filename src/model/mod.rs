//! Jobs, executions, results, states, resources, ids: plain data and pure functions, no I/O.
//!
//! Everything above imports from here; nothing here imports from above. Bacalhau's JSON lives in [`crate::wire`].

pub mod backoff;
pub mod board;
pub mod disk;
pub mod engine;
pub mod execution;
pub mod failure;
pub mod head;
pub mod history;
pub mod ids;
pub mod job;
pub mod message;
pub mod resources;
pub mod result;
pub mod state;
pub mod time;
pub mod units;
pub mod validate;

pub use board::{Board, Recognised};
pub use disk::{DiskEvent, DiskReport, DiskState, Trouble};
pub use engine::{ModuleRef, WasmSpec};
pub use execution::{ExecutionRecord, ExecutionRow, RunOutput};
pub use failure::{Failure, FailureCode, with_causes};
pub use head::JobHead;
pub use history::{HistoryEvent, Level, Topic};
pub use ids::{EvaluationId, ExecutionId, Generation, IdError, JobDigest, JobId, NodeId, Sha256};
pub use job::{
    Constraint, InputSource, JobRecord, JobSpec, JobType, Network, ResultPath, Source, SpecConfig, Task,
    Timeouts,
};
pub use resources::{ResourceRequest, Resources};
pub use result::{Dating, Deletion, DeletionReason, EvictFirst, Pin, ResultEntry, ResultStatus};
pub use state::{DesiredState, ExecutionState, IllegalTransition, JobState};
pub use time::{ClockNote, Timestamp};
pub use units::{Bytes, MilliCpu};
