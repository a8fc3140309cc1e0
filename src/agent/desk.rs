//! Where the core takes commands from other threads.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::compute::Compute;
use crate::model::JobSpec;
use crate::orchestrator::Orchestrator;
use crate::orchestrator::handle::{Command, CoreError, Renewal, Submitted};
use crate::publisher::Packer;
use crate::results::Shelf;
use crate::store::StoreError;

use super::news::News;

/// How long the store's thread may take to answer before the node is not ready. A commit on a worn card takes seconds.
const STORE_PATIENCE: Duration = Duration::from_secs(5);

/// Who carries out commands.
#[derive(Clone)]
pub(super) struct Desk {
    pub orchestrator: Orchestrator,
    pub compute: Compute,
    pub shelf: Arc<Shelf>,
    pub packer: Packer,
    pub news: News,
}

impl Desk {
    /// Takes a job, unless the disk takes no new work, also when what may go has gone.
    async fn submit(&self, spec: JobSpec) -> Result<Submitted, CoreError> {
        self.make_room().await?;
        self.orchestrator.submit(spec).await
    }

    /// The same for the next version of a job.
    async fn renew(&self, renewal: Renewal) -> Result<Submitted, CoreError> {
        self.make_room().await?;
        self.orchestrator.renew(renewal).await
    }

    async fn make_room(&self) -> Result<(), CoreError> {
        let mut report = self.shelf.look_at_disk();
        if report.state.evicts() {
            let shelf = Arc::clone(&self.shelf);
            // If that fails, the next look says so.
            let _ = self.packer.run(move || shelf.relieve().map(drop)).await;
            report = self.shelf.look_at_disk();
        }
        if !report.state.takes_work() {
            return Err(CoreError::Disk(report));
        }
        Ok(())
    }
}

/// Carries out what other threads ask for, each command on its own so that none waits for another's commit.
pub(super) async fn obey(desk: Desk, mut commands: mpsc::Receiver<Command>) {
    while let Some(command) = commands.recv().await {
        let desk = desk.clone();
        tokio::task::spawn_local(async move {
            // Whoever asked may have gone away; the command counts all the same.
            match command {
                Command::Submit(spec, answer) => drop(answer.send(desk.submit(*spec).await)),
                Command::Renew(renewal, answer) => {
                    drop(answer.send(desk.renew(*renewal).await));
                    desk.news.tell();
                }
                Command::Complete(mut spec, answer) => {
                    drop(answer.send(desk.orchestrator.complete(&mut spec).map(|()| *spec)));
                }
                Command::Stop(id, reason, answer) => {
                    drop(answer.send(desk.orchestrator.stop(&id, &reason).await));
                    desk.news.tell();
                }
                Command::Load(answer) => drop(answer.send(desk.compute.load())),
                Command::Check(answer) => drop(answer.send(check(&desk.compute).await)),
            }
        });
    }
}

/// Whether the store's thread answers.
async fn check(compute: &Compute) -> Result<(), CoreError> {
    let answered = tokio::time::timeout(STORE_PATIENCE, compute.ping_store()).await;
    Ok(answered.unwrap_or(Err(StoreError::Silent { after: STORE_PATIENCE }))?)
}
