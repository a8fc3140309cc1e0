//! Bacalhau's JSON for each client generation, and job files in JSON and YAML: pure data and pure functions.
//!
//! The facts are those of the published HTTP API of the 1.4 and 1.9 lines; [`Dialect`] says where the two differ.

pub mod answers;
pub mod api_error;
pub mod dialect;
pub mod diff;
pub mod execution_view;
mod fields;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
#[cfg(test)]
mod golden;
pub mod history_view;
pub mod job;
pub mod job_view;
pub mod log_line;
pub mod node;
pub mod selector;
mod task;
pub mod tree;
pub mod websocket;

pub use api_error::{ApiError, Code};
pub use dialect::Dialect;
pub use execution_view::{ExecutionParts, ExecutionView, ResultView};
pub use history_view::HistoryView;
pub use job::{ReadJob, Reading, read_job};
pub use job_view::JobView;
pub use node::{AgentNode, BuildVersion, NodeFacts, NodeInfo, NodeState};
pub use tree::{Tree, TreeError};
