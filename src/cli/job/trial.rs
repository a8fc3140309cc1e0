//! A job from submission to its files, without a word: how a version on trial is tried.

use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use super::get;
use super::watch::Watch;
use super::{GetArgs, OneJob};
use crate::cli::Context;
use crate::cli::answers::{JobAnswer, read};
use crate::cli::client::Client;
use crate::cli::exit::{CliError, Exit};
use crate::cli::out::Out;

/// Runs a job to its end by `deadline` and fetches its result into a directory that is not there yet; the digest is
/// checked on the way.
///
/// # Errors
/// The node does not take it, it does not complete, or its result cannot be had.
pub(in crate::cli) fn run_and_get(
    job: &Value,
    into: &Path,
    client: &Client,
    context: &Context<'_>,
    deadline: Instant,
) -> Result<(), CliError> {
    let silent = Context {
        out: Out::to(Box::new(io::sink()), Box::new(io::sink())),
        env: context.env,
        pace: context.pace,
        stdin: RefCell::new(Box::new(io::empty())),
    };
    let what = "run a job to try the node";
    let client = client.until(Some(deadline));
    let answer =
        client.put("orchestrator/jobs", &json!({ "Job": job, "Force": true })).map_err(|e| e.doing(what))?;
    let id = answer.get("JobID").and_then(Value::as_str).unwrap_or_default().to_owned();
    let ended = Watch::new(&client, &silent, &id, false, true, Some(deadline)).to_the_end()?;
    let view: JobAnswer = read(&client, &ended).map_err(|e| e.doing(what))?;
    let state = &view.job.state;
    if state.state_type != "Completed" {
        return Err(CliError::new(
            Exit::JobFailed,
            format!("job {id} {}: {}", state.state_type, state.message),
        ));
    }
    let args = GetArgs { job: OneJob { id }, output_dir: Some(into.to_owned()), raw: false };
    get::get(&args, &client, &silent).map(drop)
}
