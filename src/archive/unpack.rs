//! A `.tar.gz` becomes a directory. Whoever made the archive is not trusted.
//!
//! Two kinds of entries are told apart. What an honest job may leave in its result but cannot be had here (a link to
//! `/usr/lib`, a FIFO) is left out with a warning. What only malice or damage produces (a name with `..`, a file below
//! a link, a bomb) ends the run; what was unpacked by then stays, for the caller to remove.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use tar::EntryType;

use super::entries::{Entries, Head, Malformed};
use super::tree::{Refused, Tree};
use super::warning::{Oddity, Warnings, shown};
use crate::model::Bytes;
use crate::sys::{Cause, Interrupt, Meter, OverLimit};

/// Bytes in all files together.
pub const UNPACKED_MAX: Bytes = Bytes::gib(256);
/// Entries of all kinds.
pub const ENTRIES_MAX: u64 = 4_000_000;
/// Bytes that come out for each byte that went in, once more than [`RATIO_FROM`] have come out. Zeros give 1000, text
/// 3 to 20.
pub const RATIO_MAX: u64 = 200;
/// Below this no ratio is too high.
pub const RATIO_FROM: Bytes = Bytes::gib(1);
/// Bytes of a name or of a link's target.
pub const PATH_MAX: usize = 4095;
/// Parts of a name.
pub const DEPTH_MAX: usize = 128;
/// Read and written at once.
const BUFFER: usize = 64 * 1024;

/// What an archive may do.
#[derive(Debug, Clone, Copy)]
pub struct UnpackLimits<'a> {
    /// See [`UNPACKED_MAX`].
    pub total: Bytes,
    /// See [`ENTRIES_MAX`].
    pub entries: u64,
    /// See [`RATIO_MAX`].
    pub ratio: u64,
    /// See [`RATIO_FROM`].
    pub ratio_from: Bytes,
    /// See [`PATH_MAX`].
    pub path: usize,
    /// See [`DEPTH_MAX`].
    pub depth: usize,
    /// Only directories and regular files: anything else is an error, not left out or made.
    pub plain: bool,
    /// Charged before anything is written: with each byte of a file, and a disk block for whatever is created.
    pub meter: Option<&'a Meter>,
    /// Looked at before each entry and every 64 KiB.
    pub interrupt: Option<&'a Interrupt>,
}

impl Default for UnpackLimits<'_> {
    fn default() -> Self {
        Self {
            total: UNPACKED_MAX,
            entries: ENTRIES_MAX,
            ratio: RATIO_MAX,
            ratio_from: RATIO_FROM,
            path: PATH_MAX,
            depth: DEPTH_MAX,
            plain: false,
            meter: None,
            interrupt: None,
        }
    }
}

/// What was unpacked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Regular files.
    pub files: u64,
    /// Bytes in them.
    pub size: Bytes,
    /// What was left out.
    pub warnings: Warnings,
}

/// Why an archive was not unpacked, or not to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// It cannot be read to its end, or its checksum is wrong.
    #[error("the archive is damaged, cut off, or no .tar.gz")]
    Damaged(#[source] io::Error),
    /// What is in it makes no sense as a tar file.
    #[error("the archive is no tar file that can be read: {0}")]
    Malformed(&'static str),
    /// A name is absolute or has `..` in it, or a hard link's target is or has.
    #[error("refused: the entry {path} leads out of the directory")]
    Outside {
        /// The entry, quoted.
        path: String,
    },
    /// An entry would be written through a link, or below a file.
    #[error("refused: the entry {path} lies behind a link or a file")]
    ThroughLink {
        /// The entry, quoted.
        path: String,
    },
    /// A hard link to something that is no file of the archive.
    #[error("refused: the entry {path} is a hard link to {target}, which is no file that came before it")]
    BadHardLink {
        /// The entry, quoted.
        path: String,
        /// Where it leads, quoted.
        target: String,
    },
    /// Something has that name already.
    #[error("{path} exists already; unpack into an empty directory")]
    Exists {
        /// The entry, quoted.
        path: String,
    },
    /// More came out than may.
    #[error("refused: more than {limit} would be unpacked")]
    TooLarge {
        /// How much may be.
        limit: Bytes,
    },
    /// More came out of fewer bytes than honest data gives.
    #[error("refused: {read} of archive have become more than {unpacked}, as in a decompression bomb")]
    Bomb {
        /// Bytes of the archive so far.
        read: Bytes,
        /// Bytes that came out.
        unpacked: Bytes,
    },
    /// There are more entries than may be.
    #[error("refused: more than {limit} entries")]
    TooMany {
        /// How many may be.
        limit: u64,
    },
    /// A name is too long or has too many parts.
    #[error("refused: the name {path} has more than {bytes} bytes or {parts} parts")]
    LongName {
        /// The entry, quoted; empty if not even that was read.
        path: String,
        /// Bytes that it may have.
        bytes: usize,
        /// Parts that it may have.
        parts: usize,
    },
    /// Neither a directory nor a regular file, where only those are wanted.
    #[error("refused: the entry {path} is neither a file nor a directory")]
    NotPlain {
        /// The entry, quoted.
        path: String,
    },
    /// The meter has no more room.
    #[error("cannot unpack {path}")]
    NoRoom {
        /// The entry, quoted.
        path: String,
        /// What was asked for.
        source: OverLimit,
    },
    /// It was told to stop.
    #[error("unpacking was stopped: {0:?}")]
    Interrupted(Cause),
    /// Something cannot be created here.
    #[error("cannot create {path}")]
    Create {
        /// The entry, quoted.
        path: String,
        /// The system's reason.
        source: io::Error,
    },
}

/// Unpacks a `.tar.gz` into `dest`, which must be there and should be empty: what exists is never replaced.
/// Times and owners are not restored; permissions are, without set-user-id and the like.
///
/// # Errors
/// The archive is damaged, hostile or too large, or something cannot be created.
pub fn unpack(input: impl Read, dest: &Path, limits: &UnpackLimits<'_>) -> Result<Unpacked, UnpackError> {
    let mut input = input;
    let counted = Counted { inner: &mut input, read: 0 };
    let decoder = MultiGzDecoder::new(BufReader::with_capacity(BUFFER, counted));
    let tree = Tree::open(dest, limits.meter)
        .map_err(|source| UnpackError::Create { path: shown(dest.as_os_str().as_encoded_bytes()), source })?;
    let entries = Entries::new(decoder, limits.path);
    Run { entries, tree, limits, done: Unpacked::default(), buffer: vec![0; BUFFER].into_boxed_slice() }.run()
}

type Input<'a> = MultiGzDecoder<BufReader<Counted<'a>>>;

/// Counts what is read of the archive.
struct Counted<'a> {
    inner: &'a mut dyn Read,
    read: u64,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.read += n as u64;
        Ok(n)
    }
}

struct Run<'a> {
    entries: Entries<Input<'a>>,
    tree: Tree<'a>,
    limits: &'a UnpackLimits<'a>,
    done: Unpacked,
    buffer: Box<[u8]>,
}

impl Run<'_> {
    fn run(mut self) -> Result<Unpacked, UnpackError> {
        let limits = *self.limits;
        let mut headers = 0;
        let mut count = || {
            headers += 1;
            headers <= limits.entries
        };
        loop {
            match self.entries.next(&mut count) {
                Ok(Some(head)) => self.entry(&head)?,
                Ok(None) => break,
                Err(error) => return Err(self.malformed(error)),
            }
        }
        self.entries.finish().map_err(|error| self.malformed(error))?;
        Ok(self.done)
    }

    fn entry(&mut self, head: &Head) -> Result<(), UnpackError> {
        self.go_on()?;
        let outside = || UnpackError::Outside { path: shown(&head.path) };
        let path = parts(&head.path).ok_or_else(outside)?;
        if head.path.len() > self.limits.path || path.len() > self.limits.depth {
            return Err(self.long_name(&head.path));
        }
        let refused = |refused| match refused {
            Refused::InTheWay => UnpackError::ThroughLink { path: shown(&head.path) },
            Refused::Exists => UnpackError::Exists { path: shown(&head.path) },
            Refused::NoFile => {
                UnpackError::BadHardLink { path: shown(&head.path), target: shown(&head.target) }
            }
            Refused::NoRoom(source) => UnpackError::NoRoom { path: shown(&head.path), source },
            Refused::System(source) => UnpackError::Create { path: shown(&head.path), source },
        };
        let plain = matches!(head.kind, EntryType::Directory | EntryType::Regular | EntryType::Continuous);
        if self.limits.plain && !plain {
            return Err(UnpackError::NotPlain { path: shown(&head.path) });
        }
        match head.kind {
            EntryType::Directory => self.tree.directory(&path, head.mode).map_err(refused),
            EntryType::Regular | EntryType::Continuous => {
                // Told before anything is written, where it can be told.
                self.account(head.size, 0)?;
                let file = self.tree.file(&path, head.mode).map_err(refused)?;
                self.done.files += 1;
                self.contents(file, &head.path)
            }
            EntryType::Symlink => {
                if let Some(oddity) = link_oddity(path.len(), &head.target) {
                    self.done.warnings.add(&head.path, oddity);
                    return Ok(());
                }
                self.tree.symlink(&path, &head.target).map_err(refused)
            }
            EntryType::Link => {
                let first = parts(&head.target).ok_or_else(outside)?;
                let copied = self.tree.hard_link(&path, &first).map_err(refused)?;
                self.account(copied, copied)
            }
            kind => {
                self.done.warnings.add(&head.path, Oddity::Special(name_of(kind)));
                Ok(())
            }
        }
    }

    fn contents(&mut self, mut file: File, path: &[u8]) -> Result<(), UnpackError> {
        loop {
            let n = self.entries.read(&mut self.buffer).map_err(UnpackError::Damaged)?;
            if n == 0 {
                return Ok(());
            }
            self.go_on()?;
            self.account(n as u64, n as u64)?;
            if let Some(meter) = self.limits.meter {
                meter
                    .charge(Bytes(n as u64))
                    .map_err(|source| UnpackError::NoRoom { path: shown(path), source })?;
            }
            file.write_all(&self.buffer[..n])
                .map_err(|source| UnpackError::Create { path: shown(path), source })?;
        }
    }

    fn go_on(&self) -> Result<(), UnpackError> {
        let cause = self.limits.interrupt.and_then(Interrupt::cause);
        cause.map_or(Ok(()), |cause| Err(UnpackError::Interrupted(cause)))
    }

    /// Checks that `coming` more bytes may come out, and counts `come` of them.
    fn account(&mut self, coming: u64, come: u64) -> Result<(), UnpackError> {
        let size = self.done.size.plus(Bytes(coming));
        if size > self.limits.total {
            return Err(UnpackError::TooLarge { limit: self.limits.total });
        }
        self.done.size = self.done.size.plus(Bytes(come));
        let (unpacked, read) = (self.done.size, self.entries.input().get_ref().get_ref().read);
        if unpacked > self.limits.ratio_from && unpacked.0 / self.limits.ratio.max(1) > read {
            return Err(UnpackError::Bomb { read: Bytes(read), unpacked });
        }
        Ok(())
    }

    fn malformed(&self, error: Malformed) -> UnpackError {
        match error {
            Malformed::Io(source) => UnpackError::Damaged(source),
            Malformed::Tar(what) => UnpackError::Malformed(what),
            Malformed::TooMany => UnpackError::TooMany { limit: self.limits.entries },
            Malformed::LongName => self.long_name(b""),
        }
    }

    fn long_name(&self, path: &[u8]) -> UnpackError {
        UnpackError::LongName { path: shown(path), bytes: self.limits.path, parts: self.limits.depth }
    }
}

/// The parts of a name, or of a hard link's target. None: it leads out of the directory, or cannot be a name.
fn parts(path: &[u8]) -> Option<Vec<&[u8]>> {
    if path.is_empty() || path.starts_with(b"/") || path.contains(&0) {
        return None;
    }
    let parts: Vec<&[u8]> =
        path.split(|&b| b == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    (!parts.contains(&&b".."[..])).then_some(parts)
}

/// What speaks against a symbolic link with a name of `depth` parts.
///
/// `..` is accepted only at the beginning of the target, and no further up than the directory itself. There it is
/// safe: a link's own directory is a real one, because nothing is created behind links. Behind a name it is not: that
/// name may be another link, to a place from where `..` leads outside.
fn link_oddity(depth: usize, target: &[u8]) -> Option<Oddity> {
    if target.is_empty() || target.contains(&0) {
        return Some(Oddity::NoTarget);
    }
    let parts = target.split(|&b| b == b'/').filter(|part| !part.is_empty() && *part != b".");
    let ups = parts.clone().take_while(|part| *part == b"..").count();
    let inside = !target.starts_with(b"/") && ups < depth && parts.skip(ups).all(|part| part != b"..");
    (!inside).then_some(Oddity::LeadsOutside)
}

fn name_of(kind: EntryType) -> &'static str {
    match kind {
        EntryType::Fifo => "FIFO",
        EntryType::Char => "character device",
        EntryType::Block => "block device",
        _ => "entry of unknown kind",
    }
}
