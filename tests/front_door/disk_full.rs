//! A full disk, a read-only one: states that the node lives through, on a real file system of its own.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::jobs;
use crate::node::{Dir, Node, eventually, http, text};

/// An ext4 in a file, mounted.
pub struct Disk {
    dir: Dir,
    mounted: bool,
}

impl Disk {
    pub fn new(mib: u64) -> Self {
        let mut disk = Self { dir: Dir::new(), mounted: false };
        std::fs::create_dir(disk.path()).unwrap();
        std::fs::File::create(disk.image()).unwrap().set_len(mib << 20).unwrap();
        run("mkfs.ext4", &["-q", "-F", "-m", "0", disk.image().to_str().unwrap()]);
        disk.mount();
        disk
    }

    fn image(&self) -> PathBuf {
        self.dir.join("image")
    }

    pub fn path(&self) -> PathBuf {
        self.dir.join("disk")
    }

    fn mount(&mut self) {
        run("mount", &["-o", "loop", self.image().to_str().unwrap(), self.path().to_str().unwrap()]);
        self.mounted = true;
    }

    fn free(&self) -> u64 {
        let out = Command::new("stat").args(["-f", "-c", "%a %S"]).arg(self.path()).output().unwrap();
        let out = text(&out.stdout);
        let numbers: Vec<u64> = out.split_whitespace().map(|n| n.parse().unwrap()).collect();
        numbers[0] * numbers[1]
    }

    fn filler(&self) -> PathBuf {
        self.path().join("somebody-else-s")
    }

    /// Somebody else takes all but `left` bytes.
    pub fn fill(&self, left: u64) {
        // Again and again: the node may free blocks while this runs.
        for n in 0..4 {
            self.take(n, left);
        }
    }

    /// Takes it once.
    fn take(&self, n: u32, left: u64) {
        let more = self.free().saturating_sub(left);
        if more >= 4096 {
            let file = self.path().join(format!("{}-{n}", self.filler().display()));
            // It takes what there is, though it fails.
            let _ = Command::new("fallocate").args(["-l", &format!("{more}")]).arg(file).output().unwrap();
        }
    }

    /// And gives it back.
    fn give_back(&self) {
        for n in 0..4 {
            let _ = std::fs::remove_file(self.path().join(format!("{}-{n}", self.filler().display())));
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            let _ = Command::new("umount").arg("-l").arg(self.path()).status();
        }
    }
}

/// Runs a tool as root; nothing here is skipped for want of it.
pub fn run(tool: &str, args: &[&str]) {
    let uid = text(&Command::new("id").arg("-u").output().unwrap().stdout);
    let mut command = Command::new("sudo");
    if uid.trim() == "0" {
        command = Command::new(tool);
    } else {
        command.args(["-n", tool]);
    }
    let output = command.args(args).output();
    let output = output.unwrap_or_else(|error| panic!("{tool} is needed, and cannot be run: {error}"));
    assert!(
        output.status.success(),
        "these tests mount file systems of their own: {tool} {args:?}: {}",
        text(&output.stderr)
    );
}

const SETTINGS: &[&str] = &[
    "-c",
    "Results.Quota=24Mi",
    "-c",
    "Results.MinFree=4Mi",
    "-c",
    "Compute.JobDisk=6Mi",
    "-c",
    "Compute.MaxExecutions=2",
];

fn node(disk: &Disk) -> Node {
    if text(&Command::new("id").arg("-u").output().unwrap().stdout).trim() != "0" {
        run("chmod", &["0777", disk.path().to_str().unwrap()]);
    }
    Node::start(&disk.path().join("data"), SETTINGS)
}

fn submit(node: &Node, job: &Value) -> (u16, Value) {
    node.call("PUT", "/api/v1/orchestrator/jobs", Some(&json!({ "Job": job }).to_string()))
}

fn disk_state(node: &Node) -> String {
    node.get("/api/v1/codling/df").1["DiskState"].as_str().unwrap().to_owned()
}

fn wait_ready(node: &Node) {
    eventually("the node to be ready again", || (node.get("/readyz").0 == 200).then_some(()));
}

fn wait_not_ready(node: &Node) -> Value {
    eventually("the node to say that it is not ready", || {
        let (status, answer) = node.get("/readyz");
        (status == 503).then_some(answer)
    })
}

/// Takes time, and keeps writing beyond what it may have.
fn slow_writer() -> Value {
    jobs::wasm(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func $w (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "poll_oneoff" (func $p (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 2)
            (func (export "_start")
              (i32.store (i32.const 0) (i32.const 65536))
              (i32.store (i32.const 4) (i32.const 4096))
              ;; A relative sleep of 20 ms on the monotonic clock.
              (i32.store (i32.const 116) (i32.const 1))
              (i64.store (i32.const 124) (i64.const 20000000))
              (loop $more
                (drop (call $w (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
                (drop (call $p (i32.const 100) (i32.const 200) (i32.const 1) (i32.const 300)))
                (br $more))))"#,
    )
}

fn failure_codes(node: &Node, id: &str) -> String {
    let (status, answer) = node.get(&format!("/api/v1/orchestrator/jobs/{id}/history?limit=1000"));
    assert_eq!(status, 200, "{answer}");
    answer.to_string()
}

#[test]
fn a_full_disk_is_refused_read_and_recovered_from_without_a_restart() {
    let disk = Disk::new(48);
    let mut node = node(&disk);
    let reserve = disk.path().join("data/reserve");
    let blocks = || std::fs::metadata(&reserve).map_or(0, |m| m.blocks() * 512);
    assert!(blocks() >= 1 << 20, "real blocks are set aside");
    let kept = node.submit(&jobs::noise(2));
    node.wait_state(&kept, &["Completed"]);
    node.ok(&["results", "pin", node.executions(&kept)[0]["ID"].as_str().unwrap()]);

    // A job runs and writes while somebody else takes the rest.
    let writer = node.submit(&slow_writer());
    node.wait_state(&writer, &["Running"]);
    disk.fill(0);
    assert_eq!(node.wait_state(&writer, &["Failed", "Completed"]), "Failed");
    let history = failure_codes(&node, &writer);
    assert!(history.contains("disk_full"), "{history}");
    let answer = wait_not_ready(&node);
    assert!(answer["Message"].as_str().unwrap().contains("free"), "{answer}");
    assert!(answer["Hint"].as_str().unwrap().contains("results df"), "{answer}");
    let (status, refusal) = submit(&node, &jobs::hello("no"));
    assert_eq!(status, 507, "{refusal}");
    assert!(refusal["Message"].as_str().unwrap().contains("free"), "{refusal}");
    assert!(["tight", "scarce", "full"].contains(&disk_state(&node).as_str()));
    let df = node.ok(&["results", "df"]);
    assert!(df.contains("Warning: the disk"), "{df}");

    // Everything can be read meanwhile.
    assert_eq!(node.state(&kept), "Completed");
    let execution = node.executions(&kept)[0]["ID"].as_str().unwrap().to_owned();
    let (status, archive) = http("GET", &format!("{}/{execution}.tar.gz", node.results), None);
    assert_eq!(status, 200);
    assert!(archive.len() > 2 << 20);

    disk.give_back();
    wait_ready(&node);
    let after = node.submit(&jobs::hello("again"));
    assert_eq!(node.wait_state(&after, &["Completed", "Failed"]), "Completed");
    eventually("the reserve to be set aside again", || (blocks() >= 1 << 20).then_some(()));
    assert!(node.is_alive());

    // What was said is on the disk, also after a power cut.
    node.kill();
    let node = Node::start(&disk.path().join("data"), SETTINGS);
    for (id, state) in [(&kept, "Completed"), (&writer, "Failed"), (&after, "Completed")] {
        // The job may have to be told again how its execution ended.
        node.wait_state(id, &[state]);
    }
    assert!(failure_codes(&node, &writer).contains("disk_full"));
}

/// The last byte is somebody else's, and stays so while the node is stopped and started again.
#[test]
fn the_reserve_lets_a_full_disk_be_recorded() {
    let disk = Disk::new(48);
    let node = node(&disk);
    let writers: Vec<String> = (0..2).map(|_| node.submit(&slow_writer())).collect();
    for id in &writers {
        node.wait_state(id, &["Running"]);
    }
    // Not again and again: what is free a moment later is what the node had set aside.
    disk.take(0, 0);
    for id in &writers {
        assert_eq!(node.wait_state(id, &["Failed", "Completed"]), "Failed");
    }
    // It may say that the last lazy changes could not be written: the next start makes them again from the records.
    node.stop();
    disk.fill(0);
    let node = Node::start(&disk.path().join("data"), SETTINGS);
    for id in &writers {
        assert_eq!(node.state(id), "Failed");
        let history = failure_codes(&node, id);
        assert!(history.contains("disk_full") && !history.contains("node_restart"), "{history}");
    }
    assert_eq!(submit(&node, &jobs::hello("no")).0, 507);
    disk.give_back();
    wait_ready(&node);
    let after = node.submit(&jobs::hello("again"));
    assert_eq!(node.wait_state(&after, &["Completed", "Failed"]), "Completed");
}

/// The same without a reserve, and with work that the start finds cut off.
#[test]
fn a_node_that_went_down_with_work_starts_on_a_full_disk() {
    let disk = Disk::new(48);
    let node = node(&disk);
    let id = node.submit(&jobs::talks_on("on\n", 1));
    node.wait_state(&id, &["Running"]);
    node.kill();
    std::fs::remove_file(disk.path().join("data/reserve")).unwrap();
    disk.fill(0);
    let node = Node::start(&disk.path().join("data"), SETTINGS);
    assert_eq!(submit(&node, &jobs::hello("no")).0, 507);
    disk.give_back();
    wait_ready(&node);
    eventually("the job to run again", || {
        let executions = node.get(&format!("/api/v1/orchestrator/jobs/{id}/executions")).1;
        let states = executions["Items"].as_array().unwrap().iter();
        states.map(|one| one["ComputeState"]["StateType"].as_i64().unwrap()).eq([8, 5]).then_some(())
    });
    assert!(failure_codes(&node, &id).contains("node_restart"));
    node.ok(&["job", "stop", &id]);
}

#[test]
fn a_disk_that_fills_at_any_moment_costs_no_job_that_was_taken() {
    let disk = Disk::new(48);
    let node = node(&disk);
    let mut taken: Vec<String> = Vec::new();
    let mut refused = 0;
    // A linear congruential generator: the same moments each time, as far as the machine's speed allows.
    let mut seed = 7_u64;
    let mut next = |n: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) % n
    };
    for round in 0..8 {
        let fill_after = next(6);
        for n in 0..6 {
            if n == fill_after {
                // To the last byte, or leaving a little.
                disk.fill(next(3) * 20_000);
            }
            let job = if next(2) == 0 { jobs::noise(1) } else { jobs::hello(&format!("{round} {n}")) };
            match submit(&node, &job) {
                (200, answer) => taken.push(answer["JobID"].as_str().unwrap().to_owned()),
                (status, answer) => {
                    assert_eq!(status, 507, "{answer}");
                    assert!(!answer["Hint"].as_str().unwrap().is_empty());
                    refused += 1;
                }
            }
        }
        wait_not_ready(&node);
        for id in &taken {
            // Reads work.
            node.state(id);
        }
        disk.give_back();
        wait_ready(&node);
    }
    assert!(refused > 0 && taken.len() > 8, "{refused} refused, {} taken", taken.len());
    let mut ends = std::collections::BTreeMap::<String, u32>::new();
    let check = |node: &Node, id: &str| {
        let state = node.wait_state(id, &["Completed", "Failed"]);
        if state == "Failed" {
            let history = failure_codes(node, id);
            assert!(
                history.contains("disk_full") || history.contains("disk_quota"),
                "the reason is not recorded: {history}"
            );
        }
        state
    };
    for id in &taken {
        *ends.entry(check(&node, id)).or_default() += 1;
    }
    assert!(ends.contains_key("Completed"), "{ends:?}");
    assert!(node.stop().success());
    let node = Node::start(&disk.path().join("data"), SETTINGS);
    for id in &taken {
        check(&node, id);
    }
}

#[test]
fn whoever_writes_most_is_stopped_before_the_disk_is_full() {
    let disk = Disk::new(48);
    let mut node = node(&disk);
    let idle = node.submit(&jobs::wasm(jobs::LOOP));
    let writer = node.submit(&slow_writer());
    for id in [&idle, &writer] {
        node.wait_state(id, &["Running"]);
    }
    // Less than half of what is to stay free, but some.
    disk.fill(1 << 20);
    assert_eq!(node.wait_state(&writer, &["Failed", "Completed"]), "Failed");
    let history = failure_codes(&node, &writer);
    assert!(history.contains("disk_full") && history.contains("writing the most"), "{history}");
    assert_eq!(node.state(&idle), "Running", "who writes nothing goes on");
    assert!(disk.free() > 0);
    disk.give_back();
    wait_ready(&node);
    node.wait_log("the disk is fine again");
    node.ok(&["job", "stop", &idle]);
}

#[test]
fn queued_jobs_wait_while_the_disk_is_full_and_run_afterwards() {
    let disk = Disk::new(48);
    let node = node(&disk);
    let loops: Vec<String> = (0..2).map(|_| node.submit(&jobs::wasm(jobs::LOOP))).collect();
    for id in &loops {
        node.wait_state(id, &["Running"]);
    }
    let queued: Vec<String> = (0..3).map(|n| node.submit(&jobs::hello(&n.to_string()))).collect();
    for id in &queued {
        node.wait_state(id, &["Queued"]);
    }
    // So much that records can be written, and not so much that work could begin.
    disk.fill(3 << 19);
    wait_not_ready(&node);
    for id in &loops {
        node.ok(&["job", "stop", id]);
        node.wait_state(id, &["Stopped"]);
    }
    for id in &queued {
        assert_eq!(node.state(id), "Queued");
    }
    disk.give_back();
    for id in &queued {
        assert_eq!(node.wait_state(id, &["Completed", "Failed"]), "Completed");
    }
}

/// The kernel makes a file system read-only when its journal fails; a healthy one cannot be made so while databases
/// are open on it. Only the databases are on it: the rest of the node has its own disk.
#[test]
fn a_read_only_disk_costs_no_reads_and_is_recovered_from_when_it_is_mounted_again() {
    let mut disk = Disk::new(24);
    let dir = Dir::new();
    let at = |name: &str| disk.path().join(name).display().to_string();
    let settings =
        [format!("Store.Compute.Path={}", at("executions.db")), format!("Store.Jobs.Path={}", at("jobs.db"))];
    let args: Vec<&str> = settings.iter().flat_map(|setting| ["-c", setting]).collect();
    if text(&Command::new("id").arg("-u").output().unwrap().stdout).trim() != "0" {
        run("chmod", &["0777", disk.path().to_str().unwrap()]);
    }
    let mut node = Node::start(&dir.join("data"), &args);
    let before = node.submit(&jobs::hello("before"));
    node.wait_state(&before, &["Completed"]);
    let running = node.submit(&jobs::wasm(jobs::LOOP));
    node.wait_state(&running, &["Running"]);

    run("mount", &["-o", "remount,abort", disk.path().to_str().unwrap()]);
    // The first write finds out.
    let (status, refusal) = submit(&node, &jobs::hello("no"));
    assert_eq!(status, 503, "{refusal}");
    assert!(refusal["Hint"].as_str().unwrap().contains("writable again"), "{refusal}");
    let answer = wait_not_ready(&node);
    assert_eq!(answer["Details"]["DiskState"], "read-only", "{answer}");
    assert_eq!(node.state(&before), "Completed");
    assert_eq!(node.executions(&before).len(), 1);
    assert_eq!(node.state(&running), "Running");
    assert!(node.is_alive());
    // A stop counts, though it cannot be stored yet; what that ends is kept, too.
    let stopped = node.cli(&["job", "stop", &running]);
    assert!(!stopped.status.success());
    // In the system's words, or in those of the kind of error, if the database was closed by then.
    assert!(text(&stopped.stderr).to_lowercase().contains("read-only"), "{}", text(&stopped.stderr));
    node.wait_state(&running, &["Stopped"]);
    eventually("the execution to end", || {
        let state = &node.executions(&running)[0]["ComputeState"]["StateType"];
        (*state == 9).then_some(())
    });

    // What an operator does: off, checked, and on again.
    run("umount", &["-l", disk.path().to_str().unwrap()]);
    disk.mounted = false;
    eventually("the file system to be let go of", || {
        let used = Command::new("losetup").args(["-n", "-O", "NAME", "-j"]).arg(disk.image()).output();
        text(&used.unwrap().stdout).trim().is_empty().then_some(())
    });
    disk.mount();
    wait_ready(&node);
    let after = node.submit(&jobs::hello("after"));
    assert_eq!(node.wait_state(&after, &["Completed", "Failed"]), "Completed");
    assert_eq!(node.state(&running), "Stopped", "it was kept in memory meanwhile");
    node.wait_log("works again");
    assert_left_in(&disk.path());
    node.kill();
    let node = Node::start(&dir.join("data"), &args);
    assert_eq!(node.state(&running), "Stopped");
}

/// Nothing but the two databases.
fn assert_left_in(dir: &Path) {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "lost+found")
        .collect();
    names.sort();
    assert_eq!(names, ["executions.db", "jobs.db"]);
}
