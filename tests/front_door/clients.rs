//! Programs that are not ours, held against a node: issue 5, item 5.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::jobs;
use crate::node::{Dir, Node, http, http_with, text};

/// Brings one of the clients, if it is not there yet; returns the directory of all of them.
pub fn bring(client: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(root.join("tests/clients/setup.sh")).arg(client).output().unwrap();
    assert!(output.status.success(), "setup.sh {client}: {}", text(&output.stderr));
    root.join("target/clients")
}

/// Runs a script in the virtual environment against that node.
fn python(node: &Node, home: &Path, script: &str, arguments: &[PathBuf]) -> Output {
    let (host, port) = node.api.split_once("://").unwrap().1.rsplit_once(':').unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(script);
    Command::new(bring("python").join("venv/bin/python"))
        .arg(script)
        .args(arguments)
        .env("BACALHAU_API_HOST", host)
        .env("BACALHAU_API_PORT", port)
        .env("BACALHAU_DIR", home)
        .output()
        .unwrap()
}

#[test]
fn the_python_sdk_drives_a_job_from_submission_to_unpacked_result() {
    let dir = Dir::new();
    let node = Node::start(&dir.join("data"), &[]);
    let modules = [("hello.wasm", jobs::print_wat("hello from wasm")), ("endless.wasm", jobs::LOOP.into())];
    let modules = modules.map(|(name, wat)| {
        let path = dir.join(name);
        std::fs::write(&path, wat::parse_str(wat).unwrap()).unwrap();
        path
    });
    let output = python(&node, &dir.0, "sdk.py", &modules);
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    assert!(text(&output.stdout).contains("the SDK ran j-"), "{}", text(&output.stdout));
}

/// The samples of one family: what stands behind its name, and the value.
fn samples<'a>(page: &'a str, family: &str) -> Vec<(&'a str, f64)> {
    let lines =
        page.lines().filter_map(|line| line.strip_prefix(family)).filter(|rest| rest.starts_with(['{', ' ']));
    lines
        .map(|rest| rest.rsplit_once(' ').unwrap())
        .map(|(labels, value)| (labels, value.parse().unwrap()))
        .collect()
}

#[test]
fn prometheus_finds_nothing_wrong_with_the_metrics() {
    let dir = Dir::new();
    let node = Node::start(&dir.join("data"), &[]);
    let id = node.submit(&jobs::noise(1));
    node.wait_state(&id, &["Completed"]);
    let endless = node.submit(&jobs::wasm(jobs::LOOP));
    node.wait_state(&endless, &["Running"]);
    let execution = node.executions(&id)[0]["ID"].as_str().unwrap().to_owned();
    let (status, headers, body) = http_with("GET", &format!("{}/metrics", node.api), &[], None);
    assert_eq!(status, 200);
    let kind = headers.iter().find(|(name, _)| name == "content-type").unwrap();
    assert_eq!(kind.1, "text/plain; version=0.0.4; charset=utf-8");
    let page = text(&body);

    let promtool = bring("promtool").join("promtool");
    let mut check = Command::new(promtool);
    check.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut check = check.spawn().unwrap();
    check.stdin.take().unwrap().write_all(&body).unwrap();
    let output = check.wait_with_output().unwrap();
    let told = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && told.is_empty(), "promtool: {told}\n{page}");

    for family in [
        "codling_build_info",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "codling_disk_quota_bytes",
    ] {
        assert!(samples(&page, family).iter().all(|(_, value)| *value >= 0.0), "{family}\n{page}");
        assert_eq!(samples(&page, family).len(), 1, "{family}\n{page}");
    }
    let jobs = samples(&page, "codling_jobs");
    assert!(
        jobs.contains(&("{state=\"Running\"}", 1.0)) && jobs.contains(&("{state=\"Completed\"}", 1.0)),
        "{jobs:?}"
    );
    assert_eq!(samples(&page, "codling_job_duration_seconds_count"), [("", 1.0)]);
    let used = samples(&page, "codling_disk_used_bytes");
    assert!(used.iter().any(|(kind, bytes)| kind.contains("results") && *bytes > 1_000_000.0), "{used:?}");
    let (commits, written) = (samples(&page, "codling_state_commits_total")[0].1, state_written(&page));
    assert!(commits > 0.0 && written >= 4096.0 * commits, "a page for each commit at least: {written}");

    // What is removed is counted, by reason.
    assert_eq!(node.call("DELETE", &format!("/api/v1/codling/results/{execution}"), None).0, 200);
    let (_, after) = http("GET", &format!("{}/metrics", node.api), None);
    let after = text(&after);
    let gone = samples(&after, "codling_gc_deleted_bytes_total");
    assert!(
        gone.iter().all(|(reason, bytes)| (*bytes > 1_000_000.0) == reason.contains("removed")),
        "{gone:?}"
    );

    assert!(state_written(&after) > written, "a deletion is written down");

    // No id is a label, and the number of series does not depend on what there is.
    for id in [&id, &endless, &execution] {
        assert!(!page.contains(&id[2..10]) && !after.contains(&id[2..10]), "{id}\n{page}");
    }
    assert_eq!(page.lines().count(), after.lines().count());
}

fn state_written(page: &str) -> f64 {
    samples(page, "codling_state_written_bytes_total")[0].1
}

/// Requests made from the node's own description of its API, as many as go into the time: none makes the node fail,
/// and every answer is as described.
#[test]
fn every_answer_is_as_the_openapi_document_says() {
    let dir = Dir::new();
    let node = Node::start(&dir.join("data"), &[]);
    // Something to find.
    let id = node.submit(&jobs::hello("described"));
    node.wait_state(&id, &["Completed"]);
    let execution = node.executions(&id)[0]["ID"].as_str().unwrap().to_owned();
    let seconds = std::env::var("SCHEMA_SECONDS").unwrap_or_else(|_| "60".into());
    let output = Command::new(bring("python").join("venv/bin/schemathesis"))
        .current_dir(&dir.0)
        .arg("--config-file")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/schemathesis.toml"))
        .args(["run", &format!("{}/api/v1/openapi.json", node.api), "--max-time", &seconds])
        .env("EXECUTION", execution)
        .output()
        .unwrap();
    let told = text(&output.stdout);
    assert!(output.status.success(), "{told}\n{}", text(&output.stderr));
    let document = node.get("/api/v1/openapi.json").1;
    let paths = document["paths"].as_object().unwrap();
    let operations: usize = paths.values().map(|methods| methods.as_object().unwrap().len()).sum();
    // The one that gives the document is left out: it has been asked already.
    assert!(told.contains(&format!("Tested: {}", operations - 1)), "all others: {told}");
}
