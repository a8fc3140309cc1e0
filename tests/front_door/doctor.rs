//! `codling doctor`: on every board's files, and on this machine with what can be wrong about it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::disk_full::{Disk, run};
use crate::node::{CODLING, Dir, Node, text};

/// The names of what is looked at, which scripts rest on.
const CHECKS: [&str; 13] = [
    "board",
    "kernel",
    "memory",
    "cgroup",
    "power",
    "clock",
    "settings",
    "identity",
    "data",
    "disk",
    "ports",
    "engines",
    "orchestrator",
];

fn repository(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// What doctor says, and its exit status.
struct Said {
    findings: Vec<Value>,
    code: Option<i32>,
    all: String,
}

impl Said {
    fn by(output: &Output) -> Self {
        let all = text(&output.stdout) + &text(&output.stderr);
        let findings: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{all}"));
        let findings = findings.as_array().unwrap().clone();
        for finding in &findings {
            let keys: Vec<&String> = finding.as_object().unwrap().keys().collect();
            assert_eq!(keys, ["Check", "Level", "Found", "Next"], "{all}");
            assert!(CHECKS.contains(&finding["Check"].as_str().unwrap()), "{finding}");
            let level = finding["Level"].as_str().unwrap();
            assert!(["ok", "note", "warning", "problem"].contains(&level), "{finding}");
            if ["warning", "problem"].contains(&level) && finding["Check"] != "settings" {
                assert_ne!(finding["Next"], "", "says what to do: {finding}");
            }
        }
        let problem = findings.iter().any(|finding| finding["Level"] == "problem");
        assert_eq!(output.status.code(), Some(i32::from(problem)), "{all}");
        Self { findings, code: output.status.code(), all }
    }

    fn doctor(args: &[&str]) -> Self {
        Self::with(args, &[])
    }

    fn with(args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut command = Command::new(&*CODLING);
        command.args(["doctor", "--output", "json"]).args(args).envs(env.iter().copied());
        Self::by(&command.output().unwrap())
    }

    /// The levels of a check, and all that was found and is to be done.
    fn of(&self, check: &str) -> (Vec<&str>, String) {
        let own = || self.findings.iter().filter(|finding| finding["Check"] == check);
        let words =
            own().map(|f| format!("{} -> {}\n", f["Found"].as_str().unwrap(), f["Next"].as_str().unwrap()));
        (own().map(|f| f["Level"].as_str().unwrap()).collect(), words.collect())
    }
}

/// Ports that nobody has to have, in a directory of its own.
fn here<'a>(dir: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["--data-dir", dir, "-c", "API.Port=0", "-c", "Publishers.Types.Local.Port=0"];
    args.extend(more);
    args
}

#[test]
fn every_board_is_told_by_its_files() {
    let mut seen = Vec::new();
    for entry in std::fs::read_dir(repository("board-configs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let (root, config) = (
            repository("tests/fixtures/boards").join(&name),
            repository("board-configs").join(&name).join("config.yaml"),
        );
        let args = [
            "--root",
            root.to_str().unwrap(),
            "--config",
            config.to_str().unwrap(),
            // The size of the disk is this machine's.
            "-c",
            "Results.Quota=1Mi",
            "-c",
            "Results.MinFree=0",
        ];
        let said = Said::doctor(&args);
        assert_eq!(said.code, Some(0), "{name}: {}", said.all);
        for check in CHECKS.iter().filter(|check| **check != "power") {
            assert!(!said.of(check).0.is_empty(), "{name}: nothing of {check}");
        }
        let known = said.of("board").1.contains(&format!("({name})"));
        assert_eq!(known, name != "generic", "{}", said.all);
        assert!(said.of("data").1.starts_with("/var/lib/codling"), "{}", said.all);
        // Settings of another board.
        let other = repository("board-configs").join(if name == "pi-4" { "pi-5" } else { "pi-4" });
        let other = other.join("config.yaml");
        let args = ["--root", root.to_str().unwrap(), "--config", other.to_str().unwrap()];
        let said = Said::doctor(&args);
        assert_eq!(
            said.of("board").0,
            [if name == "generic" { "warning" } else { "problem" }],
            "{}",
            said.all
        );
        seen.push(name);
    }
    assert_eq!(seen.len(), 8);
}

#[test]
fn for_people_each_line_has_its_next_step_below_it() {
    let root = repository("tests/fixtures/boards/pi-zero");
    let output = Command::new(&*CODLING).args(["doctor", "--root"]).arg(&root).output().unwrap();
    let said = text(&output.stdout);
    let at = said.lines().position(|line| line.starts_with("warning  cgroup ")).unwrap();
    let next = said.lines().nth(at + 1).unwrap().trim();
    assert!(
        next.starts_with("-> append to the one line of /boot/firmware/cmdline.txt: cgroup_enable=memory")
    );
    let missing = Command::new(&*CODLING).args(["doctor", "--root", "/nonexistent"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(66));
}

#[test]
fn a_disk_for_reading_only_is_a_problem_and_one_that_is_too_small_a_warning() {
    let disk = Disk::new(16);
    let data = disk.path().join("data");
    let args = here(data.to_str().unwrap(), &["-c", "Results.Quota=1TiB"]);
    let said = Said::doctor(&args);
    let (levels, words) = said.of("settings");
    assert!(levels[0] == "warning" && words.contains("Results.Quota: 1.0 TiB is more than"), "{}", said.all);
    assert_eq!(said.code, Some(0), "{}", said.all);
    assert!(said.of("data").1.contains("(ext4)"), "{}", said.all);
    disk.fill(100 << 10);
    let said = Said::doctor(&here(data.to_str().unwrap(), &[]));
    assert!(said.of("disk").0 == ["problem"] && said.code == Some(1), "{}", said.all);
    assert!(!data.exists(), "nothing was made");
    run("mount", &["-o", "remount,ro", disk.path().to_str().unwrap()]);
    let said = Said::doctor(&here(data.to_str().unwrap(), &[]));
    let (levels, words) = said.of("data");
    assert!(
        levels[0] == "problem" && words.contains("reading only") && words.contains("remount,rw"),
        "{words}"
    );
    assert_eq!(said.code, Some(1));
}

#[test]
fn a_port_that_somebody_else_holds_is_a_problem() {
    let dir = Dir::new();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    let (api, data) = (format!("API.Port={port}"), dir.join("data"));
    let args = ["--data-dir", data.to_str().unwrap(), "-c", &api, "-c", "Publishers.Types.Local.Port=0"];
    let answer = std::thread::spawn(move || {
        // It takes the connection and is no node.
        drop(other.accept());
        other
    });
    let said = Said::doctor(&args);
    let (levels, words) = said.of("ports");
    assert!(levels[0] == "problem" && words.contains(&format!("port {port} ")), "{}", said.all);
    assert!(words.contains("API.Port") && said.code == Some(1));
    drop(answer.join().unwrap());
    assert_eq!(Said::doctor(&args).of("ports").0, ["ok"]);
}

#[test]
fn a_node_that_runs_is_known_and_not_disturbed() {
    let dir = Dir::new();
    let data = dir.join("data");
    let tree = repository("tests/fixtures/boards/pi-4/proc/device-tree");
    let env = [("CODLING_DEVICE_TREE", tree.to_str().unwrap())];
    let coming = Said::with(&here(data.to_str().unwrap(), &[]), &env).of("identity").1;
    assert!(!data.exists(), "nothing is made");
    let mut node = Node::start_env(&data, &[], &env);
    let ports = [&node.api, &node.results].map(|url| url.rsplit_once(':').unwrap().1.to_owned());
    let (api, results) =
        (format!("API.Port={}", ports[0]), format!("Publishers.Types.Local.Port={}", ports[1]));
    let args = ["--data-dir", data.to_str().unwrap(), "-c", &api, "-c", &results];
    let said = Said::with(&args, &env);
    let (levels, words) = said.of("ports");
    assert!(levels == ["ok"] && words.contains("is ready"), "{}", said.all);
    let (levels, words) = said.of("identity");
    let id = words.split(',').next().unwrap();
    assert!(levels == ["ok"] && coming.starts_with(id), "{coming} {words}");
    // Its lock alone says it, too: the API may speak TLS.
    let said = Said::with(&here(data.to_str().unwrap(), &[]), &env);
    assert!(said.of("ports").1.contains("a node runs in the data directory"), "{}", said.all);
    assert!(node.is_alive() && node.get("/readyz").0 == 200);
    assert!(node.stop().success());
}

#[test]
fn the_clock_is_the_kernels_word_and_one_that_was_never_set_is_told() {
    let dir = Dir::new();
    let data = dir.join("data");
    let said = Said::doctor(&here(data.to_str().unwrap(), &[]));
    let synchronised = codling::sys::kernel_time::is_synchronised();
    assert_eq!(said.of("clock").0 == ["ok"], synchronised, "{}", said.all);
    let mut faked = Command::new("faketime");
    faked.args(["1970-01-02 00:00:00", &CODLING, "doctor", "--output", "json"]);
    let said = Said::by(&faked.args(here(data.to_str().unwrap(), &[])).output().unwrap());
    let (levels, words) = said.of("clock");
    assert!(levels == ["warning"] && words.contains("1970-01-0"), "{}", said.all);
}

#[test]
fn wrong_settings_are_one_problem_among_all_findings() {
    let dir = Dir::new();
    let data = dir.join("data");
    let said =
        Said::doctor(&["--data-dir", data.to_str().unwrap(), "-c", "API.Port=many", "-c", "Results.Quota=x"]);
    let (levels, words) = said.of("settings");
    assert_eq!((levels, said.code), (vec!["problem", "problem"], Some(1)), "{}", said.all);
    assert!(words.contains("API.Port") && words.contains("Results.Quota"));
    assert!(said.of("data").1.contains(data.to_str().unwrap()), "the rest is looked at: {}", said.all);
}

#[test]
fn an_orchestrator_that_is_named_is_tried_and_its_token_not_told() {
    let dir = Dir::new();
    let data = dir.join("data");
    let hub = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = hub.local_addr().unwrap().port();
    let named = format!("Compute.Orchestrators=nats://a-token-of-the-test@127.0.0.1:{port}");
    let args = here(data.to_str().unwrap(), &["-c", &named]);
    let said = Said::doctor(&args);
    assert!(said.of("orchestrator").0 == ["note"] && !said.all.contains("a-token-of"), "{}", said.all);
    drop(hub);
    let said = Said::doctor(&args);
    assert!(said.of("orchestrator").0 == ["warning"] && !said.all.contains("a-token-of"), "{}", said.all);
}
