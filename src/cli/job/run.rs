//! `codling job run`: submits a job, and waits for its end if asked to.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::file::JobFile;
use super::watch::Watch;
use super::{RunArgs, SubmitArgs, file, versions};
use crate::cli::Context;
use crate::cli::answers::{JobAnswer, read, short_id};
use crate::cli::client::Client;
use crate::cli::exit::{CliError, Exit};
use crate::cli::out::Format;

/// The answer to a submission.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Submitted {
    #[serde(rename = "JobID")]
    job_id: String,
    #[serde(rename = "EvaluationID")]
    evaluation_id: String,
    #[serde(rename = "Warnings")]
    warnings: Option<Vec<String>>,
}

/// What `--output json` prints.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(rename = "JobID")]
    job_id: &'a str,
    #[serde(rename = "EvaluationID")]
    evaluation_id: &'a str,
    #[serde(rename = "Warnings")]
    warnings: &'a [String],
    /// How it ended, if that was waited for.
    #[serde(rename = "Job", skip_serializing_if = "Option::is_none")]
    job: Option<&'a Value>,
    #[serde(rename = "Executions", skip_serializing_if = "Option::is_none")]
    executions: Option<&'a Value>,
}

/// Runs `codling job run`.
pub fn run(args: &RunArgs, client: &Client, context: &Context<'_>) -> Result<Exit, CliError> {
    args.submit.check()?;
    let job = file::load(&args.file, context)?;
    if args.dry_run {
        return versions::dry_run(&job.job, client, context);
    }
    submit(job, &args.file.display().to_string(), &args.submit, client, context)
}

/// Submits a job that was checked, prints its id, and waits as `args` say; `name` is what the user calls it.
///
/// # Errors
/// The node does not answer or refuses; the job failed.
pub fn submit(
    job: JobFile,
    name: &str,
    args: &SubmitArgs,
    client: &Client,
    context: &Context<'_>,
) -> Result<Exit, CliError> {
    let what = format!("submit {name}");
    let body = json!({"Job": job.job, "Force": args.force});
    let answer = client.put("orchestrator/jobs", &body).map_err(|e| e.doing(&what))?;
    let started = Instant::now();
    let submitted: Submitted = read(client, &answer).map_err(|e| e.doing(&what))?;
    let id = submitted.job_id.as_str();
    if id.is_empty() {
        return Err(CliError::new(
            Exit::Protocol,
            format!("cannot {what}: the node answered without a job id"),
        ));
    }
    let mut warnings = submitted.warnings.unwrap_or_default();
    let own: Vec<String> = job.warnings.into_iter().filter(|w| !warnings.contains(w)).collect();
    warnings.extend(own);
    let silent = args.id_only || context.out.quiet;
    if !silent {
        warnings.iter().for_each(|w| context.out.warn(w));
    }
    let plain = silent || context.out.format == Format::Table;
    match (plain, args.follow && !silent) {
        // Standard output is the program's then.
        (true, true) => context.out.note(&format!("job {id}")),
        (true, false) => context.out.line(id)?,
        (false, _) => {}
    }
    let report = |job, executions| Report {
        job_id: id,
        evaluation_id: &submitted.evaluation_id,
        warnings: &warnings,
        job,
        executions,
    };
    if !args.waits() {
        if !plain {
            context.out.show(&report(None, None), String::new)?;
        }
        return Ok(Exit::Ok);
    }
    let deadline = args.wait_timeout.and_then(|limit| started.checked_add(limit));
    let watch = Watch::new(client, context, id, args.follow && plain, silent, deadline);
    let answer = watch.to_the_end()?;
    let view: JobAnswer = read(client, &answer).map_err(|e| e.doing(&format!("read job {id}")))?;
    if !plain {
        let items = answer.get("Executions").and_then(|e| e.get("Items"));
        context.out.show(&report(answer.get("Job"), items), String::new)?;
    }
    verdict(id, &view, &watch.last_hint())?;
    if !silent {
        let state = view.job.state.state_type.to_lowercase();
        context.out.note(&format!(
            "job {id} {}",
            if state == "running" { "runs, and does so for ever" } else { &state }
        ));
        let published = view.job.tasks.first().is_some_and(|t| !t.publisher.kind.is_empty());
        if published && view.job.is_terminal() {
            context.out.note(&format!("hint: 'codling job get {}' fetches its results", short_id(id)));
        }
    }
    Ok(Exit::Ok)
}

/// Whether the job did what it should.
fn verdict(id: &str, view: &JobAnswer, hint: &str) -> Result<(), CliError> {
    let look = format!("'codling job describe {}' shows more", short_id(id));
    let failed = |what: String| Err(CliError::new(Exit::JobFailed, what).hint(look.clone()));
    let job = &view.job;
    let why = if job.state.message.is_empty() { String::new() } else { format!(": {}", job.state.message) };
    if job.is("Failed") {
        return Err(CliError::new(Exit::JobFailed, format!("job {id} failed{why}"))
            .hint(if hint.is_empty() { &look } else { hint }));
    }
    if job.is("Stopped") {
        return failed(format!("job {id} was stopped{why}"));
    }
    // Bacalhau counts any exit code as completed; here it decides.
    let bad: Vec<String> = view
        .executions
        .items
        .iter()
        .filter(|e| e.is_completed())
        .filter_map(|e| Some((e, e.exit_code().filter(|code| *code != 0)?)))
        .map(|(e, code)| format!("execution {} returned exit code {code}", e.id))
        .collect();
    match bad.as_slice() {
        [] => Ok(()),
        [one] => failed(format!("job {id}: {one}")),
        many => match failed(format!("job {id}: {} executions returned exit codes other than 0", many.len()))
        {
            Err(error) => Err(error.details(bad)),
            ok => ok,
        },
    }
}

#[cfg(test)]
mod tests;
