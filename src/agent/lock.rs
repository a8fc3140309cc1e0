//! One node for one data directory.

use std::fs::{File, TryLockError};
use std::path::Path;

use super::AgentError;

/// Held while a node works in a data directory; the system releases it however the node ends.
#[derive(Debug)]
pub(super) struct DataDirLock {
    _file: File,
}

impl DataDirLock {
    /// Creates the directory if need be, and takes it.
    pub(super) fn take(data_dir: &Path) -> Result<Self, AgentError> {
        let io = |cause| AgentError::Io { path: data_dir.to_owned(), cause };
        crate::sys::fs::create_private_dir(data_dir).map_err(io)?;
        let path = data_dir.join("lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(AgentError::InUse(data_dir.to_owned())),
            Err(TryLockError::Error(cause)) => Err(io(cause)),
        }
    }
}
