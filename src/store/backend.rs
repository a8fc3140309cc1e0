//! What a database is to the rest of the store: an ordered map of byte keys to byte values.

use std::ops::ControlFlow;
use std::time::Instant;

use super::StoreError;
use crate::model::Bytes;

/// When a commit survives a power cut. Readers see it at once in either case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Together with the next durable commit of the same database.
    Lazy,
    /// When `commit` returns.
    Durable,
}

/// One step of a transaction. Steps apply in order: later ones see what earlier ones did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Sets a key to a value. Setting it to the value that it has writes nothing.
    Put(Vec<u8>, Vec<u8>),
    /// Sets a key to a value if another key is there: what belongs to something that has gone is not stored.
    PutBeside {
        /// What is set.
        key: Vec<u8>,
        /// To what.
        value: Vec<u8>,
        /// What has to be there.
        witness: Vec<u8>,
    },
    /// Removes a key; one that is not there is no error.
    Delete(Vec<u8>),
    /// Removes all keys from the first (included) to the second (excluded).
    DeleteRange(Vec<u8>, Vec<u8>),
    /// Removes `key` if there is no key from `from` (included) to `to` (excluded): what nobody refers to goes.
    DeleteOrphan {
        /// What may go.
        key: Vec<u8>,
        /// Where the references to it begin.
        from: Vec<u8>,
        /// Where they end.
        to: Vec<u8>,
    },
    /// Applies these steps if a key is not there: what was about to go may be wanted again by now.
    Unless {
        /// What must not be there.
        witness: Vec<u8>,
        /// What is done then.
        steps: Vec<Change>,
    },
}

impl Change {
    /// Bytes of memory that the change's keys and values hold.
    pub(super) fn weight(&self) -> u64 {
        let bytes = match self {
            Self::Put(a, b) | Self::DeleteRange(a, b) => a.len() + b.len(),
            Self::Delete(key) => key.len(),
            Self::PutBeside { key, value, witness } => key.len() + value.len() + witness.len(),
            Self::DeleteOrphan { key, from, to } => key.len() + from.len() + to.len(),
            Self::Unless { witness, steps } => {
                return witness.len() as u64 + steps.iter().map(Self::weight).sum::<u64>();
            }
        };
        bytes as u64
    }
}

/// What a scan hands each entry to, in order; `Break` ends the scan. It must not call the database: a writer may
/// be waiting for the scan to end.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// What a compaction did: bytes of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compacted {
    /// Before.
    pub before: Bytes,
    /// After.
    pub after: Bytes,
}

/// One database. Reads come from any thread and see whole transactions only; one thread commits.
pub trait Backend: Send + Sync {
    /// The value of a key.
    ///
    /// # Errors
    /// The database cannot be read, or is closed.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Visits the entries from `from` (included) to `to` (excluded), in key order or against it, as of one instant.
    ///
    /// # Errors
    /// The database cannot be read, or is closed.
    fn scan(&self, from: &[u8], to: &[u8], reverse: bool, visit: &mut Visit<'_>) -> Result<(), StoreError>;

    /// Applies all changes or none. With [`Durability::Durable`] all earlier lazy commits become durable too,
    /// also if there are no changes.
    ///
    /// # Errors
    /// Nothing of it is visible. If the storage failed, nothing or all of it will be found when the database
    /// is opened again.
    fn commit(&self, changes: &[Change], durability: Durability) -> Result<(), StoreError>;

    /// Makes the database's file smaller if deletions have left much of it free; readers and writers wait. None if
    /// there was nothing to be gained.
    ///
    /// # Errors
    /// The file cannot be read or written; what it holds is whole.
    fn compact(&self) -> Result<Option<Compacted>, StoreError> {
        Ok(None)
    }

    /// Bytes of all entries, without what is free in pages and between them. Reads the whole database; zero where there
    /// is no file.
    ///
    /// # Errors
    /// The file cannot be read.
    fn entry_bytes(&self) -> Result<Bytes, StoreError> {
        Ok(Bytes::ZERO)
    }

    /// Makes everything durable and lets go of the file. Later calls get [`StoreError::Closed`].
    ///
    /// # Errors
    /// What was committed lazily may be lost.
    fn close(&self) -> Result<(), StoreError>;

    /// When [`Backend::recover`] is wanted because something has failed. None: nothing has.
    fn retry_at(&self) -> Option<Instant> {
        None
    }

    /// Tries now to work again after a failure. What was committed lazily is durable then.
    ///
    /// # Errors
    /// It does not work yet.
    fn recover(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// What is wrong, while something is.
    fn trouble(&self) -> Option<StoreError> {
        None
    }

    /// Has `wake` called when a read has failed, so that somebody looks at [`Backend::retry_at`].
    fn on_failed_read(&self, _wake: Box<dyn Fn() + Send + Sync>) {}
}
