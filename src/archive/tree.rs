//! Creates files below one directory, and nowhere else: links are never followed, existing files never opened.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, linkat, mkdirat, openat, statat, symlinkat};
use rustix::io::Errno;

use crate::model::Bytes;
use crate::model::units::DISK_BLOCK;
use crate::sys::{Meter, OverLimit};

/// Why something was not created.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// A link, or something else that is no directory, is where a directory would have to be.
    #[error("a link or a file is in its way")]
    InTheWay,
    /// It is there already.
    #[error("it is there already")]
    Exists,
    /// A hard link does not lead to a file that is there.
    #[error("it is a hard link to something that is no file")]
    NoFile,
    /// The meter has no more room.
    #[error(transparent)]
    NoRoom(#[from] OverLimit),
    /// The system refuses.
    #[error(transparent)]
    System(#[from] io::Error),
}

impl From<Errno> for Refused {
    fn from(errno: Errno) -> Self {
        match errno {
            // Links give either, depending on the flags and the kernel.
            Errno::LOOP | Errno::NOTDIR => Self::InTheWay,
            Errno::EXIST => Self::Exists,
            other => Self::System(other.into()),
        }
    }
}

/// Mode of directories that no entry names.
const IMPLIED_MODE: u32 = 0o755;
const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A directory to create things in.
pub(super) struct Tree<'a> {
    root: OwnedFd,
    /// Charged with a block for whatever is created.
    meter: Option<&'a Meter>,
    /// The directory in which something was created last: most entries are followed by a neighbour.
    last: Option<(Vec<u8>, OwnedFd)>,
}

impl<'a> Tree<'a> {
    /// Opens the directory, which must be there.
    pub(super) fn open(path: &Path, meter: Option<&'a Meter>) -> io::Result<Self> {
        let root = openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { root, meter, last: None })
    }

    /// Creates a directory, or accepts one that is there.
    pub(super) fn directory(&mut self, path: &[&[u8]], mode: u32) -> Result<(), Refused> {
        let Some((name, parent)) = path.split_last() else { return Ok(()) };
        let meter = self.meter;
        let parent = self.parent(parent)?;
        // Its owner must be able to fill it.
        match charged(meter, || mkdirat(parent, *name, permissions(mode | 0o700))) {
            Err(Refused::Exists) => Ok(openat(parent, *name, FOLDER, Mode::empty()).map(drop)?),
            other => other,
        }
    }

    /// Creates a file for writing.
    pub(super) fn file(&mut self, path: &[&[u8]], mode: u32) -> Result<File, Refused> {
        let (name, parent) = path.split_last().ok_or(Refused::Exists)?;
        let meter = self.meter;
        let parent = self.parent(parent)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        charged(meter, || openat(parent, *name, flags, permissions(mode | 0o600))).map(File::from)
    }

    /// Creates a symbolic link. Where it leads is the caller's business.
    pub(super) fn symlink(&mut self, path: &[&[u8]], target: &[u8]) -> Result<(), Refused> {
        let (name, parent) = path.split_last().ok_or(Refused::Exists)?;
        let meter = self.meter;
        let parent = self.parent(parent)?;
        charged(meter, || symlinkat(target, parent, *name))
    }

    /// Gives the file `first` a further name, or its copy where the file system knows no links.
    /// Answers how many bytes were copied.
    pub(super) fn hard_link(&mut self, path: &[&[u8]], first: &[&[u8]]) -> Result<u64, Refused> {
        let (first_name, first_parent) = first.split_last().ok_or(Refused::NoFile)?;
        let from = descend(self.root.as_fd(), first_parent, None).map_err(|refused| match refused {
            Refused::System(e) if e.kind() == io::ErrorKind::NotFound => Refused::NoFile,
            other => other,
        })?;
        let from = from.as_ref().map_or_else(|| self.root.as_fd(), AsFd::as_fd).try_clone_to_owned()?;
        let stat = statat(&from, *first_name, AtFlags::SYMLINK_NOFOLLOW).map_err(|_| Refused::NoFile)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Refused::NoFile);
        }
        let (name, parent) = path.split_last().ok_or(Refused::Exists)?;
        let parent = self.parent(parent)?;
        match linkat(&from, *first_name, parent, *name, AtFlags::empty()) {
            Ok(()) => Ok(0),
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::MLINK) => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mut source = File::from(openat(&from, *first_name, flags, Mode::empty())?);
                let size = Bytes(source.metadata()?.len());
                self.meter.map_or(Ok(()), |meter| meter.charge(size))?;
                let mut copy = self.file(path, stat.st_mode)?;
                Ok(io::copy(&mut source, &mut copy)?)
            }
            Err(errno) => Err(errno.into()),
        }
    }

    /// The directory of an entry. What is missing on the way is created.
    fn parent(&mut self, path: &[&[u8]]) -> Result<BorrowedFd<'_>, Refused> {
        if path.is_empty() {
            return Ok(self.root.as_fd());
        }
        let joined = path.join(&b'/');
        if self.last.as_ref().is_none_or(|(known, _)| *known != joined)
            && let Some(dir) = descend(self.root.as_fd(), path, Some(self.meter))?
        {
            self.last = Some((joined, dir));
        }
        Ok(self.last.as_ref().map_or_else(|| self.root.as_fd(), |(_, dir)| dir.as_fd()))
    }
}

/// Takes a block of room before something is created, and gives it back if it was not.
fn charged<T>(meter: Option<&Meter>, create: impl FnOnce() -> Result<T, Errno>) -> Result<T, Refused> {
    if let Some(meter) = meter {
        meter.charge(Bytes(DISK_BLOCK))?;
    }
    create().map_err(|errno| {
        if let Some(meter) = meter {
            meter.release(Bytes(DISK_BLOCK));
        }
        errno.into()
    })
}

/// Goes down from `root` by names, never through a link. What is missing is created if there is a `create`, and
/// charged to the meter in it. None: `path` is empty.
fn descend(
    root: BorrowedFd<'_>,
    path: &[&[u8]],
    create: Option<Option<&Meter>>,
) -> Result<Option<OwnedFd>, Refused> {
    let mut at: Option<OwnedFd> = None;
    for name in path {
        let here = at.as_ref().map_or(root, AsFd::as_fd);
        let next = match (openat(here, *name, FOLDER, Mode::empty()), create) {
            (Err(Errno::NOENT), Some(meter)) => {
                charged(meter, || mkdirat(here, *name, permissions(IMPLIED_MODE)))?;
                openat(here, *name, FOLDER, Mode::empty())?
            }
            (other, _) => other?,
        };
        at = Some(next);
    }
    Ok(at)
}

/// The nine permission bits, and none that gives a program another user's rights.
fn permissions(mode: u32) -> Mode {
    Mode::from_raw_mode(mode & 0o777)
}
