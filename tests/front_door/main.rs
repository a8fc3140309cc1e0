//! Behaviour through the front door: the built binary, real files, real sockets.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and prints the log of its node"
)]

mod access;
mod addresses;
mod attack;
mod bad_input;
mod boards;
mod clients;
mod config;
mod demo;
mod disk_full;
mod doctor;
mod exchanges;
mod first_boot;
mod hostile;
mod job_get;
mod jobs;
mod lifecycle;
mod logs;
mod moves;
mod node;
mod packing;
mod power;
mod program;
mod quota;
mod restart;
mod results_http;
mod scheduling;
mod service;
mod services;
mod serving;
mod socket;
mod stop;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "tls")]
mod update;
mod wasm_run;
