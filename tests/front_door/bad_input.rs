//! Malformed and hostile input: a clear error in API, history and command line; the node goes on.

use std::io::Write;

use serde_json::json;

use crate::jobs;
use crate::node::{Dir, Node, text};

fn refused(node: &Node, body: &str, wanted: u16) -> String {
    let (status, answer) = node.call("PUT", "/api/v1/orchestrator/jobs", Some(body));
    assert_eq!(status, wanted, "{}: {answer}", &body[..body.len().min(200)]);
    assert_eq!(answer["Status"], wanted, "the error has Bacalhau's shape: {answer}");
    answer["Message"].as_str().unwrap().to_owned()
}

#[test]
fn bodies_that_are_no_jobs_are_refused_with_reasons() {
    let dir = Dir::new();
    let mut node = Node::start(&dir.join("data"), &[]);
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let nul = r#"{"Job":{"Name":"a\u0000b","Type":"batch","Tasks":[{"Name":"m","Engine":{"Type":"wasm","Params":{}}}]}}"#;
    for body in ["", "null", "{", "[]", "\u{0}", "{\"Job\": 5}", &deep, "{\"Job\":{}}", nul] {
        refused(&node, body, 400);
    }
    let twice = r#"{"Job":{"Type":"batch","type":"ops","Tasks":[]}}"#;
    assert!(refused(&node, twice, 400).contains("ype"));
    // Everything that is wrong, in one answer.
    let many = json!({ "Job": { "Type": "nope", "Count": -1, "Tasks": [{
        "Name": "", "Engine": { "Type": "" }, "Resources": { "CPU": "2 cores", "Memory": "512x" },
        "ResultPaths": [{ "Name": "../up", "Path": "rel" }] }] } });
    let message = refused(&node, &many.to_string(), 400);
    for part in ["Type", "Count", "Name", "Engine", "CPU", "512x", "ResultPaths"] {
        assert!(message.contains(part), "'{message}' should name {part}");
    }
    assert!(node.is_alive());
    let id = node.submit(&jobs::hello("still here"));
    assert_eq!(node.wait_state(&id, &["Completed", "Failed"]), "Completed");
}

#[test]
fn the_command_line_says_what_is_wrong_with_a_file() {
    let dir = Dir::new();
    let node = Node::start(&dir.join("data"), &[]);
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n\
                d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n\
                g: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]\nh: [*g,*g,*g,*g,*g,*g,*g,*g,*g]\n";
    for (name, content) in [
        ("empty.yaml", ""),
        ("broken.yaml", "Type: [batch"),
        ("twice.yaml", "Type: batch\nType: ops\nTasks: []\n"),
        ("bomb.yaml", bomb),
        ("unknown.yaml", "Type: batch\nTasks:\n- Name: m\n  Engine: {Type: wasm, Params: {}}\n"),
    ] {
        let path = dir.join(name);
        std::fs::File::create(&path).unwrap().write_all(content.as_bytes()).unwrap();
        let output = node.cli(&["job", "run", path.to_str().unwrap()]);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(65), "{name}: {error}");
        assert!(error.starts_with("error: "), "{name}: {error}");
    }
    let output = node.cli(&["job", "run", "/does/not/exist.yaml"]);
    assert!(!output.status.success() && text(&output.stderr).contains("/does/not/exist.yaml"));
    let output = node.cli(&["job", "describe", "j-00000000"]);
    assert!(!output.status.success() && text(&output.stderr).contains("j-00000000"));
}

/// Runs a job that cannot succeed; returns the reason that job, history and command line give.
fn fails(node: &Node, job: &serde_json::Value) -> String {
    let id = node.submit(job);
    assert_eq!(node.wait_state(&id, &["Failed", "Completed"]), "Failed", "{}", node.job(&id));
    let message = node.job(&id)["State"]["Message"].as_str().unwrap().to_owned();
    assert!(node.history(&id).iter().any(|m| m.contains(&message)), "{message}: {:?}", node.history(&id));
    assert!(node.ok(&["job", "history", &id]).contains(message.split('\n').next().unwrap()));
    message
}

#[test]
fn guests_that_misbehave_end_with_their_reason() {
    let dir = Dir::new();
    let mut node = Node::start(&dir.join("data"), &[]);
    let message = fails(&node, &jobs::wasm_bytes(b"not wasm at all"));
    assert!(message.contains("WebAssembly"), "{message}");
    let mut no_entry = jobs::wasm(jobs::NOOP);
    no_entry["Tasks"][0]["Engine"]["Params"]["Entrypoint"] = json!("main");
    assert!(fails(&node, &no_entry).contains("main"));
    let imports =
        r#"(module (import "env" "launch" (func)) (memory (export "memory") 1) (func (export "_start")))"#;
    assert!(fails(&node, &jobs::wasm(imports)).contains("launch"));
    let hungry = r#"(module (memory (export "memory") 1) (func (export "_start")
        (loop $l (br_if $l (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable))"#;
    assert!(fails(&node, &jobs::wasm(hungry)).contains("memory"));
    let mut missing = jobs::wasm(jobs::NOOP);
    missing["Tasks"][0]["InputSources"] = json!([{ "Target": "/in", "Source": { "Type": "localDirectory", "Params": { "SourcePath": "/etc" } } }]);
    assert!(fails(&node, &missing).contains("/etc"));
    let (_, list) = node.get("/api/v1/orchestrator/jobs?limit=1&reverse=true");
    let id = list["Items"][0]["ID"].as_str().unwrap().to_owned();
    let (_, history) = node.get(&format!("/api/v1/orchestrator/jobs/{id}/history"));
    assert!(history.to_string().contains("AllowListedLocalPaths"), "the next step: {history}");
    // A trap ends the program with exit code 1, as Bacalhau has it, and says so on its stderr.
    let id = node
        .submit(&jobs::wasm(r#"(module (memory (export "memory") 1) (func (export "_start") unreachable))"#));
    assert_eq!(node.wait_state(&id, &["Completed", "Failed"]), "Completed");
    let output = node.executions(&id)[0]["RunOutput"].clone();
    assert_eq!(output["ExitCode"], 1);
    assert!(output["stderr"].as_str().unwrap().contains("unreachable"), "{output}");
    assert!(node.is_alive());
}

#[test]
fn allowed_local_paths_are_compared_after_links_are_resolved() {
    let dir = Dir::new();
    let (open, secret) = (dir.join("open"), dir.join("secret"));
    std::fs::create_dir_all(&open).unwrap();
    std::fs::create_dir_all(&secret).unwrap();
    std::fs::write(secret.join("key"), "hidden").unwrap();
    std::fs::write(open.join("note"), "shown").unwrap();
    std::os::unix::fs::symlink(&secret, open.join("link")).unwrap();
    let allow = format!("Compute.AllowListedLocalPaths={}/**", open.display());
    let node = Node::start(&dir.join("data"), &["-c", &allow]);
    let job = |path: &str| {
        let mut job = jobs::wasm(jobs::NOOP);
        job["Tasks"][0]["InputSources"] = json!([{ "Target": "/in", "Source": { "Type": "localDirectory", "Params": { "SourcePath": path } } }]);
        job
    };
    for escape in [open.join("link"), open.join("../secret"), open.join("link/key")] {
        fails(&node, &job(escape.to_str().unwrap()));
    }
    let id = node.submit(&job(open.join("note").to_str().unwrap()));
    assert_eq!(node.wait_state(&id, &["Completed", "Failed"]), "Completed", "{}", node.job(&id));
}
