//! What WASI preview 1 fixes: error numbers, flags, and the layout of its structures in guest memory.
//!
//! Source of the numbers: the `wasi_snapshot_preview1` witx of the WASI repository.

use std::io;

/// An error number of WASI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub u16);

/// The error numbers that this host answers with.
pub mod errno {
    use super::Errno;

    macro_rules! numbers {
        ($($name:ident = $number:literal),* $(,)?) => {
            $(#[doc = concat!("`", stringify!($name), "`.")] pub const $name: Errno = Errno($number);)*
        };
    }

    numbers! {
        ACCES = 2, BADF = 8, BUSY = 10, DQUOT = 19, EXIST = 20, FAULT = 21, FBIG = 22, INTR = 27, INVAL = 28,
        IO = 29, ISDIR = 31, LOOP = 32, MFILE = 33, MLINK = 34, NAMETOOLONG = 37, NFILE = 41, NODEV = 43,
        NOENT = 44, NOMEM = 48, NOSPC = 51, NOSYS = 52, NOTDIR = 54, NOTEMPTY = 55, NOTSUP = 58, NXIO = 60,
        OVERFLOW = 61, PERM = 63, ROFS = 69, SPIPE = 70, STALE = 72, TXTBSY = 74, XDEV = 75, NOTCAPABLE = 76,
    }
}

impl From<rustix::io::Errno> for Errno {
    fn from(error: rustix::io::Errno) -> Self {
        use rustix::io::Errno as E;
        match error {
            E::ACCESS => errno::ACCES,
            E::BADF => errno::BADF,
            E::BUSY => errno::BUSY,
            E::DQUOT => errno::DQUOT,
            E::EXIST => errno::EXIST,
            E::FAULT => errno::FAULT,
            E::FBIG => errno::FBIG,
            E::INTR => errno::INTR,
            E::INVAL => errno::INVAL,
            E::ISDIR => errno::ISDIR,
            E::LOOP => errno::LOOP,
            E::MFILE => errno::MFILE,
            E::MLINK => errno::MLINK,
            E::NAMETOOLONG => errno::NAMETOOLONG,
            E::NFILE => errno::NFILE,
            E::NODEV => errno::NODEV,
            E::NOENT => errno::NOENT,
            E::NOMEM => errno::NOMEM,
            E::NOSPC => errno::NOSPC,
            E::NOSYS => errno::NOSYS,
            E::NOTDIR => errno::NOTDIR,
            E::NOTEMPTY => errno::NOTEMPTY,
            E::OPNOTSUPP => errno::NOTSUP,
            E::NXIO => errno::NXIO,
            E::OVERFLOW => errno::OVERFLOW,
            E::PERM => errno::PERM,
            E::ROFS => errno::ROFS,
            E::SPIPE => errno::SPIPE,
            E::STALE => errno::STALE,
            E::TXTBSY => errno::TXTBSY,
            E::XDEV => errno::XDEV,
            _ => errno::IO,
        }
    }
}

impl From<io::Error> for Errno {
    fn from(error: io::Error) -> Self {
        match rustix::io::Errno::from_io_error(&error) {
            Some(number) => number.into(),
            // cap-std's word for a path that leads out of its directory; it has no number of its own.
            None if error.kind() == io::ErrorKind::PermissionDenied => errno::NOTCAPABLE,
            None if error.kind() == io::ErrorKind::InvalidInput => errno::INVAL,
            None => errno::IO,
        }
    }
}

/// The guest does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// It asked to end.
    Exit(i32),
    /// Its [`crate::sys::Interrupt`] was raised.
    Interrupted,
}

/// Why a call did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The guest is told, and goes on.
    Errno(Errno),
    /// The guest does not go on.
    Stop(Stop),
}

impl From<Errno> for Fault {
    fn from(number: Errno) -> Self {
        Self::Errno(number)
    }
}

impl From<Stop> for Fault {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Errno(error.into())
    }
}

impl From<rustix::io::Errno> for Fault {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Errno(error.into())
    }
}

/// What every function returns.
pub type Answer = Result<(), Fault>;

/// `filetype`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FileType {
    /// None of the others.
    Unknown = 0,
    /// Also what the standard streams say they are.
    CharacterDevice = 2,
    /// Directory.
    Directory = 3,
    /// Regular file.
    RegularFile = 4,
    /// Symbolic link.
    SymbolicLink = 7,
}

impl From<rustix::fs::FileType> for FileType {
    fn from(kind: rustix::fs::FileType) -> Self {
        match kind {
            rustix::fs::FileType::Directory => Self::Directory,
            rustix::fs::FileType::RegularFile => Self::RegularFile,
            rustix::fs::FileType::Symlink => Self::SymbolicLink,
            rustix::fs::FileType::CharacterDevice => Self::CharacterDevice,
            _ => Self::Unknown,
        }
    }
}

/// `rights`, the few that mean something here.
pub mod rights {
    /// Reading.
    pub const FD_READ: u64 = 1 << 1;
    /// Seeking; without it and `FD_TELL`, libc takes a character device for a terminal.
    pub const FD_SEEK: u64 = 1 << 2;
    /// Asking for the position.
    pub const FD_TELL: u64 = 1 << 5;
    /// Writing.
    pub const FD_WRITE: u64 = 1 << 6;
    /// All thirty.
    pub const ALL: u64 = (1 << 30) - 1;
}

/// `lookupflags`: follow a symbolic link at the end of the path.
pub const LOOKUP_SYMLINK_FOLLOW: u32 = 1;

/// `oflags`.
pub mod oflags {
    /// Create the file if it is not there.
    pub const CREAT: u32 = 1;
    /// Fail if it is not a directory.
    pub const DIRECTORY: u32 = 2;
    /// Fail if it is there.
    pub const EXCL: u32 = 4;
    /// Cut it to nothing.
    pub const TRUNC: u32 = 8;
}

/// `fdflags`.
pub mod fdflags {
    /// Every write goes to the end.
    pub const APPEND: u16 = 1;
    /// All five.
    pub const ALL: u16 = 31;
}

/// `fstflags`.
pub mod fstflags {
    /// Set the access time to the one given.
    pub const ATIM: u32 = 1;
    /// Set it to now.
    pub const ATIM_NOW: u32 = 2;
    /// Set the modification time to the one given.
    pub const MTIM: u32 = 4;
    /// Set it to now.
    pub const MTIM_NOW: u32 = 8;
}

/// `filestat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStat {
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
    /// Type.
    pub kind: FileType,
    /// Links.
    pub nlink: u64,
    /// Bytes.
    pub size: u64,
    /// Access, modification and change, in nanoseconds since 1970.
    pub times: [u64; 3],
}

impl FileStat {
    /// What the standard streams look like.
    pub const STREAM: Self =
        Self { dev: 0, ino: 0, kind: FileType::CharacterDevice, nlink: 1, size: 0, times: [0; 3] };

    /// The 64 bytes that the guest gets.
    #[must_use]
    pub fn encode(&self) -> [u8; 64] {
        let mut out = [0; 64];
        let words = [
            self.dev,
            self.ino,
            self.kind as u64,
            self.nlink,
            self.size,
            self.times[0],
            self.times[1],
            self.times[2],
        ];
        for (field, word) in out.chunks_exact_mut(8).zip(words) {
            field.copy_from_slice(&word.to_le_bytes());
        }
        out
    }
}

macro_rules! stat_from {
    ($metadata:ty, $extension:path) => {
        impl From<$metadata> for FileStat {
            fn from(m: $metadata) -> Self {
                use $extension as Ext;
                let time = |seconds: i64, nanos: i64| {
                    let nanos = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
                    u64::try_from(nanos).unwrap_or(0)
                };
                Self {
                    dev: Ext::dev(&m),
                    ino: Ext::ino(&m),
                    kind: rustix::fs::FileType::from_raw_mode(Ext::mode(&m)).into(),
                    nlink: Ext::nlink(&m),
                    size: Ext::size(&m),
                    times: [
                        time(Ext::atime(&m), Ext::atime_nsec(&m)),
                        time(Ext::mtime(&m), Ext::mtime_nsec(&m)),
                        time(Ext::ctime(&m), Ext::ctime_nsec(&m)),
                    ],
                }
            }
        }
    };
}

stat_from!(std::fs::Metadata, std::os::unix::fs::MetadataExt);
stat_from!(cap_std::fs::Metadata, cap_std::fs::MetadataExt);
