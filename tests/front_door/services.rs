//! Jobs that run for ever, new versions of jobs, and jobs that are run once more.

use std::collections::HashSet;

use codling::store::{Place, StoreSettings};
use serde_json::{Value, json};

use crate::jobs;
use crate::node::{Dir, Node, eventually, http_with};

const JOBS: &str = "/api/v1/orchestrator/jobs";

/// Executions that a service keeps of those that have ended, with those that may be there until they leave together.
const ENDED_MOST: usize = 24;

/// What a client of that version gets.
fn say(node: &Node, version: &str, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
    let body = body.map(Value::to_string);
    let headers = [("X-Bacalhau-Git-Version", version)];
    let (status, _, bytes) = http_with(method, &format!("{}{path}", node.api), &headers, body.as_deref());
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

fn get(node: &Node, path: &str) -> Value {
    let (status, answer) = say(node, "v1.9.3", "GET", path, None);
    assert_eq!(status, 200, "{path}: {answer}");
    answer
}

fn put(node: &Node, path: &str, body: &Value) -> (u16, Value) {
    say(node, "v1.9.3", "PUT", path, Some(body))
}

/// A service of that job.
fn service(mut job: Value) -> Value {
    job["Type"] = json!("service");
    job["Tasks"][0].as_object_mut().unwrap().remove("Publisher");
    job
}

fn named(name: &str, mut job: Value) -> Value {
    job["Name"] = json!(name);
    job
}

/// Executions in the states of 1.9, newest last.
fn executions(node: &Node, id: &str, query: &str) -> Vec<Value> {
    let mut all = get(node, &format!("{JOBS}/{id}/executions?{query}"))["Items"].as_array().unwrap().clone();
    all.sort_by_key(|e| e["CreateTime"].as_i64());
    all
}

fn count(all: &[Value], state: u64) -> usize {
    all.iter().filter(|e| e["ComputeState"]["StateType"] == state).count()
}

const RUNNING: u64 = 6;
const FAILED: u64 = 10;
const CANCELLED: u64 = 11;

fn wait_running(node: &Node, id: &str, wanted: usize) {
    eventually("its executions to run", || {
        (count(&executions(node, id, ""), RUNNING) == wanted).then_some(())
    });
}

/// Follows a job as 1.9's command line does, to its end; what it is told.
fn follow(node: &Node, id: &str, version: u64) -> Vec<Value> {
    let (mut told, mut token) = (Vec::new(), String::new());
    loop {
        let path =
            format!("{JOBS}/{id}/history?event_type=all&limit=10&job_version={version}&next_token={token}");
        let page = get(node, &path);
        told.extend(page["Items"].as_array().unwrap().clone());
        token = page["NextToken"].as_str().unwrap().to_owned();
        if token.is_empty() {
            return told;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(20));
    }
}

#[test]
fn a_service_that_ends_is_run_again_after_growing_pauses_until_it_is_stopped() {
    let dir = Dir::new();
    let node = Node::start(&dir.join("data"), &["-c", "Compute.RestartPause=150ms"]);
    let id = node.submit(&service(jobs::exit(3)));
    let all = eventually("five executions", || {
        let all = executions(&node, &id, "");
        (all.len() >= 5).then_some(all)
    });
    let ended: Vec<_> = all.iter().filter(|e| e["ComputeState"]["StateType"] == FAILED).collect();
    assert!(ended.len() >= 4, "{all:?}");
    for execution in &ended {
        assert_eq!(execution["RunOutput"]["ExitCode"], 3, "{execution}");
        let message = execution["ComputeState"]["Message"].as_str().unwrap();
        assert_eq!(message, "completed unexpectedly with exit code 3");
    }
    assert_eq!(all[1]["PreviousExecution"], all[0]["ID"]);
    assert_eq!(node.state(&id), "Running");
    eventually("the reason of the pause", || {
        let history = node.history(&id);
        let told = |text: &str| history.iter().any(|m| m == text);
        (told("it has ended 2 times in a row: it is run again in 150ms")
            && told("it has ended 3 times in a row: it is run again in 300ms"))
        .then_some(())
    });
    // What runs for ever has no results, as upstream has it.
    let (status, answer) = node.get(&format!("{JOBS}/{id}/results"));
    assert_eq!(status, 400, "{answer}");
    // In its pause or in its run: it ends, and stays ended.
    node.ok(&["job", "stop", &id]);
    assert_eq!(node.wait_state(&id, &["Stopped"]), "Stopped");
    eventually("no execution to be open", || {
        let all = executions(&node, &id, "");
        (count(&all, FAILED) + count(&all, CANCELLED) == all.len()).then_some(())
    });
}

#[test]
fn a_trap_is_run_again_too_and_a_daemon_is_one() {
    let dir = Dir::new();
    let node = Node::start(&dir.join("data"), &["-c", "Compute.RestartPause=10ms"]);
    let trap = r#"(module (memory (export "memory") 1) (func (export "_start") unreachable))"#;
    let mut daemon = service(jobs::wasm(trap));
    daemon["Type"] = json!("daemon");
    daemon.as_object_mut().unwrap().remove("Count");
    let id = node.submit(&daemon);
    let all = eventually("three executions", || {
        let all = executions(&node, &id, "");
        (all.len() >= 3).then_some(all)
    });
    assert!(all.iter().filter(|e| e["ComputeState"]["StateType"] != FAILED).count() <= 1, "{all:?}");
    assert_eq!(node.state(&id), "Running");
    node.ok(&["job", "stop", &id]);
}

#[test]
fn a_service_goes_on_after_every_kill_and_does_not_hold_up_a_stop() {
    let dir = Dir::new();
    let data = dir.join("data");
    let settings = &["-c", "Compute.RestartPause=10ms", "-c", "Compute.StopTimeout=1h"];
    let mut node = Node::start(&data, settings);
    let id = node.submit(&service(jobs::wasm(jobs::LOOP)));
    wait_running(&node, &id, 1);
    // More often than a batch job may be cut off.
    for _ in 0..5 {
        node.kill();
        node = Node::start(&data, settings);
        wait_running(&node, &id, 1);
        assert_eq!(node.state(&id), "Running");
    }
    let cut_off = node.history(&id).iter().filter(|m| m.contains("the node restarted")).count();
    assert_eq!(cut_off, 5, "{:?}", node.history(&id));
    // It will not end by itself: a stop does not wait the hour.
    assert!(node.stop().success());
    let node = Node::start(&data, settings);
    wait_running(&node, &id, 1);
    node.ok(&["job", "stop", &id]);
    eventually("the executions to end", || (count(&executions(&node, &id, ""), RUNNING) == 0).then_some(()));
}

#[test]
fn the_limit_of_what_ends_is_none_of_a_service() {
    let dir = Dir::new();
    let node = Node::start(&dir.join("data"), &["-c", "Compute.MaxExecutionTimeout=1s"]);
    let id = node.submit(&service(jobs::wasm(jobs::LOOP)));
    wait_running(&node, &id, 1);
    // One that began later is over its limit.
    let ends = node.submit(&jobs::wasm(jobs::LOOP));
    node.wait_state(&ends, &["Failed"]);
    let all = executions(&node, &id, "");
    assert_eq!((all.len(), count(&all, RUNNING)), (1, 1), "{all:?}");
    node.ok(&["job", "stop", &id]);
}

#[test]
fn a_name_is_updated_by_new_clients_and_used_again_by_old_ones() {
    let dir = Dir::new();
    let data = dir.join("data");
    let node = Node::start(&data, &[]);
    let submit = |job: &Value| put(&node, JOBS, &json!({ "Job": job }));
    let first = named("web", service(jobs::wasm(jobs::LOOP)));
    let id = submit(&first).1["JobID"].as_str().unwrap().to_owned();
    wait_running(&node, &id, 1);
    let (status, same) = submit(&first);
    assert_eq!(status, 400, "{same}");
    assert!(same["Message"].as_str().unwrap().contains("no changes") && same["Hint"].is_string(), "{same}");
    let mut second = first.clone();
    second["Count"] = json!(2);
    assert_eq!(submit(&second).1["JobID"], id.as_str());
    wait_running(&node, &id, 2);
    let old = executions(&node, &id, "job_version=1");
    eventually("the old version to end", || {
        (count(&executions(&node, &id, "job_version=1"), CANCELLED) == 1).then_some(())
    });
    assert_eq!(old.len(), 1);
    assert_eq!(executions(&node, &id, "all_job_versions=true").len(), 3);
    assert!(executions(&node, &id, "").iter().all(|e| e["JobVersion"] == 2));
    // Its history is at an end, the present one's is not.
    let told = follow(&node, &id, 1);
    assert!(told.iter().all(|item| item["JobVersion"] == 1) && told.len() >= 3, "{told:?}");
    let page = get(&node, &format!("{JOBS}/{id}/history"));
    assert_eq!(page["Items"][0]["Event"]["Message"], "job updated to version 2");
    assert_ne!(page["NextToken"], "");
    // The same once more, if that is what is wanted.
    let (_, forced) = put(&node, JOBS, &json!({ "Job": second, "Force": true }));
    assert_eq!(forced["JobID"], id.as_str());
    wait_running(&node, &id, 2);
    let versions = get(&node, &format!("{JOBS}/web/versions"));
    let known = |versions: &Value| -> Vec<(u64, u64)> {
        let items = versions["Items"].as_array().unwrap();
        items.iter().map(|v| (v["Version"].as_u64().unwrap(), v["Count"].as_u64().unwrap())).collect()
    };
    assert_eq!(known(&versions), [(1, 1), (2, 2), (3, 2)]);
    assert_eq!(get(&node, &format!("{JOBS}/{id}?job_version=1"))["Job"]["Count"], 1);
    // For 1.4, and for whoever names no version, each submission is a job of its own.
    let (_, other) = say(&node, "v1.4.0", "PUT", JOBS, Some(&json!({ "Job": second })));
    assert_ne!(other["JobID"], id.as_str());
    assert_ne!(node.submit(&second), id);
    // All of that survives a power cut.
    node.kill();
    let node = Node::start(&data, &[]);
    assert_eq!(known(&get(&node, &format!("{JOBS}/{id}/versions"))), [(1, 1), (2, 2), (3, 2)]);
    wait_running(&node, &id, 2);
}

#[test]
fn one_name_is_one_job_however_many_submit_it_at_once() {
    let dir = Dir::new();
    let node = Node::start(&dir.join("data"), &[]);
    let threads: Vec<_> = (0..8)
        .map(|n| {
            let mut job = named("crowd", service(jobs::wasm(jobs::LOOP)));
            job["Priority"] = json!(n);
            let (url, body) = (format!("{}{JOBS}", node.api), json!({ "Job": job }).to_string());
            std::thread::spawn(move || {
                let headers = [("X-Bacalhau-Git-Version", "v1.9.3")];
                let (_, _, answer) = http_with("PUT", &url, &headers, Some(&body));
                serde_json::from_slice::<Value>(&answer).unwrap()["JobID"].as_str().unwrap().to_owned()
            })
        })
        .collect();
    let ids: HashSet<String> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    let id = ids.into_iter().next().unwrap();
    assert_eq!(node.job(&id)["Version"], 8);
}

#[test]
fn a_job_is_run_once_more() {
    let dir = Dir::new();
    let node = Node::start(&dir.join("data"), &["-c", "Compute.MaxExecutions=1"]);
    let id = node.submit(&named("greeting", jobs::hello("hello\n")));
    node.wait_state(&id, &["Completed"]);
    let rerun = |id: &str, body: Value| put(&node, &format!("{JOBS}/{id}/rerun"), &body);
    let (status, answer) = rerun(&id, json!({ "JobVersion": 0, "Reason": "again" }));
    assert_eq!((status, &answer["JobID"], &answer["JobVersion"]), (200, &json!(id), &json!(2)), "{answer}");
    let told = follow(&node, &id, 2);
    let messages: Vec<_> = told.iter().map(|item| item["Event"]["Message"].as_str().unwrap()).collect();
    assert_eq!(messages[0], "job run again as version 2: again");
    assert!(messages.iter().any(|m| m.starts_with("completed with exit code 0")), "{messages:?}");
    assert_eq!(node.state(&id), "Completed");
    // Each version has its result.
    let urls =
        |query: &str| get(&node, &format!("{JOBS}/{id}/results?{query}"))["Items"].as_array().unwrap().len();
    assert_eq!((urls(""), urls("job_version=1"), urls("all_job_versions=true")), (1, 1, 2));
    // An earlier version, from the command line.
    assert_eq!(node.ok(&["job", "rerun", "greeting", "--version", "1"]).trim(), id);
    node.wait_state(&id, &["Completed"]);
    assert_eq!(node.job(&id)["Version"], 3);
    assert_eq!(node.ok(&["job", "versions", &id]).lines().count(), 4);
    // What runs is stopped and begun anew; what waits is not.
    let runs = node.submit(&jobs::wasm(jobs::LOOP));
    node.wait_state(&runs, &["Running"]);
    let waits = node.submit(&jobs::hello("later\n"));
    node.wait_state(&waits, &["Queued"]);
    let (status, answer) = rerun(&waits, json!({}));
    assert_eq!(status, 409, "{answer}");
    assert_eq!(rerun(&runs, json!({})).1["JobVersion"], 2);
    eventually("the old execution to be stopped", || {
        (count(&executions(&node, &runs, "job_version=1"), CANCELLED) == 1).then_some(())
    });
    assert_eq!(rerun("j-00000000-0000-4000-8000-000000000000", json!({})).0, 404);
    assert_eq!(rerun(&id, json!({ "JobVersion": 9 })).0, 404);
}

#[test]
fn a_dry_run_tells_the_difference() {
    let dir = Dir::new();
    let node = Node::start(&dir.join("data"), &[]);
    let file = |name: &str, job: &Value| {
        let path = dir.join(name);
        std::fs::write(&path, job.to_string()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let job = named("web", service(jobs::wasm(jobs::LOOP)));
    let first = file("first.json", &job);
    let mut changed = job.clone();
    changed["Count"] = json!(3);
    let second = file("second.json", &changed);
    let unknown = node.cli(&["job", "run", "--dry-run", &first]);
    assert!(unknown.status.success() && unknown.stdout.is_empty());
    let id = node.ok(&["job", "run", &first]);
    // The node's own defaults are no difference.
    assert_eq!(node.ok(&["job", "run", "--dry-run", &first]), "");
    let diff = node.ok(&["job", "run", "--dry-run", &second]);
    assert!(diff.contains("- Count: 1\n+ Count: 3\n"), "{diff}");
    assert_eq!(node.job(id.trim())["Version"], 1);
    let again = node.cli(&["job", "run", &first]);
    assert!(!again.status.success());
    assert!(crate::node::text(&again.stderr).contains("--force"), "{}", crate::node::text(&again.stderr));
    assert_eq!(node.ok(&["job", "run", "--force", &first]), id);
    assert_eq!(node.job(id.trim())["Version"], 2);
}

#[test]
fn hundreds_of_ends_and_versions_take_no_more_room_than_a_few() {
    let dir = Dir::new();
    let data = dir.join("data");
    let node = Node::start(&data, &["-c", "Compute.RestartPause=0"]);
    let commits = || node.get("/api/v1/codling/stats").1["DurableCommits"].as_u64().unwrap();
    let before = commits();
    let id = node.submit(&named("busy", service(jobs::wasm(jobs::NOOP))));
    let history =
        || get(&node, &format!("{JOBS}/{id}/history?limit=1000&all_job_versions=true"))["Items"].clone();
    let last =
        |items: &Value| items.as_array().unwrap().last().map_or(0, |item| item["SeqNum"].as_u64().unwrap());
    let items = eventually("hundreds of ends", || {
        let items = history();
        (last(&items) > 1200).then_some(items)
    });
    let items = items.as_array().unwrap();
    // Read a few at a time, while more come and others go.
    assert!((450..=550).contains(&items.len()), "{}", items.len());
    assert_eq!((&items[0]["SeqNum"], &items[0]["Event"]["Message"]), (&json!(1), &json!("job submitted")));
    assert!(executions(&node, &id, "").len() <= ENDED_MOST + 1);
    let ends = last(&history()) / 3;
    eprintln!("commits for {ends} ends: {}", commits() - before);
    for n in 1..=30 {
        let mut job = named("busy", service(jobs::wasm(jobs::NOOP)));
        job["Priority"] = json!(n);
        assert_eq!(put(&node, JOBS, &json!({ "Job": job })).0, 200);
    }
    let versions = get(&node, &format!("{JOBS}/{id}/versions"));
    assert_eq!(versions["Items"].as_array().unwrap().len(), 16);
    assert_eq!(versions["Items"][15]["Version"], 31);
    node.ok(&["job", "stop", &id]);
    assert_eq!(node.state(&id), "Stopped");
    assert!(node.stop().success());
    // Nor is there more on the disk than is shown.
    let places = StoreSettings::new(
        Place::Redb(data.join("compute/executions.db")),
        Place::Redb(data.join("orchestrator/jobs.db")),
    );
    let stores = codling::store::open(&places).unwrap();
    let rows = stores.jobs.executions(&id.parse().unwrap()).unwrap();
    assert!(rows.len() <= ENDED_MOST + 1, "{} rows", rows.len());
    let records = stores.executions.counts().unwrap().total;
    assert!(records <= rows.len() as u64, "{records} records of {} executions", rows.len());
    assert!(stores.jobs.history(&id.parse().unwrap(), 0, usize::MAX).unwrap().len() <= 500);
    stores.close().unwrap();
}
