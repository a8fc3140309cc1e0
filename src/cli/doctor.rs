//! `codling doctor`: what is good and what is not, each with the next step.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::Context;
use super::exit::{CliError, Exit};
use super::settings_args::SettingsArgs;
use super::text::escape;
use crate::doctor::{Finding, Level, Wanted, judge, look, worst};

/// Say what is good and what is not about this machine and its settings
///
/// Nothing is changed, and a node that runs is not disturbed. Without --config or --data-dir the settings of the installed
/// service are looked at (/etc/codling/config.yaml), if there are any. Exit status 1 if there is a problem.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Look at the system below this directory, e.g. a card's, instead of this machine
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
    /// Settings.
    #[command(flatten)]
    pub settings: SettingsArgs,
}

/// Looks and tells.
///
/// # Errors
/// The root is no directory.
pub fn run(args: &DoctorArgs, context: &Context<'_>) -> Result<Exit, CliError> {
    let root = args.root.canonicalize().map_err(|error| {
        CliError::caused(Exit::NotFound, format!("cannot look at {}", args.root.display()), error)
    })?;
    if !root.is_dir() {
        return Err(CliError::new(Exit::NotFound, format!("{} is no directory", root.display())));
    }
    let facts = look(&Wanted { root, overrides: args.settings.overrides() });
    let findings = judge(&facts);
    let data: Vec<_> = findings
        .iter()
        .map(|finding| {
            json!({ "Check": finding.check, "Level": finding.level.as_str(), "Found": finding.found,
                    "Next": finding.next })
        })
        .collect();
    context.out.show(&data, || table(&findings))?;
    Ok(if worst(&findings) == Level::Problem { Exit::JobFailed } else { Exit::Ok })
}

/// A line for each finding, and one below it for the next step.
fn table(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { check, level, found, next } in findings {
        text.push_str(&format!("{:7}  {check:width$}  {}\n", level.as_str(), escape(found)));
        if !next.is_empty() {
            text.push_str(&format!("{:7}  {:width$}  -> {}\n", "", "", escape(next)));
        }
    }
    text
}
