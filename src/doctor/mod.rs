//! What is good and what is not about a machine and its settings, each with the next step: `codling doctor`.
//!
//! [`look`] reads facts, of this machine or of one whose files lie below another root; [`judge`] is pure. Nothing is
//! written, locked or started, and a node that runs is not disturbed.

mod board;
mod look;
mod node;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::path::PathBuf;

use crate::config::{Loaded, Resolved};
use crate::model::{Bytes, NodeId, Timestamp};
use crate::sys::mounts::Place;
use crate::sys::survey::{Listeners, Survey};
use crate::sys::{Machine, Space};

pub use look::{Wanted, look};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Note,
    /// The node works, but not as well or as long as it could.
    Warning,
    /// The node does not start, or does not do what it is for.
    Problem,
}

impl Level {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its name, which stays: `board`, `clock`, ...
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was seen.
    pub found: String,
    /// What to do; empty if nothing is to be done.
    pub next: String,
}

impl Finding {
    fn new(check: &'static str, level: Level, found: impl Into<String>, next: impl Into<String>) -> Self {
        Self { check, level, found: found.into(), next: next.into() }
    }

    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self::new(check, Level::Ok, found, "")
    }
}

/// Everything that is known.
#[derive(Debug)]
pub struct Facts {
    /// The machine, as the node sees it.
    pub machine: Machine,
    /// And what else its files say.
    pub survey: Survey,
    /// The settings, or what is wrong with them.
    pub settings: Given,
    /// Where the node keeps its state.
    pub data: Data,
    /// Who the node is.
    pub identity: Identity,
    /// WASM engines of this program.
    pub engines: Vec<&'static str>,
    /// Sockets that listen.
    pub listeners: Listeners,
    /// What only the running machine answers; not of another root.
    pub live: Option<Live>,
}

/// The settings.
#[derive(Debug)]
pub struct Given {
    /// Those in force; the defaults if those that were given cannot be used.
    pub loaded: Loaded,
    /// What the machine makes of them, if the size of the disk is known.
    pub resolved: Option<Resolved>,
    /// Files that this user may not read.
    pub hidden: Vec<PathBuf>,
    /// Everything that is wrong with those that were given.
    pub wrong: Vec<String>,
}

/// The data directory.
#[derive(Debug, Default)]
pub struct Data {
    /// It, or the directory in which it will be made.
    pub nearest: PathBuf,
    /// Whether it is there.
    pub exists: bool,
    /// What it lies on.
    pub place: Option<Place>,
    /// Whether it can be written.
    pub access: Access,
    /// Room on its file system.
    pub space: Option<Space>,
    /// What the node's own files take, if this user may look.
    pub used: Option<Bytes>,
    /// Whether a node works in it.
    pub in_use: bool,
}

/// Whether a directory can be written by this user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Access {
    /// It can.
    #[default]
    Yes,
    /// Its file system is for reading only.
    ReadOnly,
    /// Not by this user.
    Denied,
}

/// The node's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// It has one.
    Kept(NodeId),
    /// It will have this one from its first start.
    Coming(NodeId),
    /// Chance will say.
    Random,
    /// This user may not look.
    Hidden,
    /// The file cannot be used, and so the node cannot start.
    Damaged(String),
}

/// What only the running machine answers.
#[derive(Debug)]
pub struct Live {
    /// The wall clock.
    pub now: Timestamp,
    /// Whether something keeps it right.
    pub synchronised: bool,
    /// Where the API is asked, and what answers there.
    pub api: Answer,
    /// Orchestrators, and why each cannot be reached, if it cannot.
    pub orchestrators: Vec<(String, Option<String>)>,
    /// The address that each of the node's two sockets is to have, if its name is known.
    pub sockets: [Option<IpAddr>; 2],
}

/// What answers on the API's port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Nobody was asked.
    Unasked,
    /// A node that can take work.
    Ready,
    /// A node that cannot, and why.
    Unready(Vec<String>),
    /// Something else, or a node that speaks TLS.
    Other,
}

/// What is to be said, in an order that stays.
#[must_use]
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![board::board(facts), board::kernel(facts)];
    findings.push(board::memory(facts));
    findings.push(board::memory_groups(facts));
    findings.extend(board::power(facts));
    findings.push(board::clock(facts));
    findings.extend(node::settings(facts));
    findings.push(node::identity(facts));
    findings.extend(node::data(facts));
    findings.push(node::disk(facts));
    findings.extend(node::ports(facts));
    findings.push(node::engines(facts));
    findings.extend(node::orchestrators(facts));
    findings
}

/// The worst of them.
#[must_use]
pub fn worst(findings: &[Finding]) -> Level {
    findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
}
