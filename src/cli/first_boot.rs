//! `codling first-boot`: takes settings over from the boot partition.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::Context;
use super::exit::{CliError, Exit};
use crate::agent::first_boot::{FirstBootError, NAME, Taken, take_over};
use crate::config::{Finding, Severity};
use crate::sys::RealFiles;
use crate::sys::users::{self, User};

/// Take settings over from the boot partition
///
/// codling.yaml is looked for on the boot partition. If it is good it moves to config.d/50-boot.yaml beside the node's
/// settings, where only the node can read it, and counts from the next start on; if it is wrong it stays, with the reason
/// in codling.yaml.error beside it. Meant for codling-first-boot.service; to do it again changes nothing.
#[derive(Debug, Args)]
pub struct FirstBootArgs {
    /// Where the boot partition is mounted [default: /boot/firmware, or else /boot]
    #[arg(long, value_name = "DIR")]
    pub boot: Option<PathBuf>,
    /// Directory of the node's settings
    #[arg(long, value_name = "DIR", default_value = "/etc/codling")]
    pub etc: PathBuf,
    /// User that the node runs as; counts for root only
    #[arg(long, value_name = "USER", default_value = "codling")]
    pub owner: String,
}

/// Where Raspberry Pi OS mounts the boot partition, now and before bookworm.
const BOOTS: [&str; 2] = ["/boot/firmware", "/boot"];

/// Takes settings over.
///
/// # Errors
/// They are wrong, or a step failed.
pub fn run(args: &FirstBootArgs, context: &Context<'_>) -> Result<Exit, CliError> {
    crate::sys::logger::install(log::LevelFilter::Warn);
    let owner = owner(&args.owner)?;
    let boots = match &args.boot {
        Some(boot) => vec![boot.clone()],
        None => BOOTS.map(PathBuf::from).into(),
    };
    let mut taken = Taken::Nothing;
    for boot in &boots {
        taken = take_over(&RealFiles, boot, &args.etc, owner).map_err(failed)?;
        if !matches!(taken, Taken::Nothing) {
            break;
        }
    }
    let (part, warnings) = match taken {
        Taken::Nothing => (None, Vec::new()),
        Taken::Over { part, warnings } => (Some(part), warnings),
        Taken::Refused { file, error, findings } => {
            let what =
                format!("{} is not taken over: it has {} problem(s)", file.display(), errors(&findings));
            let beside =
                error.map_or(String::new(), |path| format!(" (they are in {}, too)", path.display()));
            let hint =
                format!("correct them{beside} and start again; until then the settings stay as they are");
            let details = findings.iter().map(ToString::to_string).collect();
            return Err(CliError::new(Exit::Config, what).details(details).hint(hint));
        }
    };
    for warning in &warnings {
        context.out.warn(&warning.to_string());
    }
    let data = json!({ "Taken": part.is_some(), "Part": part });
    context.out.show(&data, || match &part {
        None => format!("no {NAME} on the boot partition\n"),
        Some(part) => format!("the settings are in {} now\n", super::text::escape(&part.to_string_lossy())),
    })?;
    Ok(Exit::Ok)
}

fn errors(findings: &[Finding]) -> usize {
    findings.iter().filter(|finding| finding.severity == Severity::Error).count()
}

/// Whom the settings are for. Only root can give files away; for anybody else they stay the caller's.
fn owner(name: &str) -> Result<Option<User>, CliError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let found = users::find(name).map_err(|error| {
        CliError::caused(Exit::Io, "cannot look for the node's user in /etc/passwd", error)
    })?;
    if found.is_none() {
        let error = CliError::new(Exit::NotFound, format!("there is no user '{name}'"));
        return Err(
            error.hint("install the package first, or name the user that the node runs as by --owner")
        );
    }
    Ok(found)
}

fn failed(error: FirstBootError) -> CliError {
    let hint = "it can be done again: what has been done so far is whole";
    CliError::caused(Exit::Io, "the settings of the boot partition are not taken over", error).hint(hint)
}
