//! Compiled modules, kept between runs: compiling is most of what a short job costs on a small board.
//!
//! One file for each module and version of the compiler: SHA-256 of what follows, then what the engine serialised.
//! Files may vanish or be damaged at any time (they are not synced): a module is then compiled again. They are code,
//! and loaded as such, so the directory must belong to this user and be writable by nobody else.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::model::{Bytes, Sha256};
use crate::sys::fs::create_private_dir;

/// Bytes of the digest at the beginning of a file.
const DIGEST: usize = 32;
/// Files in the directory: far more than fit in practice, few enough to list at start.
const FILES_MAX: usize = 1000;
const SUFFIX: &str = ".cwasm";

/// A directory of compiled modules that does not outgrow its limit: those that were not used for longest go first.
#[derive(Debug)]
pub struct ModuleCache {
    dir: PathBuf,
    limit: Bytes,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Size on disk, and when it was last used, counted in uses.
    files: BTreeMap<String, (Bytes, u64)>,
    used: Bytes,
    uses: u64,
}

impl ModuleCache {
    /// Opens or creates it. What is not a file of the cache is removed, and what is beyond the limit.
    ///
    /// # Errors
    /// The directory cannot be read, or others could write to it.
    pub fn open(dir: &Path, limit: Bytes) -> io::Result<Self> {
        create_private_dir(dir)?;
        let metadata = fs::symlink_metadata(dir)?;
        let own = metadata.is_dir() && metadata.uid() == rustix::process::geteuid().as_raw();
        if !own || metadata.mode() & 0o022 != 0 {
            let text = format!("{} must be a directory that only this user can write to", dir.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        let cache = Self { dir: dir.to_owned(), limit, state: Mutex::default() };
        let mut found = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            let name = entry.file_name().into_string().unwrap_or_default();
            if metadata.is_file() && name.ends_with(SUFFIX) && found.len() < FILES_MAX {
                found.push((
                    metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                    name,
                    Bytes(metadata.len()),
                ));
            } else if metadata.is_file() {
                fs::remove_file(entry.path())?;
            }
        }
        found.sort();
        let mut state = cache.lock();
        for (_, name, size) in found {
            state.insert(name, size);
        }
        cache.make_room(&mut state, Bytes::ZERO);
        drop(state);
        Ok(cache)
    }

    /// What it holds, in whole blocks.
    #[must_use]
    pub fn used(&self) -> Bytes {
        self.lock().used
    }

    /// What it may hold.
    #[must_use]
    pub const fn limit(&self) -> Bytes {
        self.limit
    }

    /// The map is whole between any two statements.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was stored for that module by that engine, if it is there and undamaged.
    #[must_use]
    pub fn get(&self, key: &Sha256) -> Option<Vec<u8>> {
        let name = format!("{}{SUFFIX}", key.hex());
        self.lock().touch(&name)?;
        let path = self.dir.join(&name);
        let read = || -> io::Result<([u8; DIGEST], Vec<u8>)> {
            let mut file = fs::File::open(&path)?;
            let (mut digest, mut body) = ([0; DIGEST], Vec::new());
            file.read_exact(&mut digest)?;
            // Bounded: it was at most the limit when it was counted, and only this program writes here.
            file.take(self.limit.0).read_to_end(&mut body)?;
            Ok((digest, body))
        };
        match read() {
            Ok((digest, body)) if Sha256::of(&body).0 == digest => Some(body),
            damaged => {
                log::warn!(
                    "compiled module {} is damaged and compiled again ({:?})",
                    path.display(),
                    damaged.err()
                );
                self.remove(&mut self.lock(), &name);
                None
            }
        }
    }

    /// Stores it. That this fails costs time, nothing else.
    pub fn put(&self, key: &Sha256, body: &[u8]) {
        let name = format!("{}{SUFFIX}", key.hex());
        let size = Bytes((body.len() + DIGEST) as u64).on_disk();
        // One module must not drive out all others.
        if size.0 > self.limit.0 / 2 {
            return;
        }
        let mut state = self.lock();
        self.make_room(&mut state, size);
        let (path, partial) = (self.dir.join(&name), self.dir.join("partial"));
        let written = (|| {
            let digest = Sha256::of(body);
            fs::write(&partial, [&digest.0, body].concat())?;
            fs::rename(&partial, &path)
        })();
        match written {
            Ok(()) => state.insert(name, size),
            Err(e) => {
                log::warn!("cannot keep the compiled module {}: {e}", path.display());
                // Whatever was written is swept at the next start if this fails too.
                let _ = fs::remove_file(&partial);
            }
        }
    }

    /// Until `more` fits.
    fn make_room(&self, state: &mut State, more: Bytes) {
        while state.used.plus(more) > self.limit || state.files.len() >= FILES_MAX {
            let oldest = state.files.iter().min_by_key(|(_, (_, used))| *used).map(|(name, _)| name.clone());
            let Some(name) = oldest else { return };
            self.remove(state, &name);
        }
    }

    fn remove(&self, state: &mut State, name: &str) {
        if let Some((size, _)) = state.files.remove(name) {
            state.used = state.used.minus(size);
        }
        if let Err(e) = fs::remove_file(self.dir.join(name)) {
            log::warn!("cannot remove the compiled module {name}: {e}");
        }
    }
}

impl State {
    fn insert(&mut self, name: String, size: Bytes) {
        self.uses += 1;
        let before = self.files.insert(name, (size.on_disk(), self.uses));
        self.used = self.used.plus(size.on_disk()).minus(before.map_or(Bytes::ZERO, |(size, _)| size));
    }

    fn touch(&mut self, name: &str) -> Option<()> {
        self.uses += 1;
        self.files.get_mut(name)?.1 = self.uses;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::engine::testing::TempDir;

    fn key(n: u8) -> Sha256 {
        Sha256::of(&[n])
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let dir = TempDir::new();
        let path = dir.path().join("cache");
        let cache = ModuleCache::open(&path, Bytes::kib(12)).unwrap();
        assert_eq!(cache.get(&key(1)), None);
        for n in 1..=3 {
            cache.put(&key(n), &[n; 100]);
        }
        assert_eq!(cache.used(), Bytes::kib(12));
        assert_eq!(cache.get(&key(1)), Some(vec![1; 100]));
        cache.put(&key(4), b"new");
        assert_eq!((cache.get(&key(2)), cache.used()), (None, Bytes::kib(12)));
        assert!(cache.get(&key(1)).is_some() && cache.get(&key(3)).is_some());
        // Larger than half of it: not taken.
        cache.put(&key(5), &[5; 7000]);
        assert_eq!((cache.get(&key(5)), cache.used()), (None, Bytes::kib(12)));
        // The same again replaces itself.
        cache.put(&key(4), b"newer");
        assert_eq!((cache.get(&key(4)).as_deref(), cache.used()), (Some(&b"newer"[..]), Bytes::kib(12)));
    }

    #[test]
    fn what_lies_there_is_taken_over_and_swept() {
        let dir = TempDir::new();
        let path = dir.path().join("cache");
        let cache = ModuleCache::open(&path, Bytes::kib(16)).unwrap();
        cache.put(&key(1), b"one");
        cache.put(&key(2), b"two");
        fs::write(path.join("partial"), "x").unwrap();
        let cache = ModuleCache::open(&path, Bytes::kib(16)).unwrap();
        assert_eq!(cache.get(&key(1)).as_deref(), Some(&b"one"[..]));
        assert!(!path.join("partial").exists());
        let smaller = ModuleCache::open(&path, Bytes::kib(4)).unwrap();
        assert_eq!((smaller.used(), fs::read_dir(&path).unwrap().count()), (Bytes::kib(4), 1));
    }

    #[test]
    fn damage_is_noticed() {
        let dir = TempDir::new();
        let cache = ModuleCache::open(&dir.path().join("cache"), Bytes::kib(16)).unwrap();
        for damage in [&b""[..], b"short", &[0; 100]] {
            cache.put(&key(1), b"code");
            let file = dir.path().join("cache").join(format!("{}.cwasm", key(1).hex()));
            fs::write(&file, damage).unwrap();
            assert_eq!((cache.get(&key(1)), cache.used(), file.exists()), (None, Bytes::ZERO, false));
        }
        cache.put(&key(1), b"code");
        fs::remove_file(dir.path().join("cache").join(format!("{}.cwasm", key(1).hex()))).unwrap();
        assert_eq!(cache.get(&key(1)), None);
    }

    #[test]
    fn others_must_not_write_there() {
        let dir = TempDir::new();
        let path = dir.path().join("cache");
        drop(ModuleCache::open(&path, Bytes::kib(16)).unwrap());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o770)).unwrap();
        assert_eq!(
            ModuleCache::open(&path, Bytes::kib(16)).unwrap_err().kind(),
            io::ErrorKind::PermissionDenied
        );
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        assert!(ModuleCache::open(&link, Bytes::kib(16)).is_err());
    }
}
