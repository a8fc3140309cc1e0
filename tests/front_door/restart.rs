//! What a kill and a restart leave.

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
    let node = Node::start(&data, &["-c", "Compute.StopTimeout=100ms"]);
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

#[test]
fn a_long_queue_is_in_its_old_order_after_a_kill() {
    let dir = Dir::new();
    let data = dir.join("data");
    let one = &["-c", "Compute.MaxExecutions=1"];
    let node = Node::start(&data, one);
    let blocker = node.submit(&jobs::wasm(jobs::LOOP));
    node.wait_state(&blocker, &["Running"]);
    // Every third has priority.
    let waiting: Vec<(bool, String)> = (0..60)
        .map(|n| {
            let mut job = jobs::hello("x");
            job["Priority"] = serde_json::json!(if n % 3 == 0 { 5 } else { 0 });
            (n % 3 != 0, node.submit(&job))
        })
        .collect();
    node.kill();
    let node = Node::start(&data, one);
    let mut wanted = waiting.clone();
    wanted.sort_by_key(|(late, _)| *late);
    let mut ended: Vec<(i64, String)> = Vec::new();
    for (_, id) in &waiting {
        node.wait_state(id, &["Completed"]);
        let executions = node.executions(id);
        assert_eq!(executions.len(), 1, "it waited: nothing was cut off");
        ended.push((executions[0]["ModifyTime"].as_i64().unwrap(), id.clone()));
    }
    ended.sort();
    let ids = |list: Vec<String>| list.join("\n");
    assert_eq!(
        ids(ended.into_iter().map(|(_, id)| id).collect()),
        ids(wanted.into_iter().map(|(_, id)| id).collect())
    );
    // What ran goes on last: should it be what brought the node down, the others were served first.
    eventually("the one that was cut off to run", || (node.executions(&blocker).len() == 2).then_some(()));
}

#[test]
fn publishing_goes_on_where_the_program_had_ended() {
    let dir = Dir::new();
    let data = dir.join("data");
    let settings = &[
        "-c",
        "Compute.JobDisk=512MiB",
        "-c",
        "Compute.MaxLogSize=512MiB",
        "-c",
        "Results.CompressionLevel=9",
    ];
    let node = Node::start(&data, settings);
    // A run of more than 5 s is not to be repeated: that it has ended is on disk before its result is packed.
    let id = node.submit(&jobs::late_noise(6, 96));
    let execution = eventually("an execution", || node.executions(&id).first().cloned());
    let execution = execution["ID"].as_str().unwrap().to_owned();
    let partial = data.join(format!("results/{execution}.tar.gz.partial"));
    let half_way = || {
        eventually("half an archive", || {
            std::fs::metadata(&partial).ok().filter(|found| found.len() > 8 << 20).map(|_| ())
        });
    };
    half_way();
    node.kill();
    // And once more.
    let mut node = Node::start(&data, settings);
    assert!(node.log_so_far().contains("1 result(s) are being published"), "{}", node.log_so_far());
    half_way();
    node.kill();
    let node = Node::start(&data, settings);
    node.wait_state(&id, &["Completed"]);
    assert_eq!(node.executions(&id).len(), 1, "the program did not run again");
    let (_, answer) = node.get(&format!("/api/v1/orchestrator/jobs/{id}/results"));
    let result = &answer["Items"][0]["Params"];
    let (status, archive) = crate::node::http("GET", result["URL"].as_str().unwrap(), None);
    assert_eq!(status, 200);
    assert_eq!(result["SHA256"], codling::model::Sha256::of(&archive).hex());
    let out = dir.join("out");
    node.ok(&["job", "get", &id, "--output-dir", out.to_str().unwrap()]);
    assert_eq!(std::fs::metadata(out.join("stdout")).unwrap().len(), 96 << 20);
    assert!(!partial.exists());
}

/// Waits until the newest of `n` executions of a job is at work, with its directory, and known to be.
fn at_work(node: &Node, id: &str, n: usize) {
    let execution = eventually("another execution", || {
        let executions = node.executions(id);
        let newest = executions.iter().max_by_key(|e| e["CreateTime"].as_i64())?.clone();
        let (_, history) = node.get(&format!("/api/v1/orchestrator/jobs/{id}/history?limit=1000"));
        let of_it = |item: &&serde_json::Value| item["ExecutionID"] == newest["ID"];
        let mut items = history["Items"].as_array()?.iter().filter(of_it);
        let started = items.any(|item| item["Event"]["Message"] == "started");
        (executions.len() == n && started).then_some(newest)
    });
    let directory = node.data.join("scratch").join(execution["ID"].as_str().unwrap());
    eventually("its directory", || directory.exists().then_some(()));
}

fn restarts(mut job: serde_json::Value, n: u32) -> serde_json::Value {
    job["Meta"] = serde_json::json!({ "codling/restarts": n.to_string() });
    job
}

#[test]
fn what_went_down_twice_with_the_node_waits_and_says_why() {
    let dir = Dir::new();
    let data = dir.join("data");
    let patient = &["-c", "Compute.RestartPause=1h"];
    let node = Node::start(&data, patient);
    let id = node.submit(&restarts(jobs::wasm(jobs::LOOP), 9));
    at_work(&node, &id, 1);
    node.kill();
    // A power cut, perhaps: it runs again at once.
    let node = Node::start(&data, patient);
    at_work(&node, &id, 2);
    node.kill();
    let told = |node: &Node| {
        let history = node.history(&id);
        history.iter().filter(|m| m.contains("cut it off 2 times: it is run again in 5m")).count()
    };
    let node = Node::start(&data, patient);
    eventually("the reason in its history", || (told(&node) == 1).then_some(()));
    let other = node.submit(&jobs::hello("others run\n"));
    node.wait_state(&other, &["Completed"]);
    assert_eq!(std::fs::read_dir(data.join("scratch")).unwrap().count(), 0, "it waits");
    node.kill();
    // The count is on disk: it waits again.
    let node = Node::start(&data, &["-c", "Compute.RestartPause=2h"]);
    eventually("the reason once more", || (told(&node) == 2).then_some(()));
    assert_eq!(node.executions(&id).len(), 3);
    node.kill();
    // And it runs once its time has come.
    let node = Node::start(&data, &["-c", "Compute.RestartPause=10ms"]);
    at_work(&node, &id, 3);
}

#[test]
fn a_node_that_goes_down_again_and_again_holds_its_work_back_and_answers() {
    let dir = Dir::new();
    let data = dir.join("data");
    let quick = &["-c", "Compute.RestartPause=10ms", "-c", "Compute.StopTimeout=0s"];
    let node = Node::start(&data, quick);
    let id = node.submit(&restarts(jobs::wasm(jobs::LOOP), 9));
    at_work(&node, &id, 1);
    assert!(!data.join("starts").exists(), "a start without work writes nothing");
    node.kill();
    for n in [2, 3] {
        let node = Node::start(&data, quick);
        at_work(&node, &id, n);
        node.kill();
    }
    let mut node = Node::start(&data, &["-c", "Compute.RestartPause=1h"]);
    assert!(node.log_so_far().contains("nothing is run for 5m"), "{}", node.log_so_far());
    let (status, answer) = node.get("/readyz");
    assert_eq!(status, 503);
    assert!(answer["Details"]["crash-loop"].as_str().unwrap().contains("went down 2 times"), "{answer}");
    assert_eq!(node.get("/livez").0, 200);
    let other = node.submit(&jobs::hello("after all\n"));
    node.wait_state(&other, &["Queued"]);
    let history = node.history(&other);
    assert!(history.iter().any(|m| m.contains("nothing is run for 5m")), "{history:?}");
    assert_eq!(std::fs::read_dir(data.join("scratch")).unwrap().count(), 0);
    // Told to stop, it stops: what is held back has not begun.
    assert!(node.stop().success());
    assert!(!data.join("starts").exists(), "a stop is no crash");

    // Held back again, this time for a moment only; then one at a time.
    std::fs::write(data.join("starts"), "7").unwrap();
    let mut node = Node::start(&data, quick);
    node.wait_log("one execution at a time");
    assert_eq!(node.get("/readyz").0, 200);
    node.wait_state(&other, &["Completed"]);
    at_work(&node, &id, 4);
    let last = node.submit(&jobs::hello("x"));
    node.wait_state(&last, &["Queued"]);
    assert!(node.stop().success());
}
