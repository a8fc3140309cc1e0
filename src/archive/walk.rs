//! The walk through a tree that is packed: what becomes an entry, in which order, and what is never followed.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, openat, readlinkat, statat};
use rustix::io::Errno;
use rustix::path::Arg;
use tar::EntryType;

use super::header::{Entry, TAR_BLOCK, padding};
use super::links::Links;
use super::names::Names;
use super::pack::{HardLinks, ModifiedTime, Owner, PackError, PackOptions};
use super::warning::{Oddity, Warnings, shown};
use crate::sys::Interrupt;

/// Directories within each other; one file descriptor is open for each.
pub const DEPTH_MAX: usize = 100;
/// Bytes of one entry's name: what Linux takes as a path.
pub const PATH_MAX: usize = 4095;
/// Entries of one archive.
pub const ENTRIES_MAX: u64 = 4_000_000;
/// Memory for the names that wait in the directories being read, in all.
const NAMES_BYTES: usize = 512 * 1024;
/// What each directory may have of it at least.
const NAMES_BYTES_MIN: usize = 4 * 1024;
/// Mode of the entry `.`: what the node gives its own directories is nobody's business, and GNU tar applies it to the
/// directory into which a user unpacks.
const ROOT_MODE: u32 = 0o755;

/// Where a tar file goes.
pub(super) trait Sink {
    /// Takes headers and padding.
    fn put(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Takes `size` bytes of a file from `read`, which fills at least one byte of what it is given, or takes none if
    /// only lengths matter.
    fn pour(
        &mut self,
        size: u64,
        read: &mut dyn FnMut(&mut [u8]) -> Result<usize, PackError>,
    ) -> Result<(), PackError>;
}

/// How far a walk may go.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    depth: usize,
    path: usize,
    entries: u64,
}

/// What a walk has seen.
pub(super) struct Walked {
    pub(super) files: u64,
    pub(super) warnings: Warnings,
}

/// One walk.
pub(super) struct Walk<'a> {
    sink: &'a mut dyn Sink,
    options: &'a PackOptions,
    interrupt: &'a Interrupt,
    bounds: Bounds,
    links: Links,
    entries: u64,
    seen: Walked,
    /// The headers of one entry.
    headers: Vec<u8>,
}

/// A directory that is being read.
struct Level {
    dir: OwnedFd,
    names: Names,
    /// Length of its path with the slash behind it.
    prefix: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn new(sink: &'a mut dyn Sink, options: &'a PackOptions, interrupt: &'a Interrupt) -> Self {
        Self {
            sink,
            options,
            interrupt,
            bounds: Bounds { depth: DEPTH_MAX, path: PATH_MAX, entries: ENTRIES_MAX },
            links: Links::default(),
            entries: 0,
            seen: Walked { files: 0, warnings: Warnings::default() },
            headers: Vec::new(),
        }
    }

    /// Sends the whole tree, and the two empty blocks that end a tar file.
    pub(super) fn run(mut self, root: &Path) -> Result<Walked, PackError> {
        let dir = open(CWD, root, OFlags::DIRECTORY).map_err(|e| cannot_read(b".", e))?;
        self.directory(&dir, b".", Some(ROOT_MODE))?;
        let mut path = Vec::new();
        let mut levels = vec![Level { dir, names: Names::default(), prefix: 0 }];
        loop {
            let held: usize = levels.iter().map(|level| level.names.bytes()).sum();
            let Some(level) = levels.last_mut() else { break };
            path.truncate(level.prefix);
            let budget = (NAMES_BYTES.saturating_sub(held - level.names.bytes()) / 2).max(NAMES_BYTES_MIN);
            let Some(name) =
                level.names.next(level.dir.as_fd(), budget).map_err(|e| cannot_read(&path, e))?
            else {
                levels.pop();
                continue;
            };
            path.extend_from_slice(name);
            let inner = self.entry(level.dir.as_fd(), &path, level.prefix)?;
            if let Some(dir) = inner {
                if levels.len() > self.bounds.depth {
                    return Err(PackError::TooDeep { path: shown(&path), limit: self.bounds.depth });
                }
                path.push(b'/');
                levels.push(Level { dir, names: Names::default(), prefix: path.len() });
            }
        }
        self.put(&[0; 2 * TAR_BLOCK])?;
        Ok(self.seen)
    }

    /// Sends one entry. Answers the directory that is to be read next, if it is one.
    fn entry(
        &mut self,
        dir: BorrowedFd<'_>,
        path: &[u8],
        prefix: usize,
    ) -> Result<Option<OwnedFd>, PackError> {
        if let Some(cause) = self.interrupt.cause() {
            return Err(PackError::Interrupted(cause));
        }
        if path.len() > self.bounds.path {
            return Err(PackError::PathTooLong { path: shown(path), limit: self.bounds.path });
        }
        if self.entries >= self.bounds.entries {
            return Err(PackError::TooMany { limit: self.bounds.entries });
        }
        self.entries += 1;
        match self.entry_of_kind(dir, path, &path[prefix..]) {
            // Removed or replaced since it was listed.
            Err(Step::System(Errno::NOENT | Errno::LOOP | Errno::NOTDIR)) => {
                self.seen.warnings.add(path, Oddity::Vanished);
                Ok(None)
            }
            Err(Step::System(errno)) => Err(cannot_read(path, errno)),
            Err(Step::Pack(error)) => Err(error),
            Ok(inner) => Ok(inner),
        }
    }

    fn entry_of_kind(
        &mut self,
        dir: BorrowedFd<'_>,
        path: &[u8],
        name: &[u8],
    ) -> Result<Option<OwnedFd>, Step> {
        let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let special = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let inner = open(dir, name, OFlags::DIRECTORY)?;
                self.directory(&inner, path, None)?;
                return Ok(Some(inner));
            }
            FileType::RegularFile => {
                let file = File::from(open(dir, name, OFlags::NONBLOCK)?);
                self.file(&file, path)?;
                return Ok(None);
            }
            FileType::Symlink => {
                let link = openat(dir, name, LINK, Mode::empty())?;
                let target = readlinkat(&link, c"", Vec::new())?;
                self.symlink(&File::from(link), path, target.as_bytes())?;
                return Ok(None);
            }
            FileType::Fifo => "FIFO",
            FileType::Socket => "socket",
            FileType::CharacterDevice => "character device",
            FileType::BlockDevice => "block device",
            FileType::Unknown => "file of unknown kind",
        };
        self.seen.warnings.add(path, Oddity::Special(special));
        Ok(None)
    }

    fn directory(&mut self, dir: &OwnedFd, path: &[u8], mode: Option<u32>) -> Result<(), PackError> {
        let metadata = dir.try_clone().and_then(|dir| File::from(dir).metadata());
        let metadata = metadata.map_err(|e| cannot_read(path, e))?;
        // Its owner must be able to enter it where it is unpacked: Bacalhau's client sets modes at once, as given.
        let mode = mode.unwrap_or(metadata.mode() & 0o777 | 0o700);
        self.header(path, EntryType::Directory, 0, mode, &metadata, b"")
    }

    fn symlink(&mut self, link: &File, path: &[u8], target: &[u8]) -> Result<(), PackError> {
        let metadata = link.metadata().map_err(|e| cannot_read(path, e))?;
        self.header(path, EntryType::Symlink, 0, 0o777, &metadata, target)
    }

    fn file(&mut self, file: &File, path: &[u8]) -> Result<(), PackError> {
        let metadata = file.metadata().map_err(|e| cannot_read(path, e))?;
        if !metadata.is_file() {
            self.seen.warnings.add(path, Oddity::Vanished);
            return Ok(());
        }
        let mode = metadata.mode() & 0o777 | 0o400;
        if self.options.hard_links == HardLinks::Keep
            && let Some(first) =
                self.links.first_name((metadata.dev(), metadata.ino()), metadata.nlink(), path)
        {
            return self.header(path, EntryType::Link, 0, mode, &metadata, &first);
        }
        self.seen.files += 1;
        let size = metadata.size();
        self.header(path, EntryType::Regular, size, mode, &metadata, b"")?;
        self.contents(file, size, path)?;
        self.put(&[0; TAR_BLOCK][..padding(size)])
    }

    /// Sends exactly `size` bytes, whatever becomes of the file meanwhile: that many stand in the header.
    fn contents(&mut self, file: &File, size: u64, path: &[u8]) -> Result<(), PackError> {
        let interrupt = self.interrupt;
        let mut reader = file;
        let mut shrunk = false;
        self.sink.pour(size, &mut |room| {
            if let Some(cause) = interrupt.cause() {
                return Err(PackError::Interrupted(cause));
            }
            loop {
                match if shrunk { Ok(0) } else { reader.read(room) } {
                    Ok(0) => {
                        shrunk = true;
                        room.fill(0);
                        return Ok(room.len());
                    }
                    Ok(n) => return Ok(n),
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(cannot_read(path, e)),
                }
            }
        })?;
        if shrunk {
            self.seen.warnings.add(path, Oddity::Shrunk);
        } else if file.metadata().is_ok_and(|now| now.size() > size) {
            self.seen.warnings.add(path, Oddity::Grew);
        }
        Ok(())
    }

    fn header(
        &mut self,
        path: &[u8],
        kind: EntryType,
        size: u64,
        mode: u32,
        metadata: &Metadata,
        target: &[u8],
    ) -> Result<(), PackError> {
        let mtime = match self.options.modified {
            ModifiedTime::Fixed(seconds) => seconds,
            ModifiedTime::Keep => u64::try_from(metadata.mtime()).unwrap_or(0),
        };
        let owner = match self.options.owner {
            Owner::Fixed { uid, gid } => (uid, gid),
            Owner::Keep => (metadata.uid(), metadata.gid()),
        };
        self.headers.clear();
        Entry { path, kind, size, mode, mtime, owner, target }.append_to(&mut self.headers);
        self.sink.put(&self.headers).map_err(PackError::Write)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), PackError> {
        self.sink.put(bytes).map_err(PackError::Write)
    }
}

/// What ends the handling of one entry early.
enum Step {
    System(Errno),
    Pack(PackError),
}

impl From<Errno> for Step {
    fn from(errno: Errno) -> Self {
        Self::System(errno)
    }
}

impl From<PackError> for Step {
    fn from(error: PackError) -> Self {
        Self::Pack(error)
    }
}

/// The link itself, not what it leads to.
const LINK: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens a file or directory for reading. No link is followed, and no access time is written to the flash where the
/// owner may ask for that. (`NONBLOCK`: a FIFO that has taken a file's place must not stop the run.)
fn open(dir: BorrowedFd<'_>, name: impl Arg, kind: OFlags) -> Result<OwnedFd, Errno> {
    let flags = kind | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let name = name.into_c_str()?;
    match openat(dir, &*name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => openat(dir, &*name, flags, Mode::empty()),
        other => other,
    }
}

fn cannot_read(path: &[u8], source: impl Into<io::Error>) -> PackError {
    let path = if path.is_empty() { b"." } else { path };
    PackError::Read { path: shown(path), source: source.into() }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Scratch;
    use super::*;

    struct Nowhere;

    impl Sink for Nowhere {
        fn put(&mut self, _: &[u8]) -> io::Result<()> {
            Ok(())
        }

        fn pour(
            &mut self,
            _: u64,
            _: &mut dyn FnMut(&mut [u8]) -> Result<usize, PackError>,
        ) -> Result<(), PackError> {
            Ok(())
        }
    }

    #[test]
    fn entries_have_a_bound() {
        let tree = Scratch::new();
        for n in 0..10 {
            tree.write(format!("d{n}/f"), b"");
        }
        let options = PackOptions::default();
        let interrupt = Interrupt::new();
        for (entries, fits) in [(20, true), (19, false)] {
            let mut sink = Nowhere;
            let mut walk = Walk::new(&mut sink, &options, &interrupt);
            walk.bounds.entries = entries;
            match walk.run(tree.path()) {
                Ok(walked) => assert!(fits && walked.files == 10),
                Err(PackError::TooMany { limit }) => assert!(!fits && limit == entries),
                Err(other) => panic!("{other}"),
            }
        }
    }
}
