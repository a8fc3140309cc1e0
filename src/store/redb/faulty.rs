//! A disk in memory that fails when it is told to.

use std::io;
use std::sync::{Arc, Mutex};

use ::redb::StorageBackend;

/// Clones share the disk.
#[derive(Debug, Default, Clone)]
pub(super) struct Disk(pub Arc<Mutex<DiskState>>);

#[derive(Debug, Default)]
pub(super) struct DiskState {
    pub bytes: Vec<u8>,
    /// Writes, syncs and changes of length so far.
    pub steps: u64,
    /// Steps that still succeed, and how those after them fail.
    pub fails_from: Option<u64>,
    pub failure: Option<io::ErrorKind>,
    /// Whether the step that fails does its work all the same: an fsync that fails after the data went out.
    pub does_it: bool,
    /// How reads fail.
    pub reads_fail: Option<io::ErrorKind>,
    /// How often it was opened.
    pub opened: u64,
}

impl Disk {
    /// Fails from that many steps on.
    pub fn fail(&self, after: u64, failure: io::ErrorKind, does_it: bool) {
        let mut state = self.0.lock().unwrap();
        (state.fails_from, state.failure, state.does_it) =
            (Some(state.steps + after), Some(failure), does_it);
    }

    /// Works again.
    pub fn repair(&self) {
        let mut state = self.0.lock().unwrap();
        (state.fails_from, state.reads_fail) = (None, None);
    }

    pub fn steps(&self) -> u64 {
        self.0.lock().unwrap().steps
    }

    /// One more who has it open.
    pub fn open(&self) -> io::Result<Self> {
        self.0.lock().unwrap().opened += 1;
        Ok(self.clone())
    }

    fn step<T>(&self, act: impl FnOnce(&mut Vec<u8>) -> T) -> io::Result<T> {
        let mut state = self.0.lock().unwrap();
        state.steps += 1;
        if state.fails_from.is_some_and(|from| state.steps > from) {
            if state.does_it {
                act(&mut state.bytes);
            }
            return Err(state.failure.unwrap_or(io::ErrorKind::StorageFull).into());
        }
        Ok(act(&mut state.bytes))
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.0.lock().unwrap();
        if let Some(failure) = state.reads_fail {
            return Err(failure.into());
        }
        let start = usize::try_from(offset).unwrap();
        out.copy_from_slice(&state.bytes[start..start + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.step(|bytes| bytes.resize(usize::try_from(len).unwrap(), 0))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.step(|_| ())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap();
        self.step(|bytes| bytes[start..start + data.len()].copy_from_slice(data))
    }
}
