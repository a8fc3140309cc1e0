//! Deletions of results find their way into the histories of jobs.

use tokio::sync::mpsc;

use crate::model::Deletion;
use crate::orchestrator::Orchestrator;
use crate::results::Shelf;

/// Deletions that wait to be written into histories; more are logged only.
const DELETIONS_MAX: usize = 1024;

/// Brings deletions from whichever thread made them to the core.
pub(super) fn hook(shelf: &Shelf) -> mpsc::Receiver<Deletion> {
    let (sender, receiver) = mpsc::channel(DELETIONS_MAX);
    shelf.on_deleted(Box::new(move |deletion| {
        log::info!("result of {} ({}): {}", deletion.execution_id, deletion.size, deletion.reason);
        if sender.try_send(deletion.clone()).is_err() {
            log::warn!("the history of {} does not say that its result went", deletion.job_id);
        }
    }));
    receiver
}

pub(super) async fn note(orchestrator: Orchestrator, mut deletions: mpsc::Receiver<Deletion>) {
    while let Some(deletion) = deletions.recv().await {
        orchestrator.note_deletion(&deletion).await;
    }
}
