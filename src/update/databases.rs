//! A node's databases, as an update sees them: which schema they have, and a copy of them from before a version that
//! would write them anew.

use std::fs::{File, Metadata, TryLockError};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::UpdateError;
use crate::config::Settings;
use crate::model::Bytes;
use crate::store::{self, StoreError};
use crate::sys::fs::write_atomic;
use crate::sys::{DiskProbe, Files, StatVfs};

/// Where the copy is.
const KEPT: &str = "before-update";

/// What the copy has; the copy is whole if it is there.
const LIST: &str = "kept.json";

/// Room that is left on the file system beside a copy in any case: a version that changes databases writes, too.
const MARGIN: Bytes = Bytes::mib(1);

/// The databases in a data directory, at their usual places.
#[derive(Debug, Clone)]
pub struct Databases {
    data_dir: PathBuf,
    margin: Bytes,
}

/// What a copy has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    /// Names of databases; the others were not there.
    databases: Vec<String>,
}

impl Databases {
    /// Those in that directory, which need not exist.
    #[must_use]
    pub const fn new(data_dir: PathBuf) -> Self {
        Self { data_dir, margin: MARGIN }
    }

    /// The same, of a node that sets so much aside (`Store.Reserve`): a copy leaves as much free once more.
    #[must_use]
    pub fn with_reserve(self, reserve: Bytes) -> Self {
        Self { margin: MARGIN.max(reserve), ..self }
    }

    /// Where a node works with them.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.data_dir
    }

    /// Each with its name in a copy.
    fn each(&self) -> [(&'static str, PathBuf); 2] {
        [
            ("executions.db", Settings::default_executions_path(&self.data_dir)),
            ("jobs.db", Settings::default_jobs_path(&self.data_dir)),
        ]
    }

    fn kept(&self) -> PathBuf {
        self.data_dir.join(KEPT)
    }

    /// Their schema, the newer one if they differ. None: there are none, or a node works with them now and they have
    /// the schema that it writes. Nothing is written.
    ///
    /// # Errors
    /// They cannot be read, or are damaged.
    pub fn schema(&self) -> Result<Option<u32>, UpdateError> {
        if self.in_use()? {
            return Ok(None);
        }
        let mut newest = None;
        for (_, path) in self.each() {
            match store::schema_in(&path) {
                Ok(schema) => newest = newest.max(schema),
                Err(StoreError::Locked { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(newest)
    }

    /// Whether a node works with them now.
    ///
    /// # Errors
    /// The directory cannot be looked at.
    pub fn in_use(&self) -> Result<bool, UpdateError> {
        let path = self.data_dir.join("lock");
        let failed = || UpdateError::io("look at", &path);
        let file = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            opened => opened.map_err(failed())?,
        };
        match file.try_lock() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(failed()(error)),
        }
    }

    /// Whether there is a whole copy.
    #[must_use]
    pub fn has_copy(&self) -> bool {
        self.kept().join(LIST).is_file()
    }

    /// Whether the file system has room for a copy in place of an earlier one, if `beside` is written to it as well.
    ///
    /// # Errors
    /// It has not, or it cannot be looked at.
    pub(super) fn check_room(&self, beside: Bytes) -> Result<(), UpdateError> {
        let size = |path: &Path| path.metadata().map_or(Bytes::ZERO, |meta| Bytes(meta.len()).on_disk());
        let copied = self.each().iter().fold(Bytes::ZERO, |sum, (_, path)| sum.plus(size(path)));
        if copied == Bytes::ZERO {
            return Ok(());
        }
        let free =
            StatVfs::new(&self.data_dir).space().map_err(UpdateError::io("look at", &self.data_dir))?.free;
        let earlier = std::fs::read_dir(self.kept()).into_iter().flatten().flatten();
        let free = earlier.fold(free, |sum, entry| sum.plus(size(&entry.path())));
        let need = copied.plus(self.margin).plus(beside);
        if need > free {
            return Err(UpdateError::NoRoomForCopy { path: self.data_dir.clone(), need, free });
        }
        Ok(())
    }

    /// Copies them aside, in place of an earlier copy. What fails leaves no part of a copy.
    ///
    /// # Errors
    /// A node works with them, there is no room, or a file cannot be read or written.
    pub(super) fn keep(&self, files: &dyn Files) -> Result<(), UpdateError> {
        if self.in_use()? {
            return Err(UpdateError::NodeRuns(self.data_dir.clone()));
        }
        self.check_room(Bytes::ZERO)?;
        let made = self.discard(files).and_then(|()| self.copy_all(files));
        if made.is_err() {
            // That error is what matters; the next copy begins with this again.
            let _ = self.discard(files);
        }
        made
    }

    /// Removes the copy, or what there is of one.
    fn discard(&self, files: &dyn Files) -> Result<(), UpdateError> {
        let kept = self.kept();
        let failed = |action| UpdateError::io(action, &kept);
        // First its list, durably: with it, the next copy would seem whole before it is.
        if self.has_copy() {
            remove_if_there(files, &kept.join(LIST))?;
            files.sync_dir(&kept).map_err(failed("sync"))?;
        }
        files.remove_tree(&kept).map_err(failed("remove"))
    }

    fn copy_all(&self, files: &dyn Files) -> Result<(), UpdateError> {
        let kept = self.kept();
        let failed = |action| UpdateError::io(action, &kept);
        files.create_dir(&kept).map_err(failed("create"))?;
        if let Ok(owner) = self.data_dir.metadata() {
            own(&kept, &owner)?;
        }
        let mut list = Kept { databases: Vec::new() };
        for (name, path) in self.each() {
            if path.exists() {
                copy(files, &path, &kept.join(name))?;
                list.databases.push(name.to_owned());
            }
        }
        files.sync_dir(&kept).map_err(failed("sync"))?;
        let text = serde_json::to_vec(&list)?;
        write_atomic(files, &kept.join(LIST), &text, 0o600).map_err(failed("write"))?;
        files.sync_dir(&self.data_dir).map_err(failed("sync"))
    }

    /// Puts the copy in their place; the copy stays. To be done again if it was cut off.
    ///
    /// # Errors
    /// A node works with them, there is no copy, or a file cannot be read or written.
    pub(super) fn restore(&self, files: &dyn Files) -> Result<(), UpdateError> {
        if self.in_use()? {
            return Err(UpdateError::NodeRuns(self.data_dir.clone()));
        }
        let kept = self.kept();
        let list = match std::fs::read(kept.join(LIST)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(UpdateError::NoCopy(kept)),
            read => read.map_err(UpdateError::io("read", &kept))?,
        };
        let list: Kept = serde_json::from_slice(&list)
            .map_err(|source| UpdateError::State { path: kept.join(LIST), source })?;
        for (name, path) in self.each() {
            let directory = path.parent().unwrap_or(&self.data_dir);
            if list.databases.iter().any(|known| known == name) {
                files.create_dir(directory).map_err(UpdateError::io("create", directory))?;
                let partial = path.with_extension("restored");
                copy(files, &kept.join(name), &partial)?;
                files.rename(&partial, &path).map_err(UpdateError::io("replace", &path))?;
            } else if path.exists() {
                // It came with the version that goes; nobody knows yet whether it is missed.
                let aside = kept.join(format!("{name}.newer"));
                files.rename(&path, &aside).map_err(UpdateError::io("put aside", &path))?;
                files.sync_dir(&kept).map_err(UpdateError::io("sync", &kept))?;
            } else {
                continue;
            }
            files.sync_dir(directory).map_err(UpdateError::io("sync", directory))?;
        }
        Ok(())
    }
}

/// Gives a file the owner that another one has: whoever updates is not who runs the node.
fn own(path: &Path, like: &Metadata) -> Result<(), UpdateError> {
    let is = path.metadata().map_err(UpdateError::io("look at", path))?;
    if (is.uid(), is.gid()) == (like.uid(), like.gid()) {
        return Ok(());
    }
    chown(path, Some(like.uid()), Some(like.gid())).map_err(UpdateError::io("give away", path))
}

/// A durable copy, but for its name.
fn copy(files: &dyn Files, from: &Path, to: &Path) -> Result<(), UpdateError> {
    let mut input = File::open(from).map_err(UpdateError::io("read", from))?;
    let like = input.metadata().map_err(UpdateError::io("read", from))?;
    let failed = || UpdateError::io("write", to);
    let mut output = files.create(to, 0o600).map_err(failed())?;
    own(to, &like)?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let n = input.read(&mut buffer).map_err(UpdateError::io("read", from))?;
        if n == 0 {
            return output.sync().map_err(failed());
        }
        output.write_all(&buffer[..n]).map_err(failed())?;
    }
}

pub(super) fn remove_if_there(files: &dyn Files, path: &Path) -> Result<(), UpdateError> {
    // What does not exist is not asked of the file layer: to remove it would be a step that fails.
    if std::fs::symlink_metadata(path).is_err_and(|error: io::Error| error.kind() == ErrorKind::NotFound) {
        return Ok(());
    }
    files.remove(path).map_err(UpdateError::io("remove", path))
}
