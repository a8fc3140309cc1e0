//! How fast the API answers: requests a second and the slowest hundredth, by wrk (Debian's package of that name). What was
//! refused (503: more connections than one peer may have, and no room in time) is counted apart, never as answered.
//!
//! `cargo bench --bench api` (add `-- --quick` for a short run). Prints figures, asserts none.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a program that measures and prints")]

mod harness;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use harness::{NOOP, Node, agent};

/// Jobs to list, each with a body of its own; one in a hundred has the label.
const JOBS: usize = 10_000;
const THREADS: usize = 8;

/// A job that is stored, looked at and refused: a submission, and no work that competes with what is measured.
fn refused(n: usize) -> String {
    let labels = if n.is_multiple_of(100) { json!({ "team": "field" }) } else { json!({ "team": "office" }) };
    let task = json!({ "Name": "main", "Engine": { "Type": "none" } });
    let meta = json!({ "number": n.to_string() });
    json!({ "Job": { "Type": "batch", "Count": 1, "Labels": labels, "Meta": meta, "Tasks": [task] } })
        .to_string()
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
    let rest = |name: &str| text.lines().find_map(|line| line.trim().strip_prefix(name)).map(str::trim);
    let number = |text: &str| text.parse::<f64>().expect("a number");
    // `12345 requests in 10.05s, 3.21MB read`
    let (answers, time) = text.lines().find_map(|line| line.split_once(" requests in ")).expect("a total");
    let time = time.split_once(',').expect("a time").0;
    // wrk says 10.05s or 1.00m.
    let time = match time.strip_suffix('m') {
        Some(minutes) => number(minutes) * 60.0,
        None => number(time.trim_end_matches('s')),
    };
    let refused = rest("Non-2xx or 3xx responses:").map_or(0.0, number);
    let served = (number(answers.trim()) - refused) / time;
    let slowest = rest("99%").expect("a p99");
    let errors =
        rest("Socket errors:").map_or_else(String::new, |errors| format!(", socket errors: {errors}"));
    println!(
        "{what:34} {connections:2} connection(s): {served:>9.1} answered/s, p99 {slowest:>9}, {refused:.0} refused{errors}"
    );
    // wrk leaves in the middle of its last requests: they are not to be waited for by the next.
    std::thread::sleep(Duration::from_millis(500));
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
