//! How fast the API answers: requests a second and the slowest hundredth, by wrk (Debian's package of that name).
//!
//! `cargo bench --bench api` (add `-- --quick` for a short run). Prints figures, asserts none.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a program that measures and prints")]

mod harness;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use harness::{NOOP, Node, agent};

/// Jobs to list; one in a hundred has the label.
const JOBS: usize = 10_000;
const THREADS: usize = 8;

/// A job that is stored, looked at and refused: a submission, and no work that competes with what is measured.
fn refused(n: usize) -> String {
    let labels = if n.is_multiple_of(100) { json!({ "team": "field" }) } else { json!({ "team": "office" }) };
    let task = json!({ "Name": "main", "Engine": { "Type": "none" } });
    json!({ "Job": { "Type": "batch", "Count": 1, "Labels": labels, "Tasks": [task] } }).to_string()
}

/// Writes the script that makes wrk submit.
fn script(directory: &Path) -> PathBuf {
    let path = directory.join("submit.lua");
    let text = format!(
        "wrk.method = 'PUT'\nwrk.headers['Content-Type'] = 'application/json'\nwrk.body = [[{}]]\n",
        refused(1)
    );
    std::fs::write(&path, text).expect("a script");
    path
}

fn wrk(what: &str, connections: usize, seconds: u32, url: &str, script: Option<&Path>) {
    let mut command = Command::new("wrk");
    command.args([
        "--latency",
        "-t1",
        &format!("-c{connections}"),
        &format!("-d{seconds}s"),
        "--timeout",
        "30s",
    ]);
    if let Some(script) = script {
        command.arg("-s").arg(script);
    }
    let output = command.arg(url).output().expect("wrk is there (apt install wrk)");
    let text = String::from_utf8_lossy(&output.stdout);
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
        line.map_or_else(|| panic!("no {name} in {text}"), |rest| rest.trim().to_owned())
    };
    // What was refused, and connections that were closed.
    let rest = |name: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
        line.map_or_else(String::new, |rest| format!("; {} {}", name.trim_end_matches(':'), rest.trim()))
    };
    println!(
        "{what:34} {connections:2} connection(s): {:>9} requests/s, p99 {:>9}{}{}",
        field("Requests/sec:"),
        field("99%"),
        rest("Non-2xx or 3xx responses:"),
        rest("Socket errors:"),
    );
}

fn main() {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let seconds = if quick { 2 } else { 10 };
    let data = harness::directory("api");
    let node = Node::start(&data, &["-c", "Store.MaxJobs=1000000"]);
    let one = node.submit(&agent(), &harness::job(NOOP));
    assert_eq!(node.ended(&agent(), &one), "Completed");
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let node = &node;
            scope.spawn(move || {
                let agent = agent();
                for n in (thread..JOBS).step_by(THREADS) {
                    node.call(&agent, "PUT", "/api/v1/orchestrator/jobs", Some(refused(n)));
                }
            });
        }
    });
    println!("{JOBS} jobs are there: PSS {} KiB", node.memory("Pss:"));
    let jobs = format!("{}/api/v1/orchestrator/jobs", node.api);
    let submit = script(&data);
    for connections in [1, 16, 64] {
        wrk("GET job", connections, seconds, &format!("{jobs}/{one}"), None);
        let list = format!("{jobs}?labels=team%3Dfield&limit=100");
        wrk("list of 10,000 with a selector", connections, seconds, &list, None);
        wrk("GET metrics", connections, seconds, &format!("{}/metrics", node.api), None);
    }
    // Last: it makes more of them.
    for connections in [1, 16, 64] {
        wrk("submit", connections, seconds, &jobs, Some(&submit));
    }
    println!("after them: PSS {} KiB", node.memory("Pss:"));
    drop(node);
    let _ = std::fs::remove_dir_all(&data);
}
