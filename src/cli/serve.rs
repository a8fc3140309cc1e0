//! `codling serve`: runs a node.

use clap::Args;

use super::exit::{CliError, Exit};
use super::settings_args::SettingsArgs;

/// Run a node until it is told to stop
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Settings.
    #[command(flatten)]
    pub settings: SettingsArgs,
}

/// Runs a node until it is told to stop.
///
/// # Errors
/// The settings are wrong, or the node cannot start.
pub fn run(_args: &ServeArgs) -> Result<Exit, CliError> {
    Err(CliError::new(Exit::Unavailable, "this build has no node in it"))
}
