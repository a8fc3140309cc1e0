//! What the shelf knows while it runs: which results there are, and who holds how much of the disk.
//!
//! Results are kept in some 100 bytes each; the rest of a row is read from the ledger when it is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::policy::Item;
use super::shelf::ShelfSettings;
use crate::model::{Bytes, Dating, DeletionReason, ExecutionId, JobId, Pin, ResultEntry, Timestamp};
use crate::sys::Meter;

/// Where a result stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its file is complete; its row is not known to be.
    Unconfirmed,
    /// File and row are there.
    Stored,
    /// It is being deleted.
    Leaving,
}

/// One result.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) job: Uuid,
    /// Of the file.
    pub(super) size: Bytes,
    pub(super) created: Timestamp,
    pub(super) retention: Option<Duration>,
    pub(super) pin: Option<Pin>,
    pub(super) readers: u32,
    pub(super) phase: Phase,
    /// Somebody has downloaded it whole.
    pub(super) fetched: bool,
    pub(super) dating: Dating,
    /// How often the clock had jumped when it got its date.
    pub(super) jumps: u64,
    /// The clock's uptime when it was published, if this run did that.
    pub(super) published: Option<Duration>,
}

impl Slot {
    pub(super) fn of(entry: &ResultEntry, phase: Phase) -> Self {
        Self {
            job: entry.job_id.uuid(),
            size: entry.size,
            created: entry.created,
            retention: entry.retention,
            pin: entry.pin,
            readers: 0,
            phase,
            fetched: entry.fetched,
            dating: entry.dating,
            jumps: 0,
            published: None,
        }
    }

    pub(super) fn job_id(&self) -> JobId {
        JobId::from_uuid(self.job)
    }
}

/// An archive that is being written.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Packing {
    /// What it may take by now.
    pub(super) reserved: Bytes,
    /// What it has taken.
    pub(super) written: Bytes,
}

/// What an execution may write.
#[derive(Debug)]
pub(super) struct Scratch {
    pub(super) execution: ExecutionId,
    pub(super) amount: Bytes,
    pub(super) meter: Arc<Meter>,
}

/// What somebody wants room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// Nothing: only standing excess counts.
    Nothing,
    /// So much for what an execution writes.
    Scratch(Bytes),
    /// So much for an archive.
    Archive(Bytes),
    /// A place for one more result, whose bytes are written already.
    Place,
}

impl Wish {
    pub(super) const fn bytes(self) -> Bytes {
        match self {
            Self::Scratch(bytes) | Self::Archive(bytes) => bytes,
            Self::Nothing | Self::Place => Bytes::ZERO,
        }
    }

    pub(super) const fn places(self) -> u32 {
        matches!(self, Self::Place) as u32
    }
}

/// How far a wish for room exceeds what there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Shortage {
    pub(super) quota: Bytes,
    pub(super) disk: Bytes,
    /// Of `Results.MaxSize`.
    pub(super) size: Bytes,
}

/// What went for one reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gone {
    /// How many results.
    pub count: u64,
    /// What they occupied.
    pub bytes: Bytes,
}

/// Everything that is counted.
#[derive(Debug, Default)]
pub(super) struct State {
    slots: BTreeMap<Uuid, Slot>,
    /// What the slots' files occupy.
    results: Bytes,
    pub(super) packing: BTreeMap<Uuid, Packing>,
    pub(super) scratch: BTreeMap<u64, Scratch>,
    pub(super) next_lease: u64,
    pub(super) cache: Bytes,
    /// Results that were fetched, not yet written down.
    pub(super) fetched: BTreeSet<Uuid>,
    /// What went since the start, by reason.
    pub(super) gone: BTreeMap<DeletionReason, Gone>,
    /// What counts beside results, scratch and cache, as of the last look.
    pub(super) beside: Bytes,
    /// Rows of results that have gone, by the time at which they went.
    pub(super) tombstones: BTreeSet<(Timestamp, Uuid)>,
}

impl State {
    pub(super) fn slot(&self, execution: &Uuid) -> Option<&Slot> {
        self.slots.get(execution)
    }

    /// For everything but the size.
    pub(super) fn slot_mut(&mut self, execution: &Uuid) -> Option<&mut Slot> {
        self.slots.get_mut(execution)
    }

    pub(super) fn slots(&self) -> impl ExactSizeIterator<Item = (&Uuid, &Slot)> {
        self.slots.iter()
    }

    pub(super) fn insert(&mut self, execution: Uuid, slot: Slot) {
        self.remove(&execution);
        self.results = self.results.plus(slot.size.on_disk());
        self.slots.insert(execution, slot);
    }

    pub(super) fn remove(&mut self, execution: &Uuid) -> Option<Slot> {
        let slot = self.slots.remove(execution)?;
        self.results = self.results.minus(slot.size.on_disk());
        Some(slot)
    }

    /// What results and archives in the making take or may take.
    pub(super) fn results(&self) -> Bytes {
        self.packing.values().fold(self.results, |sum, packing| sum.plus(packing.reserved))
    }

    /// What executions may write.
    pub(super) fn scratch(&self) -> Bytes {
        self.scratch.values().fold(Bytes::ZERO, |sum, scratch| sum.plus(scratch.amount))
    }

    /// All that counts against the quota.
    pub(super) fn used(&self) -> Bytes {
        self.results().plus(self.scratch()).plus(self.cache).plus(self.beside)
    }

    /// What takes how much of the quota, in words.
    pub(super) fn held(&self) -> String {
        let (results, scratch, cache, beside) = (self.results(), self.scratch(), self.cache, self.beside);
        format!("results {results}, executions {scratch}, cache {cache}, databases {beside}")
    }

    /// What was promised and is not yet on the disk.
    pub(super) fn unwritten(&self) -> Bytes {
        let packing = self.packing.values().map(|packing| packing.reserved.minus(packing.written));
        let scratch = self.scratch.values().map(|scratch| scratch.amount.minus(scratch.meter.used()));
        packing.chain(scratch).fold(Bytes::ZERO, Bytes::plus)
    }

    /// What is missing for a wish, if the file system has `free`.
    pub(super) fn shortage(&self, wish: Wish, settings: &ShelfSettings, free: Bytes) -> Shortage {
        let asked = wish.bytes();
        let stored = match wish {
            Wish::Archive(bytes) => self.results().plus(bytes),
            // Who wants scratch space has no part in what results take together.
            Wish::Scratch(_) => Bytes::ZERO,
            Wish::Nothing | Wish::Place => self.results(),
        };
        Shortage {
            quota: self.used().plus(asked).minus(settings.quota),
            disk: self.unwritten().plus(asked).plus(settings.min_free).minus(free),
            size: stored.minus(settings.max_size),
        }
    }

    /// How many results there are, without those that are being deleted.
    pub(super) fn count(&self) -> usize {
        self.slots.values().filter(|slot| slot.phase != Phase::Leaving).count()
    }

    /// The results as the policy sees them, with a clock that has jumped so often. What is not stored yet counts, but cannot go.
    pub(super) fn items(&self, jumps: u64) -> Vec<Item> {
        let counted = self.slots.iter().filter(|(_, slot)| slot.phase != Phase::Leaving);
        let item = |(execution, slot): (&Uuid, &Slot)| Item {
            execution: *execution,
            size: slot.size.on_disk(),
            created: slot.created,
            retention: slot.retention,
            pin: slot.pin,
            in_use: slot.readers > 0 || slot.phase == Phase::Unconfirmed,
            fetched: slot.fetched,
            undated: slot.is_undated(jumps),
        };
        counted.map(item).collect()
    }

    /// The rows to forget so that at most `max` remain after `more` are added: the oldest.
    pub(super) fn oldest_tombstones(&self, more: usize, max: usize) -> Vec<(Timestamp, Uuid)> {
        let excess = (self.tombstones.len() + more).saturating_sub(max);
        self.tombstones.iter().take(excess).copied().collect()
    }
}

/// The id of an execution in [`State`].
pub(super) fn execution_id(execution: &Uuid) -> ExecutionId {
    ExecutionId::from_uuid(*execution)
}
