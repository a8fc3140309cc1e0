//! Lets jobs that have ended leave, and gives the room that they took back to the file system while nothing is to be
//! done.

use std::sync::Arc;
use std::time::Duration;

use crate::compute::Compute;
use crate::model::Bytes;
use crate::orchestrator::Orchestrator;
use crate::orchestrator::keep::JobKeeper;
use crate::publisher::Packer;
use crate::results::Shelf;
use crate::store::{ExecutionStore, JobStore, StoreError};

/// How often to look for jobs that are too old.
const EVERY: Duration = Duration::from_secs(3600);

/// How often to look whether the node has nothing to do, while there is something to compact.
const IDLE_CHECK: Duration = Duration::from_secs(15);

/// Most jobs that may be kept beyond `Store.MaxJobs` until the next look: so that many leave in one commit.
const SLACK_MAX: u64 = 256;

/// The databases and their reserve may take this part of the quota, their entries a third of that. If they take more, fewer
/// jobs are remembered: the quota is for results and for work.
const QUOTA_PARTS: u64 = 4;

/// So much they may take in any case: less is not worth the writes of a compaction.
const SIZE_LEAST: Bytes = Bytes::mib(8);

/// How many jobs end before the size is looked at again.
const SIZE_CHECK: u64 = 16;

/// How much more there must be before databases that are too large are tried again.
const GROWN: Bytes = Bytes::mib(1);

/// Results that go at a time because the records of their jobs take too much.
const GIVEN_UP: usize = 64;

/// Fewest jobs that are remembered, if their settings do not ask for less.
const JOBS_LEAST: u32 = 8;

/// What lets jobs go.
pub(super) struct Forget {
    pub databases: Databases,
    pub packer: Packer,
    pub compute: Compute,
    pub orchestrator: Orchestrator,
}

impl Forget {
    /// Runs for as long as the node.
    pub(super) async fn run(self) {
        // What an earlier run left may be worth compacting, too.
        let mut compact = true;
        loop {
            let databases = self.databases.clone();
            let work = move || {
                let left = databases.keeper.sweep()?.len() + databases.fit()?;
                Ok::<_, StoreError>((left, databases.keeper.ended()?))
            };
            let swept = self.packer.run(work).await;
            let more = match swept {
                Ok(Ok((left, ended))) => {
                    compact |= left > 0;
                    let max = u64::from(self.databases.keeper.policy().max_jobs);
                    (max + (max / 16).min(SLACK_MAX)).saturating_sub(ended) + 1
                }
                Ok(Err(error)) => {
                    log::warn!("jobs that are due stay for now: {error}");
                    SLACK_MAX
                }
                Err(_) => return,
            };
            let next = async {
                // Either way: the loop looks again.
                let _ = tokio::time::timeout(EVERY, self.due(more)).await;
            };
            tokio::pin!(next);
            while compact {
                if tokio::time::timeout(IDLE_CHECK, &mut next).await.is_ok() {
                    break;
                }
                if self.is_idle() {
                    compact = false;
                    self.compact().await;
                }
            }
            if !compact {
                next.await;
            }
        }
    }

    /// Waits until so many jobs have ended, or until the databases have grown too large.
    async fn due(&self, mut more: u64) {
        let fitted = self.databases.size();
        while more > 0 {
            let step = more.min(SIZE_CHECK);
            self.orchestrator.ended(step).await;
            more -= step;
            let size = self.databases.size();
            // What could not be made smaller is not tried again before it has grown.
            if size > self.databases.share() && size > fitted.plus(GROWN) {
                return;
            }
        }
    }

    fn is_idle(&self) -> bool {
        let load = self.compute.load();
        load.running == 0 && load.queued == 0
    }

    async fn compact(&self) {
        let databases = self.databases.clone();
        if let Ok(Err(error)) = self.packer.run(move || databases.compact()).await {
            log::warn!("a database could not be compacted: {error}");
        }
    }
}

/// Both databases, and what they hold: for the packer's thread.
#[derive(Clone)]
pub(super) struct Databases {
    pub keeper: Arc<JobKeeper>,
    pub shelf: Arc<Shelf>,
    pub jobs: JobStore,
    pub executions: ExecutionStore,
}

impl Databases {
    /// What they and their reserve take.
    fn size(&self) -> Bytes {
        self.shelf.taken_beside()
    }

    /// What they may take.
    fn share(&self) -> Bytes {
        SIZE_LEAST.max(Bytes(self.shelf.quota().0 / QUOTA_PARTS))
    }

    fn compact(&self) -> Result<(), StoreError> {
        self.jobs.compact()?;
        self.executions.compact()?;
        Ok(())
    }

    /// What the entries of both take.
    fn entries(&self) -> Result<Bytes, StoreError> {
        Ok(self.jobs.entry_bytes()?.plus(self.executions.entry_bytes()?))
    }

    /// Makes them fit into their part of the quota, also while there is work. Answers how many jobs left for that.
    fn fit(&self) -> Result<usize, StoreError> {
        if self.size() <= self.share() {
            return Ok(0);
        }
        // Pages are some two thirds full, and a file is made smaller once half of it is free.
        let most = Bytes(self.share().0 / 3);
        let entries = self.entries()?;
        let mut left = 0;
        if entries > most {
            let room = u128::from(self.keeper.ended()?) * u128::from(most.0) / u128::from(entries.0);
            let room = u32::try_from(room).unwrap_or(u32::MAX).max(JOBS_LEAST);
            if room < self.keeper.policy().max_jobs {
                log::warn!(
                    "records of jobs take {entries} of Results.Quota: {room} are kept from now on, {most}"
                );
                self.keeper.set_room(room);
            }
            // With that they need not fit to the byte; results go only if they are far from it.
            left = self.keeper.sweep()?.len() + self.give_up(Bytes(self.share().0 / 2))?;
        }
        self.compact()?;
        Ok(left)
    }

    /// Jobs stay with their results: some of those have to go if nothing else helps, or no job would run any more.
    fn give_up(&self, most: Bytes) -> Result<usize, StoreError> {
        let mut left = 0;
        while self.entries()? > most {
            match self.shelf.give_up(GIVEN_UP) {
                Ok(gone) if !gone.is_empty() => left += self.keeper.sweep()?.len(),
                Ok(_) => break,
                Err(error) => {
                    log::warn!("records of jobs take too much, and no result can go for it: {error}");
                    break;
                }
            }
        }
        Ok(left)
    }
}
