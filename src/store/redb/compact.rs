//! Giving back what deletions left: a redb file never shrinks by itself.

use std::sync::PoisonError;
use std::time::Instant;

use super::super::StoreError;
use super::super::backend::Compacted;
use super::view::Pending;
use super::{Open, RedbBackend, State, view_of};
use crate::model::Bytes;

/// What must be free in a file, at least, before it is worth the writes.
const WORTHWHILE: Bytes = Bytes::mib(1);

/// Readers and writers wait while pages move, so only as much is moved as an SD card takes a few seconds for.
const LIVE_MAX: Bytes = Bytes::mib(64);

impl RedbBackend {
    /// Moves what is in the file together and cuts the rest off, if half of it or more is free. redb does that in
    /// transactions: a power cut leaves the file as it was before one of them.
    pub(super) fn compact_file(&self) -> Result<Option<Compacted>, StoreError> {
        let _only = self.commit.lock().unwrap_or_else(PoisonError::into_inner);
        // Nothing waits any more: the view that goes below holds nothing that the file does not.
        self.commit_durably(&[])?;
        let before = self.len()?;
        let live = self.live()?;
        let free = before.minus(live);
        if free < WORTHWHILE || free < live || live > LIVE_MAX {
            log::debug!(target: "store", "{}: {free} of {before} are free", self.path.display());
            return Ok(None);
        }
        let start = Instant::now();
        let mut guard = self.state_mut();
        let Open { mut db, view } = match std::mem::replace(&mut *guard, State::Closed) {
            State::Open(open) => *open,
            other => {
                *guard = other;
                return Err(guard.error(&self.path));
            }
        };
        // Reads of earlier states would keep their pages where they are.
        drop(view);
        let compacted = db.compact().map_err(|error| match error {
            ::redb::CompactionError::Storage(cause) => self.failed("compact")(cause),
            other => self.failed("compact")(::redb::Error::from(other)),
        });
        // Whatever became of it: the database goes on, or is opened again.
        match view_of(&db).map_err(self.failed("read")) {
            Ok(view) => *guard = State::Open(Box::new(Open { view, db })),
            Err(error) => {
                drop(db);
                self.go_out(&mut guard, Pending::default(), compacted.as_ref().err().unwrap_or(&error));
                return Err(compacted.err().unwrap_or(error));
            }
        }
        drop(guard);
        compacted?;
        let after = self.len()?;
        log::info!(
            target: "store",
            "{}: compacted from {before} to {after} in {} ms",
            self.path.display(),
            start.elapsed().as_millis()
        );
        Ok(Some(Compacted { before, after }))
    }

    /// Bytes of the file.
    fn len(&self) -> Result<Bytes, StoreError> {
        let metadata = std::fs::metadata(&self.path).map_err(|cause| StoreError::Io {
            action: "look at",
            path: self.path.clone(),
            cause: std::sync::Arc::new(cause),
        })?;
        Ok(Bytes(metadata.len()))
    }

    /// Bytes of the pages in use, with those that the last commit let go of.
    fn live(&self) -> Result<Bytes, StoreError> {
        self.stats(|stats| stats.allocated_pages().saturating_mul(stats.page_size() as u64))
    }

    /// Bytes of keys and values, and of what holds them together. For whoever holds the lock of commits.
    pub(super) fn count_entries(&self) -> Result<Bytes, StoreError> {
        self.stats(|stats| stats.stored_bytes().saturating_add(stats.metadata_bytes()))
    }

    fn stats(&self, read: impl FnOnce(&::redb::DatabaseStats) -> u64) -> Result<Bytes, StoreError> {
        let guard = self.state();
        let State::Open(open) = &*guard else { return Err(guard.error(&self.path)) };
        let write = open.db.begin_write().map_err(self.failed("read"))?;
        let bytes = read(&write.stats().map_err(self.failed("read"))?);
        write.abort().map_err(self.failed("read"))?;
        Ok(Bytes(bytes))
    }
}
