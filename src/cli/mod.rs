//! The command line.

pub mod settings_args;
