//! The one tree that a guest sees: its own root, and inputs and outputs mounted into it.
//!
//! Paths are normalised by their text, the longest mount that begins them wins, and what is left is resolved by
//! `cap-std` beneath that mount's directory: neither `..` nor a link leads out of it. Links therefore do not lead
//! from one mount into another either.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cap_std::fs::Dir;

use super::abi::{Errno, errno};
use crate::engine::Mount;
use crate::model::Bytes;
use crate::model::units::DISK_BLOCK;
use crate::sys::Meter;

/// Bytes of a path, from the guest's root (`PATH_MAX` of Linux).
const PATH_MAX: usize = 4096;
/// Bytes of a name (`NAME_MAX` of Linux).
const NAME_MAX: usize = 255;
/// Names in a path, from the guest's root: whoever packs or removes what a guest made can go down that far.
pub const DEPTH_MAX: usize = 120;

/// Something on the host that is mounted once or more.
#[derive(Debug)]
pub struct Volume {
    /// What it is.
    pub source: Source,
    /// Whether the guest may change it.
    pub writable: bool,
    /// Whether what is written must reach the disk when the guest says so: not for scratch space, which does not
    /// outlive the execution and lies on flash.
    pub durable: bool,
    host: PathBuf,
}

/// A directory or one file.
#[derive(Debug)]
pub enum Source {
    /// Everything beneath it.
    Dir(Dir),
    /// Opened once; reads and writes give their own position.
    File(File),
}

/// Where a path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Which volume.
    pub volume: usize,
    /// Beneath its directory; `.` is that directory itself.
    pub path: PathBuf,
    /// From the guest's root, without a leading `/`; empty is the root.
    pub absolute: PathBuf,
    /// The path ended so that only a directory is meant.
    pub wants_dir: bool,
}

impl Place {
    /// Whether this is what a volume mounts, not something in it.
    #[must_use]
    pub fn is_volume(&self) -> bool {
        self.path == Path::new(".")
    }
}

/// Volumes and where they are mounted.
#[derive(Debug)]
pub struct Tree {
    volumes: Vec<Volume>,
    /// Guest path without a leading `/`, and volume; the first is the root.
    mounts: Vec<(PathBuf, usize)>,
}

impl Tree {
    /// Opens everything that is mounted. `root` is the guest's `/`: mount points are created in it, so that they
    /// appear in listings. `scratch` is the directory that does not outlive the execution.
    ///
    /// # Errors
    /// A host path cannot be opened (the message names it), two mounts have the same guest path, or the directories
    /// that show the mounts do not fit (the cause is then an `OverLimit`).
    pub fn open(root: &Path, mounts: &[Mount], scratch: &Path, meter: &Meter) -> io::Result<Self> {
        let base = Mount { guest: "/".into(), host: root.to_owned(), writable: true, handle: None };
        let mut tree = Self { volumes: Vec::new(), mounts: Vec::new() };
        tree.add(&base, scratch)?;
        for mount in mounts {
            tree.add(mount, scratch)?;
        }
        // A mount at `/` hides the scratch root: there is then nowhere to show the others.
        if let (Some((_, 0)), Some(Volume { source: Source::Dir(dir), .. })) =
            (tree.mounts.first(), tree.volumes.first())
        {
            for (at, volume) in tree.mounts.iter().skip(1) {
                let is_dir = matches!(tree.volumes.get(*volume), Some(Volume { source: Source::Dir(_), .. }));
                // Below another mount there is no place of ours to show it; it is found all the same.
                if tree.mounts.iter().skip(1).all(|(other, _)| other == at || !at.starts_with(other)) {
                    meter
                        .charge(Bytes(DISK_BLOCK * at.iter().count() as u64))
                        .map_err(|over| io::Error::new(io::ErrorKind::QuotaExceeded, over))?;
                    place_holder(dir, at, is_dir)?;
                }
            }
        }
        Ok(tree)
    }

    fn add(&mut self, mount: &Mount, scratch: &Path) -> io::Result<()> {
        let refuse = |why: &str| {
            let text = format!("{} as {} in the guest: {why}", mount.host.display(), mount.guest);
            Err(io::Error::new(io::ErrorKind::InvalidInput, text))
        };
        let mut at = PathBuf::new();
        for part in mount.guest.split('/') {
            match part {
                "" | "." => {}
                ".." => return refuse("the path must not contain '..'"),
                _ if part.len() > NAME_MAX || part.contains('\0') => return refuse("not a file name"),
                _ => at.push(part),
            }
        }
        if at.as_os_str().len() > PATH_MAX || at.iter().count() > DEPTH_MAX {
            return refuse("the path is too long");
        }
        let volume =
            match self.volumes.iter().position(|v| v.host == mount.host && v.writable == mount.writable) {
                Some(volume) => volume,
                None => {
                    let source = Source::open(mount).map_err(|e| {
                        let text = format!("{}: {e}", mount.host.display());
                        io::Error::new(e.kind(), text)
                    })?;
                    let durable = mount.writable && !mount.host.starts_with(scratch);
                    self.volumes.push(Volume {
                        source,
                        writable: mount.writable,
                        durable,
                        host: mount.host.clone(),
                    });
                    self.volumes.len() - 1
                }
            };
        match self.mounts.iter_mut().find(|(other, _)| *other == at) {
            // The scratch root gives way to a mount at `/`.
            Some(root) if at.as_os_str().is_empty() && root.1 == 0 => {
                if matches!(self.volumes.get(volume), Some(Volume { source: Source::File(_), .. })) {
                    return refuse("a file cannot be the root");
                }
                root.1 = volume;
            }
            Some((_, other)) if *other != volume => return refuse("something else is mounted there"),
            Some(_) => {}
            None => self.mounts.push((at, volume)),
        }
        Ok(())
    }

    /// The volume of that number, which came from here.
    pub fn volume(&self, number: usize) -> Result<&Volume, Errno> {
        self.volumes.get(number).ok_or(errno::BADF)
    }

    /// How many volumes there are.
    #[must_use]
    pub fn volumes(&self) -> usize {
        self.volumes.len()
    }

    /// The directory of a place in a volume.
    pub fn dir(&self, place: &Place) -> Result<&Dir, Errno> {
        match &self.volume(place.volume)?.source {
            Source::Dir(dir) => Ok(dir),
            Source::File(_) => Err(errno::NOTDIR),
        }
    }

    /// The same, if it may be changed.
    pub fn writable_dir(&self, place: &Place) -> Result<&Dir, Errno> {
        let dir = self.dir(place)?;
        if self.volume(place.volume)?.writable { Ok(dir) } else { Err(errno::ROFS) }
    }

    /// Where `path`, seen from the guest's directory `base`, leads.
    ///
    /// # Errors
    /// `NOENT` for an empty path, `INVAL` for a NUL, `NAMETOOLONG`, `NOTCAPABLE` above the root, `NOTDIR` below a
    /// mounted file.
    pub fn resolve(&self, base: &Path, path: &[u8]) -> Result<Place, Errno> {
        if path.is_empty() {
            return Err(errno::NOENT);
        }
        if path.contains(&0) {
            return Err(errno::INVAL);
        }
        let mut absolute = if path.starts_with(b"/") { PathBuf::new() } else { base.to_owned() };
        let mut wants_dir = false;
        for part in path.split(|b| *b == b'/') {
            wants_dir = matches!(part, b"" | b"." | b"..");
            match part {
                b"" | b"." => {}
                b".." if absolute.pop() => {}
                b".." => return Err(errno::NOTCAPABLE),
                _ if part.len() > NAME_MAX => return Err(errno::NAMETOOLONG),
                _ => absolute.push(OsStr::from_bytes(part)),
            }
        }
        if absolute.as_os_str().len() > PATH_MAX || absolute.iter().count() > DEPTH_MAX {
            return Err(errno::NAMETOOLONG);
        }
        let (volume, rest) = self
            .mounts
            .iter()
            .filter_map(|(at, volume)| Some((at, *volume, absolute.strip_prefix(at).ok()?)))
            .max_by_key(|(at, _, _)| at.as_os_str().len())
            .map(|(_, volume, rest)| (volume, rest))
            .ok_or(errno::NOENT)?;
        let path = if rest.as_os_str().is_empty() { PathBuf::from(".") } else { rest.to_owned() };
        if path != Path::new(".") && matches!(self.volume(volume)?.source, Source::File(_)) {
            return Err(errno::NOTDIR);
        }
        Ok(Place { volume, path, absolute, wants_dir })
    }

    /// Whether a mount lies at that place or below it: it then cannot be moved or removed.
    #[must_use]
    pub fn holds_mount(&self, place: &Place) -> bool {
        self.mounts.iter().any(|(at, _)| at.starts_with(&place.absolute))
    }
}

impl Source {
    fn open(mount: &Mount) -> io::Result<Self> {
        let file = match &mount.handle {
            Some(handle) => handle.try_clone()?,
            None => {
                let dir = std::fs::metadata(&mount.host)?.is_dir();
                File::options().read(true).write(mount.writable && !dir).open(&mount.host)?
            }
        };
        let kind = file.metadata()?.file_type();
        if kind.is_dir() {
            Ok(Self::Dir(Dir::from_std_file(file)))
        } else if kind.is_file() {
            Ok(Self::File(file))
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a directory nor a regular file"))
        }
    }
}

/// Something of the right kind for listings to show where a mount is.
fn place_holder(root: &Dir, at: &Path, is_dir: bool) -> io::Result<()> {
    if is_dir {
        return root.create_dir_all(at);
    }
    if let Some(parent) = at.parent() {
        root.create_dir_all(parent)?;
    }
    root.open_with(at, cap_std::fs::OpenOptions::new().write(true).create(true)).map(drop)
}
