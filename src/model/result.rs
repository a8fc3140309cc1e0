//! Published results: what the ledger holds for each archive on the shelf, and for each that had to go.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ids::{ExecutionId, JobId, Sha256};
use super::time::Timestamp;
use super::units::Bytes;

/// A user's word that a result must stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// Until then; for ever if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// Why a result was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeletionReason {
    /// Older than its retention.
    Expired,
    /// Its room was needed for a newer result or for work.
    Quota,
    /// More results than `Results.MaxCount`.
    Count,
    /// The file system had less free than `Results.MinFree`.
    MinFree,
    /// Results took more than `Results.MaxSize` together.
    Size,
    /// A user removed it.
    Removed,
    /// Its file was missing or damaged when the node started.
    Lost,
}

impl fmt::Display for DeletionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Expired => "older than its retention",
            Self::Quota => "evicted to keep the quota",
            Self::Count => "evicted to keep Results.MaxCount",
            Self::MinFree => "evicted to keep Results.MinFree",
            Self::Size => "evicted to keep Results.MaxSize",
            Self::Removed => "removed by a user",
            Self::Lost => "its file was missing or damaged at start",
        })
    }
}

impl DeletionReason {
    /// The stable word, as it is stored and shown to programs.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Quota => "quota",
            Self::Count => "count",
            Self::MinFree => "min_free",
            Self::Size => "size",
            Self::Removed => "removed",
            Self::Lost => "lost",
        }
    }

    /// Every reason, in the order of the declaration.
    pub const ALL: [Self; 7] =
        [Self::Expired, Self::Quota, Self::Count, Self::MinFree, Self::Size, Self::Removed, Self::Lost];
}

/// Which results go first when room is needed: `Results.EvictFirst`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EvictFirst {
    /// The oldest.
    #[default]
    Oldest,
    /// Those that somebody has downloaded whole, the oldest of them first; then the others.
    Fetched,
}

/// Whether a result is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResultStatus {
    /// It can be fetched.
    Stored,
    /// It was deleted; the row stays so that this can be said.
    Deleted {
        /// Why.
        reason: DeletionReason,
        /// When.
        at: Timestamp,
    },
}

/// What the date of a result is worth.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dating {
    /// Of a clock that something vouched for.
    #[default]
    Sure,
    /// Of a clock that showed a plausible time. Worth nothing once it turns out that it was set.
    Plausible,
    /// Of a clock that was not believed: its age begins when one is.
    Doubtful,
}

impl Dating {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    fn is_sure(&self) -> bool {
        *self == Self::Sure
    }
}

/// One row of the results ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultEntry {
    /// The execution that made it; also the file's name.
    pub execution_id: ExecutionId,
    /// Its job.
    pub job_id: JobId,
    /// Size of the archive.
    pub size: Bytes,
    /// Digest of the archive.
    pub sha256: Sha256,
    /// Published.
    pub created: Timestamp,
    /// What that date is worth.
    #[serde(default, skip_serializing_if = "Dating::is_sure")]
    pub dating: Dating,
    /// Somebody has downloaded it whole. Kept beside the row.
    #[serde(skip)]
    pub fetched: bool,
    /// How long it is kept, if the job said so; otherwise the node's `Results.Retention`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Duration>,
    /// Pinned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<Pin>,
    /// Whether it is there.
    pub status: ResultStatus,
}

impl ResultEntry {
    /// Whether it can be fetched.
    #[must_use]
    pub const fn is_stored(&self) -> bool {
        matches!(self.status, ResultStatus::Stored)
    }

    /// Whether a pin holds it at that time.
    #[must_use]
    pub fn is_pinned(&self, now: Timestamp) -> bool {
        self.pin.is_some_and(|pin| pin.until.is_none_or(|until| until > now))
    }
}

/// A result that is to go, or has gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deletion {
    /// Which.
    pub execution_id: ExecutionId,
    /// Its job.
    pub job_id: JobId,
    /// What it frees.
    pub size: Bytes,
    /// Why.
    pub reason: DeletionReason,
}
