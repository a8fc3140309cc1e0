//! Capacity, queue, timeouts, stop, Count: issue item 5.

use serde_json::json;

use crate::jobs;
use crate::node::{Dir, Node, eventually};

/// Room for exactly one execution at a time.
const ONE_AT_A_TIME: &[&str] = &["-c", "Compute.MaxExecutions=1"];

#[test]
fn count_runs_that_many_and_each_has_its_partition() {
    let dir = Dir::new();
    let node = Node::start(&dir.join("data"), &[]);
    let mut job = jobs::hello("hi\n");
    job["Count"] = json!(3);
    let id = node.submit(&job);
    assert_eq!(node.wait_state(&id, &["Completed", "Failed"]), "Completed");
    let executions = node.executions(&id);
    assert_eq!(executions.len(), 3);
    for execution in &executions {
        assert_eq!(execution["RunOutput"]["Stdout"], "hi\n");
        assert_eq!(execution["RunOutput"]["ExitCode"], 0);
        assert_eq!(execution["ComputeState"]["StateType"], 7, "Completed, for a client without a version");
    }
    let partitions: std::collections::BTreeSet<_> =
        executions.iter().map(|e| e["PartitionIndex"].as_u64().unwrap_or(0)).collect();
    assert_eq!(partitions.len(), 3);
    let (_, results) = node.get(&format!("/api/v1/orchestrator/jobs/{id}/results"));
    assert_eq!(results["Items"].as_array().unwrap().len(), 3);
}

#[test]
fn an_ops_job_runs_once_on_this_node() {
    let dir = Dir::new();
    let node = Node::start(&dir.join("data"), &[]);
    let mut job = jobs::hello("ops");
    job["Type"] = json!("ops");
    job.as_object_mut().unwrap().remove("Count");
    let id = node.submit(&job);
    assert_eq!(node.wait_state(&id, &["Completed", "Failed"]), "Completed");
    assert_eq!(node.executions(&id).len(), 1);
}

#[test]
fn priority_goes_first_and_a_stop_reaches_running_and_waiting_work() {
    let dir = Dir::new();
    let node = Node::start(&dir.join("data"), ONE_AT_A_TIME);
    let running = node.submit(&jobs::wasm(jobs::LOOP));
    node.wait_state(&running, &["Running"]);
    let low = node.submit(&jobs::hello("low"));
    let mut urgent = jobs::hello("urgent");
    urgent["Priority"] = json!(10);
    let urgent = node.submit(&urgent);
    let doomed = node.submit(&jobs::hello("never"));
    for id in [&low, &urgent, &doomed] {
        node.wait_state(id, &["Queued"]);
    }
    node.ok(&["job", "stop", &doomed, "--reason", "changed my mind"]);
    assert_eq!(node.state(&doomed), "Stopped");
    node.ok(&["job", "stop", &running]);
    assert_eq!(node.wait_state(&running, &["Stopped"]), "Stopped");
    for id in [&low, &urgent] {
        assert_eq!(node.wait_state(id, &["Completed"]), "Completed");
    }
    let started = |id: &str| node.executions(id)[0]["CreateTime"].as_i64().unwrap();
    let finished = |id: &str| node.job(id)["ModifyTime"].as_i64().unwrap();
    assert!(started(&urgent) > started(&low), "it was submitted later");
    assert!(finished(&urgent) < finished(&low), "and done earlier");
    assert!(node.history(&doomed).iter().any(|m| m.contains("changed my mind")));
    // A busy loop was really interrupted: its execution ends as cancelled.
    eventually("the cancelled execution", || {
        (node.executions(&running)[0]["ComputeState"]["StateType"] == 9).then_some(())
    });
    assert_eq!(node.executions(&doomed)[0]["ComputeState"]["StateType"], 9);
}

#[test]
fn each_timeout_ends_what_it_bounds() {
    let dir = Dir::new();
    let node = Node::start(&dir.join("data"), ONE_AT_A_TIME);
    let mut job = jobs::wasm(jobs::LOOP);
    job["Tasks"][0]["Timeouts"] = json!({ "ExecutionTimeout": 1 });
    let id = node.submit(&job);
    assert_eq!(node.wait_state(&id, &["Failed", "Completed"]), "Failed");
    let message = node.job(&id)["State"]["Message"].as_str().unwrap().to_owned();
    assert!(message.contains("limit of 1 s"), "{message}");

    let mut job = jobs::wasm(jobs::LOOP);
    job["Tasks"][0]["Timeouts"] = json!({ "TotalTimeout": 1 });
    let id = node.submit(&job);
    assert_eq!(node.wait_state(&id, &["Failed", "Completed"]), "Failed");

    let blocker = node.submit(&jobs::wasm(jobs::LOOP));
    node.wait_state(&blocker, &["Running"]);
    let mut job = jobs::hello("late");
    job["Tasks"][0]["Timeouts"] = json!({ "QueueTimeout": 1 });
    let id = node.submit(&job);
    assert_eq!(node.wait_state(&id, &["Failed", "Completed"]), "Failed");
    assert!(node.history(&id).iter().any(|m| m.contains("QueueTimeout")), "{:?}", node.history(&id));
    assert_eq!(node.state(&blocker), "Running", "nobody else was touched");
}

#[test]
fn what_can_never_run_fails_at_once_with_the_reason() {
    let dir = Dir::new();
    let node = Node::start(&dir.join("data"), &[]);
    let mut docker = jobs::hello("x");
    docker["Tasks"][0]["Engine"] = json!({ "Type": "docker", "Params": { "Image": "busybox" } });
    let mut large = jobs::hello("x");
    large["Tasks"][0]["Resources"] = json!({ "Memory": "64Gi" });
    let mut elsewhere = jobs::hello("x");
    elsewhere["Constraints"] = json!([{ "Key": "zone", "Operator": "=", "Values": ["moon"] }]);
    for (job, reason) in [(docker, "engine 'docker'"), (large, "of memory"), (elsewhere, "zone = moon")] {
        let id = node.submit(&job);
        assert_eq!(node.wait_state(&id, &["Failed", "Completed"]), "Failed");
        let message = node.job(&id)["State"]["Message"].as_str().unwrap().to_owned();
        assert!(message.contains(reason), "'{message}' names '{reason}'");
        assert!(node.history(&id).iter().any(|m| m.contains(reason)));
        let shown = node.ok(&["job", "describe", &id]);
        assert!(shown.contains(reason), "{shown}");
    }
}

#[test]
fn another_exit_code_than_zero_is_completed_and_published() {
    let dir = Dir::new();
    let node = Node::start(&dir.join("data"), &[]);
    let id = node.submit(&jobs::exit(3));
    assert_eq!(node.wait_state(&id, &["Completed", "Failed"]), "Completed");
    assert_eq!(node.executions(&id)[0]["RunOutput"]["ExitCode"], 3);
    let (_, results) = node.get(&format!("/api/v1/orchestrator/jobs/{id}/results"));
    assert_eq!(results["Items"].as_array().unwrap().len(), 1);
}
