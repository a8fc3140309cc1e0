//! How the disk is, as the shelf knows it: it counts what the node takes, asks the file system for the rest, and
//! hears of writes that failed.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::error::NoRoom;
use super::shelf::Shelf;
use crate::model::disk::{MARGIN, Room};
use crate::model::{Bytes, Deletion, DiskEvent, DiskReport, DiskState, ExecutionId, Trouble, with_causes};
use crate::store::StoreError;
use crate::sys::Reserve;

/// What else of the node the shelf has to know.
pub struct Surroundings {
    /// What is wrong with the databases, while something is.
    pub trouble: Box<dyn Fn() -> Option<StoreError> + Send + Sync>,
    /// What is set aside for them.
    pub reserve: std::sync::Arc<Reserve>,
    /// Files that count against the quota beside results, scratch and cache: databases and reserve.
    pub files: Vec<PathBuf>,
    /// Called when the disk is not fine any more.
    pub wake: Box<dyn Fn() + Send + Sync>,
}

/// See the module's text.
#[derive(Default)]
pub(super) struct Watch {
    around: OnceLock<Surroundings>,
    report: Mutex<DiskReport>,
    /// A write outside the databases found no room.
    full: AtomicBool,
    /// States that were logged since the disk was fine: each once.
    told: Mutex<Vec<DiskState>>,
}

impl Shelf {
    /// Tells the shelf what else there is. Called once; without it, only free space counts.
    pub fn surround(&self, around: Surroundings) {
        let _ = self.watch.around.set(around);
    }

    /// How the disk was when it was last looked at.
    #[must_use]
    pub fn disk_report(&self) -> DiskReport {
        self.watch.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes that a write of an execution or of its result found no room.
    pub fn note_full(&self) {
        self.watch.full.store(true, Ordering::Release);
        if let Some(around) = self.watch.around.get() {
            (around.wake)();
        }
    }

    /// Looks at the disk. Each change is logged once. Takes no time to speak of.
    pub fn look_at_disk(&self) -> DiskReport {
        let around = self.watch.around.get();
        let missing = around.map_or(Bytes::ZERO, |around| around.reserve.missing());
        let space = self.disk.space();
        let trouble = around.and_then(|around| (around.trouble)());
        let min_free = self.settings.min_free;
        let mut report = self.watch.report.lock().unwrap_or_else(PoisonError::into_inner);
        let before = report.state;
        let full = self.watch.full.swap(false, Ordering::AcqRel);
        let trouble = match (&space, trouble) {
            (Err(error), _) => Some((Trouble::of(error), format!("cannot tell how much is free: {error}"))),
            (_, Some(error)) => error.trouble().map(|trouble| (trouble, with_causes(root(&error)))),
            (..) if full => Some((Trouble::Full, String::new())),
            _ => None,
        };
        let event = trouble.as_ref().map_or(DiskEvent::Works, |(trouble, _)| DiskEvent::Trouble(*trouble));
        let mut state = before.next(event);
        if let Ok(space) = &space {
            report.free = space.free;
            state = state.next(DiskEvent::Room(Room::of(space.free, min_free, missing)));
        }
        (report.state, report.min_free) = (state, min_free);
        report.cause = trouble.map(|(_, cause)| cause).unwrap_or_default();
        let report = report.clone();
        self.watch.tell(&report);
        if let (false, Some(around)) = (state.takes_work(), around.filter(|_| before.takes_work())) {
            (around.wake)();
        }
        report
    }

    /// Deletes results by the policy until the file system has what it is to have. Blocking.
    ///
    /// # Errors
    /// The ledger or a file cannot be changed, or the file system does not answer.
    pub fn relieve(&self) -> Result<Vec<Deletion>, NoRoom> {
        let missing = self.watch.around.get().map_or(Bytes::ZERO, |around| around.reserve.missing());
        self.collect(self.settings.min_free.plus(missing).plus(MARGIN), false)
    }

    /// Sets the reserve aside again if it was given up. Blocking.
    ///
    /// # Errors
    /// There is no room for it.
    pub fn restore_reserve(&self) -> std::io::Result<()> {
        self.watch.around.get().map_or(Ok(()), |around| around.reserve.hold())
    }

    /// Whether the reserve was given up.
    #[must_use]
    pub fn lacks_reserve(&self) -> bool {
        self.watch.around.get().is_some_and(|around| around.reserve.missing() > Bytes::ZERO)
    }

    /// What each execution has written so far.
    #[must_use]
    pub fn writers(&self) -> Vec<(ExecutionId, Bytes)> {
        let state = self.state();
        state.scratch.values().map(|scratch| (scratch.execution.clone(), scratch.meter.used())).collect()
    }

    /// What databases and reserve take.
    #[must_use]
    pub fn taken_beside(&self) -> Bytes {
        let files = self.watch.around.get().map_or(&[][..], |around| &around.files);
        let blocks = files.iter().filter_map(|file| file.metadata().ok()).map(|found| found.blocks());
        Bytes(blocks.sum::<u64>().saturating_mul(512))
    }
}

/// What failed, without what follows from it.
fn root(error: &StoreError) -> &StoreError {
    match error {
        StoreError::OutOfOrder { cause, .. } => root(cause),
        other => other,
    }
}

impl Watch {
    /// Logs each state once from the time when the disk was fine until it is so again.
    fn tell(&self, report: &DiskReport) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if report.state == DiskState::Fine {
            if !told.is_empty() {
                log::info!(target: "codling::disk", "the disk is fine again: {} free; work is taken", report.free);
                told.clear();
            }
        } else if !told.contains(&report.state) {
            log::warn!(target: "codling::disk", "{}; no new work is taken; {}", report.message(), report.hint());
            told.push(report.state);
        }
    }
}
