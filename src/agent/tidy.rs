//! Gives memory back once work is done. An idle node wakes for nothing: this sleeps until a job has ended.

use std::time::Duration;

use crate::compute::Compute;
use crate::orchestrator::Orchestrator;
use crate::publisher::Packer;
use crate::sys::{heap, text};

/// How long nothing must have ended before it is worth it.
const QUIET: Duration = Duration::from_secs(1);

/// How long it may wait for that while work goes on.
const BUSY: u32 = 10;

/// When a start has done what it puts off: looking through the databases, compacting them.
const SETTLED: Duration = Duration::from_secs(30);

/// Runs for as long as the node.
pub(super) async fn run(compute: Compute, orchestrator: Orchestrator, packer: Packer) {
    // Once without any work: which of the two it was does not matter.
    let _ = tokio::time::timeout(SETTLED, orchestrator.ended(1)).await;
    loop {
        for _ in 0..BUSY {
            let more = tokio::time::timeout(QUIET, orchestrator.ended(1)).await.is_ok();
            if !more && compute.load().running == 0 {
                break;
            }
        }
        if packer.run(give_back).await.is_err() {
            return;
        }
        orchestrator.ended(1).await;
    }
}

/// Memory that is free, and pages of the program that are not needed while nothing is to be done.
fn give_back() {
    heap::give_back();
    text::release_pages();
}
