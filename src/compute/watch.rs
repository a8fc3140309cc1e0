//! What the compute role does when the disk runs full or fails, and when it is well again.
//!
//! Looks once a second while executions run or something is wrong. An idle node with a disk that is fine wakes for
//! nothing: it looks when work arrives, when somebody asks how it is, and when a write has failed.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::model::{Bytes, DiskReport, DiskState, ExecutionId};
use crate::sys::Cause;

use super::Compute;

/// How often to look while there is something to see.
const TICK: Duration = Duration::from_secs(1);

impl Compute {
    /// Rings when there is reason to look at the disk.
    #[must_use]
    pub fn disk_bell(&self) -> Arc<Notify> {
        Arc::clone(&self.bell)
    }

    /// Looks after the disk for as long as the node runs.
    pub async fn watch_disk(self) {
        let mut written = HashMap::new();
        let tidying = Rc::new(std::cell::Cell::new(false));
        let mut took_work = true;
        loop {
            let report = self.parts.shelf.look_at_disk();
            let takes_work = report.state.takes_work();
            if report.state.stops_writers() {
                self.stop_writers(&report, &written);
            }
            written = self.parts.shelf.writers().into_iter().collect();
            if (report.state.evicts() || (takes_work && self.parts.shelf.lacks_reserve())) && !tidying.get() {
                tokio::task::spawn_local(self.clone().tidy(takes_work, Rc::clone(&tidying)));
            }
            if takes_work && !took_work {
                self.pump();
            }
            took_work = takes_work;
            let quiet =
                takes_work && self.state.borrow().running.is_empty() && !self.parts.shelf.lacks_reserve();
            if quiet {
                self.bell.notified().await;
            } else {
                // Which of the two it was does not matter.
                let _ = tokio::time::timeout(TICK, self.bell.notified()).await;
            }
        }
    }

    /// Makes room, or takes the reserve back once there is some.
    async fn tidy(self, takes_work: bool, busy: Rc<std::cell::Cell<bool>>) {
        busy.set(true);
        let shelf = Arc::clone(&self.parts.shelf);
        let done = self.parts.packer.run(move || {
            if takes_work {
                shelf.restore_reserve().map_err(|error| error.to_string())
            } else {
                shelf.relieve().map(drop).map_err(|error| error.to_string())
            }
        });
        if let Ok(Err(error)) = done.await {
            log::debug!(target: "codling::disk", "cannot make room: {error}");
        }
        busy.set(false);
    }

    /// Stops the execution that has written most since the last look, if any has written: one at a time, what it gives
    /// back may be enough. Once the disk is full, all that write: they would write into the reserve.
    fn stop_writers(&self, report: &DiskReport, before: &HashMap<ExecutionId, Bytes>) {
        let full = report.state == DiskState::Full;
        let mut state = self.state.borrow_mut();
        if !full && state.running.values().any(|running| running.interrupt.cause() == Some(Cause::DiskFull)) {
            return;
        }
        let growth = |(id, used): &(ExecutionId, Bytes)| {
            (used.minus(before.get(id).copied().unwrap_or(Bytes::ZERO)), *used)
        };
        let mut writers = self.parts.shelf.writers();
        writers.retain(|writer| {
            growth(writer).0 > Bytes::ZERO
                && state.running.get(&writer.0).is_some_and(|running| running.interrupt.cause().is_none())
        });
        writers.sort_by_key(|writer| std::cmp::Reverse(growth(writer)));
        let mut interrupts = Vec::new();
        for (n, (id, used)) in writers.into_iter().enumerate().take(if full { usize::MAX } else { 1 }) {
            let Some(running) = state.running.get_mut(&id) else { continue };
            let which = if n == 0 { "writing the most" } else { "writing" };
            let reason = format!("{}; this execution was {which} ({used} so far)", report.message());
            log::warn!(target: "codling::disk", "stopping execution {id}: {reason}");
            running.stop_reason.get_or_insert(reason);
            interrupts.push(running.interrupt.clone());
        }
        drop(state);
        interrupts.iter().for_each(|interrupt| interrupt.raise(Cause::DiskFull));
    }
}
