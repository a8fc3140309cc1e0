//! What can go wrong with results, and how an execution fails by it.

use std::io;
use std::path::PathBuf;

use crate::archive::PackError;
use crate::model::{
    Bytes, DeletionReason, ExecutionId, Failure, FailureCode, Timestamp, Trouble, with_causes,
};
use crate::store::StoreError;
use crate::sys::Cause;

/// Why room was not made. Nothing was deleted for its sake, except what had outlived its retention anyway.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoRoom {
    /// The quota does not allow it.
    #[error(
        "no room for {asked}: at most {room} of Results.Quota ({quota}) can be made free now; it holds {held}"
    )]
    Quota {
        /// What was asked for.
        asked: Bytes,
        /// What could be made free.
        room: Bytes,
        /// The quota.
        quota: Bytes,
        /// What takes how much of it.
        held: String,
    },
    /// Results may not take more together.
    #[error("no room for {asked}: at most {room} of Results.MaxSize ({max_size}) can be made free now")]
    Size {
        /// What was asked for.
        asked: Bytes,
        /// What could be made free.
        room: Bytes,
        /// The limit.
        max_size: Bytes,
    },
    /// The file system would be left with too little.
    #[error("no room for {asked}: at most {room} can be made free beside Results.MinFree ({min_free})")]
    Disk {
        /// What was asked for.
        asked: Bytes,
        /// What could be made free.
        room: Bytes,
        /// What must stay free.
        min_free: Bytes,
    },
    /// There are as many results as there may be, and none can go.
    #[error(
        "no room for another result: there are {limit}, as many as Results.MaxCount allows, and none may go"
    )]
    Count {
        /// How many may be.
        limit: u32,
    },
    /// The file system does not tell how much room there is.
    #[error("cannot tell how much room the file system has")]
    Probe(#[source] io::Error),
    /// The ledger cannot be written, so nothing may be deleted.
    #[error("cannot record deletions")]
    Ledger(#[from] StoreError),
    /// A file cannot be deleted.
    #[error("cannot delete {}", path.display())]
    Delete {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Why a result was not published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The result is larger than all room that can be made for it. Nothing was deleted for its sake.
    #[error("the result takes {size} as an archive, but at most {room} can be made free for it")]
    TooLarge {
        /// The archive's size.
        size: Bytes,
        /// What could be made free.
        room: Bytes,
    },
    /// There is a result of this execution already, or it is being made.
    #[error("execution {0} has a result already")]
    Exists(ExecutionId),
    /// Somebody stopped it.
    #[error("publishing was stopped: {0:?}")]
    Interrupted(Cause),
    /// Room was taken by others meanwhile.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// What is to be packed cannot be read, or the archive cannot be written.
    #[error("cannot pack the result")]
    Pack(#[source] PackError),
    /// A step after packing failed.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl From<PackError> for PublishError {
    fn from(error: PackError) -> Self {
        match error {
            PackError::Interrupted(cause) => Self::Interrupted(cause),
            // The shelf's own writer refuses with these.
            PackError::Write(source) => match source.downcast::<NoRoom>() {
                Ok(no_room) => Self::NoRoom(no_room),
                Err(source) => Self::Pack(PackError::Write(source)),
            },
            other => Self::Pack(other),
        }
    }
}

impl From<NoRoom> for Failure {
    fn from(error: NoRoom) -> Self {
        let (code, hint) = match &error {
            NoRoom::Quota { .. } => {
                (FailureCode::DiskQuota, "unpin or remove results, ask for less disk, or raise Results.Quota")
            }
            NoRoom::Disk { .. } => {
                (FailureCode::DiskFull, "free disk space, ask for less disk, or lower Results.MinFree")
            }
            NoRoom::Size { .. } => {
                (FailureCode::DiskQuota, "unpin or remove results, or raise Results.MaxSize")
            }
            NoRoom::Count { .. } => {
                (FailureCode::DiskQuota, "unpin or remove results, or raise Results.MaxCount")
            }
            NoRoom::Ledger(source) if source.trouble() == Some(Trouble::Full) => {
                return Self::disk_full(with_causes(&error));
            }
            NoRoom::Probe(_) | NoRoom::Ledger(_) | NoRoom::Delete { .. } => (FailureCode::Internal, ""),
        };
        Self::new(code, with_causes(&error)).hint(hint)
    }
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        let error = match error {
            PublishError::NoRoom(no_room) => return no_room.into(),
            other => other,
        };
        if let PublishError::Pack(PackError::Write(source)) | PublishError::File { source, .. } = &error
            && Trouble::of(source) == Trouble::Full
        {
            return Self::disk_full(with_causes(&error));
        }
        let (code, hint) = match &error {
            PublishError::TooLarge { .. } => (
                FailureCode::ResultTooLarge,
                "write less, unpin or remove results, or raise Results.Quota and Results.MaxSize",
            ),
            PublishError::Interrupted(Cause::Cancelled) => (FailureCode::Cancelled, ""),
            PublishError::Interrupted(Cause::Timeout) => (FailureCode::Timeout, ""),
            PublishError::Interrupted(Cause::Disk) => (FailureCode::DiskQuota, ""),
            PublishError::Interrupted(Cause::DiskFull) => (FailureCode::DiskFull, ""),
            PublishError::Interrupted(Cause::Shutdown) => (FailureCode::NodeRestart, ""),
            PublishError::Exists(_) | PublishError::NoRoom(_) => (FailureCode::Internal, ""),
            PublishError::Pack(_) | PublishError::File { .. } => (FailureCode::PublishFailed, ""),
        };
        Self::new(code, with_causes(&error)).hint(hint)
    }
}

/// Why a result cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Missing {
    /// There never was one, or it went so long ago that its row has gone too.
    #[error("there is no result of that execution")]
    Never,
    /// It was deleted.
    #[error("the result was deleted at {at}: {reason}")]
    Deleted {
        /// Why.
        reason: DeletionReason,
        /// When.
        at: Timestamp,
    },
    /// The ledger cannot be read.
    #[error("cannot look the result up")]
    Ledger(#[from] StoreError),
    /// Its file cannot be opened, or is not what the ledger says.
    #[error("cannot open {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Why a user's wish about a result was not carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It is not there.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// It is pinned.
    #[error("the result is pinned: unpin it first")]
    Pinned,
    /// Somebody reads it.
    #[error("the result is being downloaded: try again when that has ended")]
    InUse,
    /// The ledger or the file cannot be changed.
    #[error(transparent)]
    Failed(#[from] NoRoom),
}

/// Why the shelf cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShelfError {
    /// The directory or something in it.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The ledger cannot be read or written.
    #[error("cannot use the results ledger")]
    Ledger(#[from] StoreError),
    /// What was to go could not be deleted.
    #[error("cannot bring the results within their limits")]
    Limits(#[source] NoRoom),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executions_fail_with_the_right_code_and_both_sizes() {
        let too_large = PublishError::TooLarge { size: Bytes::mib(3), room: Bytes::mib(2) };
        let failure = Failure::from(too_large);
        assert_eq!(failure.code, FailureCode::ResultTooLarge);
        assert!(failure.message.contains("3.0 MiB") && failure.message.contains("2.0 MiB"), "{failure}");
        assert!(!failure.code.retryable());

        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let failure = Failure::from(PublishError::from(PackError::Write(full())));
        assert_eq!(failure.code, FailureCode::DiskFull);
        assert!(
            failure.message.starts_with("cannot pack the result: cannot write the archive: "),
            "{failure}"
        );

        let no_room = NoRoom::Count { limit: 7 };
        let error = PublishError::from(PackError::Write(io::Error::other(no_room)));
        assert!(matches!(error, PublishError::NoRoom(NoRoom::Count { limit: 7 })));
        assert_eq!(Failure::from(error).code, FailureCode::DiskQuota);
        for (cause, code) in [
            (Cause::Cancelled, FailureCode::Cancelled),
            (Cause::Timeout, FailureCode::Timeout),
            (Cause::Disk, FailureCode::DiskQuota),
            (Cause::Shutdown, FailureCode::NodeRestart),
        ] {
            assert_eq!(Failure::from(PublishError::from(PackError::Interrupted(cause))).code, code);
        }
    }
}
