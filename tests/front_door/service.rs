//! The systemd unit that ships: what it exposes, and that the node can live with what it forbids.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::node::{CODLING, Dir, text};

/// The most exposure that `systemd-analyze security` may see, in tenths: 0 is none, 100 is all.
const EXPOSURE_MAX: u32 = 16;

fn packaging(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(name)
}

fn unit() -> String {
    std::fs::read_to_string(packaging("codling.service")).unwrap()
}

/// The values of a setting, in their order.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

/// Runs `systemd-analyze`; whether it was content, and all that it said.
fn analyze(args: &[&str]) -> (bool, String) {
    let output = Command::new("systemd-analyze").args(args).env("PAGER", "cat").output().unwrap();
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

/// The unit with this program in the place of the installed one, and further lines.
fn installed(dir: &Dir, more: &str) -> String {
    let path = dir.join("codling.service");
    let unit =
        unit().replace("/usr/bin/codling", &CODLING).replace("[Install]", &format!("{more}\n[Install]"));
    std::fs::write(&path, unit).unwrap();
    path.to_str().unwrap().to_owned()
}

fn without_comments(name: &str) -> String {
    let text = std::fs::read_to_string(packaging(name)).unwrap();
    text.lines().filter(|line| !line.starts_with(['#', '['])).collect::<Vec<_>>().join("\n")
}

#[test]
fn systemd_reads_every_line_of_the_unit_and_of_its_drop_ins() {
    let dir = Dir::new();
    let (content, said) = analyze(&["verify", "--man=no", &installed(&dir, "")]);
    assert!(content && said.trim().is_empty(), "{said}");
    for entry in std::fs::read_dir(packaging("codling.service.d")).unwrap() {
        let name = format!("codling.service.d/{}", entry.unwrap().file_name().to_str().unwrap());
        let (content, said) = analyze(&["verify", "--man=no", &installed(&dir, &without_comments(&name))]);
        assert!(content && said.trim().is_empty(), "{name}: {said}");
    }
    // It would have said so.
    let (_, said) = analyze(&["verify", "--man=no", &installed(&dir, "ProtectEverything=yes")]);
    assert!(said.contains("ProtectEverything"), "{said}");
}

#[test]
fn the_unit_exposes_little() {
    let dir = Dir::new();
    let (limit, unit) = (EXPOSURE_MAX.to_string(), installed(&dir, ""));
    let (content, said) =
        analyze(&["security", "--offline=true", "--no-pager", &format!("--threshold={limit}"), &unit]);
    let score = said.lines().find(|line| line.contains("exposure level")).unwrap_or(&said).to_owned();
    eprintln!("codling.service: {score}");
    assert!(content, "more than {limit} tenths:\n{said}");
    let (content, _) = analyze(&["security", "--offline=true", "--no-pager", "--threshold=5", &unit]);
    assert!(!content, "the ceiling can be lowered");
}

#[test]
fn the_unit_of_the_first_boot_is_read_whole_and_exposes_little() {
    /// It runs as root, with two capabilities.
    const ROOT_EXPOSURE_MAX: u32 = 15;
    let dir = Dir::new();
    let unit = std::fs::read_to_string(packaging("firstboot/codling-first-boot.service")).unwrap();
    assert_eq!(values(&unit, "ExecStart"), ["/usr/bin/codling first-boot"]);
    assert_eq!(values(&unit, "Before"), ["codling.service"]);
    let path = dir.join("codling-first-boot.service");
    std::fs::write(&path, unit.replace("/usr/bin/codling", &CODLING)).unwrap();
    let path = path.to_str().unwrap();
    let (content, said) = analyze(&["verify", "--man=no", path]);
    assert!(content && said.trim().is_empty(), "{said}");
    let limit = format!("--threshold={ROOT_EXPOSURE_MAX}");
    let (content, said) = analyze(&["security", "--offline=true", "--no-pager", &limit, path]);
    eprintln!("{}", said.lines().find(|line| line.contains("exposure level")).unwrap_or(&said));
    assert!(content, "more than {limit} tenths:\n{said}");
}

#[test]
fn users_directories_and_times_agree() {
    let unit = unit();
    assert_eq!((values(&unit, "User"), values(&unit, "Group")), (vec!["codling"], vec!["codling"]));
    assert!(without_comments("codling.sysusers.conf").starts_with("u codling "));
    let directories = without_comments("codling.tmpfiles.conf");
    assert_eq!(values(&unit, "StateDirectory"), ["codling"]);
    assert!(directories.contains("d /var/lib/codling 0700 codling codling"), "{directories}");
    assert_eq!(
        values(&unit, "ExecStart"),
        ["/usr/bin/codling serve --config /etc/codling/config.yaml"],
        "the flags are those of the program"
    );
    let help = Command::new(&*CODLING).args(["serve", "--help"]).output().unwrap();
    assert!(text(&help.stdout).contains("--config"));
    // What a stop takes at most: Compute.StopTimeout, executions that let go, answers, the last commit.
    let list = Command::new(&*CODLING).args(["config", "list"]).output().unwrap();
    let list = text(&list.stdout);
    let default = list.lines().find(|line| line.starts_with("Compute.StopTimeout")).unwrap();
    assert!(default.contains("10s"), "{default}");
    let seconds: u64 = values(&unit, "TimeoutStopSec")[0].parse().unwrap();
    assert!(seconds > 10 + 5 + 1 + 10);
}

/// The system calls that a filter's words stand for.
fn calls(words: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for word in words.split_whitespace() {
        if !word.starts_with('@') {
            found.insert(word.to_owned());
            continue;
        }
        let (content, said) = analyze(&["syscall-filter", "--no-pager", word]);
        assert!(content, "{word}: {said}");
        let members = said.lines().skip(1).map(|line| line.split('#').next().unwrap_or(""));
        found.extend(calls(&members.collect::<Vec<_>>().join(" ")));
    }
    found
}

#[test]
fn the_system_call_filter_lets_the_node_do_its_work() {
    let mut allowed = BTreeSet::new();
    for words in values(&unit(), "SystemCallFilter") {
        match words.strip_prefix('~') {
            Some(words) => {
                let taken = calls(words);
                allowed.retain(|call| !taken.contains(call));
            }
            None => allowed.extend(calls(words)),
        }
    }
    // These forbid calls as well, whatever the filter says.
    for (setting, forbidden) in
        [("ProtectClock", "@clock"), ("ProtectKernelModules", "@module"), ("ProtectKernelLogs", "syslog")]
    {
        if values(&unit(), setting) == ["yes"] {
            let forbidden = calls(forbidden);
            allowed.retain(|call| !forbidden.contains(call));
        }
    }
    assert!(allowed.contains("read") && allowed.contains("setpriority"));
    for forbidden in [
        "mount",
        "ptrace",
        "init_module",
        "clock_settime",
        "settimeofday",
        "setuid",
        "chown",
        "bpf",
        "keyctl",
        "mlock",
    ] {
        assert!(!allowed.contains(forbidden), "{forbidden}");
    }
    // A node from start to stop under strace, with a job, its result, the fetching of it, and a service manager.
    let dir = Dir::new();
    let (trace, demo) = (dir.join("calls"), dir.join("demo"));
    let manager = std::os::unix::net::UnixDatagram::bind(dir.join("notify")).unwrap();
    let output = Command::new("strace")
        .args(["-f", "-qq", "-c", "-U", "name", "-o"])
        .arg(&trace)
        .args([CODLING.as_str(), "demo", "--dir"])
        .arg(&demo)
        .env("NOTIFY_SOCKET", dir.join("notify"))
        .env("WATCHDOG_USEC", "200000")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    drop(manager);
    let summary = std::fs::read_to_string(&trace).unwrap();
    let used: BTreeSet<&str> = summary
        .lines()
        .map(str::trim)
        .filter(|name| !name.is_empty() && !name.starts_with('-') && !matches!(*name, "syscall" | "total"))
        .collect();
    for seen in ["sendfile", "fdatasync", "setpriority", "mprotect"] {
        assert!(used.contains(seen), "{seen} is not in {used:?}");
    }
    let refused: Vec<_> = used.iter().filter(|call| !allowed.contains(**call)).collect();
    assert!(refused.is_empty(), "the unit does not allow {refused:?}");
}
