//! What happened to a job, in order, with reasons.

use serde::{Deserialize, Serialize};

use super::failure::Failure;
use super::ids::ExecutionId;
use super::state::{ExecutionState, JobState};
use super::time::Timestamp;

/// What an event is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Level {
    /// The job: its state before and after (equal if only something was noted).
    Job {
        /// Before; absent at submission.
        previous: Option<JobState>,
        /// After.
        new: JobState,
    },
    /// One execution: its state before and after.
    Execution {
        /// Which.
        id: ExecutionId,
        /// Before; absent when it was made.
        previous: Option<ExecutionState>,
        /// After.
        new: ExecutionState,
    },
}

/// Bacalhau's words for where an event comes from (persistence.md section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Topic {
    /// A job came in.
    Submission,
    /// Executions were made or refused.
    Scheduling,
    /// Waiting for room.
    Queueing,
    /// An execution moved on.
    Execution,
    /// The job's state changed.
    StateUpdate,
    /// An execution took too long.
    ExecTimeout,
    /// The job took too long.
    JobTimeout,
    /// A result was deleted, pinned or unpinned.
    Results,
    /// The node restarted.
    Restart,
}

impl Topic {
    /// As printed and sent.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Submission => "Submission",
            Self::Scheduling => "Scheduling",
            Self::Queueing => "Queueing",
            Self::Execution => "Execution",
            Self::StateUpdate => "State Update",
            Self::ExecTimeout => "Exec Timeout",
            Self::JobTimeout => "Job Timeout",
            Self::Results => "Results",
            Self::Restart => "Restart",
        }
    }
}

/// Entries at the beginning of a history that never give way: how the job came in.
pub const HEAD: u64 = 20;

/// Which entries give way to the one numbered `seq` where a history holds `limit` of them: those behind [`HEAD`], the
/// oldest first. From the first number (included) to the second (excluded).
#[must_use]
pub const fn giving_way(seq: u64, limit: u64) -> Option<(u64, u64)> {
    match seq.checked_sub(limit) {
        None | Some(0) => None,
        Some(excess) => Some((HEAD + 1, HEAD + 1 + excess)),
    }
}

/// What a version is if nobody says.
const fn first() -> u64 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
const fn is_first(version: &u64) -> bool {
    *version == 1
}

/// One entry of a job's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEvent {
    /// Position in the job's history, from 1. Gaps are where entries have given way to later ones.
    pub seq: u64,
    /// Version of the job that it is about.
    #[serde(default = "first", skip_serializing_if = "is_first")]
    pub version: u64,
    /// What it is about.
    pub level: Level,
    /// Where it comes from.
    pub topic: Topic,
    /// What happened.
    pub message: String,
    /// Why, if something failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// When.
    pub time: Timestamp,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_beginning_and_the_newest_stay() {
        const LIMIT: u64 = 50;
        let mut kept = BTreeSet::new();
        for seq in 1..=1000 {
            kept.insert(seq);
            if let Some((from, to)) = giving_way(seq, LIMIT) {
                kept.retain(|n| !(from..to).contains(n));
            }
            assert!(kept.len() as u64 <= LIMIT && kept.contains(&seq));
        }
        let wanted: BTreeSet<u64> = (1..=HEAD).chain(1000 - (LIMIT - HEAD) + 1..=1000).collect();
        assert_eq!(kept, wanted);
        // A history that was allowed more before is cut down at once.
        assert_eq!(giving_way(200, LIMIT), Some((HEAD + 1, HEAD + 151)));
    }

    #[test]
    fn the_first_version_goes_without_saying() {
        let old = r#"{"seq":1,"level":{"Job":{"previous":null,"new":"Pending"}},"topic":"Submission","message":"m","time":0}"#;
        let event: HistoryEvent = serde_json::from_str(old).unwrap();
        assert_eq!(event.version, 1);
        assert_eq!(serde_json::to_string(&event).unwrap(), old);
    }
}
