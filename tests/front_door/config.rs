//! Settings: issue item 2.

use crate::jobs;
use crate::node::{Dir, Node, codling, refused, text};

#[test]
fn published_persistence_settings_work_by_flag_and_by_variable() {
    let dir = Dir::new();
    let (executions, jobs_db) = (dir.join("elsewhere/executions.db"), dir.join("there/jobs.db"));
    let env = [
        ("BACALHAU_COMPUTE_STORE_TYPE", "redb"),
        ("BACALHAU_COMPUTE_STORE_PATH", executions.to_str().unwrap()),
        ("BACALHAU_JOB_STORE_TYPE", "BoltDB"),
        ("BACALHAU_JOB_STORE_PATH", jobs_db.to_str().unwrap()),
    ];
    let mut node = Node::start_env(&dir.join("a"), &[], &env);
    let log = node.log_so_far();
    assert_eq!(log.matches("boltdb").count(), 1, "one warning for the old name: {log}");
    let id = node.submit(&jobs::hello("x"));
    node.wait_state(&id, &["Completed"]);
    drop(node);
    assert!(executions.is_file() && jobs_db.is_file());
    let by_flag = [
        "--compute-execution-store-type",
        "redb",
        "--compute-execution-store-path",
        executions.to_str().unwrap(),
        "--requester-job-store-type",
        "redb",
        "--requester-job-store-path",
        jobs_db.to_str().unwrap(),
    ];
    let node = Node::start(&dir.join("a"), &by_flag);
    assert_eq!(node.state(&id), "Completed");
}

#[test]
fn a_memory_store_says_what_it_costs_and_an_unknown_one_lists_the_choices() {
    let dir = Dir::new();
    let memory = ["--compute-execution-store-type", "memory", "--requester-job-store-type", "memory"];
    let node = Node::start(&dir.join("data"), &[]);
    let durable = node.submit(&jobs::hello("durable"));
    node.wait_state(&durable, &["Completed"]);
    let durable = format!("{}.tar.gz", node.executions(&durable)[0]["ID"].as_str().unwrap());
    assert!(node.stop().success());
    let mut node = Node::start(&dir.join("data"), &memory);
    assert!(node.log_so_far().contains("lost"), "{}", node.log_so_far());
    let id = node.submit(&jobs::hello("x"));
    node.wait_state(&id, &["Completed"]);
    drop(node);
    let node = Node::start(&dir.join("data"), &memory);
    assert_eq!(node.get(&format!("/api/v1/orchestrator/jobs/{id}")).0, 404);
    drop(node);
    let node = Node::start(&dir.join("data"), &[]);
    let url = format!("{}/{durable}", node.results);
    assert_eq!(
        crate::node::http("HEAD", &url, None).0,
        200,
        "a durable result outlives a start with memory stores"
    );
    drop(node);
    let (status, log) = refused(&dir.join("data"), &["--requester-job-store-type", "mysql"], &[]);
    assert_eq!(status.code(), Some(78));
    for choice in ["redb", "memory", "boltdb"] {
        assert!(log.contains(choice), "{log}");
    }
}

#[test]
fn an_open_api_without_a_token_does_not_start() {
    let dir = Dir::new();
    let (status, log) = refused(&dir.join("data"), &["--api-host", "0.0.0.0"], &[]);
    assert_eq!(status.code(), Some(78));
    assert!(log.contains("API.Auth.Token"), "says how to set one: {log}");
    let token = dir.join("token");
    std::fs::write(&token, "s3cret-token\n").unwrap();
    let with = format!("API.Auth.TokenFile={}", token.display());
    let mut node = Node::start(&dir.join("data"), &["--api-host", "127.0.0.1", "-c", &with]);
    assert_eq!(node.get("/api/v1/orchestrator/jobs").0, 401);
    assert_eq!(node.get("/api/v1/agent/alive").0, 200);
    let list = node.command(&["job", "list"]).env("BACALHAU_API_KEY", "s3cret-token").output().unwrap();
    assert!(list.status.success(), "{}", text(&list.stderr));
    assert!(!node.log_so_far().contains("s3cret-token"));
}

#[test]
fn both_generations_of_files_are_read_and_origins_are_shown() {
    let dir = Dir::new();
    let old = dir.join("old.yaml");
    std::fs::write(
        &old,
        "Node:\n  ServerAPI:\n    Port: 4321\n  Compute:\n    LocalPublisher:\n      Port: 7001\n    JobSelection:\n      AcceptNetworkedJobs: false\n",
    )
    .unwrap();
    let list = codling(&[
        "config",
        "list",
        "--origin",
        "--config",
        old.to_str().unwrap(),
        "-c",
        "Results.MaxCount=7",
    ]);
    let shown = text(&list.stdout);
    assert!(list.status.success(), "{}", text(&list.stderr));
    let line = |key: &str| shown.lines().find(|l| l.contains(key)).unwrap_or_default().to_owned();
    assert!(line("API.Port").contains("4321") && line("API.Port").contains("old.yaml"), "{shown}");
    assert!(line("Publishers.Types.Local.Port").contains("7001"), "{shown}");
    assert!(line("JobAdmissionControl.RejectNetworkedJobs").contains("true"), "negated: {shown}");
    assert!(line("Results.MaxCount").contains('7'), "{shown}");

    let bad = dir.join("bad.yaml");
    std::fs::write(
        &bad,
        "API:\n  Port: ninety\n  Prot: 1\nResults:\n  Quota: lots\n  Retention: 5 parsecs\n",
    )
    .unwrap();
    let check = codling(&["config", "check", bad.to_str().unwrap()]);
    let report = text(&check.stdout) + &text(&check.stderr);
    assert!(!check.status.success());
    for part in ["API.Port", "API.Prot", "Results.Quota", "Results.Retention"] {
        assert!(report.contains(part), "{part} in {report}");
    }
}

#[test]
fn every_board_config_is_good() {
    let mut checked = 0;
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/board-configs")).unwrap() {
        let file = entry.unwrap().path().join("config.yaml");
        let check = codling(&["config", "check", file.to_str().unwrap()]);
        assert!(check.status.success(), "{}: {}{}", file.display(), text(&check.stdout), text(&check.stderr));
        checked += 1;
    }
    assert!(checked > 0);
}
