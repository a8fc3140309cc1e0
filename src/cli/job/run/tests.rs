//! `codling job run` against a scripted node.

use std::sync::Mutex;

use crate::cli::testing::{Captured, Reply, Request, Scratch, Server};

const ID: &str = "j-11111111-2222-3333-4444-555555555555";

const FILE: &str = r#"{"Name":"demo","Type":"batch","Tasks":[{"Name":"main",
    "Engine":{"Type":"wasm","Params":{"EntryModule":"/m.wasm"}},
    "InputSources":[{"Target":"/m.wasm","Source":{"Type":"urlDownload","Params":{"URL":"http://x/m.wasm"}}}]}]}"#;

/// A node whose job passes through these states, one for each look at it, and stays in the last one.
struct Node {
    states: Mutex<Vec<&'static str>>,
    kind: &'static str,
    executions: &'static str,
}

impl Node {
    fn start(states: &[&'static str], kind: &'static str, executions: &'static str) -> Server {
        let mut states = states.to_vec();
        states.reverse();
        let node = Self { states: Mutex::new(states), kind, executions };
        Server::start(move |request| node.answer(request))
    }

    fn answer(&self, request: &Request) -> Reply {
        let path = request.path();
        if request.line.starts_with("PUT") {
            return Reply::json(format!(
                r#"{{"JobID":"{ID}","EvaluationID":"v-1","Warnings":["be\u0007ware"]}}"#
            ));
        }
        let mut states = self.states.lock().unwrap();
        let over = states.len() == 1;
        if path.contains("/history") {
            // Bacalhau 1.9: a next page until the job is over.
            return match (path.contains("next_token"), over) {
                (false, _) => Reply::json(
                    r#"{"NextToken":"1","Items":[{"Type":"JobLevel","Time":"2024-07-02T14:26:57Z",
                        "Event":{"Message":"Job submitted","Topic":"Submission"}}]}"#,
                ),
                (true, false) => Reply::json(r#"{"NextToken":"1","Items":[]}"#),
                (true, true) => Reply::json(
                    r#"{"NextToken":"","Items":[{"Type":"ExecutionLevel","ExecutionID":"e-1","Time":"2024-07-02T14:26:58Z",
                        "Event":{"Message":"program ended","Topic":"Execution","Details":{"IsError":"true","Hint":"mend it"}}}]}"#,
                ),
            };
        }
        let state = if over { states[0] } else { states.pop().unwrap() };
        let executions = if over { self.executions } else { "[]" };
        Reply::json(format!(
            r#"{{"Job":{{"ID":"{ID}","Type":"{}","Tasks":[{{"Publisher":{{"Type":"local"}}}}],
                "State":{{"StateType":"{state}","Message":"why"}}}},"Executions":{{"Items":{executions}}}}}"#,
            self.kind
        ))
    }
}

const GOOD: &str = r#"[{"ID":"e-1","ComputeState":{"StateType":9},"RunOutput":{"Stdout":"hello\n","StdoutTruncated":true,
    "stderr":"oops\n","ExitCode":0}}]"#;
const BAD: &str = r#"[{"ID":"e-1","ComputeState":{"StateType":9},"RunOutput":{"ExitCode":3}},
    {"ID":"e-0","ComputeState":{"StateType":10},"RunOutput":{"ExitCode":7}}]"#;

fn run(server: &Server, args: &[&str]) -> Captured {
    let args: Vec<&str> = ["job", "run", "-"].iter().chain(args).copied().collect();
    server.run_with_stdin(&args, FILE.as_bytes())
}

#[test]
fn submits_and_prints_the_id() {
    let server = Node::start(&["Pending"], "batch", "[]");
    let done = run(&server, &[]).expect(0);
    assert_eq!(done.stdout(), format!("{ID}\n"));
    assert_eq!(done.stderr(), "warning: be\\u{7}ware\n");
    let request = &server.requests()[0];
    assert_eq!(request.line, "PUT /api/v1/orchestrator/jobs HTTP/1.1");
    assert_eq!(request.json()["Job"]["Tasks"][0]["Engine"]["Params"]["EntryModule"], "/m.wasm");
    assert_eq!(server.requests().len(), 1);
    let only = run(&server, &["--id-only"]).expect(0);
    assert_eq!((only.stdout(), only.stderr()), (format!("{ID}\n"), String::new()));
    let json = run(&server, &["--output", "json"]).expect(0).stdout();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((json["JobID"].as_str(), json["EvaluationID"].as_str()), (Some(ID), Some("v-1")));
}

#[test]
fn waits_and_tells_the_history() {
    let server = Node::start(&["Pending", "Running", "Completed"], "batch", GOOD);
    let done = run(&server, &["--wait"]).expect(0);
    assert_eq!(done.stdout(), format!("{ID}\n"));
    assert_eq!(
        done.stderr(),
        format!(
            "warning: be\\u{{7}}ware\n\
             2024-07-02T14:26:57Z  Submission  Job submitted\n\
             2024-07-02T14:26:58Z  e-1  Execution  program ended (mend it)\n\
             job {ID} completed\n\
             hint: 'codling job get j-11111111' fetches its results\n"
        )
    );
    let server = Node::start(&["Completed"], "batch", GOOD);
    assert_eq!(run(&server, &["--wait", "--id-only"]).expect(0).stderr(), "");
}

#[test]
fn follow_gives_standard_output_to_the_program() {
    let server = Node::start(&["Running", "Completed"], "batch", GOOD);
    let done = run(&server, &["--follow"]).expect(0);
    assert_eq!(done.stdout(), "hello\n");
    assert!(done.stderr().contains(&format!("job {ID}\n")), "{}", done.stderr());
    assert!(
        done.stderr().contains("oops\nnote: only the beginning of the stdout of e-1"),
        "{}",
        done.stderr()
    );
}

#[test]
fn the_exit_status_is_the_jobs() {
    for (state, executions, said) in [
        ("Failed", "[]", format!("error: job {ID} failed: why\nhint: mend it\n")),
        ("Stopped", "[]", format!("error: job {ID} was stopped: why\n")),
        ("Completed", BAD, format!("error: job {ID}: execution e-1 returned exit code 3\n")),
    ] {
        let server = Node::start(&["Running", state], "batch", executions);
        let done = run(&server, &["--wait", "-q"]).expect(1);
        assert!(done.stderr().contains(&said), "{}", done.stderr());
        assert_eq!(done.stdout(), format!("{ID}\n"));
    }
}

#[test]
fn a_service_is_waited_for_until_it_runs() {
    let server = Node::start(&["Pending", "Running"], "service", "[]");
    assert!(run(&server, &["--wait"]).expect(0).stderr().contains("runs, and does so for ever"));
}

#[test]
fn waiting_has_a_limit() {
    let server = Node::start(&["Running", "Running"], "batch", "[]");
    let late = run(&server, &["--wait", "--wait-timeout", "50ms"]).expect(124);
    assert!(late.stderr().contains("did not end in the time given; it goes on"), "{}", late.stderr());
    run(&server, &["--wait-timeout", "5s"]).expect(64);
    run(&server, &["--wait", "--wait-timeout", "5"]).expect(64);
}

#[test]
fn a_node_that_restarts_is_waited_for() {
    let failures = Mutex::new(3);
    let node = Node { states: Mutex::new(vec!["Completed"]), kind: "batch", executions: GOOD };
    let server = Server::start(move |request| {
        let mut left = failures.lock().unwrap();
        if request.line.starts_with("GET") && *left > 0 {
            *left -= 1;
            return Reply::new(503, "starting");
        }
        node.answer(request)
    });
    let done = run(&server, &["--wait"]).expect(0);
    assert_eq!(done.stderr().matches("trying again").count(), 1, "{}", done.stderr());
    let server = Server::start(|request| {
        if request.line.starts_with("PUT") {
            Reply::json(format!(r#"{{"JobID":"{ID}"}}"#))
        } else {
            Reply::new(503, "")
        }
    });
    run(&server, &["--wait"]).expect(75);
    assert_eq!(server.requests().len(), 1 + 9);
}

#[test]
fn a_wrong_file_never_reaches_the_node() {
    let server = Node::start(&["Completed"], "batch", "[]");
    let scratch = Scratch::new();
    std::fs::write(scratch.path("bad.yaml"), "Type: batch\nTasks: []\n").unwrap();
    let bad = server.run(&["job", "run", &scratch.path("bad.yaml")]).expect(65);
    assert!(bad.stderr().contains("bad.yaml is not a valid job: "), "{}", bad.stderr());
    server.run(&["job", "run", &scratch.path("missing.yaml")]).expect(66);
    server.run(&["job", "run", scratch.0.to_str().unwrap()]).expect(74);
    assert!(server.requests().is_empty());
}

#[test]
fn what_the_node_refuses_is_told_line_by_line() {
    let server = Server::start(|_| {
        Reply::new(400, r#"{"Status":400,"Message":"first\nsecond","Hint":"read the manual"}"#)
    });
    let refused = run(&server, &[]).expect(65);
    assert_eq!(refused.stderr(), "error: cannot submit -: first\n  second\nhint: read the manual\n");
}

#[test]
fn json_of_a_finished_job_holds_its_executions() {
    let server = Node::start(&["Completed"], "batch", GOOD);
    let json = run(&server, &["--follow", "--output", "json"]).expect(0).stdout();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["Job"]["State"]["StateType"], "Completed");
    assert_eq!(json["Executions"][0]["RunOutput"]["Stdout"], "hello\n");
}
