//! `codling job describe` and `stop`.

use serde_json::json;

use super::list::{EVENT_HEADINGS, EXECUTION_HEADINGS, event_row, execution_row};
use super::{StopArgs, path};
use crate::cli::Context;
use crate::cli::answers::{Execution, Job, JobAnswer, read, short_id, time};
use crate::cli::client::Client;
use crate::cli::exit::{CliError, Exit};
use crate::cli::text::{Table, escape, escape_output, fields};

/// Runs `codling job describe`.
pub fn describe(id: &str, client: &Client, context: &Context<'_>) -> Result<Exit, CliError> {
    let what = format!("describe job {id}");
    let answer =
        client.get(&path(id, ""), &[("include", "executions,history")]).map_err(|e| e.doing(&what))?;
    let view: JobAnswer = read(client, &answer).map_err(|e| e.doing(&what))?;
    context.out.show(&answer, || text(&view))?;
    Ok(Exit::Ok)
}

fn text(view: &JobAnswer) -> String {
    let mut text = head(&view.job);
    if !view.executions.items.is_empty() {
        let mut table = Table::new(&EXECUTION_HEADINGS);
        view.executions.items.iter().for_each(|e| table.row(&execution_row(e, true)));
        text.push_str("\nExecutions:\n");
        text.push_str(&table.render());
    }
    if !view.history.items.is_empty() {
        let mut table = Table::new(&EVENT_HEADINGS);
        view.history.items.iter().for_each(|e| table.row(&event_row(e, false)));
        text.push_str("\nHistory:\n");
        text.push_str(&table.render());
    }
    view.executions.items.iter().for_each(|e| text.push_str(&output(e)));
    text
}

fn head(job: &Job) -> String {
    let task = job.tasks.first();
    let labels: Vec<String> = job.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let kind = |kind: Option<&str>| kind.unwrap_or_default().to_owned();
    fields(&[
        ("ID", job.id.clone()),
        ("Name", if job.name == job.id { String::new() } else { job.name.clone() }),
        ("Namespace", job.namespace.clone()),
        ("Type", job.kind.clone()),
        ("State", job.state.state_type.clone()),
        ("Message", job.state.message.clone()),
        ("Count", job.count.to_string()),
        ("Priority", if job.priority == 0 { String::new() } else { job.priority.to_string() }),
        ("Engine", kind(task.map(|t| t.engine.kind.as_str()))),
        ("Publisher", kind(task.map(|t| t.publisher.kind.as_str()))),
        ("Labels", labels.join(", ")),
        ("Created", time(job.create_time)),
        ("Modified", time(job.modify_time)),
        ("Version", job.version.to_string()),
    ])
}

/// The beginning of what an execution wrote, indented.
fn output(execution: &Execution) -> String {
    let Some(output) = &execution.run_output else { return String::new() };
    let mut text = String::new();
    for (name, content, cut) in [
        ("stdout", &output.stdout, output.stdout_truncated),
        ("stderr", &output.stderr, output.stderr_truncated),
    ] {
        if content.is_empty() {
            continue;
        }
        let note = if cut { " (its beginning; 'codling job get' fetches all of it)" } else { "" };
        text.push_str(&format!("\n{name} of {}{note}:\n", escape(short_id(&execution.id))));
        for line in escape_output(content).lines() {
            text.push_str(&format!("    {line}\n"));
        }
    }
    text
}

/// Runs `codling job stop`.
pub fn stop(args: &StopArgs, client: &Client, context: &Context<'_>) -> Result<Exit, CliError> {
    let id = &args.job.id;
    let what = format!("stop job {id}");
    let answer = client.get(&path(id, ""), &[]).map_err(|e| e.doing(&what))?;
    let job = read::<JobAnswer>(client, &answer).map_err(|e| e.doing(&what))?.job;
    if job.is_terminal() {
        let state = job.state.state_type.to_lowercase();
        return Err(CliError::new(Exit::Data, format!("cannot {what}: it is already {state}")));
    }
    // The name or short id may mean another job a moment later; the whole id cannot.
    let id = if job.id.is_empty() { id } else { &job.id };
    let body = json!({"Namespace": "", "Credential": null, "IdempotencyToken": "", "reason": args.reason});
    let answer = client.delete(&path(id, ""), &body).map_err(|e| e.doing(&what))?;
    context.out.show(&answer, String::new)?;
    context.out.note(&format!("job {id} is being stopped"));
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use crate::cli::testing::{Reply, Server};

    const JOB: &str = r#"{"Job":{"ID":"j-11111111-2222-3333-4444-555555555555","Name":"demo","Namespace":"default","Type":"batch",
        "Count":1,"Version":1,"Labels":{"team":"field"},"CreateTime":1719930417160015000,"ModifyTime":1719930418160015000,
        "Tasks":[{"Name":"main","Engine":{"Type":"wasm"},"Publisher":{"Type":"local"}}],
        "State":{"StateType":"Failed","Message":"no\u001b]0;x\u0007 luck"}},
        "Executions":{"Items":[{"ID":"e-1","NodeID":"n-1","ComputeState":{"StateType":10,"Message":"trap"},
            "RunOutput":{"Stdout":"one\ntwo\u001b[31m\n","StdoutTruncated":true,"stderr":"","ExitCode":1}}]},
        "History":{"Items":[{"Type":"JobLevel","Event":{"Message":"Job submitted","Topic":"Submission","Timestamp":"2024-07-02T14:26:57Z"}}]}}"#;

    #[test]
    fn everything_on_one_page_and_nothing_for_the_terminal() {
        let server = Server::start(|_| Reply::json(JOB));
        let described = server.run(&["job", "describe", "demo"]).expect(0).stdout();
        assert_eq!(
            described,
            "ID         j-11111111-2222-3333-4444-555555555555\n\
             Name       demo\n\
             Namespace  default\n\
             Type       batch\n\
             State      Failed\n\
             Message    no\\u{1b}]0;x\\u{7} luck\n\
             Count      1\n\
             Engine     wasm\n\
             Publisher  local\n\
             Labels     team=field\n\
             Created    2024-07-02T14:26:57Z\n\
             Modified   2024-07-02T14:26:58Z\n\
             Version    1\n\
             \n\
             Executions:\n\
             ID   NODE  STATE   EXIT  CREATED  MODIFIED  MESSAGE\n\
             e-1  n-1   Failed     1                     trap\n\
             \n\
             History:\n\
             TIME                  EXECUTION  TOPIC       EVENT\n\
             2024-07-02T14:26:57Z             Submission  Job submitted\n\
             \n\
             stdout of e-1 (its beginning; 'codling job get' fetches all of it):\n\
             \x20   one\n\
             \x20   two\\u{1b}[31m\n"
        );
        assert_eq!(
            server.requests()[0].path(),
            "/api/v1/orchestrator/jobs/demo?include=executions%2Chistory"
        );
        for format in ["json", "yaml"] {
            let text = server.run(&["job", "describe", "demo", "--output", format]).expect(0).stdout();
            assert!(!text.contains('\x1b') && !text.contains('\x07'), "{text}");
        }
    }

    #[test]
    fn a_missing_job_and_a_strange_answer() {
        let server = Server::start(|request| {
            if request.path().contains("odd") {
                Reply::json(r#"{"Job":5}"#)
            } else {
                Reply::new(404, r#"{"Status":404,"Message":"job not found: x","Hint":"use the full id"}"#)
            }
        });
        let missing = server.run(&["job", "describe", "x"]).expect(66);
        assert_eq!(
            missing.stderr(),
            "error: cannot describe job x: job not found: x\nhint: use the full id\n"
        );
        let odd = server.run(&["job", "describe", "odd"]).expect(76);
        assert!(odd.stderr().contains("does not answer as the API does"), "{}", odd.stderr());
    }

    #[test]
    fn stop_names_the_whole_id_and_the_reason() {
        let server = Server::start(|request| {
            let running = JOB.replace("Failed", "Running");
            if request.line.starts_with("GET") {
                Reply::json(running)
            } else {
                Reply::json(r#"{"EvaluationID":"v"}"#)
            }
        });
        let stopped = server.run(&["job", "stop", "demo", "--reason", "enough"]).expect(0);
        assert_eq!((stopped.stdout().as_str(), stopped.stderr().contains("being stopped")), ("", true));
        let delete = &server.requests()[1];
        assert_eq!(
            delete.line,
            "DELETE /api/v1/orchestrator/jobs/j-11111111-2222-3333-4444-555555555555 HTTP/1.1"
        );
        assert_eq!(delete.json()["reason"], "enough");
    }

    #[test]
    fn what_has_ended_is_not_stopped() {
        let server = Server::start(|_| Reply::json(JOB));
        let over = server.run(&["job", "stop", "demo"]).expect(65);
        assert_eq!(over.stderr(), "error: cannot stop job demo: it is already failed\n");
        assert_eq!(server.requests().len(), 1);
    }
}
