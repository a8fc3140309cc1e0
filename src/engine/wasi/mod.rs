//! WASI preview 1 for one guest: written once, used by every engine.
//!
//! The functions are methods of [`Wasi`] with the names of the specification. [`each_function`] lists them with their
//! signatures; an engine turns that list into host functions, and hands over the caller's memory as [`Memory`].

pub mod abi;
mod dir;
mod disk;
mod file;
mod memory;
mod path;
mod poll;
mod process;
mod stream;
mod table;
pub mod tree;

use std::io;
use std::path::PathBuf;
use std::time::Instant;

pub use abi::{Answer, Fault, Stop};
pub use memory::Memory;

use self::abi::{Errno, errno};
use self::disk::Disk;
use self::stream::Stream;
use self::table::{Entry, OpenDir, Table};
use self::tree::{Place, Tree};
use super::{Mount, Run};
use crate::sys::{Cause, Interrupt, OverLimit};

/// The module that guests import from.
pub const MODULE: &str = "wasi_snapshot_preview1";

/// Calls a macro with every function but `proc_exit` (which returns nothing): `name(argument: type, ...)`.
macro_rules! each_function {
    ($each:ident) => {
        $each! {
            args_get(argv: u32, buffer: u32),
            args_sizes_get(count: u32, size: u32),
            clock_res_get(id: u32, out: u32),
            clock_time_get(id: u32, precision: u64, out: u32),
            environ_get(environ: u32, buffer: u32),
            environ_sizes_get(count: u32, size: u32),
            fd_advise(fd: u32, offset: u64, len: u64, advice: u32),
            fd_allocate(fd: u32, offset: u64, len: u64),
            fd_close(fd: u32),
            fd_datasync(fd: u32),
            fd_fdstat_get(fd: u32, out: u32),
            fd_fdstat_set_flags(fd: u32, flags: u32),
            fd_fdstat_set_rights(fd: u32, base: u64, inheriting: u64),
            fd_filestat_get(fd: u32, out: u32),
            fd_filestat_set_size(fd: u32, size: u64),
            fd_filestat_set_times(fd: u32, atim: u64, mtim: u64, flags: u32),
            fd_pread(fd: u32, iovecs: u32, count: u32, offset: u64, out: u32),
            fd_prestat_dir_name(fd: u32, buffer: u32, len: u32),
            fd_prestat_get(fd: u32, out: u32),
            fd_pwrite(fd: u32, iovecs: u32, count: u32, offset: u64, out: u32),
            fd_read(fd: u32, iovecs: u32, count: u32, out: u32),
            fd_readdir(fd: u32, buffer: u32, len: u32, cookie: u64, out: u32),
            fd_renumber(from: u32, to: u32),
            fd_seek(fd: u32, offset: i64, whence: u32, out: u32),
            fd_sync(fd: u32),
            fd_tell(fd: u32, out: u32),
            fd_write(fd: u32, iovecs: u32, count: u32, out: u32),
            path_create_directory(fd: u32, path: u32, len: u32),
            path_filestat_get(fd: u32, flags: u32, path: u32, len: u32, out: u32),
            path_filestat_set_times(fd: u32, flags: u32, path: u32, len: u32, atim: u64, mtim: u64, set: u32),
            path_link(fd: u32, flags: u32, path: u32, len: u32, new_fd: u32, new_path: u32, new_len: u32),
            path_open(fd: u32, lookup: u32, path: u32, len: u32, oflags: u32, base: u64, inheriting: u64,
                flags: u32, out: u32),
            path_readlink(fd: u32, path: u32, len: u32, buffer: u32, buffer_len: u32, out: u32),
            path_remove_directory(fd: u32, path: u32, len: u32),
            path_rename(fd: u32, path: u32, len: u32, new_fd: u32, new_path: u32, new_len: u32),
            path_symlink(target: u32, target_len: u32, fd: u32, path: u32, len: u32),
            path_unlink_file(fd: u32, path: u32, len: u32),
            poll_oneoff(subscriptions: u32, events: u32, count: u32, out: u32),
            proc_raise(signal: u32),
            random_get(buffer: u32, len: u32),
            sched_yield(),
            sock_accept(fd: u32, flags: u32, out: u32),
            sock_recv(fd: u32, iovecs: u32, count: u32, flags: u32, out: u32, out_flags: u32),
            sock_send(fd: u32, iovecs: u32, count: u32, flags: u32, out: u32),
            sock_shutdown(fd: u32, how: u32),
        }
    };
}
pub(super) use each_function;

/// Everything of the host that one guest can reach.
#[derive(Debug)]
pub struct Wasi {
    /// argv, each with its NUL.
    args: Vec<Vec<u8>>,
    /// `NAME=value`, each with its NUL.
    env: Vec<Vec<u8>>,
    tree: Tree,
    table: Table,
    disk: Disk,
    stdout: Stream,
    stderr: Stream,
    interrupt: Interrupt,
    started: Instant,
}

impl Wasi {
    /// What `run` gives its guest.
    ///
    /// # Errors
    /// A mount or a stream cannot be opened; the kind is `InvalidInput` if the job is to blame.
    pub fn new(run: &Run, mounts: &[Mount]) -> io::Result<Self> {
        let tree = Tree::open(&run.scratch.root(), mounts, run.scratch.dir(), &run.meter)?;
        let mut table = Table::new();
        let everything = tree.resolve("".as_ref(), b"/").map_err(|_| io::ErrorKind::NotFound)?;
        let root = OpenDir {
            file: match &tree.dir(&everything) {
                Ok(dir) => reopen(dir)?,
                Err(_) => return Err(io::ErrorKind::NotADirectory.into()),
            },
            absolute: PathBuf::new(),
            volume: everything.volume,
            preopened: true,
        };
        table.insert(Entry::Dir(root)).map_err(|_| io::ErrorKind::Other)?;
        let text = |text: &str| [text.as_bytes(), b"\0"].concat();
        let args = [String::new()].iter().chain(&run.spec.parameters).map(|a| text(a)).collect();
        let env = run.env.iter().map(|(name, value)| text(&format!("{name}={value}"))).collect();
        Ok(Self {
            args,
            env,
            disk: Disk::new(run.meter.clone(), run.interrupt.clone(), tree.volumes()),
            stdout: Stream::create(&run.scratch.stdout(), run.stream_cap, run.bell.clone())?,
            stderr: Stream::create(&run.scratch.stderr(), run.stream_cap, run.bell.clone())?,
            interrupt: run.interrupt.clone(),
            started: Instant::now(),
            tree,
            table,
        })
    }

    /// What went beyond the disk limit, if anything did.
    #[must_use]
    pub const fn over(&self) -> Option<OverLimit> {
        self.disk.over()
    }

    /// What comes of an answer. That the node's disk is full is not for the guest to make the best of: it was
    /// promised the room, and what it left would look like a result.
    pub fn settle(&mut self, answer: Answer) -> Answer {
        match answer {
            Err(Fault::Errno(errno::NOSPC | errno::DQUOT)) => {
                self.interrupt.raise(Cause::DiskFull);
                Err(Stop::Interrupted.into())
            }
            other => other,
        }
    }

    /// Adds a line to the guest's standard error.
    pub fn note(&mut self, line: &str) {
        self.stderr.note(line);
    }

    /// Says in standard error what was cut from the streams.
    pub fn note_discarded(&mut self) {
        for (name, discarded) in [("stdout", self.stdout.discarded()), ("stderr", self.stderr.discarded())] {
            if discarded.0 > 0 {
                self.note(&format!("codling: {name} reached its cap; {discarded} more were discarded"));
            }
        }
    }

    /// Whether the guest is to stop.
    fn check_interrupt(&self) -> Result<(), Stop> {
        match self.interrupt.cause() {
            Some(_) => Err(Stop::Interrupted),
            None => Ok(()),
        }
    }

    /// Where the path in guest memory leads, seen from the directory under `fd`.
    fn place(&mut self, memory: &Memory, fd: u32, path: u32, len: u32) -> Result<Place, Errno> {
        let path = memory.bytes(path, len)?;
        self.tree.resolve(self.table.base(fd)?, path)
    }
}

/// The directory, open for reading.
fn reopen(dir: &cap_std::fs::Dir) -> io::Result<std::fs::File> {
    Ok(dir.open(".")?.into_std())
}
