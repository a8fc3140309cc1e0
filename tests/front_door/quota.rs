//! The shelf keeps its quota: issue item 8, design rules 3 and 4.

use std::path::Path;

use crate::jobs;
use crate::node::{Dir, Node, http, http_with};

fn bytes_below(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => bytes_below(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

const QUOTA: u64 = 24 << 20;
const SMALL: &[&str] = &[
    "-c",
    "Results.Quota=24Mi",
    "-c",
    "Results.MinFree=1Mi",
    "-c",
    "Compute.JobDisk=8Mi",
    "-c",
    "Compute.MaxExecutions=1",
];

fn publish(node: &Node, mib: u32) -> String {
    let id = node.submit(&jobs::noise(mib));
    assert_eq!(node.wait_state(&id, &["Completed", "Failed"]), "Completed", "{}", node.job(&id));
    node.executions(&id)[0]["ID"].as_str().unwrap().to_owned()
}

#[test]
fn the_oldest_goes_first_and_says_so_and_a_pin_holds() {
    let dir = Dir::new();
    let data = dir.join("data");
    let node = Node::start(&data, SMALL);
    let pinned = publish(&node, 4);
    node.ok(&["results", "pin", &pinned]);
    let mut executions = Vec::new();
    for _ in 0..5 {
        executions.push(publish(&node, 4));
        assert!(bytes_below(&data.join("results")) + bytes_below(&data.join("scratch")) <= QUOTA);
    }
    let status = |id: &str| http("HEAD", &format!("{}/{id}.tar.gz", node.results), None).0;
    assert_eq!(status(&pinned), 200, "pinned");
    assert_eq!(status(&executions[0]), 410, "the oldest that was not pinned");
    assert_eq!(status(executions.last().unwrap()), 200, "the newest");
    let (_, _, gone) = http_with("GET", &format!("{}/{}.tar.gz", node.results, executions[0]), &[], None);
    let gone = crate::node::text(&gone);
    assert!(gone.contains("quota"), "{gone}");
    assert_eq!(status("e-11111111-2222-3333-4444-555555555555"), 404, "never was");
    // The job's history says it too.
    let (_, list) = node.get("/api/v1/codling/results");
    let row = list["Items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|r| r["ExecutionID"] == executions[0].as_str())
        .cloned();
    let job = row.unwrap()["JobID"].as_str().unwrap().to_owned();
    assert!(node.history(&job).iter().any(|m| m.contains("deleted")), "{:?}", node.history(&job));
    let df = node.ok(&["results", "df"]);
    assert!(df.to_lowercase().contains("quota"), "{df}");
    // A user may let go, and remove.
    node.ok(&["results", "unpin", &pinned]);
    node.ok(&["results", "rm", &pinned]);
    assert_eq!(status(&pinned), 410);
}

#[test]
fn a_result_larger_than_the_quota_fails_and_evicts_nothing() {
    let dir = Dir::new();
    let node = Node::start(
        &dir.join("data"),
        &["-c", "Results.Quota=16Mi", "-c", "Results.MinFree=1Mi", "-c", "Compute.JobDisk=4Mi"],
    );
    let kept = publish(&node, 1);
    let mut job = jobs::noise(8);
    job["Tasks"][0]["Resources"] = serde_json::json!({ "Disk": "12Mi" });
    let id = node.submit(&job);
    assert_eq!(node.wait_state(&id, &["Completed", "Failed"]), "Failed");
    let message = node.job(&id)["State"]["Message"].as_str().unwrap().to_owned();
    assert!(message.contains("8.0 MiB") && message.contains("at most 6."), "names both sizes: {message}");
    assert_eq!(http("HEAD", &format!("{}/{kept}.tar.gz", node.results), None).0, 200, "nothing was evicted");
}

#[test]
fn a_job_that_fills_its_disk_ends_and_costs_nobody_else() {
    let dir = Dir::new();
    let mut node = Node::start(&dir.join("data"), SMALL);
    let kept = publish(&node, 4);
    let id = node.submit(&jobs::noise(100));
    assert_eq!(node.wait_state(&id, &["Completed", "Failed"]), "Failed");
    let message = node.job(&id)["State"]["Message"].as_str().unwrap().to_owned();
    assert!(message.contains("8.0 MiB") && message.contains("disk"), "{message}");
    assert_eq!(http("HEAD", &format!("{}/{kept}.tar.gz", node.results), None).0, 200);
    assert!(node.is_alive());
    publish(&node, 1);
}

#[test]
fn retention_and_count_are_kept_and_gc_can_be_asked_first() {
    let dir = Dir::new();
    let node = Node::start(&dir.join("data"), &["-c", "Results.MaxCount=2"]);
    let first = publish(&node, 1);
    let second = publish(&node, 1);
    let third = publish(&node, 1);
    let status = |id: &str| http("HEAD", &format!("{}/{id}.tar.gz", node.results), None).0;
    crate::node::eventually("the count to be kept", || (status(&first) == 410).then_some(()));
    assert_eq!([status(&second), status(&third)], [200, 200]);
    let mut job = jobs::hello("short-lived");
    job["Labels"] = serde_json::json!({ "codling/retention": "1ms" });
    let id = node.submit(&job);
    node.wait_state(&id, &["Completed"]);
    let execution = node.executions(&id)[0]["ID"].as_str().unwrap().to_owned();
    crate::node::eventually("the result to expire", || (status(&execution) == 410).then_some(()));
    let dry = node.ok(&["results", "gc", "--dry-run"]);
    assert!(!dry.contains(&third), "{dry}");
}
