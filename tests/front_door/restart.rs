//! What a kill and a restart leave: issue items 4 and 5, design rules 1, 2 and 5.

use crate::jobs;
use crate::node::{Dir, Node, eventually};

#[test]
fn jobs_results_and_the_queue_survive_a_kill() {
    let dir = Dir::new();
    let data = dir.join("data");
    let one = &["-c", "Compute.MaxExecutions=1"];
    let node = Node::start(&data, one);
    let done = node.submit(&jobs::hello("done\n"));
    node.wait_state(&done, &["Completed"]);
    let (_, before) = node.get(&format!("/api/v1/orchestrator/jobs/{done}/results"));
    let running = node.submit(&jobs::wasm(jobs::LOOP));
    node.wait_state(&running, &["Running"]);
    let waiting = node.submit(&jobs::hello("waited\n"));
    node.wait_state(&waiting, &["Queued"]);
    node.kill();

    let node = Node::start(&data, one);
    assert_eq!(node.wait_state(&done, &["Completed"]), "Completed");
    let (_, after) = node.get(&format!("/api/v1/orchestrator/jobs/{done}/results"));
    let digest = |answer: &serde_json::Value| answer["Items"][0]["Params"]["SHA256"].clone();
    assert!(digest(&before).is_string());
    assert_eq!(digest(&before), digest(&after));
    let url = after["Items"][0]["Params"]["URL"].as_str().unwrap().to_owned();
    assert!(url.starts_with(&node.results), "{url}: the address the board has now ({})", node.results);
    let (status, archive) = crate::node::http("GET", &url, None);
    assert_eq!(status, 200);
    assert_eq!(digest(&after), codling::model::Sha256::of(&archive).hex());

    // What ran was cut off: the reason stands in history, and a new execution took its place.
    eventually("a second execution", || (node.executions(&running).len() == 2).then_some(()));
    assert!(node.history(&running).iter().any(|m| m.contains("restarted")), "{:?}", node.history(&running));
    node.wait_state(&running, &["Running"]);
    node.ok(&["job", "stop", &running]);
    assert_eq!(node.wait_state(&waiting, &["Completed", "Failed"]), "Completed");
    assert_eq!(node.executions(&waiting)[0]["RunOutput"]["Stdout"], "waited\n");
    eventually("scratch to be empty", || {
        (std::fs::read_dir(data.join("scratch")).unwrap().count() == 0).then_some(())
    });
}

#[test]
fn a_job_that_kills_the_node_is_given_up() {
    let dir = Dir::new();
    let data = dir.join("data");
    let node = Node::start(&data, &[]);
    let mut job = jobs::wasm(jobs::LOOP);
    job["Meta"] = serde_json::json!({ "codling/restarts": "1" });
    let id = node.submit(&job);
    node.wait_state(&id, &["Running"]);
    eventually("the execution to be running", || {
        node.history(&id).iter().any(|m| m == "started").then_some(())
    });
    node.kill();
    let node = Node::start(&data, &[]);
    eventually("the second execution", || (node.executions(&id).len() == 2).then_some(()));
    eventually("it to be running", || {
        (node.history(&id).iter().filter(|m| *m == "started").count() >= 1
            && node.executions(&id).iter().any(|e| e["ComputeState"]["StateType"] == 5))
        .then_some(())
    });
    // Its Running state is durable before the guest starts; wait until the guest has its directory.
    eventually("a scratch directory", || std::fs::read_dir(data.join("scratch")).unwrap().next().map(|_| ()));
    node.kill();
    let node = Node::start(&data, &[]);
    assert_eq!(node.wait_state(&id, &["Failed"]), "Failed");
    assert_eq!(node.executions(&id).len(), 2);
}

#[test]
fn a_clean_stop_is_quick_and_loses_nothing() {
    let dir = Dir::new();
    let data = dir.join("data");
    let node = Node::start(&data, &[]);
    let id = node.submit(&jobs::hello("kept\n"));
    node.wait_state(&id, &["Completed"]);
    let running = node.submit(&jobs::wasm(jobs::LOOP));
    node.wait_state(&running, &["Running"]);
    assert!(node.stop().success());
    let node = Node::start(&data, &[]);
    assert_eq!(node.state(&id), "Completed");
    assert_eq!(node.executions(&id)[0]["RunOutput"]["Stdout"], "kept\n");
    node.wait_state(&running, &["Running"]);
}

#[test]
fn leftovers_of_a_crash_are_swept() {
    let dir = Dir::new();
    let data = dir.join("data");
    let node = Node::start(&data, &[]);
    let id = node.submit(&jobs::hello("x"));
    node.wait_state(&id, &["Completed"]);
    let execution = node.executions(&id)[0]["ID"].as_str().unwrap().to_owned();
    node.kill();
    let shelf = data.join("results");
    std::fs::write(shelf.join("e-11111111-2222-3333-4444-555555555555.tar.gz.partial"), "half").unwrap();
    std::fs::write(shelf.join("e-11111111-2222-3333-4444-555555555556.tar.gz"), "orphan").unwrap();
    std::fs::remove_file(shelf.join(format!("{execution}.tar.gz"))).unwrap();
    std::fs::create_dir_all(data.join("scratch/e-11111111-2222-3333-4444-555555555557/result")).unwrap();
    let node = Node::start(&data, &[]);
    assert_eq!(std::fs::read_dir(&shelf).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(data.join("scratch")).unwrap().count(), 0);
    let (status, answer) = crate::node::http("GET", &format!("{}/{execution}.tar.gz", node.results), None);
    assert_eq!(status, 410, "{}", crate::node::text(&answer));
}

#[test]
fn two_nodes_cannot_share_a_directory() {
    let dir = Dir::new();
    let data = dir.join("data");
    let _first = Node::start(&data, &[]);
    let (status, log) = crate::node::refused(&data, &[], &[]);
    assert!(!status.success());
    assert!(log.contains("in use") || log.contains("locked"), "{log}");
}
