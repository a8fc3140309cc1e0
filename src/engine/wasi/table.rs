//! The guest's open files.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::abi::{Errno, errno};

/// Files that a guest may have open at once.
pub const FDS_MAX: usize = 256;

/// What is open.
#[derive(Debug)]
pub enum Entry {
    /// Always empty.
    Stdin,
    /// Goes to the result.
    Stdout,
    /// Goes to the result.
    Stderr,
    /// A directory.
    Dir(OpenDir),
    /// A regular file.
    File(OpenFile),
}

/// An open directory. Paths relative to it are resolved from its guest path.
#[derive(Debug)]
pub struct OpenDir {
    /// The directory, open for reading.
    pub file: File,
    /// Its guest path, without a leading `/`.
    pub absolute: PathBuf,
    /// Its volume.
    pub volume: usize,
    /// The guest was given it at the start.
    pub preopened: bool,
}

/// An open file. Its position is kept here: all reads and writes name theirs.
#[derive(Debug)]
pub struct OpenFile {
    /// The file.
    pub file: File,
    /// Its volume.
    pub volume: usize,
    /// Device and inode.
    pub id: (u64, u64),
    /// Whether it may be read.
    pub read: bool,
    /// Whether it may be written.
    pub write: bool,
    /// `fdflags` as given; only `APPEND` has an effect.
    pub flags: u16,
    /// Where the next read or write begins.
    pub position: u64,
}

/// Open files by number.
#[derive(Debug)]
pub struct Table(Vec<Option<Entry>>);

impl Table {
    /// The three standard streams.
    pub fn new() -> Self {
        Self(vec![Some(Entry::Stdin), Some(Entry::Stdout), Some(Entry::Stderr)])
    }

    /// Puts `entry` at the lowest free number.
    ///
    /// # Errors
    /// `MFILE` when [`FDS_MAX`] are open.
    pub fn insert(&mut self, entry: Entry) -> Result<u32, Errno> {
        let free = self.0.iter().position(Option::is_none).unwrap_or(self.0.len());
        if free >= FDS_MAX {
            return Err(errno::MFILE);
        }
        match self.0.get_mut(free) {
            Some(slot) => *slot = Some(entry),
            None => self.0.push(Some(entry)),
        }
        u32::try_from(free).map_err(|_| errno::MFILE)
    }

    /// Whether one more fits.
    pub fn check_room(&self) -> Result<(), Errno> {
        if self.0.iter().flatten().count() < FDS_MAX { Ok(()) } else { Err(errno::MFILE) }
    }

    fn slot(&mut self, fd: u32) -> Result<&mut Option<Entry>, Errno> {
        self.0.get_mut(fd as usize).filter(|slot| slot.is_some()).ok_or(errno::BADF)
    }

    /// What is open under that number.
    pub fn get(&mut self, fd: u32) -> Result<&mut Entry, Errno> {
        self.slot(fd)?.as_mut().ok_or(errno::BADF)
    }

    /// The file under that number.
    ///
    /// # Errors
    /// `BADF` if nothing is open there, `ISDIR` for a directory, `SPIPE` for a standard stream.
    pub fn file(&mut self, fd: u32) -> Result<&mut OpenFile, Errno> {
        match self.get(fd)? {
            Entry::File(file) => Ok(file),
            Entry::Dir(_) => Err(errno::ISDIR),
            Entry::Stdin | Entry::Stdout | Entry::Stderr => Err(errno::SPIPE),
        }
    }

    /// The directory under that number.
    ///
    /// # Errors
    /// `BADF` if nothing is open there, `NOTDIR` for anything else.
    pub fn dir(&mut self, fd: u32) -> Result<&OpenDir, Errno> {
        match self.get(fd)? {
            Entry::Dir(dir) => Ok(dir),
            _ => Err(errno::NOTDIR),
        }
    }

    /// Closes that number.
    pub fn remove(&mut self, fd: u32) -> Result<Entry, Errno> {
        self.slot(fd)?.take().ok_or(errno::BADF)
    }

    /// Moves what is open under `from` to `to`, which is open; what was there is handed back.
    pub fn renumber(&mut self, from: u32, to: u32) -> Result<Option<Entry>, Errno> {
        self.slot(to)?;
        if from == to {
            self.slot(from)?;
            return Ok(None);
        }
        let entry = self.remove(from)?;
        Ok(self.slot(to)?.replace(entry))
    }

    /// Whether a file of that device and inode is open.
    #[must_use]
    pub fn holds(&self, id: (u64, u64)) -> bool {
        self.0.iter().flatten().any(|entry| matches!(entry, Entry::File(file) if file.id == id))
    }

    /// Guest path of the directory under that number.
    pub fn base(&mut self, fd: u32) -> Result<&Path, Errno> {
        Ok(&self.dir(fd)?.absolute)
    }
}
