//! Storage that keeps its hands still: what redb writes while it opens a file stays in memory until the file is
//! known to be ours.
//!
//! redb writes as soon as it opens a file (a mark that it is open, a repair after a crash), and only then can be
//! asked which schema is in it. A file of a later version must be left untouched, and so must one that turns out
//! to be damaged.

use std::io;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::{BackendError, StorageBackend};

use crate::sys::tally::STATE_WRITTEN;

/// What was to be done to the storage beneath.
#[derive(Debug)]
enum Step {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Sync,
}

/// What has not been done yet.
#[derive(Debug, Default)]
struct Waiting {
    /// A repair writes a few pages; one for each region of 4 GiB at most.
    steps: Vec<Step>,
    /// Length of the storage beneath, once something was read. From then on it is ours alone, and to ask for it with
    /// each page takes longer than to read the page.
    beneath: Option<u64>,
}

impl Waiting {
    /// Length of the storage as if everything had been done, if it is `beneath` long.
    fn len(&self, beneath: u64) -> u64 {
        self.steps.iter().fold(beneath, |len, step| match step {
            Step::Write(offset, data) => len.max(offset + data.len() as u64),
            Step::SetLen(len) => *len,
            Step::Sync => len,
        })
    }
}

/// The storage, and what has not been done to it yet.
#[derive(Debug)]
struct Inner {
    storage: Box<dyn StorageBackend>,
    released: AtomicBool,
    waiting: Mutex<Waiting>,
}

impl Inner {
    /// The one way for bytes into the storage.
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.storage.write(offset, data)?;
        STATE_WRITTEN.fetch_add(data.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}

/// A storage whose writes are held back until [`Held::release`]. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Held(Arc<Inner>);

impl Held {
    /// Holds back what is written to `storage` from now on.
    pub(super) fn new(storage: Box<dyn StorageBackend>) -> Self {
        Self(Arc::new(Inner { storage, released: AtomicBool::new(false), waiting: Mutex::default() }))
    }

    /// Does what was held back, in its order, and holds nothing back from now on. If that fails, everything is held
    /// back as before: the storage can still be read.
    pub(super) fn release(&self) -> io::Result<()> {
        let mut waiting = self.waiting();
        // Also if only some of it can be done.
        waiting.beneath = None;
        for step in &waiting.steps {
            match step {
                Step::Write(offset, data) => self.0.write(*offset, data)?,
                Step::SetLen(len) => self.0.storage.set_len(*len)?,
                Step::Sync => self.0.storage.sync_data()?,
            }
        }
        waiting.steps = Vec::new();
        self.0.released.store(true, Ordering::Release);
        Ok(())
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the step is to be done now; it is remembered if not.
    fn is_released(&self) -> bool {
        self.0.released.load(Ordering::Acquire)
    }
}

/// Lays what was written over what was read at `offset`, as far as they overlap.
fn overlay(out: &mut [u8], offset: u64, written_at: u64, data: &[u8]) {
    let (start, end) =
        (offset.max(written_at), (offset + out.len() as u64).min(written_at + data.len() as u64));
    if start < end {
        // Both differences are below a slice's length.
        let index = |from: u64, to: u64| usize::try_from(to - from).unwrap_or(usize::MAX);
        out[index(offset, start)..index(offset, end)]
            .copy_from_slice(&data[index(written_at, start)..index(written_at, end)]);
    }
}

impl StorageBackend for Held {
    fn len(&self) -> io::Result<u64> {
        if self.is_released() {
            return self.0.storage.len();
        }
        let beneath = self.0.storage.len()?;
        Ok(self.waiting().len(beneath))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.is_released() {
            return self.0.storage.read(offset, out);
        }
        let end = offset + out.len() as u64;
        let mut waiting = self.waiting();
        let beneath = match waiting.beneath {
            Some(len) => len,
            None => *waiting.beneath.insert(self.0.storage.len()?),
        };
        if end > waiting.len(beneath) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let beneath = beneath.clamp(offset, end) - offset;
        let (old, new) = out.split_at_mut(usize::try_from(beneath).unwrap_or(usize::MAX));
        self.0.storage.read(offset, old)?;
        new.fill(0);
        for step in &waiting.steps {
            match step {
                Step::Write(at, data) => overlay(out, offset, *at, data),
                // What was cut off is zero if it comes back.
                Step::SetLen(len) => {
                    let kept = len.clamp(&offset, &end) - offset;
                    out[usize::try_from(kept).unwrap_or(usize::MAX)..].fill(0);
                }
                Step::Sync => {}
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if self.is_released() {
            return self.0.storage.set_len(len);
        }
        self.waiting().steps.push(Step::SetLen(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.is_released() {
            return self.0.storage.sync_data();
        }
        self.waiting().steps.push(Step::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.is_released() {
            return self.0.write(offset, data);
        }
        self.waiting().steps.push(Step::Write(offset, data.to_vec()));
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.0.storage.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.storage.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.storage.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.storage.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.storage.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.storage.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.storage.query_lock_range(start, end)
    }
}
