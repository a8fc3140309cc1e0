//! Disk space set aside, so that there is some when there is none.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::FallocateFlags;

use crate::model::Bytes;

/// A file whose blocks are given up when the disk is full, and taken again when it is not.
#[derive(Debug)]
pub struct Reserve {
    path: PathBuf,
    size: Bytes,
    /// Whether the blocks are there.
    held: Mutex<bool>,
}

impl Reserve {
    /// Sets `size` aside at `path`; 0 sets nothing aside, and removes what was.
    ///
    /// # Errors
    /// The blocks are not to be had now; [`Reserve::hold`] may get them later.
    pub fn new(path: &Path, size: Bytes) -> (Self, io::Result<()>) {
        let reserve = Self { path: path.to_owned(), size, held: Mutex::new(false) };
        let held = if size == Bytes::ZERO { remove(path) } else { reserve.hold() };
        (reserve, held)
    }

    fn held(&self) -> std::sync::MutexGuard<'_, bool> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is wanted and not set aside.
    #[must_use]
    pub fn missing(&self) -> Bytes {
        if *self.held() { Bytes::ZERO } else { self.size }
    }

    /// Gives the blocks to whoever writes next. Says whether there were any.
    pub fn release(&self) -> bool {
        let mut held = self.held();
        if !*held {
            return false;
        }
        // Cut and synced first: on some file systems the blocks of a removed file are free only after a while.
        let cut = File::options().write(true).open(&self.path).and_then(|file| {
            file.set_len(0)?;
            file.sync_all()
        });
        *held = cut.is_err();
        if let Err(error) = cut {
            log::warn!(target: "codling::disk", "cannot give up {}: {error}", self.path.display());
        }
        !*held
    }

    /// Takes the blocks, real ones, if they are not there.
    ///
    /// # Errors
    /// There is no room; nothing is held then.
    pub fn hold(&self) -> io::Result<()> {
        let mut held = self.held();
        if *held || self.size == Bytes::ZERO {
            return Ok(());
        }
        let taken = self.fill();
        if taken.is_err() {
            let _ = remove(&self.path);
        }
        *held = taken.is_ok();
        taken
    }

    fn fill(&self) -> io::Result<()> {
        let mut file =
            File::options().write(true).create(true).truncate(false).mode(0o600).open(&self.path)?;
        if file.metadata()?.len() > self.size.0 {
            file.set_len(self.size.0)?;
        }
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, self.size.0) {
            // A file system that cannot: zeros are as good.
            Err(rustix::io::Errno::OPNOTSUPP) => {
                let block = [0; 64 << 10];
                let mut left = self.size.0;
                while left > 0 {
                    let n = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
                    file.write_all(block.get(..n).unwrap_or(&block))?;
                    left -= n as u64;
                }
            }
            done => done?,
        }
        file.sync_all()
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn has_real_blocks_until_it_is_given_up() {
        let path = std::env::temp_dir().join(format!("codling-reserve-{}", uuid::Uuid::new_v4()));
        let blocks = || std::fs::metadata(&path).map_or(0, |m| m.blocks() * 512);
        let (reserve, made) = Reserve::new(&path, Bytes::mib(1));
        made.unwrap();
        assert!(blocks() >= 1 << 20 && reserve.missing() == Bytes::ZERO);
        assert!(reserve.release());
        assert_eq!((blocks(), reserve.missing()), (0, Bytes::mib(1)));
        assert!(!reserve.release(), "there is nothing any more");
        reserve.hold().unwrap();
        assert!(blocks() >= 1 << 20);
        // Another size the next time; then none.
        let (_, made) = Reserve::new(&path, Bytes::kib(64));
        made.unwrap();
        assert!((64 << 10..1 << 20).contains(&blocks()));
        let (none, made) = Reserve::new(&path, Bytes::ZERO);
        made.unwrap();
        assert!(!path.exists() && !none.release() && none.missing() == Bytes::ZERO);
    }

    #[test]
    fn what_cannot_be_had_is_no_reserve() {
        let (reserve, made) = Reserve::new(Path::new("/proc/no/reserve"), Bytes::mib(1));
        assert!(made.is_err() && !reserve.release());
    }
}
