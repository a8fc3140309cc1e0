//! A directory becomes a `.tar.gz`.
//!
//! Entries come in byte order of the names in each directory, directories before what is in them; the first is the
//! directory itself, named `.`. Names have no `./` before and no `/` after them, as Bacalhau's publisher writes them
//! (local-publisher.md section 4). Nothing is followed: every step down is an `openat` from the directory above that
//! refuses links, so a link that takes a directory's place in the middle of the run leads nowhere.
//!
//! With the default options the bytes depend on names, contents, permissions and links alone.

use std::io::{self, Write};
use std::path::Path;

use super::deflate::Level;
use super::gzip::{GzipWriter, worst_size};
use super::walk::{Sink, Walk};
use super::warning::Warnings;
use super::workers::Threads;
use crate::model::{Bytes, Sha256};
use crate::sys::{Cause, Interrupt};

/// The modification times that entries get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModifiedTime {
    /// This one, in seconds since 1970: equal files give equal archives, whenever they were written.
    Fixed(u64),
    /// The file's own, in whole seconds.
    Keep,
}

/// The owner that entries get. User and group names are never stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// These ids.
    Fixed {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
    },
    /// The file's own.
    Keep,
}

/// What is done with a further name of a file that is already in the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HardLinks {
    /// It becomes a link in the archive. Bacalhau's own client leaves those out.
    Keep,
    /// The file is stored again.
    Copy,
}

/// How to pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackOptions {
    /// How hard to compress.
    pub level: Level,
    /// How many threads compress. Changes no byte of the archive.
    pub threads: Threads,
    /// Modification times.
    pub modified: ModifiedTime,
    /// Owners.
    pub owner: Owner,
    /// Further names of a file.
    pub hard_links: HardLinks,
}

impl Default for PackOptions {
    fn default() -> Self {
        Self {
            level: Level::default(),
            threads: Threads::ONE,
            modified: ModifiedTime::Fixed(0),
            owner: Owner::Fixed { uid: 0, gid: 0 },
            hard_links: HardLinks::Keep,
        }
    }
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// Bytes of the archive.
    pub size: Bytes,
    /// Digest of the archive.
    pub sha256: Sha256,
    /// Regular files in it.
    pub files: u64,
    /// What was left out or changed while it was read.
    pub warnings: Warnings,
}

/// Why a directory was not packed. What had been written by then is no archive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// A file or directory cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Relative to the packed directory, quoted.
        path: String,
        /// The system's reason.
        source: io::Error,
    },
    /// Directories lie too deep within each other.
    #[error("{path} lies more than {limit} directories deep")]
    TooDeep {
        /// The first one that does.
        path: String,
        /// How deep they may.
        limit: usize,
    },
    /// A name is too long.
    #[error("the path {path} has more than {limit} bytes")]
    PathTooLong {
        /// Its beginning and end.
        path: String,
        /// How many it may have.
        limit: usize,
    },
    /// There are too many files and directories.
    #[error("more than {limit} files and directories")]
    TooMany {
        /// How many may be.
        limit: u64,
    },
    /// It was told to stop.
    #[error("packing was stopped: {0:?}")]
    Interrupted(Cause),
    /// The archive cannot be written.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
}

/// Packs what is in `dir` into `out`. The interrupt is looked at before each entry and every 128 KiB.
///
/// # Errors
/// Something cannot be read or written, a bound is exceeded, or the interrupt was raised.
pub fn pack(
    dir: &Path,
    out: &mut dyn Write,
    options: &PackOptions,
    interrupt: &Interrupt,
) -> Result<Packed, PackError> {
    let mut gzip = GzipWriter::new(out, options.level, options.threads);
    let walked = Walk::new(&mut gzip, options, interrupt).run(dir)?;
    let written = gzip.finish().map_err(PackError::Write)?;
    Ok(Packed { size: written.size, sha256: written.sha256, files: walked.files, warnings: walked.warnings })
}

/// The most that [`pack`] would write for what is in `dir` now. Reads no file.
///
/// # Errors
/// As for [`pack`].
pub fn upper_bound(dir: &Path, options: &PackOptions, interrupt: &Interrupt) -> Result<Bytes, PackError> {
    let mut length = Length(0);
    Walk::new(&mut length, options, interrupt).run(dir)?;
    Ok(worst_size(Bytes(length.0)))
}

impl<W: Write> Sink for GzipWriter<W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn pour(
        &mut self,
        size: u64,
        read: &mut dyn FnMut(&mut [u8]) -> Result<usize, PackError>,
    ) -> Result<(), PackError> {
        let mut left = size;
        while left > 0 {
            let room = self.room().map_err(PackError::Write)?;
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(room.len());
            let n = read(&mut room[..wanted])?;
            self.advance(n);
            left -= n as u64;
        }
        Ok(())
    }
}

/// Counts what would be in the tar file.
struct Length(u64);

impl Sink for Length {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0 = self.0.saturating_add(bytes.len() as u64);
        Ok(())
    }

    fn pour(
        &mut self,
        size: u64,
        _read: &mut dyn FnMut(&mut [u8]) -> Result<usize, PackError>,
    ) -> Result<(), PackError> {
        self.0 = self.0.saturating_add(size);
        Ok(())
    }
}
