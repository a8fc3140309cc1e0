//! What leaves, when, and why: retention of results and of jobs, and a clock that is wrong.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::jobs;
use crate::node::{Dir, Node, eventually, http, http_with, text};

/// A job that publishes a few bytes, kept as its publisher's parameters say.
fn kept(params: Value) -> Value {
    let mut job = jobs::hello("hello");
    job["Tasks"][0]["Publisher"]["Params"] = params;
    job
}

/// Runs it; the id of its execution.
fn run(node: &Node, job: &Value) -> String {
    let id = node.submit(job);
    assert_eq!(node.wait_state(&id, &["Completed", "Failed"]), "Completed", "{}", node.job(&id));
    node.executions(&id)[0]["ID"].as_str().unwrap().to_owned()
}

fn status(node: &Node, execution: &str) -> u16 {
    http("HEAD", &format!("{}/{execution}.tar.gz", node.results), None).0
}

fn row(node: &Node, execution: &str) -> Value {
    let (code, row) = node.get(&format!("/api/v1/codling/results/{execution}"));
    assert_eq!(code, 200, "{row}");
    row
}

fn doubt(node: &Node) -> String {
    let (_, df) = node.get("/api/v1/codling/df");
    df["ClockDoubt"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_job_says_how_long_its_result_is_kept() {
    let dir = Dir::new();
    let node = Node::start(&dir.join("data"), &["-c", "Results.Retention=1ms"]);
    let forever = run(&node, &kept(json!({"Retention": "forever"})));
    let pinned = run(&node, &kept(json!({"Retention": "1ms", "Pin": true})));
    let default = run(&node, &kept(json!({})));
    eventually("the default to count", || (status(&node, &default) == 410).then_some(()));
    assert_eq!((status(&node, &forever), status(&node, &pinned)), (200, 200));
    assert_eq!(row(&node, &pinned)["Pinned"], true);
    let mut labelled = kept(json!({}));
    labelled["Labels"] = json!({"codling/retention": "forever"});
    let labelled = run(&node, &labelled);
    let mut wrong = kept(json!({"Retention": "soon"}));
    let refused = |job: &Value| {
        let (code, answer) =
            node.call("PUT", "/api/v1/orchestrator/jobs", Some(&json!({"Job": job}).to_string()));
        assert_eq!(code, 400, "{answer}");
        answer["Message"].as_str().unwrap_or_default().to_owned()
    };
    assert!(refused(&wrong).contains("Tasks[0].Publisher.Params.Retention"), "{}", refused(&wrong));
    wrong["Tasks"][0]["Publisher"]["Params"] = json!({});
    wrong["Labels"] = json!({"codling/pin": "perhaps"});
    assert!(refused(&wrong).contains("Labels[codling/pin]"), "{}", refused(&wrong));
    // The pin held it, its time was over long ago: nobody has to ask for it to go.
    node.ok(&["results", "unpin", &pinned]);
    eventually("what was due to go once nothing holds it", || (status(&node, &pinned) == 410).then_some(()));
    let gone = node.ok(&["results", "gc", "--output", "json"]);
    assert_eq!(serde_json::from_str::<Value>(&gone).unwrap()["Deleted"], json!([]), "{gone}");
    assert_eq!((status(&node, &forever), status(&node, &labelled)), (200, 200));
    let (_, df) = node.get("/api/v1/codling/df");
    let counted = df["Deleted"].as_array().unwrap();
    assert!(counted.iter().any(|c| c["Reason"] == "expired" && c["Count"] == 2), "{df}");
    assert!(node.ok(&["results", "df"]).contains("Deleted since the node started"));
}

#[test]
fn what_was_downloaded_goes_first_and_that_survives_a_power_cut() {
    let dir = Dir::new();
    let data = dir.join("data");
    let settings: Vec<&str> =
        "Results.Quota=24Mi Results.MinFree=1Mi Compute.JobDisk=8Mi Compute.MaxExecutions=1 \
                               Results.EvictFirst=fetched Results.MaxSize=13Mi"
            .split_whitespace()
            .flat_map(|setting| ["-c", setting])
            .collect();
    let node = Node::start(&data, &settings);
    let first = run(&node, &jobs::noise(4));
    let second = run(&node, &jobs::noise(4));
    let url = |id: &str| format!("{}/{id}.tar.gz", node.results);
    let (code, _, bytes) = http_with("GET", &url(&first), &[("Range", "bytes=0-99")], None);
    assert_eq!((code, bytes.len()), (206, 100));
    // Resumed, as clients do: the end counts.
    let (code, _, end) = http_with("GET", &url(&second), &[("Range", "bytes=100-")], None);
    assert!(code == 206 && end.len() > 4 << 20);
    eventually("the download to be noted", || (row(&node, &second)["Fetched"] == true).then_some(()));
    assert_eq!(row(&node, &first)["Fetched"], false);
    // It is written down with the next commit that is made anyway.
    let third = run(&node, &jobs::noise(4));
    node.kill();
    let node = Node::start(&data, &settings);
    assert_eq!(row(&node, &second)["Fetched"], true);
    let list = node.ok(&["results", "list"]);
    assert!(list.lines().next().unwrap().contains("FETCHED"), "{list}");
    run(&node, &jobs::noise(4));
    assert_eq!([&first, &second, &third].map(|id| status(&node, id)), [200, 410, 200]);
    assert_eq!(row(&node, &second)["Deleted"]["Reason"], "size");
}

#[test]
fn jobs_that_ended_leave_and_their_results_are_spoken_of_longer() {
    let dir = Dir::new();
    let node = Node::start(&dir.join("data"), &["-c", "Store.MaxJobs=2", "-c", "Results.MaxCount=1"]);
    let mut quiet = jobs::wasm(jobs::NOOP);
    quiet["Tasks"][0].as_object_mut().unwrap().remove("Publisher");
    let end = |job: &Value| {
        let id = node.submit(job);
        node.wait_state(&id, &["Completed"]);
        id
    };
    let stored = end(&jobs::hello("kept"));
    let execution = node.executions(&stored)[0]["ID"].as_str().unwrap().to_owned();
    let quiets: Vec<String> = (0..4).map(|_| end(&quiet)).collect();
    let path = |id: &str| format!("/api/v1/orchestrator/jobs/{id}");
    let gone = |id: &str| {
        eventually("the job to leave", || (node.get(&path(id)).0 == 404).then_some(()));
    };
    // The oldest has a result: it stays, and takes nobody else's place.
    gone(&quiets[0]);
    assert_eq!([&stored, &quiets[3]].map(|id| node.get(&path(id)).0), [200, 200]);
    let output = node.cli(&["job", "describe", &quiets[0]]);
    assert!(text(&output.stderr).contains("Store.MaxJobs"), "{}", text(&output.stderr));
    assert_eq!(node.get(&format!("{}/executions", path(&quiets[0]))).0, 404);
    // Its result goes, then it goes itself; that there was a result is known all the same.
    let newest = end(&jobs::hello("newer"));
    gone(&stored);
    assert_eq!((status(&node, &execution), node.get(&path(&newest)).0), (410, 200));
    let (_, df) = node.get("/api/v1/codling/df");
    let jobs = &df["Jobs"];
    assert!(jobs["Ended"].as_u64() <= Some(3) && jobs["LeftByCount"].as_u64() >= Some(3), "{df}");
    assert_eq!(node.get("/api/v1/codling/stats").1["LeftJobs"], jobs["LeftByCount"]);
}

#[test]
fn gc_lets_the_jobs_go_that_it_named_before() {
    let dir = Dir::new();
    let node = Node::start(&dir.join("data"), &["-c", "Store.MaxJobs=16"]);
    let mut quiet = jobs::wasm(jobs::NOOP);
    quiet["Tasks"][0].as_object_mut().unwrap().remove("Publisher");
    let ids: Vec<String> = (0..17).map(|_| node.submit(&quiet)).collect();
    ids.iter().for_each(|id| drop(node.wait_state(id, &["Completed"])));
    // One more than is kept may wait for others to leave with.
    let dry: Value =
        serde_json::from_str(&node.ok(&["results", "gc", "--dry-run", "--output", "json"])).unwrap();
    assert_eq!(dry, json!({"Deleted": [], "Jobs": [ids[0]]}));
    assert_eq!(node.state(&ids[0]), "Completed");
    let done = node.cli(&["results", "gc"]);
    assert!(text(&done.stderr).contains("1 job(s) forgotten"), "{}", text(&done.stderr));
    assert_eq!(node.get(&format!("/api/v1/orchestrator/jobs/{}", ids[0])).0, 404);
    assert_eq!(node.state(&ids[1]), "Completed");
}

/// A wall clock that a test sets while the node runs: Debian's libfaketime, told by a file.
struct Wall {
    library: PathBuf,
    file: PathBuf,
}

impl Wall {
    fn new(dir: &Dir, time: &str) -> Self {
        let found = std::fs::read_dir("/usr/lib").unwrap().flatten().find_map(|entry| {
            let library = entry.path().join("faketime/libfaketimeMT.so.1");
            library.exists().then_some(library)
        });
        let Some(library) = found else {
            panic!("libfaketime is missing: apt-get install faketime (tests/run.sh does)")
        };
        let wall = Self { library, file: dir.join("wall") };
        wall.set(time);
        wall
    }

    fn set(&self, time: &str) {
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("{time}\n")).unwrap();
        std::fs::rename(new, &self.file).unwrap();
    }

    fn start(&self, data: &Path) -> Node {
        Node::start_env(
            data,
            &[],
            &[
                ("LD_PRELOAD", self.library.to_str().unwrap()),
                ("FAKETIME_TIMESTAMP_FILE", self.file.to_str().unwrap()),
                ("FAKETIME_NO_CACHE", "1"),
                // Only the wall clock is wrong; time passes as it does.
                ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
                ("DONT_FAKE_MONOTONIC", "1"),
            ],
        )
    }
}

#[test]
fn a_clock_that_jumps_by_years_deletes_nothing() {
    let dir = Dir::new();
    let data = dir.join("data");
    let wall = Wall::new(&dir, "+0");
    let node = wall.start(&data);
    let hour = kept(json!({"Retention": "1h"}));
    let execution = run(&node, &hour);
    assert_eq!(doubt(&node), "");
    wall.set("+10y");
    eventually("the jump to be seen", || (doubt(&node) == "it jumped ahead").then_some(()));
    assert!(node.ok(&["results", "df"]).contains("Nothing is deleted by age"));
    let nothing = json!({"Deleted": [], "Jobs": []});
    let gc = |node: &Node| -> Value {
        serde_json::from_str(&node.ok(&["results", "gc", "--output", "json"])).unwrap()
    };
    assert_eq!(gc(&node), nothing);
    assert_eq!(status(&node, &execution), 200);
    // What is published now is not from the future once the clock is right again.
    let future = run(&node, &hour);
    wall.set("+0");
    eventually("the way back to be seen", || (doubt(&node) == "it jumped back").then_some(()));
    assert_eq!(gc(&node), nothing);
    let year = |id: &str| row(&node, id)["Created"].as_str().unwrap()[..4].to_owned();
    assert_eq!(year(&future), year(&execution));
    node.kill();
    // A start in the wrong year.
    wall.set("+10y");
    let node = wall.start(&data);
    assert_eq!(doubt(&node), "it shows a much later time than when the node last ran");
    assert_eq!(gc(&node), nothing);
    assert_eq!((status(&node, &execution), status(&node, &future)), (200, 200));
    assert!(node.stop().success());
    // And one at the right time.
    wall.set("+0");
    let node = wall.start(&data);
    assert_eq!((doubt(&node), status(&node, &execution)), (String::new(), 200));
}

#[test]
fn a_board_that_starts_in_1970_keeps_what_it_published_until_it_knows_the_time() {
    let dir = Dir::new();
    let data = dir.join("data");
    let wall = Wall::new(&dir, "@1970-01-01 00:05:00");
    let node = wall.start(&data);
    let execution = run(&node, &kept(json!({"Retention": "1h"})));
    let short = run(&node, &kept(json!({"Retention": "1ms"})));
    assert!(doubt(&node).contains("not been set"), "{}", doubt(&node));
    assert!(row(&node, &short)["Created"].as_str().unwrap().starts_with("1970-"));
    node.ok(&["results", "gc"]);
    assert_eq!((status(&node, &execution), status(&node, &short)), (200, 200));
    node.kill();
    wall.set("+0");
    let node = wall.start(&data);
    // Its age begins now: an hour is a long time, a thousandth of a second is none.
    eventually("the short one to go", || (status(&node, &short) == 410).then_some(()));
    assert_eq!(status(&node, &execution), 200);
    assert!(!row(&node, &execution)["Created"].as_str().unwrap().starts_with("1970-"));
}

/// Runs jobs of 120 KB each, no two alike, 28 MB in all, at a quota of 20 MiB; `published` says of which results are
/// kept. All must run, and the databases be small in the end. Answers the node's df and whether the result of a small
/// job from before is still there.
fn crowd_with_bodies(published: impl Fn(u32) -> bool) -> (Value, bool) {
    use std::os::unix::fs::MetadataExt;
    let dir = Dir::new();
    let data = dir.join("data");
    let settings = ["-c", "Results.Quota=20MiB", "-c", "Results.MinFree=1MiB", "-c", "Compute.JobDisk=2MiB"];
    let node = Node::start(&data, &settings);
    let first = run(&node, &jobs::hello("first"));
    let mut last = String::new();
    for n in 0..240 {
        let mut job = jobs::wasm(jobs::NOOP);
        job["Meta"] = json!({ "note": format!("{n:06}").repeat(20_000) });
        if !published(n) {
            job["Tasks"][0]["Publisher"] = Value::Null;
        }
        last = node.submit(&job);
        assert_eq!(node.wait_state(&last, &["Completed", "Failed"]), "Completed", "{n}: {}", node.job(&last));
    }
    let size = |name: &str| std::fs::metadata(data.join(name)).unwrap().blocks() * 512;
    eventually("the databases to fit into their part of the quota", || {
        (size("compute/executions.db") + size("orchestrator/jobs.db") <= 8 << 20).then_some(())
    });
    assert_eq!(node.state(&last), "Completed");
    let (_, df) = node.get("/api/v1/codling/df");
    (df, status(&node, &first) == 200)
}

#[test]
fn jobs_leave_before_their_records_crowd_out_work() {
    let (df, first) = crowd_with_bodies(|_| false);
    assert!(df["Jobs"]["LeftByCount"].as_u64().unwrap() > 0, "{df}");
    assert!(first && df["Deleted"] == json!([]), "no result had to go: {df}");
}

#[test]
fn results_go_where_the_records_of_their_jobs_crowd_out_work() {
    let (df, _) = crowd_with_bodies(|_| true);
    assert!(df["Jobs"]["LeftByCount"].as_u64().unwrap() > 0, "{df}");
    assert!(!df["Deleted"].as_array().unwrap().is_empty(), "{df}");
}
