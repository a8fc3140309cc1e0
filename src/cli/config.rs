//! `codling config`: shows and checks settings.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::Context;
use super::exit::{CliError, Exit};
use super::serve::wrong_settings;
use super::settings_args::SettingsArgs;
use super::text::Table;
use crate::config::{self, ProcessEnv, Severity};

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
        settings: Box<SettingsArgs>,
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
pub fn run(args: &ConfigArgs, context: &Context<'_>) -> Result<Exit, CliError> {
    match &args.command {
        ConfigCommand::List { origin, settings } => list(settings, *origin, context),
        ConfigCommand::Check { file } => check(file, context),
    }
}

fn list(settings: &SettingsArgs, with_origin: bool, context: &Context<'_>) -> Result<Exit, CliError> {
    let loaded = config::load(&settings.overrides(), &ProcessEnv).map_err(|error| wrong_settings(&error))?;
    for warning in &loaded.warnings {
        context.out.warn(&warning.to_string());
    }
    let rows = config::list(&loaded);
    let data: Vec<_> = rows
        .iter()
        .map(|row| {
            json!({ "Key": row.key, "Value": row.value, "Origin": row.origin.to_string(), "Default": row.default,
                    "Takes": row.kind, "Description": row.doc })
        })
        .collect();
    context.out.show(&data, || {
        if with_origin {
            let mut table = Table::new(&["KEY", "VALUE", "ORIGIN"]);
            rows.iter().for_each(|row| table.row(&[row.key, &row.value, &row.origin.to_string()]));
            table.render()
        } else {
            let mut table = Table::new(&["KEY", "VALUE", "DESCRIPTION"]);
            rows.iter().for_each(|row| table.row(&[row.key, &row.value, row.doc]));
            table.render()
        }
    })?;
    Ok(Exit::Ok)
}

fn check(file: &Path, context: &Context<'_>) -> Result<Exit, CliError> {
    let bytes = config::read(file).map_err(|error| {
        CliError::caused(Exit::NotFound, format!("cannot read {}", file.display()), error)
    })?;
    let findings = config::check(file, &bytes, &ProcessEnv);
    let is_error = |finding: &&config::Finding| finding.severity == Severity::Error;
    let errors: Vec<String> = findings.iter().filter(is_error).map(ToString::to_string).collect();
    for warning in findings.iter().filter(|finding| !is_error(finding)) {
        context.out.warn(&warning.to_string());
    }
    if errors.is_empty() {
        context.out.note(&format!("{}: good", file.display()));
        return Ok(Exit::Ok);
    }
    let what = format!("{} has {} problem(s)", file.display(), errors.len());
    Err(CliError::new(Exit::Config, what).details(errors))
}
