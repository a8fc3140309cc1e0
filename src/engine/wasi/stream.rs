//! Standard output and error: files of the result, cut at a cap.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use super::abi::{Errno, Fault};
use super::disk::Disk;
use crate::model::Bytes;
use crate::sys::{Bell, Ring};

/// A number that no volume has: what streams hold is never given back.
const NO_VOLUME: usize = usize::MAX;

/// One of the two.
#[derive(Debug)]
pub struct Stream {
    file: File,
    bell: Bell,
    cap: u64,
    written: u64,
    discarded: u64,
}

impl Stream {
    /// Begins the file anew.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn create(path: &Path, cap: Bytes, bell: Bell) -> io::Result<Self> {
        Ok(Self { file: File::create(path)?, bell, cap: cap.0, written: 0, discarded: 0 })
    }

    /// Takes all of `bytes`: what is beyond the cap is dropped and counted.
    pub fn write(&mut self, bytes: &[u8], disk: &mut Disk) -> Result<(), Fault> {
        let room = usize::try_from(self.cap - self.written).unwrap_or(usize::MAX);
        let kept = bytes.get(..room).unwrap_or(bytes);
        if !kept.is_empty() {
            disk.charge(NO_VOLUME, kept.len() as u64)?;
            self.file.write_all(kept).map_err(Errno::from)?;
            self.written += kept.len() as u64;
            self.bell.ring(Ring::Output);
        }
        self.discarded = self.discarded.saturating_add((bytes.len() - kept.len()) as u64);
        Ok(())
    }

    /// What was dropped.
    #[must_use]
    pub const fn discarded(&self) -> Bytes {
        Bytes(self.discarded)
    }

    /// Adds a line of the node's own, whatever the cap: there are at most a few.
    pub fn note(&mut self, line: &str) {
        // The guest's end is reported in any case; a full disk must not hide it behind another error.
        let _ = writeln!(self.file, "{line}");
    }
}
