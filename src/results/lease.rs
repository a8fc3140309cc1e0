//! What somebody holds of the shelf, given back when dropped.

use std::sync::Arc;

use uuid::Uuid;

use super::error::NoRoom;
use super::shelf::Shelf;
use super::state::{Phase, Scratch, Wish};
use crate::model::{Bytes, ExecutionId};
use crate::sys::Meter;

/// A result that stays while it is read.
#[derive(Debug)]
pub struct ReadLease {
    shelf: Arc<Shelf>,
    execution: Uuid,
}

impl ReadLease {
    /// None: there is no such result to be read.
    pub(super) fn take(shelf: &Arc<Shelf>, execution: Uuid) -> Option<Self> {
        let mut state = shelf.state();
        let slot = state.slot_mut(&execution).filter(|slot| slot.phase == Phase::Stored)?;
        slot.readers = slot.readers.checked_add(1)?;
        drop(state);
        Some(Self { shelf: Arc::clone(shelf), execution })
    }
}

impl Drop for ReadLease {
    fn drop(&mut self) {
        if let Some(slot) = self.shelf.state().slot_mut(&self.execution) {
            slot.readers = slot.readers.saturating_sub(1);
        }
    }
}

/// Room for an execution's scratch directory. To be dropped after the directory was removed.
#[derive(Debug)]
pub struct ScratchLease {
    shelf: Arc<Shelf>,
    number: u64,
    meter: Arc<Meter>,
}

impl ScratchLease {
    /// Counts what is written, against the amount of the lease.
    #[must_use]
    pub fn meter(&self) -> Arc<Meter> {
        Arc::clone(&self.meter)
    }

    /// Gives back what was not used, once nothing more will be written: the room is wanted for the result. What is
    /// charged to the meter afterwards is not covered any more.
    pub fn settle(&self) {
        if let Some(scratch) = self.shelf.state().scratch.get_mut(&self.number) {
            scratch.amount = scratch.amount.min(self.meter.used().on_disk());
        }
    }
}

impl Drop for ScratchLease {
    fn drop(&mut self) {
        self.shelf.state().scratch.remove(&self.number);
    }
}

impl Shelf {
    /// Takes room for what an execution may write, deleting results for it if that helps. Blocking.
    ///
    /// # Errors
    /// The room cannot be made; then nothing was deleted for it.
    pub fn reserve_scratch(
        self: &Arc<Self>,
        id: &ExecutionId,
        amount: Bytes,
    ) -> Result<ScratchLease, NoRoom> {
        let meter = Arc::new(Meter::new(amount));
        let scratch = Scratch { execution: id.clone(), amount: amount.on_disk(), meter: Arc::clone(&meter) };
        let number = self.make_room(Wish::Scratch(amount.on_disk()), |state| {
            let number = state.next_lease;
            state.next_lease += 1;
            state.scratch.insert(number, scratch);
            number
        })?;
        log::debug!(target: "results", "{amount} of scratch space for {id}");
        Ok(ScratchLease { shelf: Arc::clone(self), number, meter })
    }

    /// Says what the cache takes, before it grows. Results are never deleted for it.
    ///
    /// # Errors
    /// So much does not fit beside the rest: the old amount stands. Make the cache smaller first.
    pub fn set_cache_bytes(&self, bytes: Bytes) -> Result<(), NoRoom> {
        let bytes = bytes.on_disk();
        let mut state = self.state();
        let quota = self.settings.quota;
        let room = quota.minus(state.used().minus(state.cache));
        if bytes > state.cache && bytes > room {
            return Err(NoRoom::Quota { asked: bytes, room, quota, held: state.held() });
        }
        state.cache = bytes;
        Ok(())
    }
}
