//! A real guest, a store from the future, and what packagers ask the program for: issue items 4, 6 and 10.

use redb::{Database, TableDefinition};
use serde_json::json;

use crate::jobs;
use crate::node::{Dir, Node, codling, refused, text};

const PROBE: &[u8] = include_bytes!("../../guests/probe.wasm");

#[test]
fn a_guest_gets_its_parameters_environment_inputs_and_outputs() {
    let dir = Dir::new();
    let node = Node::start(&dir.join("data"), &[]);
    let mut job = jobs::wasm_bytes(PROBE);
    let task = &mut job["Tasks"][0];
    task["Engine"]["Params"]["Parameters"] =
        json!(["args", ";", "env", "COLOUR", ";", "env", "BACALHAU_JOB_TYPE"]);
    task["Engine"]["Params"]["EnvironmentVariables"] = json!({ "COLOUR": "green" });
    task["Env"] = json!({ "COLOUR": "red" });
    task["InputSources"] = json!([{ "Target": "/in", "Source": { "Type": "inline",
        "Params": { "URL": jobs::data_url("text/plain", b"data") } } }]);
    let id = node.submit(&job);
    assert_eq!(node.wait_state(&id, &["Completed", "Failed"]), "Completed", "{}", node.job(&id));
    let output = node.executions(&id)[0]["RunOutput"]["Stdout"].as_str().unwrap().to_owned();
    let lines: Vec<&str> = output.lines().collect();
    assert!(lines[0].starts_with(r#"["", "args""#), "argv[0] is empty, then the parameters: {output}");
    assert_eq!(lines[1..], ["green", "batch"], "the engine's variables over the task's, the node's besides");
}

#[test]
fn a_store_of_a_later_version_is_refused_and_left_as_it_is() {
    const META: TableDefinition<'_, &str, &str> = TableDefinition::new("codling-meta");
    let dir = Dir::new();
    let data = dir.join("data");
    assert!(Node::start(&data, &[]).stop().success());
    let path = data.join("orchestrator/jobs.db");
    {
        let later = Database::open(&path).unwrap();
        let write = later.begin_write().unwrap();
        write.open_table(META).unwrap().insert("schema", "999").unwrap();
        write.commit().unwrap();
    }
    let before = std::fs::read(&path).unwrap();
    let (status, log) = refused(&data, &[], &[]);
    assert!(!status.success());
    assert!(log.contains("999") && log.contains("jobs.db"), "{log}");
    assert!(std::fs::read(&path).unwrap() == before, "untouched");
}

#[test]
fn packagers_get_completions_and_a_manual() {
    for shell in ["bash", "zsh", "fish"] {
        let output = codling(&["completions", shell]);
        assert!(output.status.success() && text(&output.stdout).contains("codling"), "{shell}");
    }
    let manual = codling(&["man"]);
    assert!(
        manual.status.success() && text(&manual.stdout).contains(".TH codling"),
        "{}",
        text(&manual.stdout)
    );
    let json = codling(&["config", "list", "--output", "json"]);
    let rows: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert!(rows.as_array().unwrap().iter().any(|row| row["Key"] == "Results.Quota"));
}
