//! `codling job versions`, `rerun`, and the comparison of `job run --dry-run`.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{OneJob, RerunArgs, path};
use crate::cli::Context;
use crate::cli::answers::{Job, Page, read, short_id, time};
use crate::cli::client::Client;
use crate::cli::exit::{CliError, Exit};
use crate::cli::text::{Table, escape, escape_output};

/// The answer to a run once more.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Again {
    #[serde(rename = "JobID")]
    job_id: String,
    #[serde(rename = "JobVersion")]
    job_version: u64,
    #[serde(rename = "Warnings")]
    warnings: Option<Vec<String>>,
}

/// The answer to a comparison.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Compared {
    #[serde(rename = "Diff")]
    diff: String,
    #[serde(rename = "Warnings")]
    warnings: Option<Vec<String>>,
}

/// Runs `codling job versions`.
pub fn versions(args: &OneJob, client: &Client, context: &Context<'_>) -> Result<Exit, CliError> {
    let what = format!("list the versions of job {}", args.id);
    let answer = client.get(&path(&args.id, "/versions"), &[]).map_err(|e| e.doing(&what))?;
    let page: Page<Job> = read(client, &answer).map_err(|e| e.doing(&what))?;
    let items = answer.get("Items").cloned().unwrap_or_else(|| json!([]));
    context.out.show(&items, || {
        let mut table = Table::new(&[">VERSION", "MODIFIED", "TYPE", ">COUNT", "STATE", "MESSAGE"]);
        for job in &page.items {
            let (version, count) = (job.version.to_string(), job.count.to_string());
            table.row(&[
                &version,
                &time(job.modify_time),
                &job.kind,
                &count,
                &job.state.state_type,
                &job.state.message,
            ]);
        }
        table.render()
    })?;
    Ok(Exit::Ok)
}

/// Runs `codling job rerun`.
pub fn rerun(args: &RerunArgs, client: &Client, context: &Context<'_>) -> Result<Exit, CliError> {
    let what = format!("run job {} again", args.job.id);
    let body = json!({
        "Namespace": "", "Credential": null, "IdempotencyToken": "",
        "JobVersion": args.version.unwrap_or(0), "Reason": args.reason,
    });
    let answer = client.put(&path(&args.job.id, "/rerun"), &body).map_err(|e| e.doing(&what))?;
    let taken: Again = read(client, &answer).map_err(|e| e.doing(&what))?;
    taken.warnings.iter().flatten().for_each(|warning| context.out.warn(warning));
    context.out.show(&answer, || format!("{}\n", escape(&taken.job_id)))?;
    context.out.note(&format!(
        "job {} runs again as version {}",
        escape(short_id(&taken.job_id)),
        taken.job_version
    ));
    Ok(Exit::Ok)
}

/// Shows what submitting this job would change, and submits nothing.
pub fn dry_run(job: &Value, client: &Client, context: &Context<'_>) -> Result<Exit, CliError> {
    let named = ["Name", "name"].iter().find_map(|key| job.get(key)?.as_str()).unwrap_or_default();
    let new = |why: &str| {
        context.out.note(&format!("{why}: submitting it makes a new job"));
        Ok(Exit::Ok)
    };
    if named.is_empty() {
        return new("the job has no name");
    }
    let what = format!("compare job {named}");
    let answer = match client.put("orchestrator/jobs/diff", &json!({"Job": job})) {
        Ok(answer) => answer,
        Err(error) => {
            let error = error.doing(&what);
            return if error.exit() == Exit::NotFound {
                new(&format!("there is no job {named}"))
            } else {
                Err(error)
            };
        }
    };
    let diff: Compared = read(client, &answer).map_err(|e| e.doing(&what))?;
    diff.warnings.iter().flatten().for_each(|warning| context.out.warn(warning));
    context.out.show(&answer, || escape_output(&diff.diff).into_owned())?;
    if diff.diff.is_empty() {
        context.out.note(&format!("no changes: job {named} is the same"));
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use crate::cli::testing::{Reply, Server};

    const ID: &str = "j-11111111-2222-3333-4444-555555555555";

    #[test]
    fn versions_in_a_table() {
        let server = Server::start(|_| {
            let item = |n: u32, state: &str| {
                format!(
                    r#"{{"ID":"{ID}","Version":{n},"Type":"service","Count":{n},"ModifyTime":1719930417160015000,
                        "State":{{"StateType":"{state}"}}}}"#
                )
            };
            Reply::json(format!(
                r#"{{"NextToken":"","Items":[{},{}]}}"#,
                item(1, "Stopped"),
                item(2, "Running")
            ))
        });
        let shown = server.run(&["job", "versions", "web"]).expect(0).stdout();
        assert_eq!(
            shown,
            "VERSION  MODIFIED              TYPE     COUNT  STATE    MESSAGE\n      \
             1  2024-07-02T14:26:57Z  service      1  Stopped\n      \
             2  2024-07-02T14:26:57Z  service      2  Running\n"
        );
        assert_eq!(server.requests()[0].path(), "/api/v1/orchestrator/jobs/web/versions");
    }

    #[test]
    fn a_job_is_run_again_in_the_version_named() {
        let server = Server::start(|_| {
            Reply::json(format!(r#"{{"JobID":"{ID}","JobVersion":4,"EvaluationID":"v","Warnings":null}}"#))
        });
        let done = server.run(&["job", "rerun", "web", "--version", "2", "--reason", "once more"]).expect(0);
        assert_eq!(done.stdout(), format!("{ID}\n"));
        assert_eq!(done.stderr(), "job j-11111111 runs again as version 4\n");
        let request = &server.requests()[0];
        assert_eq!(request.line, "PUT /api/v1/orchestrator/jobs/web/rerun HTTP/1.1");
        assert_eq!(
            (&request.json()["JobVersion"], &request.json()["Reason"]),
            (&2.into(), &"once more".into())
        );
    }

    #[test]
    fn a_dry_run_shows_what_would_change_and_submits_nothing() {
        const FILE: &str = "{Name: web, Type: service, Tasks: [{Name: m, Engine: {Type: docker}}]}";
        let server = Server::start(|request| {
            if request.body.windows(5).any(|part| part == b"other") {
                Reply::new(404, r#"{"Status":404,"Message":"job not found: other"}"#)
            } else {
                Reply::json(r#"{"Diff":"- Count: 1\n+ Count: 2\u001b[2J\n","Warnings":[]}"#)
            }
        });
        let run =
            |text: &str| server.run_with_stdin(&["job", "run", "--dry-run", "-"], text.as_bytes()).expect(0);
        assert_eq!(run(FILE).stdout(), "- Count: 1\n+ Count: 2\\u{1b}[2J\n");
        let new = run(&FILE.replace("web", "other"));
        assert_eq!((new.stdout().as_str(), new.stderr().contains("makes a new job")), ("", true));
        assert!(run(&FILE.replace("Name: web, ", "")).stderr().contains("has no name"));
        assert_eq!(server.requests().len(), 2);
        assert!(server.requests().iter().all(|request| request.line.contains("/jobs/diff ")));
    }
}
