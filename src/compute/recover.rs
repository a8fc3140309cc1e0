//! What becomes of executions that a stop of the node cut off.

use std::collections::HashSet;

use crate::model::state::ExecutionEvent;
use crate::model::{ExecutionId, ExecutionRecord, ExecutionState, Failure, FailureCode, Resources};
use crate::store::StoreError;
use crate::sys::Interrupt;

use super::scratch::{self, sweep};
use super::{Compute, Running, life};

/// What the start of the node found and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recovered {
    /// Executions that were running: failed with `node_restart`, their jobs decide what follows.
    pub interrupted: usize,
    /// Executions whose result is being published now.
    pub resumed: usize,
    /// Directories that belonged to nobody.
    pub swept: usize,
}

impl Compute {
    /// Settles what the last run of the node left, before any message is taken. Queued executions need nothing: the
    /// orchestrator asks again.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn recover(&self) -> Result<Recovered, StoreError> {
        let mut found = Recovered::default();
        let mut keep: HashSet<ExecutionId> = HashSet::new();
        for record in self.parts.store.active()? {
            let directory = scratch::of(&self.parts.scratch, &record.id);
            // A record without the output is of a run whose files were never synced.
            let can_resume = record.state == ExecutionState::Publishing
                && record.output.is_some()
                && directory.result().is_dir();
            if can_resume {
                keep.insert(record.id.clone());
                found.resumed += 1;
                self.resume(record);
            } else {
                found.interrupted += 1;
                self.interrupted(record).await?;
            }
        }
        let (base, packer) = (self.parts.scratch.clone(), self.parts.packer.clone());
        let files = self.parts.shelf.files();
        match packer.run(move || sweep(&*files, &base, &keep)).await {
            Ok(Ok(swept)) => found.swept = swept,
            Ok(Err(error)) => log::warn!("cannot sweep {}: {error}", self.parts.scratch.display()),
            Err(gone) => log::warn!("cannot sweep {}: {gone}", self.parts.scratch.display()),
        }
        Ok(found)
    }

    async fn interrupted(&self, mut record: ExecutionRecord) -> Result<(), StoreError> {
        let failure = Failure::new(FailureCode::NodeRestart, "the node restarted while it ran");
        if let Err(illegal) = record.state.next(ExecutionEvent::Fail) {
            log::error!("execution {}: {illegal}; left as it is", record.id);
            return Ok(());
        }
        // Cannot fail: asked just above.
        let _ = record.advance(ExecutionEvent::Fail, self.parts.clock.now());
        record.failure = Some(failure);
        record.output.get_or_insert_with(super::no_output);
        record.reported = !self.parts.outbox;
        let mut change = self.parts.store.change();
        change.put_execution(&record);
        // Should this be lost, the next start finds and says the same: a disk that takes nothing now keeps no node down.
        self.parts.store.write_lazy(change).await
    }

    fn resume(&self, record: ExecutionRecord) {
        let interrupt = Interrupt::new();
        let needs = Resources { cpu: crate::model::MilliCpu(0), ..record.resources };
        {
            let mut state = self.state.borrow_mut();
            state.used = state.used.plus(&needs);
            let running = Running { interrupt: interrupt.clone(), needs, stop_reason: None, for_ever: false };
            state.running.insert(record.id.clone(), running);
        }
        let this = self.clone();
        tokio::task::spawn_local(async move {
            let id = record.id.clone();
            this.until_released().await;
            let report = life::resume(&this, record, interrupt).await;
            this.finished(&id, report);
        });
    }
}
