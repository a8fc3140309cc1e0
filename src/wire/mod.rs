//! Bacalhau's JSON for each client generation, and job files in JSON and YAML: pure data and pure functions.
//!
//! The facts are those of the published HTTP API of the 1.4 and 1.9 lines; [`Dialect`] says where the two differ.

pub mod dialect;
mod fields;
pub mod job;
mod task;
pub mod tree;

pub use dialect::Dialect;
pub use job::{ReadJob, Reading, read_job};
pub use tree::{Tree, TreeError};
