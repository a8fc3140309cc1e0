//! Deletions of results find their way into the histories of jobs, also past a database that fails and a lost power.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::model::Deletion;
use crate::orchestrator::Orchestrator;
use crate::results::{Shelf, Went};
use crate::store::StoreError;

/// Deletions that wait to be written into histories; what more there are is looked up in the ledger afterwards.
const DELETIONS_MAX: usize = 1024;

/// How much later than `Store.FlushInterval` the word of a deletion may have been on its way into a history.
const LATE_WORDS: Duration = Duration::from_secs(60);

/// Pause before a note is tried again, and the longest: each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Deletions that are to be noted.
pub(super) struct Deletions {
    queue: mpsc::Receiver<Deletion>,
    /// Some are not in the queue.
    missed: Arc<AtomicBool>,
}

/// Brings deletions from whichever thread makes them to the core.
pub(super) fn hook(shelf: &Shelf) -> Deletions {
    let (sender, queue) = mpsc::channel(DELETIONS_MAX);
    let missed = Arc::new(AtomicBool::new(false));
    let full = Arc::clone(&missed);
    shelf.on_deleted(Box::new(move |deletion| {
        log::info!("result of {} ({}): {}", deletion.execution_id, deletion.size, deletion.reason);
        if sender.try_send(deletion.clone()).is_err() {
            full.store(true, Ordering::Relaxed);
        }
    }));
    Deletions { queue, missed }
}

impl Deletions {
    /// Notes what the last run did not come to, and `gone`, which this start found missing or had to delete. What
    /// cannot be written now is for [`Self::note`].
    ///
    /// # Errors
    /// A store cannot be read.
    pub(super) async fn catch_up(
        &self,
        orchestrator: &Orchestrator,
        shelf: &Shelf,
        gone: &[Deletion],
        flush_after: Duration,
    ) -> Result<(), StoreError> {
        let mut noted = Ok(());
        for deletion in gone {
            noted = noted.and(orchestrator.note_deletion(deletion).await);
        }
        let recent = flush_after.saturating_add(LATE_WORDS);
        let noted = noted.and(look_back(orchestrator, shelf, gone, recent).await?);
        if let Err(error) = noted {
            log::warn!("not all histories say yet which results went: {error}");
            self.missed.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Runs for as long as the node.
    pub(super) async fn note(mut self, orchestrator: Orchestrator, shelf: Arc<Shelf>) {
        loop {
            if self.queue.is_empty() && self.missed.swap(false, Ordering::Relaxed) {
                insist(async || look_back(&orchestrator, &shelf, &[], Duration::MAX).await?).await;
            }
            let Some(deletion) = self.queue.recv().await else { return };
            // What came while the ledger was looked through was noted from there.
            insist(async || match orchestrator.has_noted(&deletion)? {
                true => Ok(()),
                false => orchestrator.note_deletion(&deletion).await,
            })
            .await;
        }
    }
}

/// Does it until it is done, as long as it is the disk that keeps it from that.
async fn insist(note: impl AsyncFn() -> Result<(), StoreError>) {
    let mut pause = FIRST_PAUSE;
    while let Err(error) = note().await {
        if error.trouble().is_none() {
            log::warn!("a history does not say that a result went: {error}");
            return;
        }
        if pause == FIRST_PAUSE {
            log::warn!("a history does not say yet that a result went: {error}");
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Notes what no history says, from the newest deletion back. Those of the last run's last moments may be missing
/// singly, for they were on their way; those before only all together, for they are noted one after the other.
/// `others` have been noted. Returns whether the notes could be written.
async fn look_back(
    orchestrator: &Orchestrator,
    shelf: &Shelf,
    others: &[Deletion],
    recent: Duration,
) -> Result<Result<(), StoreError>, StoreError> {
    let (mut place, mut newest, mut written) = (None, None, Ok(()));
    while let Some(went) = shelf.deleted_before(place.as_ref())? {
        let Went { at, deletion } = place.insert(went);
        if others.iter().any(|other| other.execution_id == deletion.execution_id) {
            continue;
        }
        let newest = *newest.get_or_insert(*at);
        if !orchestrator.has_noted(deletion)? {
            written = written.and(orchestrator.note_deletion(deletion).await);
        } else if newest.since(*at) > recent {
            break;
        }
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io;

    use super::*;

    /// How often a note is tried that fails so, and then does not.
    fn tries(error: &StoreError, failures: u32) -> u32 {
        let tried = Cell::new(0);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.unwrap().block_on(insist(async || {
            tried.set(tried.get() + 1);
            if tried.get() > failures { Ok(()) } else { Err(error.clone()) }
        }));
        tried.get()
    }

    #[test]
    fn a_note_waits_for_the_disk_and_for_nothing_else() {
        let cause = Arc::new(io::Error::from_raw_os_error(28));
        let full = StoreError::Io { action: "write", path: "jobs.db".into(), cause };
        assert_eq!(tries(&full, 0), 1);
        assert_eq!(tries(&full, 2), 3);
        assert_eq!(tries(&StoreError::Closed, 2), 1);
    }
}
