//! Lets jobs that have ended leave, and gives the room that they took back to the file system while nothing is to be
//! done.

use std::sync::Arc;
use std::time::Duration;

use crate::compute::Compute;
use crate::orchestrator::Orchestrator;
use crate::orchestrator::keep::JobKeeper;
use crate::publisher::Packer;
use crate::store::{ExecutionStore, JobStore, StoreError};

/// How often to look for jobs that are too old.
const EVERY: Duration = Duration::from_secs(3600);

/// How often to look whether the node has nothing to do, while there is something to compact.
const IDLE_CHECK: Duration = Duration::from_secs(15);

/// Most jobs that may be kept beyond `Store.MaxJobs` until the next look: so that many leave in one commit.
const SLACK_MAX: u64 = 256;

/// What lets jobs go.
pub(super) struct Forget {
    pub keeper: Arc<JobKeeper>,
    pub jobs: JobStore,
    pub executions: ExecutionStore,
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
            let keeper = Arc::clone(&self.keeper);
            let swept = self
                .packer
                .run(move || keeper.sweep().and_then(|left| Ok((left.len(), keeper.ended()?))))
                .await;
            let more = match swept {
                Ok(Ok((left, ended))) => {
                    compact |= left > 0;
                    let max = u64::from(self.keeper.policy().max_jobs);
                    (max + (max / 16).min(SLACK_MAX)).saturating_sub(ended) + 1
                }
                Ok(Err(error)) => {
                    log::warn!("jobs that are due stay for now: {error}");
                    SLACK_MAX
                }
                Err(_) => return,
            };
            let due = self.orchestrator.ended(more);
            let next = async {
                // Either way: the loop looks again.
                let _ = tokio::time::timeout(EVERY, due).await;
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

    fn is_idle(&self) -> bool {
        let load = self.compute.load();
        load.running == 0 && load.queued == 0
    }

    async fn compact(&self) {
        let (jobs, executions) = (self.jobs.clone(), self.executions.clone());
        let work = move || -> Result<(), StoreError> {
            jobs.compact()?;
            executions.compact()?;
            Ok(())
        };
        if let Ok(Err(error)) = self.packer.run(work).await {
            log::warn!("a database could not be compacted: {error}");
        }
    }
}
