//! Opening and making redb files.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::num::NonZero;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::redb::backends::FileBackend;
use ::redb::{
    Builder, Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition, TableError,
};

use crate::model::Bytes;
use crate::sys::{Files, RealFiles};

use super::super::{SCHEMA, StoreError};
use super::held::Held;
use super::{COLD, HOT, RedbBackend};

/// What describes the file; written once. Its presence costs later commits nothing.
pub(super) const META: TableDefinition<'_, &str, &str> = TableDefinition::new("codling-meta");

/// Where [`META`] has the schema's version: a decimal number.
const SCHEMA_KEY: &str = "schema";

/// How to have a database's storage again after it has failed.
type Opener = Box<dyn Fn() -> Result<Box<dyn StorageBackend>, StoreError> + Send + Sync>;

/// Opens the database of that path again. Nothing is written until what is held is released.
pub(super) type Reopen = Box<dyn Fn(&Path) -> Result<(Database, Held), StoreError> + Send + Sync>;

impl RedbBackend {
    /// Opens a file with that much memory for its page cache. If it is not there or empty, it is made, readable
    /// by its owner only; at the path there is never a file that is not whole. After an I/O error it is opened again.
    ///
    /// # Errors
    /// The file is locked, damaged, from a later version (it is left untouched then), or cannot be made or read.
    pub fn open(path: &Path, cache: Bytes) -> Result<Self, StoreError> {
        Self::open_on(&(Arc::new(RealFiles) as Arc<dyn Files>), path, cache)
    }

    /// As [`RedbBackend::open`], on a file layer of one's own.
    ///
    /// # Errors
    /// As there.
    pub fn open_on(files: &Arc<dyn Files>, path: &Path, cache: Bytes) -> Result<Self, StoreError> {
        let failed = |action| io_error(action, path);
        match std::fs::metadata(path) {
            Ok(found) if !found.is_file() => Err(corrupt(path, io::Error::other("not a regular file"))),
            Ok(found) if found.len() > 0 => {
                let file =
                    OpenOptions::new().read(true).write(true).open(path).map_err(failed("open database"))?;
                Self::of_file(files, file, path, path, cache)
            }
            Ok(_) => Self::create(files, path, cache),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::create(files, path, cache),
            Err(error) => Err(failed("open database")(error)),
        }
    }

    /// `named` is what the file is called now.
    fn of_file(
        files: &Arc<dyn Files>,
        file: File,
        named: &Path,
        path: &Path,
        cache: Bytes,
    ) -> Result<Self, StoreError> {
        let storage = files.storage(file_storage(file, path)?, named);
        let (files, name) = (Arc::clone(files), path.to_owned());
        Self::begin(storage, Box::new(move || reopen_file(&*files, &name)), path, cache)
    }

    /// Opens a database in any storage: an empty one becomes a new database. `path` is what messages call it. After
    /// an I/O error it stays out of order: there is one storage only.
    ///
    /// # Errors
    /// The storage is locked, damaged, from a later version (it is left untouched then), or fails.
    pub fn over(storage: impl StorageBackend, path: &Path, cache: Bytes) -> Result<Self, StoreError> {
        let name = path.to_owned();
        let gone = move || Err(io_error("open again", &name)(io::ErrorKind::Unsupported.into()));
        Self::begin(Box::new(storage), Box::new(gone), path, cache)
    }

    /// The same in storage that can be had again and again: `open` is called now, and after each I/O error.
    ///
    /// # Errors
    /// As [`RedbBackend::over`].
    pub fn over_each<S: StorageBackend>(
        open: impl Fn() -> io::Result<S> + Send + Sync + 'static,
        path: &Path,
        cache: Bytes,
    ) -> Result<Self, StoreError> {
        let name = path.to_owned();
        let opener: Opener = Box::new(move || match open() {
            Ok(storage) => Ok(Box::new(storage)),
            Err(cause) => Err(io_error("open again", &name)(cause)),
        });
        Self::begin(opener()?, opener, path, cache)
    }

    fn begin(
        storage: Box<dyn StorageBackend>,
        opener: Opener,
        path: &Path,
        cache: Bytes,
    ) -> Result<Self, StoreError> {
        let (db, held, schema) = open_held(storage, path, cache)?;
        held.release().map_err(io_error("write database", path))?;
        if schema.is_none() {
            initialise(&db).map_err(|cause| redb_error("write", path, cause))?;
        }
        let again: Reopen = Box::new(move |path| {
            let (db, held, schema) = open_held(opener()?, path, cache)?;
            // It was ours: nothing of it is a database without a schema.
            let schema = schema.ok_or_else(|| corrupt(path, io::Error::other("it is empty")));
            schema.map(|_| (db, held))
        });
        Self::new(db, path.into(), again).map_err(|cause| redb_error("read", path, cause))
    }

    /// Makes a new file beside `path` and names it so once it is whole: a power cut leaves a database or none.
    fn create(files: &Arc<dyn Files>, path: &Path, cache: Bytes) -> Result<Self, StoreError> {
        let failed = |action| io_error(action, path);
        let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
        if let Some(directory) = directory {
            files.create_dir(directory).map_err(io_error("create directory", directory))?;
        }
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".partial");
        let partial = path.with_file_name(name);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&partial)
            .map_err(io_error("create", &partial))?;
        // Whoever else makes this database at this moment holds the lock until it has its name.
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::Locked { path: path.into() }),
            Err(TryLockError::Error(cause)) => return Err(io_error("lock", &partial)(cause)),
        }
        if std::fs::metadata(path).is_ok_and(|found| found.len() > 0) {
            drop(file);
            let _ = files.remove(&partial);
            return Self::open_on(files, path, cache);
        }
        // What an interrupted attempt left.
        file.set_len(0).map_err(io_error("empty", &partial))?;
        let backend = Self::of_file(files, file, &partial, path, cache)?;
        files.rename(&partial, path).map_err(failed("create database"))?;
        for directory in std::path::absolute(path).map_err(failed("find"))?.ancestors().skip(1) {
            // A new directory is only as lasting as its entry in the one above; those far above are not new, and
            // may not be readable.
            if let Err(cause) = files.sync_dir(directory) {
                log::debug!(target: "store", "cannot sync {}: {cause}", directory.display());
            }
        }
        Ok(backend)
    }
}

/// How long a check may take before it is worth a word.
const QUIET: Duration = Duration::from_secs(1);

fn builder(path: &Path, cache: Bytes) -> Builder {
    let (name, start) = (path.display().to_string(), Instant::now());
    let mut builder = Builder::new();
    builder
        .set_cache_size(usize::try_from(cache.0).unwrap_or(usize::MAX))
        // Reads the file once. Without it redb trusts a file that was closed, and panics at what a failing card
        // made of it: the node would die at each start and not say why.
        .set_check_integrity_on_open(true)
        .set_repair_callback(move |session| {
            let percent = session.progress() * 100.0;
            let level = if start.elapsed() < QUIET { log::Level::Debug } else { log::Level::Info };
            log::log!(target: "store", level, "checking database {name}: {percent:.0}%");
        });
    builder
}

fn file_storage(file: File, path: &Path) -> Result<FileBackend, StoreError> {
    FileBackend::new(file).map_err(|cause| open_error(path, cause.into()))
}

/// Opens a file that has failed: what it holds now, not what is remembered of it. On a file system that cannot be
/// written, for reading only. It is never made anew: on what was mounted in its place it is missing.
fn reopen_file(files: &dyn Files, path: &Path) -> Result<Box<dyn StorageBackend>, StoreError> {
    let failed = || io_error("open database", path);
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Err(cause) if cause.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            return Ok(Box::new(ReadOnlyFile(File::open(path).map_err(failed())?)));
        }
        opened => opened.map_err(failed())?,
    };
    // After a failed fsync the kernel takes pages for written that are not: without this, they would be found good
    // here, and missing after the next power cut. It is advice: where it is not taken, the check has less to say.
    let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
    Ok(files.storage(file_storage(file, path)?, path))
}

/// A file on a file system that cannot be written.
#[derive(Debug)]
struct ReadOnlyFile(File);

impl StorageBackend for ReadOnlyFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn write(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

/// The schema of a database file, also of one that a later version wrote; none if there is no file, or it is empty.
/// Nothing is written, and the file is read only.
///
/// # Errors
/// The file is open elsewhere, damaged, not a database of ours, or cannot be read.
pub fn schema_in(path: &Path) -> Result<Option<u32>, StoreError> {
    let failed = |action| io_error(action, path);
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed("open database"))?,
    };
    if file.metadata().map_err(failed("open database"))?.len() == 0 {
        return Ok(None);
    }
    match file.try_lock_shared() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(StoreError::Locked { path: path.into() }),
        Err(TryLockError::Error(cause)) => return Err(failed("lock")(cause)),
    }
    // What redb writes while it opens the file is held, and forgotten.
    match open_held(Box::new(ReadOnlyFile(file)), path, SCHEMA_CACHE) {
        Ok((_, _, schema)) => Ok(schema),
        Err(StoreError::NewerSchema { found, .. }) => Ok(Some(found)),
        Err(error) => Err(error),
    }
}

/// Memory to look at a schema with.
const SCHEMA_CACHE: Bytes = Bytes(256 << 10);

/// Opens a database and looks at its schema; nothing is written yet.
fn open_held(
    storage: Box<dyn StorageBackend>,
    path: &Path,
    cache: Bytes,
) -> Result<(Database, Held, Option<u32>), StoreError> {
    let held = Held::new(storage);
    let db = builder(path, cache)
        .create_with_backend(held.clone())
        .map_err(|cause| open_error(path, cause.into()))?;
    let schema = schema_of(&db, path)?;
    match schema.filter(|found| *found > SCHEMA) {
        Some(found) => Err(StoreError::NewerSchema { path: path.into(), found, known: SCHEMA }),
        None => Ok((db, held, schema)),
    }
}

/// The schema of an open database; none if it is new.
fn schema_of(db: &Database, path: &Path) -> Result<Option<u32>, StoreError> {
    let failed = |cause: ::redb::Error| redb_error("read", path, cause);
    let foreign = |why| corrupt(path, io::Error::other(why));
    let read = db.begin_read().map_err(|cause| failed(cause.into()))?;
    let meta = match read.open_table(META) {
        Ok(meta) => meta,
        Err(TableError::TableDoesNotExist(_)) => {
            let others = read.list_tables().map_err(|cause| failed(cause.into()))?.next().is_some();
            return if others { Err(foreign("it was made by another program")) } else { Ok(None) };
        }
        Err(cause) => return Err(failed(cause.into())),
    };
    let value = meta.get(SCHEMA_KEY).map_err(|cause| failed(cause.into()))?;
    let value = value.ok_or_else(|| foreign("it names no schema"))?;
    let number: NonZero<u32> = value.value().parse().map_err(|_| foreign("its schema is not a number"))?;
    Ok(Some(number.get()))
}

/// Where [`META`] counts how often the database was opened again after a failure.
const REOPENED_KEY: &str = "reopened";

/// Makes a new database ours: its tables, and the schema that we write.
fn initialise(db: &Database) -> Result<(), ::redb::Error> {
    let write = db.begin_write()?;
    write.open_table(COLD)?;
    write.open_table(HOT)?;
    write.open_table(META)?.insert(SCHEMA_KEY, SCHEMA.to_string().as_str())?;
    Ok(write.commit()?)
}

fn corrupt(path: &Path, cause: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Corrupt { what: format!("database {}", path.display()), cause: Some(Arc::new(cause)) }
}

pub(super) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    move |cause| StoreError::Io { action, path: path.into(), cause: Arc::new(cause) }
}

/// Notes in the database that it was opened again: a commit that cannot do without new pages.
pub(super) fn mark(write: &::redb::WriteTransaction) -> Result<(), ::redb::Error> {
    let mut meta = write.open_table(META)?;
    let count = meta.get(REOPENED_KEY)?.and_then(|count| count.value().parse::<u64>().ok()).unwrap_or(0);
    meta.insert(REOPENED_KEY, count.wrapping_add(1).to_string().as_str())?;
    Ok(())
}

/// What went wrong with an open database.
pub(super) fn redb_error(action: &'static str, path: &Path, cause: ::redb::Error) -> StoreError {
    use ::redb::Error as E;
    match cause {
        E::DatabaseAlreadyOpen => StoreError::Locked { path: path.into() },
        E::DatabaseClosed => StoreError::Closed,
        E::Corrupted(_) | E::UpgradeRequired(_) => {
            StoreError::Corrupt { what: format!("database {}", path.display()), cause: Some(Arc::new(cause)) }
        }
        cause => StoreError::Redb { action, path: path.into(), cause: Arc::new(cause) },
    }
}

/// What went wrong with a database while it was opened: there, a file that ends too soon or begins with something
/// else is no database.
fn open_error(path: &Path, cause: ::redb::Error) -> StoreError {
    match cause {
        ::redb::Error::Io(cause)
            if matches!(cause.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
        {
            corrupt(path, cause)
        }
        cause => redb_error("open", path, cause),
    }
}
