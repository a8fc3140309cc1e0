//! Each board's files, and what is said of each thing that can be wrong.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::*;
use crate::config::{CliOverrides, Host};
use crate::model::{Board, MilliCpu};
use crate::sys::mounts::Medium;
use crate::sys::survey::{BootFile, BootKind, Loaders, MemoryGroups};
use crate::sys::{DeviceTree, EARLIEST_BELIEVABLE};

fn repository(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// A board as its fixture has it, with the settings that come with it, and a disk of the usual size.
fn board(name: &str) -> Facts {
    let mut overrides = CliOverrides::default();
    overrides.files.push(repository("board-configs").join(name).join("config.yaml"));
    let root = repository("tests/fixtures/boards").join(name);
    let mut facts = look(&Wanted { root, overrides });
    let space = Space { total: Bytes::gib(29), free: Bytes::gib(25) };
    facts.data.space = Some(space);
    facts.settings.resolved =
        Some(crate::config::resolve(&facts.settings.loaded.settings, &facts.machine, space));
    facts
}

/// The same board, running.
fn running(name: &str) -> Facts {
    let mut facts = board(name);
    facts.live = Some(Live {
        now: EARLIEST_BELIEVABLE.plus(std::time::Duration::from_secs(86_400)),
        synchronised: true,
        api: Answer::Unasked,
        orchestrators: Vec::new(),
        sockets: [Some(IpAddr::from([127, 0, 0, 1])); 2],
    });
    facts
}

fn all_of(facts: &Facts, check: &str) -> Vec<(Level, String, String)> {
    let all = judge(facts).into_iter().filter(|finding| finding.check == check);
    all.map(|finding| (finding.level, finding.found, finding.next)).collect()
}

/// The one finding of a check.
fn one(facts: &Facts, check: &str) -> (Level, String, String) {
    let all = all_of(facts, check);
    assert_eq!(all.len(), 1, "{all:?}");
    all.into_iter().next().unwrap()
}

#[test]
fn every_board_is_known_by_its_files_and_fits_its_settings() {
    for name in Board::NAMES {
        let facts = board(name);
        let (level, found, _) = one(&facts, "board");
        assert_eq!(level, Level::Ok, "{name}: {found}");
        assert!(found.contains(&format!("({name})")), "{found}");
        assert_eq!(found.contains("L4T R3"), name.starts_with("jetson"), "{found}");
        assert_eq!(one(&facts, "memory").0, Level::Ok, "{name}: {:?}", one(&facts, "memory"));
        assert_eq!(one(&facts, "settings").0, Level::Ok, "{name}: {:?}", one(&facts, "settings"));
        let serial = facts.machine.tree.serial.clone().unwrap();
        assert_eq!(facts.identity, Identity::Coming(NodeId::of_serial(&serial)));
        assert!(worst(&judge(&facts)) < Level::Problem || facts.engines.is_empty(), "{:?}", judge(&facts));
        assert!(
            judge(&facts).iter().all(|f| !f.found.contains(&serial)),
            "the serial number is nobody's business"
        );
    }
    let pc = board("generic");
    assert_eq!(one(&pc, "board").0, Level::Note);
    assert_eq!(pc.identity, Identity::Random);
}

#[test]
fn boards_differ_in_what_is_to_be_done() {
    let level = |name: &str, check: &str| one(&board(name), check).0;
    for (name, cgroup, kernel, data) in [
        ("pi-zero", Level::Warning, Level::Ok, Level::Note),
        ("pi-zero-2", Level::Warning, Level::Note, Level::Note),
        ("pi-3", Level::Ok, Level::Ok, Level::Warning),
        ("pi-4", Level::Warning, Level::Ok, Level::Note),
        ("pi-5", Level::Ok, Level::Ok, Level::Ok),
        ("jetson-nano", Level::Ok, Level::Ok, Level::Note),
        ("jetson-orin-nano", Level::Ok, Level::Ok, Level::Ok),
        ("generic", Level::Ok, Level::Ok, Level::Ok),
    ] {
        let levels = (level(name, "cgroup"), level(name, "kernel"), level(name, "data"));
        assert_eq!(levels, (cgroup, kernel, data), "{name}");
    }
    assert!(one(&board("pi-3"), "data").2.contains("raspi-config"));
    assert!(one(&board("pi-5"), "data").1.contains("NVMe"));
    assert_eq!(one(&board("pi-zero"), "power").0, Level::Ok);
    let (level, found, next) = one(&board("pi-4"), "power");
    assert!(level == Level::Warning && found.contains("voltage") && next.contains("supply"), "{found}");
    assert_eq!(one(&board("pi-zero-2"), "power").0, Level::Note, "it was so, and is no more");
    assert_eq!(all_of(&board("jetson-nano"), "power"), []);
    let mut hot = board("pi-4");
    hot.survey.throttled = Some(0x8);
    assert!(one(&hot, "power").2.contains("heat sink"));
}

#[test]
fn the_words_for_the_command_line_are_those_of_the_board_configs_and_name_the_file() {
    for (name, file) in [("pi-zero", "/boot/firmware/cmdline.txt"), ("pi-4", "/boot/cmdline.txt")] {
        let yaml =
            std::fs::read_to_string(repository("board-configs").join(name).join("board.yaml")).unwrap();
        let words = yaml.lines().find_map(|line| line.strip_prefix("KernelCommandLine: ")).unwrap();
        let (_, _, next) = one(&board(name), "cgroup");
        assert!(next.contains(&format!("append to the one line of {file}: {words} ;")), "{next}");
    }
    assert!(one(&board("pi-zero-2"), "cgroup").2.contains("already: start the machine again"));
    let mut facts = board("jetson-nano");
    facts.survey.memory_groups = MemoryGroups::Off;
    assert!(one(&facts, "cgroup").2.contains("the line APPEND of /boot/extlinux/extlinux.conf"));
    facts.survey.boot =
        Some(BootFile { path: "/etc/default/grub".into(), kind: BootKind::Grub, text: String::new() });
    assert!(one(&facts, "cgroup").2.contains("update-grub"));
    facts.survey.boot = None;
    assert!(one(&facts, "cgroup").2.contains("cgroup_enable=memory"));
    facts.survey.memory_groups = MemoryGroups::Absent;
    assert_eq!(one(&facts, "cgroup").0, Level::Warning);
    facts.survey.memory_groups = MemoryGroups::Unknown;
    assert_eq!(one(&facts, "cgroup").0, Level::Note);
}

#[test]
fn settings_for_another_board_are_a_problem_and_for_an_unnamed_one_a_warning() {
    let mut facts = board("pi-3");
    facts.settings.loaded.settings.board = Some(Board::Pi4);
    let (level, found, next) = one(&facts, "board");
    assert!(
        level == Level::Problem && found.contains("pi-4") && next.contains("board-configs/pi-3"),
        "{next}"
    );
    facts.machine.tree = DeviceTree { model: Some("Radxa ROCK Pi 4A".into()), ..DeviceTree::default() };
    assert!(one(&facts, "board").2.contains("generic"));
    facts.machine.tree = DeviceTree::default();
    assert_eq!(one(&facts, "board").0, Level::Warning);
    facts.settings.loaded.settings.board = None;
    assert_eq!(one(&facts, "board").0, Level::Note);
}

#[test]
fn a_clock_is_right_or_says_what_to_do() {
    let mut facts = running("pi-4");
    assert_eq!(one(&facts, "clock").0, Level::Ok);
    facts.live.as_mut().unwrap().synchronised = false;
    let (level, found, next) = one(&facts, "clock");
    assert!(level == Level::Warning && found.contains("no clock of its own") && next.contains("set-ntp"));
    facts.survey.has_rtc = true;
    assert_eq!(one(&facts, "clock").0, Level::Note);
    facts.live.as_mut().unwrap().now = Timestamp(0);
    let (level, found, _) = one(&facts, "clock");
    assert!(level == Level::Warning && found.contains("1970"), "{found}");
}

#[test]
fn memory_that_jobs_leave_nothing_of_is_a_warning() {
    let mut facts = board("pi-zero-2");
    facts.settings.resolved.as_mut().unwrap().capacity.memory = facts.machine.memory.percent(95.0);
    assert_eq!(one(&facts, "memory").0, Level::Warning);
    let mut facts = board("pi-zero-2");
    facts.settings.loaded.settings.compute.max_executions = 64;
    assert_eq!(one(&facts, "memory").0, Level::Note);
    facts.settings.resolved = None;
    assert_eq!((one(&facts, "memory").0, one(&facts, "disk").0), (Level::Note, Level::Note));
}

#[test]
fn a_data_directory_that_forgets_or_cannot_be_written_is_told() {
    let place = |medium| Place { file_system: "x".into(), read_only: false, medium };
    for (medium, level) in [
        (Medium::Memory, Level::Warning),
        (Medium::Overlay, Level::Warning),
        (Medium::Network, Level::Warning),
        (Medium::SdCard, Level::Note),
        (Medium::Emmc, Level::Ok),
        (Medium::Nvme, Level::Ok),
        (Medium::Disk("sda1".into()), Level::Ok),
        (Medium::Unknown, Level::Ok),
    ] {
        let mut facts = board("pi-4");
        facts.data.place = Some(place(medium.clone()));
        assert_eq!(one(&facts, "data").0, level, "{medium:?}");
        facts.data.place = Some(Place { read_only: true, ..place(medium) });
        assert_eq!(all_of(&facts, "data")[0].0, Level::Problem);
    }
    let mut facts = board("pi-4");
    facts.data.access = Access::ReadOnly;
    assert_eq!(all_of(&facts, "data")[0].0, Level::Problem);
    facts.data.access = Access::Denied;
    assert_eq!(all_of(&facts, "data")[0].0, Level::Note, "the service has another user");
    facts.data = Data { space: facts.data.space, ..Data::default() };
    assert_eq!(one(&facts, "data").0, Level::Note);
    // A container's overlay is no matter of raspi-config.
    let mut facts = board("generic");
    facts.data.place = Some(place(Medium::Overlay));
    assert!(one(&facts, "data").2.contains("volume"));
}

#[test]
fn a_quota_needs_room() {
    let mut facts = board("pi-4");
    let with = |facts: &mut Facts, free: Bytes, used: Option<Bytes>| {
        facts.data.space.as_mut().unwrap().free = free;
        facts.data.used = used;
        one(facts, "disk").0
    };
    assert_eq!(with(&mut facts, Bytes::gib(25), None), Level::Ok);
    assert_eq!(with(&mut facts, Bytes::gib(5), None), Level::Warning);
    assert_eq!(
        with(&mut facts, Bytes::gib(5), Some(Bytes::gib(10))),
        Level::Ok,
        "the node's own bytes count"
    );
    assert_eq!(with(&mut facts, Bytes::mib(255), Some(Bytes::gib(14))), Level::Problem);
}

#[test]
fn ports_are_free_or_the_nodes_own_or_taken() {
    let listening = |port: u16| {
        let line = format!("head\n 0: 00000000:{port:04X} 00000000:0000 0A x\n");
        let root = crate::archive::testing::Scratch::new();
        std::fs::create_dir_all(root.path().join("proc/self/net")).unwrap();
        std::fs::write(root.path().join("proc/self/net/tcp"), line).unwrap();
        Listeners::of(root.path())
    };
    let mut facts = running("pi-4");
    assert_eq!(one(&facts, "ports").0, Level::Ok);
    facts.listeners = listening(6001);
    let all = all_of(&facts, "ports");
    assert!(all[0].0 == Level::Problem && all[0].2.contains("Publishers.Types.Local.Port"), "{all:?}");
    assert!(all[1].0 == Level::Ok && all[1].1.contains("1234"), "{all:?}");
    facts.data.in_use = true;
    assert_eq!(one(&facts, "ports").0, Level::Ok);
    facts.live.as_mut().unwrap().api = Answer::Unready(vec!["disk failed: full".into()]);
    let (level, found, _) = one(&facts, "ports");
    assert!(level == Level::Warning && found.contains("disk failed: full"), "{found}");
    facts.data.in_use = false;
    facts.live.as_mut().unwrap().api = Answer::Other;
    facts.listeners = listening(1234);
    assert!(all_of(&facts, "ports")[0].1.contains("speaks TLS"));
    facts.live.as_mut().unwrap().sockets[0] = None;
    facts.settings.loaded.settings.api.host = Host::Name("nowhere.lan".into());
    assert!(all_of(&facts, "ports")[0].1.contains("nowhere.lan"));
}

#[test]
fn the_rest_is_told_too() {
    let mut facts = running("pi-4");
    assert_eq!(one(&facts, "orchestrator").0, Level::Ok);
    facts.live.as_mut().unwrap().orchestrators =
        vec![("hub:4222".into(), None), ("hub:1".into(), Some("refused".into()))];
    let levels: Vec<Level> = all_of(&facts, "orchestrator").into_iter().map(|f| f.0).collect();
    assert_eq!(levels, [Level::Note, Level::Warning]);
    facts.engines = vec!["wasmtime"];
    assert_eq!(one(&facts, "engines").0, Level::Ok);
    facts.settings.loaded.settings.disabled.engines = vec!["wasm".into()];
    assert_eq!(one(&facts, "engines").0, Level::Problem);
    facts.engines.clear();
    assert_eq!(one(&facts, "engines").0, Level::Problem);
    facts.settings.wrong = vec!["API.Port: x".into()];
    facts.settings.hidden = vec!["/etc/codling/config.yaml".into()];
    let levels: Vec<Level> = all_of(&facts, "settings").into_iter().map(|f| f.0).collect();
    assert_eq!(levels, [Level::Note, Level::Problem]);
    for (identity, level) in [
        (Identity::Kept(NodeId::random()), Level::Ok),
        (Identity::Random, Level::Note),
        (Identity::Hidden, Level::Note),
        (Identity::Damaged("it holds {}".into()), Level::Problem),
    ] {
        facts.identity = identity;
        assert_eq!(one(&facts, "identity").0, level);
    }
    facts.survey.arch = Some("aarch64".into());
    facts.survey.loaders = Loaders { wide: false, narrow: true };
    assert_eq!(one(&facts, "kernel").0, Level::Note);
    facts.machine.cpu = MilliCpu(0);
    facts.machine.memory = Bytes(u64::MAX);
    assert_eq!(one(&facts, "memory").0, Level::Note);
}

#[test]
fn an_empty_root_and_one_of_nonsense_are_looked_at_without_harm() {
    let scratch = crate::archive::testing::Scratch::new();
    let root = scratch.path().to_owned();
    let findings = judge(&look(&Wanted { root: root.clone(), overrides: CliOverrides::default() }));
    assert!(findings.iter().all(|finding| finding.level < Level::Problem || finding.check == "engines"));
    for name in
        ["proc/self/mountinfo", "proc/meminfo", "proc/cgroups", "proc/device-tree/model", "proc/cmdline"]
    {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"\xff\0 - \x1b[2J\n\n:::\0".repeat(100)).unwrap();
    }
    std::fs::create_dir_all(root.join("etc/codling/config.yaml")).unwrap();
    let findings = judge(&look(&Wanted { root, overrides: CliOverrides::default() }));
    let settings = findings.iter().find(|finding| finding.check == "settings").unwrap();
    assert_eq!(settings.level, Level::Problem, "a directory stands where the settings go: {settings:?}");
}
