//! `codling config`: shows and checks settings.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::exit::{CliError, Exit};
use super::settings_args::SettingsArgs;

/// Show and check settings
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// What to do with settings.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print every setting
    List {
        /// Print where each value comes from, too
        #[arg(long)]
        origin: bool,
        /// Settings.
        #[command(flatten)]
        settings: SettingsArgs,
    },
    /// Report every problem of a settings file
    Check {
        /// The file
        file: PathBuf,
    },
}

/// Shows or checks settings.
///
/// # Errors
/// The settings are wrong.
pub fn run(_args: &ConfigArgs) -> Result<Exit, CliError> {
    Err(CliError::new(Exit::Unavailable, "this build has no settings in it"))
}
