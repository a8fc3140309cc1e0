//! Room on the file system.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::Bytes;

/// Size of a file system and what an ordinary user may still write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub total: Bytes,
    /// Available without privileges.
    pub free: Bytes,
}

/// Something that knows how much room there is.
pub trait DiskProbe: Send + Sync {
    /// The room now.
    ///
    /// # Errors
    /// The file system does not answer.
    fn space(&self) -> io::Result<Space>;
}

/// The file system that holds a path.
#[derive(Debug)]
pub struct StatVfs(PathBuf);

impl StatVfs {
    /// Watches the file system of `path`, which must exist when asked.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }
}

impl DiskProbe for StatVfs {
    fn space(&self) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(&self.0)?;
        let bytes = |blocks: u64| Bytes(blocks.saturating_mul(stat.f_frsize));
        Ok(Space { total: bytes(stat.f_blocks), free: bytes(stat.f_bavail) })
    }
}

/// A file system of a size that a test sets.
#[derive(Debug)]
pub struct FixedDisk {
    total: u64,
    free: AtomicU64,
}

impl FixedDisk {
    /// One of that size with that much free.
    #[must_use]
    pub fn new(total: Bytes, free: Bytes) -> Self {
        Self { total: total.0, free: AtomicU64::new(free.0) }
    }

    /// Changes what is free.
    pub fn set_free(&self, free: Bytes) {
        self.free.store(free.0, Ordering::SeqCst);
    }
}

impl DiskProbe for FixedDisk {
    fn space(&self) -> io::Result<Space> {
        Ok(Space { total: Bytes(self.total), free: Bytes(self.free.load(Ordering::SeqCst)) })
    }
}
