//! codling: a small Bacalhau node for ARM boards.
//!
//! The house is described in `ARCHITECTURE.md`: a module imports only from floors below its own.

pub mod agent;
pub mod api;
pub mod archive;
pub mod cli;
pub mod compute;
pub mod config;
pub mod doctor;
pub mod engine;
#[cfg(all(any(test, fuzzing), any(feature = "wasm", feature = "interpreter")))]
pub mod fuzz;
pub mod gate;
pub mod input;
pub mod logs;
pub mod model;
pub mod orchestrator;
pub mod publisher;
pub mod results;
pub mod store;
pub mod sys;
pub mod update;
pub mod wire;
