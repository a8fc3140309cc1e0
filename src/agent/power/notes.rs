//! Deletions that one run could not write into histories.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::disk::{Disk, Fault};
use super::life::{self, Alive};
use crate::archive::testing::Scratch;
use crate::model::{DeletionReason, ExecutionId, ResultStatus, Timestamp};
use crate::store::{Place, StoreSettings};
use crate::sys::FakeClock;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn start<T>(root: &Path, clock: &Arc<FakeClock>, then: impl AsyncFnOnce(&Alive) -> T) -> T {
    life::node(&Disk::new(root, Fault::Never), root, clock, false, |_| (), then).unwrap()
}

/// Has the ledger say that a result went, as if no note of it had come into the jobs' database.
fn went(root: &Path, id: &ExecutionId, at: Timestamp) {
    let settings = StoreSettings::new(Place::Redb(root.join("compute/executions.db")), Place::Memory);
    let stores = crate::store::open(&settings).unwrap();
    let mut entry = stores.executions.result(id).unwrap().unwrap();
    entry.status = ResultStatus::Deleted { reason: DeletionReason::Quota, at };
    let mut change = stores.executions.change();
    change.put_result(&entry);
    stores.executions.write(change).wait().unwrap();
    stores.close().unwrap();
}

#[test]
fn the_next_start_notes_every_deletion_that_a_run_could_not_note_once() {
    let scratch = Scratch::new();
    let root = scratch.path();
    let clock = Arc::new(FakeClock::at(life::START));
    let ids = start(root, &clock, async |node| {
        let mut ids = Vec::new();
        for name in ["a", "b", "c", "d"] {
            ids.push(node.run(life::job(name, 1)).await.unwrap());
        }
        ids
    });
    // Days lie between them: more than a note is ever on its way.
    for (days, id) in (0..).zip(&ids) {
        went(root, id, life::START.plus(DAY * days));
    }
    clock.set(life::START.plus(DAY * 5));
    for _ in 0..2 {
        let noted = start(root, &clock, async |node| {
            let histories = ids.iter().map(|id| {
                let entry = node.stores.executions.result(id).unwrap().unwrap();
                let history = node.stores.jobs.history(&entry.job_id, 0, 100).unwrap();
                history.iter().filter(|event| event.message.contains("was deleted: ")).count()
            });
            histories.collect::<Vec<_>>()
        });
        assert_eq!(noted, [1, 1, 1, 1]);
    }
}
