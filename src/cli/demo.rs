//! `codling demo`: the main job from start to finish.

use std::path::PathBuf;

use clap::Args;

use super::exit::{CliError, Exit};

/// Run the main job from start to finish on a sample
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// A file of your own instead of the sample
    #[arg(value_name = "FILE")]
    pub input: Option<PathBuf>,
}

/// Runs the main job from start to finish.
///
/// # Errors
/// A step failed.
pub fn run(_args: &DemoArgs) -> Result<Exit, CliError> {
    Err(CliError::new(Exit::Unavailable, "this build has no demo in it"))
}
