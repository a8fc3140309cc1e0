//! Deletions of results find their way into the histories of jobs, also past a database that fails and a lost power.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::sleep;

use crate::model::Deletion;
use crate::orchestrator::Orchestrator;
use crate::results::{Shelf, Went};
use crate::store::StoreError;

/// Deletions that wait to be written into histories; what more there are is looked up in the ledger afterwards, which
/// remembers [`TOMBSTONES_MAX`](crate::results::TOMBSTONES_MAX).
pub(super) const DELETIONS_MAX: usize = 256;

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
    /// The last that was before there was a queue.
    last: Option<Went>,
}

/// Brings deletions from whichever thread makes them to the core, from now on: nothing may be deleted meanwhile. At most
/// `waiting` of them wait, as [`DELETIONS_MAX`] says.
///
/// # Errors
/// The ledger cannot be read.
pub(super) fn hook(shelf: &Shelf, waiting: usize) -> Result<Deletions, StoreError> {
    let last = shelf.deleted_before(None)?;
    let (sender, queue) = mpsc::channel(waiting);
    let missed = Arc::new(AtomicBool::new(false));
    let full = Arc::clone(&missed);
    shelf.on_deleted(Box::new(move |deletion| {
        log::info!("result of {} ({}): {}", deletion.execution_id, deletion.size, deletion.reason);
        if sender.try_send(deletion.clone()).is_err() {
            full.store(true, Ordering::Relaxed);
        }
    }));
    Ok(Deletions { queue, missed, last })
}

impl Deletions {
    /// Such as are in the queue, while others may be missing from it.
    #[cfg(test)]
    pub(super) fn of(queue: mpsc::Receiver<Deletion>, missed: Arc<AtomicBool>) -> Self {
        Self { queue, missed, last: None }
    }

    /// Notes what the last run did not come to, and `gone`, which this start found missing or had to delete. What
    /// cannot be noted now is for [`Self::note`].
    pub(super) async fn catch_up(
        &mut self,
        orchestrator: &Orchestrator,
        shelf: &Shelf,
        gone: &[Deletion],
        flush_after: Duration,
    ) {
        let last = self.last.take();
        let noted = async {
            for deletion in gone {
                orchestrator.note_deletion(deletion).await?;
            }
            look_back(orchestrator, shelf, last, gone, flush_after.saturating_add(LATE_WORDS)).await
        };
        if let Err(error) = noted.await {
            log::warn!("not all histories say yet which results went: {error}");
            self.missed.store(true, Ordering::Relaxed);
        }
    }

    /// Runs for as long as the node.
    pub(super) async fn note(mut self, orchestrator: Orchestrator, shelf: Arc<Shelf>) {
        // What came, and what was on its way, while the ledger was looked through may have been noted from there.
        let mut doubtful = 0;
        loop {
            if self.queue.is_empty() && self.missed.swap(false, Ordering::Relaxed) {
                insist(async || {
                    let last = shelf.deleted_before(None)?;
                    look_back(&orchestrator, &shelf, last, &[], Duration::MAX).await
                })
                .await;
                doubtful = 2 * self.queue.max_capacity();
            }
            let Some(deletion) = self.queue.recv().await else { return };
            let doubt = doubtful > 0;
            doubtful = doubtful.saturating_sub(1);
            insist(async || {
                if doubt && orchestrator.has_noted(&deletion)? {
                    return Ok(());
                }
                orchestrator.note_deletion(&deletion).await
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

/// Notes what no history says, from `place` back. Those of the last run's last moments may be missing singly, for they
/// were on their way; those before only all together, for they are noted one after the other. `others` have been noted.
async fn look_back(
    orchestrator: &Orchestrator,
    shelf: &Shelf,
    mut place: Option<Went>,
    others: &[Deletion],
    recent: Duration,
) -> Result<(), StoreError> {
    let mut newest = None;
    while let Some(went) = place {
        if others.iter().all(|other| other.execution_id != went.deletion.execution_id) {
            let newest = *newest.get_or_insert(went.at);
            if !orchestrator.has_noted(&went.deletion)? {
                orchestrator.note_deletion(&went.deletion).await?;
            } else if newest.since(went.at) > recent {
                break;
            }
        }
        // A history may be long: others get their turn.
        yield_now().await;
        place = shelf.deleted_before(Some(&went))?;
    }
    Ok(())
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
