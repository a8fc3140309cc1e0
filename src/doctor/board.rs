//! The board: what it is, and whether its system gives a node what it needs.

use super::{Facts, Finding, Level};
use crate::model::{Board, Bytes, Recognised};
use crate::sys::EARLIEST_BELIEVABLE;
use crate::sys::survey::{BootFile, BootKind, MemoryGroups};

/// What Raspberry Pi's kernels need on their command line to count memory.
pub(super) const GROUPS_WORD: &str = "cgroup_enable=memory";

/// What node and system need besides the jobs.
const BESIDES_JOBS: Bytes = Bytes::mib(96);

/// Which board it is, and whether the settings are for it.
pub(super) fn board(facts: &Facts) -> Finding {
    const CHECK: &str = "board";
    let tree = &facts.machine.tree;
    let mut found = match tree.board() {
        Recognised::Silent => "no board is named: a PC, a virtual machine or a container".to_owned(),
        Recognised::Known(_) | Recognised::Other => tree.describe(),
    };
    if let Some(l4t) = &facts.survey.l4t {
        found.push_str(&format!(", L4T {}", l4t.trim_start_matches(['#', ' '])));
    }
    let is = match tree.board() {
        Recognised::Known(board) => Some(board),
        Recognised::Other | Recognised::Silent => None,
    };
    match facts.settings.loaded.settings.board {
        Some(wanted) if is == Some(wanted) => Finding::ok(CHECK, found),
        Some(wanted) if tree.board() == Recognised::Silent => {
            let next =
                format!("make sure that this is a {wanted}, or remove the key Board from the settings");
            Finding::new(CHECK, Level::Warning, format!("{found}; the settings are made for {wanted}"), next)
        }
        Some(wanted) => {
            let take = is.map_or_else(
                || "take the settings of board-configs/generic (in the package /usr/share/codling/boards/generic)".to_owned(),
                |board| format!("take those of board-configs/{board} (in the package /usr/share/codling/boards/{board})"),
            );
            let found = format!("{found}; the settings are made for {wanted}, and the node does not start");
            Finding::new(CHECK, Level::Problem, found, format!("{take}, or remove the key Board"))
        }
        None if is.is_none() => Finding::new(CHECK, Level::Note, found, ""),
        None => Finding::ok(CHECK, found),
    }
}

/// The kernel, and whether the programs on it are as wide as it is.
pub(super) fn kernel(facts: &Facts) -> Finding {
    const CHECK: &str = "kernel";
    let survey = &facts.survey;
    let arch = survey.arch.as_deref().unwrap_or_default();
    let release = survey.kernel.as_deref().unwrap_or("unknown");
    let found = format!("Linux {release} {arch}").trim_end().to_owned();
    let wide = matches!(arch, "aarch64" | "x86_64");
    if wide && survey.loaders.narrow && !survey.loaders.wide {
        let found = format!("{found}, with a system of 32 bits on it");
        let next = "a 64-bit system runs WASM several times as fast, since codling compiles it there; this one is \
                    served by the build for armhf";
        return Finding::new(CHECK, Level::Note, found, next);
    }
    if facts.live.is_some() && wide && cfg!(target_pointer_width = "32") {
        let found = format!("{found}, and this codling is a build for 32 bits");
        return Finding::new(CHECK, Level::Note, found, "take the build for 64 bits: it compiles WASM");
    }
    Finding::ok(CHECK, found)
}

/// Memory, and whether jobs leave enough of it.
pub(super) fn memory(facts: &Facts) -> Finding {
    const CHECK: &str = "memory";
    let Some(resolved) = &facts.settings.resolved else {
        return Finding::new(CHECK, Level::Note, "not known", "");
    };
    let (all, jobs) = (facts.machine.memory, resolved.capacity.memory);
    if all == Bytes(u64::MAX) {
        return Finding::new(CHECK, Level::Note, "not known", "");
    }
    let at_once = u64::from(facts.settings.loaded.settings.compute.max_executions);
    let each = resolved.batch.memory;
    let found = format!("{all}, of which jobs may use {jobs}");
    if all.minus(jobs) < BESIDES_JOBS.min(all.percent(15.0)) {
        let next = "leave more to the system: Compute.AllocatedCapacity.Memory: 60%";
        return Finding::new(
            CHECK,
            Level::Warning,
            format!("{found}: node and system are short of it"),
            next,
        );
    }
    let fit = jobs.0.checked_div(each.0).unwrap_or(at_once);
    if fit < at_once {
        let found =
            format!("{found}: {fit} job(s) of {each} at a time, not Compute.MaxExecutions ({at_once})");
        return Finding::new(CHECK, Level::Note, found, "further jobs wait; that is no fault");
    }
    Finding::ok(CHECK, found)
}

/// Whether `MemoryMax` of the service means anything.
pub(super) fn memory_groups(facts: &Facts) -> Finding {
    const CHECK: &str = "cgroup";
    let survey = &facts.survey;
    match survey.memory_groups {
        MemoryGroups::On => {
            return Finding::ok(CHECK, "the kernel counts memory: MemoryMax of the unit holds");
        }
        MemoryGroups::Unknown => return Finding::new(CHECK, Level::Note, "not known", ""),
        MemoryGroups::Absent => {
            let found = "this kernel cannot count memory: MemoryMax of the unit bounds nothing";
            return Finding::new(CHECK, Level::Warning, found, "take a kernel with CONFIG_MEMCG");
        }
        MemoryGroups::Off => {}
    }
    let found = "the kernel does not count memory: MemoryMax of the unit bounds nothing";
    let next = match &survey.boot {
        Some(file) if file.text.split_whitespace().any(|word| word.trim_matches('"') == GROUPS_WORD) => {
            format!("{GROUPS_WORD} is in {} already: start the machine again", file.path.display())
        }
        Some(file) => how_to_add(file),
        None => format!("add {GROUPS_WORD} to the kernel's command line, and start the machine again"),
    };
    Finding::new(CHECK, Level::Warning, found, next)
}

fn how_to_add(file: &BootFile) -> String {
    let path = file.path.display();
    match file.kind {
        BootKind::Line => {
            format!("append to the one line of {path}: {GROUPS_WORD} ; then start the machine again")
        }
        BootKind::Extlinux => {
            format!("append to the line APPEND of {path}: {GROUPS_WORD} ; then start the machine again")
        }
        BootKind::Grub => format!(
            "add to GRUB_CMDLINE_LINUX in {path}: {GROUPS_WORD} ; then run update-grub and start the machine again"
        ),
    }
}

/// The supply voltage and the temperature, where the firmware tells.
pub(super) fn power(facts: &Facts) -> Option<Finding> {
    const CHECK: &str = "power";
    const NOW: [(u32, &str); 4] = [
        (1, "the voltage is too low"),
        (1 << 1, "the clock rate is capped"),
        (1 << 2, "the processor is slowed down"),
        (1 << 3, "it is near its temperature limit"),
    ];
    let bits = facts.survey.throttled?;
    let told = |shift: u32| -> Vec<&str> {
        NOW.iter().filter(|(bit, _)| bits >> shift & bit != 0).map(|(_, what)| *what).collect()
    };
    let (now, before) = (told(0), told(16));
    let level = if now.is_empty() { Level::Note } else { Level::Warning };
    let found = match (now.is_empty(), before.is_empty()) {
        (true, true) => return Some(Finding::ok(CHECK, "voltage and temperature are right")),
        (true, false) => format!("since the start there was a time when {}", before.join(", ")),
        (false, _) => now.join(", "),
    };
    let volts = (bits | bits >> 16) & 1 != 0;
    let next = if volts {
        "take a stronger supply and a short cable: low voltage damages SD cards"
    } else {
        "give it air, or a heat sink"
    };
    Some(Finding::new(CHECK, level, found, next))
}

/// Whether the time can be believed.
pub(super) fn clock(facts: &Facts) -> Finding {
    const CHECK: &str = "clock";
    let rtc = if facts.survey.has_rtc { "it has a clock of its own" } else { "it has no clock of its own" };
    let Some(live) = &facts.live else {
        return Finding::new(CHECK, Level::Note, format!("{rtc}; another machine's time is not known"), "");
    };
    if live.now < EARLIEST_BELIEVABLE {
        let found = format!(
            "it shows {}, which cannot be; {rtc}; nothing is deleted for its age until it is set",
            live.now.rfc3339()
        );
        let next = "connect it to a network and run: timedatectl set-ntp true";
        return Finding::new(CHECK, Level::Warning, found, next);
    }
    if live.synchronised {
        return Finding::ok(CHECK, format!("synchronised; {rtc}"));
    }
    let level = if facts.survey.has_rtc { Level::Note } else { Level::Warning };
    let found =
        format!("nothing keeps it right; {rtc}; while the node doubts it, nothing is deleted for its age");
    let next = "run: timedatectl set-ntp true (or install systemd-timesyncd or chrony)";
    Finding::new(CHECK, level, found, next)
}

/// What a Raspberry Pi's overlay is switched off with, and others'.
pub(super) fn overlay_off(facts: &Facts) -> &'static str {
    let pi = matches!(facts.machine.tree.board(), Recognised::Known(board) if Board::is_pi(board));
    let line = &facts.survey.command_line;
    if line.split_whitespace().any(|word| word == "boot=overlay") || pi {
        "switch it off (raspi-config, Performance Options, Overlay File System), or set DataDir to a partition that \
         is written"
    } else {
        "set DataDir to a disk (in a container: to a volume)"
    }
}
