//! The settings that come with each board: they are taken, and fit it.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::node::{CODLING, text};

/// Memory of a job that asks for none, in MiB, and what a node takes for itself.
const JOB: u64 = 64;
const NODE: u64 = 48;

fn field(board: &str, name: &str) -> Option<String> {
    board.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(": ")?.to_owned()))
}

/// An amount in MiB: `320M`, or a part of the board's memory.
fn amount(value: &str, ram: u64) -> u64 {
    match value.strip_suffix('%') {
        Some(part) => ram * part.parse::<u64>().unwrap() / 100,
        None => value.strip_suffix('M').unwrap().parse().unwrap(),
    }
}

/// Every setting of a board.
fn settings(dir: &Path) -> Value {
    let mut command = Command::new(&*CODLING);
    command.args(["config", "list", "--output", "json", "--config"]).arg(dir.join("config.yaml"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn setting<'a>(settings: &'a Value, key: &str) -> &'a str {
    settings.as_array().unwrap().iter().find(|row| row["Key"] == key).unwrap()["Value"].as_str().unwrap()
}

#[test]
fn every_board_has_settings_that_are_taken_and_fit_it() {
    let mut boards = Vec::new();
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("board-configs")).unwrap() {
        let dir = entry.unwrap().path();
        let name = dir.file_name().unwrap().to_str().unwrap().to_owned();
        let checked =
            Command::new(&*CODLING).args(["config", "check"]).arg(dir.join("config.yaml")).output().unwrap();
        assert!(checked.status.success(), "{name}: {}", text(&checked.stderr));
        assert!(!text(&checked.stderr).contains("warn"), "{name}: {}", text(&checked.stderr));

        let settings = settings(&dir);
        let own = setting(&settings, "Board");
        assert_eq!(own, if name == "generic" { "" } else { &name }, "the board that they are for");
        let board = std::fs::read_to_string(dir.join("board.yaml")).unwrap();
        let number = |field_name| field(&board, field_name).unwrap().parse::<u64>().unwrap();
        let (ram, cores) = (number("RAM"), number("Cores"));
        let unit = std::fs::read_to_string(dir.join("memory.conf")).unwrap_or_default();
        let most = unit.lines().find_map(|line| line.strip_prefix("MemoryMax="));
        let most = most.map_or(ram, |most| amount(most, ram));
        assert!(most <= ram * 9 / 10 || name == "generic", "{name}: {most} of {ram} MiB");
        // Jobs that ask for nothing fit side by side into what jobs may have, and the node beside them.
        let jobs = amount(setting(&settings, "Compute.AllocatedCapacity.Memory"), most);
        let at_once: u64 = setting(&settings, "Compute.MaxExecutions").parse().unwrap();
        assert!(at_once * JOB <= jobs, "{name}: {at_once} jobs in {jobs} MiB");
        assert!(jobs + NODE <= most, "{name}: {jobs} of {most} MiB are for jobs");
        let threads: u64 = setting(&settings, "Results.PackThreads").parse().unwrap();
        assert!(threads <= cores, "{name}: {threads} threads on {cores} cores");
        boards.push(name);
    }
    boards.sort();
    let all = ["generic", "jetson-nano", "jetson-orin-nano", "pi-3", "pi-4", "pi-5", "pi-zero", "pi-zero-2"];
    assert_eq!(boards, all);
}
