//! `codling serve`: runs a node.

use clap::Args;

use super::Context;
use super::exit::{CliError, Exit};
use super::settings_args::SettingsArgs;
use crate::agent::{self, AgentError};
use crate::config::{ConfigError, ProcessEnv, load};

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
pub fn run(args: &ServeArgs, _context: &Context<'_>) -> Result<Exit, CliError> {
    let loaded = load(&args.settings.overrides(), &ProcessEnv).map_err(|error| wrong_settings(&error))?;
    crate::sys::logger::install(loaded.settings.log_level);
    agent::run(&loaded, |addresses| {
        let scheme = if addresses.tls { "https" } else { "http" };
        let (api, results) = (addresses.api, addresses.results);
        log::info!("ready: API on {scheme}://{api}, results on {scheme}://{results}");
    })
    .map_err(cannot_start)?;
    Ok(Exit::Ok)
}

/// Settings that do not add up, every one of them.
pub(super) fn wrong_settings(error: &ConfigError) -> CliError {
    let details = error.findings.iter().map(ToString::to_string).collect();
    CliError::new(Exit::Config, "the settings are not usable")
        .details(details)
        .hint("`codling config list --origin` shows where each value comes from")
}

fn cannot_start(error: AgentError) -> CliError {
    let exit = match &error {
        AgentError::Io { .. } | AgentError::Identity(_) => Exit::Io,
        AgentError::InUse(_) | AgentError::Listen { .. } => Exit::Unavailable,
        AgentError::Tls(_) | AgentError::WrongBoard { .. } => Exit::Config,
        AgentError::Store(_) | AgentError::Shelf(_) => Exit::Io,
        _ => Exit::Internal,
    };
    CliError::caused(exit, "the node does not start", error)
}
