//! The file layer: whatever must be right after a power cut is created, written, synced, named, listed and removed
//! through [`Files`], and databases are reached through it, too. So a test can stand between the node and its disk
//! at each step.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, ReadDir};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use redb::StorageBackend;
use redb::backends::FileBackend;

use super::fs as steps;

/// A file that is being written.
pub trait FileOut: Write + Send {
    /// Makes what was written durable; that the file has a name is [`Files::sync_dir`]'s.
    ///
    /// # Errors
    /// What was written may be lost, now or at a power cut.
    fn sync(&mut self) -> io::Result<()>;
}

/// What is done to files and directories. Errors are the system's.
#[expect(clippy::missing_errors_doc, reason = "said above for all")]
pub trait Files: fmt::Debug + Send + Sync {
    /// A file to be written from its beginning; what had its name is emptied.
    fn create(&self, path: &Path, mode: u32) -> io::Result<Box<dyn FileOut>>;

    /// Gives a file another name, in place of what had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// As [`steps::remove_tree`].
    fn remove_tree(&self, path: &Path) -> io::Result<()>;

    /// As [`steps::create_private_dir`].
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Creates a directory (and its parents) that everybody may enter; one that exists is left as it is.
    fn create_open_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes a symbolic link of that name, which nothing else may have.
    fn symlink(&self, target: &Path, link: &Path) -> io::Result<()>;

    /// As [`steps::sync_dir`].
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes all that is beneath a directory durable, and that it is there.
    fn sync_tree(&self, path: &Path) -> io::Result<()>;

    /// The entries of a directory.
    fn list(&self, dir: &Path) -> io::Result<ReadDir>;

    /// The length of a file; `None` if something else has its name. Follows no link.
    fn file_len(&self, path: &Path) -> io::Result<Option<u64>>;

    /// What the open file of a database is read and written through.
    fn storage(&self, file: FileBackend, path: &Path) -> Box<dyn StorageBackend>;
}

/// The file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealFiles;

impl FileOut for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

impl Files for RealFiles {
    fn create(&self, path: &Path, mode: u32) -> io::Result<Box<dyn FileOut>> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
        Ok(Box::new(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_tree(&self, path: &Path) -> io::Result<()> {
        steps::remove_tree(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        steps::create_private_dir(path)
    }

    fn create_open_dir(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o755).create(path)
    }

    fn symlink(&self, target: &Path, link: &Path) -> io::Result<()> {
        std::os::unix::fs::symlink(target, link)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        steps::sync_dir(path)
    }

    fn sync_tree(&self, path: &Path) -> io::Result<()> {
        // One call for the whole file system: a sync of each file would be a commit of its journal each.
        Ok(rustix::fs::syncfs(File::open(path)?)?)
    }

    fn list(&self, dir: &Path) -> io::Result<ReadDir> {
        fs::read_dir(dir)
    }

    fn file_len(&self, path: &Path) -> io::Result<Option<u64>> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(metadata.is_file().then_some(metadata.len()))
    }

    fn storage(&self, file: FileBackend, _path: &Path) -> Box<dyn StorageBackend> {
        Box::new(file)
    }
}
