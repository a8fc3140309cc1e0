//! The node: its settings, and what it needs of disk and network.

use std::net::IpAddr;

use super::board::overlay_off;
use super::{Access, Answer, Facts, Finding, Identity, Level};
use crate::config::{Host, Settings};
use crate::model::Bytes;
use crate::sys::mounts::Medium;

/// Everything that is wrong with the settings, or that they are good.
pub(super) fn settings(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "settings";
    let given = &facts.settings;
    let mut findings = Vec::new();
    for hidden in &given.hidden {
        let found =
            format!("{} cannot be read by this user; what follows is about the defaults", hidden.display());
        findings.push(Finding::new(CHECK, Level::Note, found, "run as root: sudo codling doctor"));
    }
    for wrong in &given.wrong {
        let next = "correct it: `codling config check FILE` says when it is good";
        findings.push(Finding::new(CHECK, Level::Problem, wrong, next));
    }
    if given.wrong.is_empty() {
        let warnings = given.loaded.warnings.iter().map(ToString::to_string);
        for warning in warnings.chain(given.resolved.iter().flat_map(|resolved| resolved.warnings.clone())) {
            findings.push(Finding::new(CHECK, Level::Warning, warning, ""));
        }
    }
    if findings.is_empty() {
        let files = given.loaded.files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>();
        let from = if files.is_empty() { "the defaults".into() } else { files.join(", ") };
        findings.push(Finding::ok(CHECK, from));
    }
    findings
}

/// Who the node is.
pub(super) fn identity(facts: &Facts) -> Finding {
    const CHECK: &str = "identity";
    match &facts.identity {
        Identity::Kept(id) => Finding::ok(CHECK, format!("{id}, kept in the data directory")),
        Identity::Coming(id) => Finding::ok(CHECK, format!("{id} from its first start on")),
        Identity::Random => {
            let found =
                "none yet, and the board has no serial number: chance gives a name at the first start";
            Finding::new(
                CHECK,
                Level::Note,
                found,
                "a node that is to keep its name when its card is written anew needs one: Name: edge-1",
            )
        }
        Identity::Hidden => Finding::new(
            CHECK,
            Level::Note,
            "cannot be read by this user",
            "run as root: sudo codling doctor",
        ),
        Identity::Damaged(why) => Finding::new(
            CHECK,
            Level::Problem,
            format!("{why}; the node does not start"),
            "restore node.json, or remove it for a new name",
        ),
    }
}

/// What the data directory lies on, and whether it can be written.
pub(super) fn data(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "data";
    let data = &facts.data;
    let dir = facts.settings.loaded.settings.data_dir.display();
    let mut found = dir.to_string();
    if !data.exists {
        found.push_str(", which the first start makes,");
    }
    let mut findings = Vec::new();
    if data.access == Access::ReadOnly || data.place.as_ref().is_some_and(|place| place.read_only) {
        let found =
            format!("{dir} is on a file system for reading only: the node does not start, or takes no work");
        let next = format!(
            "if it was mounted so: mount -o remount,rw (findmnt -T {} says which); if an error of the disk made it so, \
             dmesg tells, and the card wants replacing; or set DataDir to another disk",
            data.nearest.display()
        );
        findings.push(Finding::new(CHECK, Level::Problem, found, next));
    }
    if data.access == Access::Denied {
        let found = format!("{} cannot be written by this user", data.nearest.display());
        findings.push(Finding::new(
            CHECK,
            Level::Note,
            found,
            "the service has a user of its own: sudo codling doctor",
        ));
    }
    let Some(place) = &data.place else {
        if findings.is_empty() {
            findings.push(Finding::new(
                CHECK,
                Level::Note,
                format!("{found}; what it is on is not known"),
                "",
            ));
        }
        return findings;
    };
    let on = |what: &str| format!("{found} is on {what} ({})", place.file_system);
    findings.push(match &place.medium {
        Medium::Memory => {
            let next = "set DataDir to a disk";
            Finding::new(
                CHECK,
                Level::Warning,
                format!("{}: all is lost when the machine stops", on("memory")),
                next,
            )
        }
        Medium::Overlay => {
            let found =
                format!("{}: as a rule all is lost when the machine or container stops", on("an overlay"));
            Finding::new(CHECK, Level::Warning, found, overlay_off(facts))
        }
        Medium::Network => {
            let found = format!("{}: databases want a disk of this machine", on("another machine"));
            Finding::new(CHECK, Level::Warning, found, "set DataDir to a disk of this machine")
        }
        Medium::SdCard => {
            let next =
                "a card made for endurance, or a disk, lasts longer; BENCHMARKS.md has the writes of a job";
            Finding::new(CHECK, Level::Note, on("an SD card"), next)
        }
        Medium::Emmc => Finding::ok(CHECK, on("eMMC")),
        Medium::Nvme => Finding::ok(CHECK, on("an NVMe disk")),
        Medium::Disk(name) => Finding::ok(CHECK, on(name)),
        Medium::Unknown => Finding::ok(CHECK, on("a disk")),
    });
    findings
}

/// Room for what the quota promises.
pub(super) fn disk(facts: &Facts) -> Finding {
    const CHECK: &str = "disk";
    let (Some(space), Some(resolved)) = (facts.data.space, &facts.settings.resolved) else {
        return Finding::new(CHECK, Level::Note, "not known", "");
    };
    let (quota, min_free) = (resolved.quota, resolved.min_free);
    let found = format!("{} of {} free; quota {quota}, {min_free} stay free", space.free, space.total);
    if space.free < min_free {
        let found = format!("{found}: less is free than Results.MinFree, and the node takes no work");
        return Finding::new(CHECK, Level::Problem, found, "remove other files: du -xh / | sort -h | tail");
    }
    let can_take = space.free.minus(min_free).plus(facts.data.used.unwrap_or(Bytes::ZERO));
    if can_take < quota {
        let found = format!("{found}: only {can_take} of the quota can be used");
        let next = "remove other files, or lower Results.Quota: results leave before their time";
        return Finding::new(CHECK, Level::Warning, found, next);
    }
    Finding::ok(CHECK, found)
}

/// Whether the node's two sockets are free, or its own.
pub(super) fn ports(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "ports";
    let Some(live) = &facts.live else {
        return vec![Finding::new(CHECK, Level::Note, "not known of another machine", "")];
    };
    let settings = &facts.settings.loaded.settings;
    let own = facts.data.in_use || matches!(live.api, Answer::Ready | Answer::Unready(_));
    let mut findings = Vec::new();
    let mut free = Vec::new();
    for ((what, host, port, key), ip) in sockets(settings).into_iter().zip(live.sockets) {
        let Some(ip) = ip else {
            let found = format!("{host} ({what}) is no name that is known here, and the node does not start");
            findings.push(Finding::new(CHECK, Level::Problem, found, format!("correct {key}")));
            continue;
        };
        if port == 0 || !facts.listeners.holds(ip, port) {
            free.push(if port == 0 { format!("any ({what})") } else { format!("{port} ({what})") });
        } else if !own {
            findings.push(taken(what, ip, port, key, &live.api));
        }
    }
    if own {
        let addresses =
            format!("API on port {}, results on port {}", settings.api.port, settings.publisher.port);
        findings.push(match &live.api {
            Answer::Unready(why) => {
                let found = format!("a node runs here and takes no work: {}", why.join("; "));
                Finding::new(
                    CHECK,
                    Level::Warning,
                    found,
                    "codling node, and the node's log (journalctl -u codling)",
                )
            }
            Answer::Ready => Finding::ok(CHECK, format!("a node runs here and is ready: {addresses}")),
            Answer::Other | Answer::Unasked => Finding::ok(CHECK, "a node runs in the data directory"),
        });
    } else if !free.is_empty() {
        findings.push(Finding::ok(CHECK, format!("free: {}", free.join(", "))));
    }
    findings
}

fn taken(what: &str, ip: IpAddr, port: u16, key: &str, api: &Answer) -> Finding {
    let found =
        format!("port {port} of {ip} ({what}) is held by another program, and the node does not start");
    let hint = if *api == Answer::Other { " (it is no codling node, or one that speaks TLS)" } else { "" };
    let next =
        format!("find it with: ss -ltnp 'sport = :{port}'; stop it, or choose another port with {key}");
    Finding::new("ports", Level::Problem, format!("{found}{hint}"), next)
}

/// The node's sockets: what for, where, and by which key.
pub(super) fn sockets(settings: &Settings) -> [(&'static str, &Host, u16, &'static str); 2] {
    [
        ("API", &settings.api.host, settings.api.port, "API.Port"),
        ("results", &settings.publisher.bind, settings.publisher.port, "Publishers.Types.Local.Port"),
    ]
}

/// What runs jobs.
pub(super) fn engines(facts: &Facts) -> Finding {
    const CHECK: &str = "engines";
    let disabled = &facts.settings.loaded.settings.disabled.engines;
    if facts.engines.is_empty() {
        let next = "install a build with WASM: no job can run with this one";
        return Finding::new(CHECK, Level::Problem, "this codling was built without any engine", next);
    }
    if disabled.iter().any(|name| name == "wasm") {
        let next = "remove wasm from Engines.Disabled: no job can run";
        return Finding::new(CHECK, Level::Problem, "wasm is switched off by Engines.Disabled", next);
    }
    Finding::ok(CHECK, format!("wasm ({})", facts.engines.join(", ")))
}

/// The orchestrator, if one is named.
pub(super) fn orchestrators(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "orchestrator";
    let Some(live) = &facts.live else {
        return vec![Finding::new(CHECK, Level::Note, "not asked for another machine", "")];
    };
    if live.orchestrators.is_empty() {
        return vec![Finding::ok(CHECK, "none is named: the node is its own")];
    }
    live.orchestrators
        .iter()
        .map(|(address, error)| match error {
            None => Finding::new(
                CHECK,
                Level::Note,
                format!("{address} can be reached; this node joins none yet"),
                "",
            ),
            Some(error) => {
                let next = "check its name, its port, and the firewall between";
                Finding::new(CHECK, Level::Warning, format!("{address} cannot be reached: {error}"), next)
            }
        })
        .collect()
}
