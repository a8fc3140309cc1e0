//! Deletions that one run could not write into histories.

use std::path::Path;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use super::disk::{Disk, Fault};
use super::life::{self, Alive};
use crate::agent::deletions::Deletions;
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
        let noted = start(root, &clock, async |node| noted(node, &ids));
        assert_eq!(noted, [1, 1, 1, 1]);
    }
}

/// How often the history of each of them says that its result was deleted.
fn noted(node: &Alive, ids: &[ExecutionId]) -> Vec<usize> {
    let notes = |id| {
        let entry = node.stores.executions.result(id).unwrap().unwrap();
        let history = node.stores.jobs.history(&entry.job_id, 0, 100).unwrap();
        history.iter().filter(|event| event.message.contains("was deleted: ")).count()
    };
    ids.iter().map(notes).collect()
}

#[test]
fn more_deletions_than_can_wait_are_noted_from_the_ledger_once() {
    let scratch = Scratch::new();
    let clock = Arc::new(FakeClock::at(life::START));
    start(scratch.path(), &clock, async |node| {
        let mut ids = Vec::new();
        for _ in 0..life::DELETIONS_MAX + 20 {
            ids.push(node.run(life::job("a", 0)).await.unwrap());
        }
        // The core waits for this, and hears of none of them before all have gone.
        node.aside(|shelf| ids.iter().for_each(|id| drop(shelf.remove(id).unwrap())));
        assert!(node.until(|| noted(node, &ids).iter().all(|notes| *notes > 0)).await);
        let after = node.run(life::job("b", 1)).await.unwrap();
        node.aside(|shelf| drop(shelf.remove(&after).unwrap()));
        ids.push(after);
        assert!(node.until(|| noted(node, &ids[ids.len() - 1..]) == [1]).await);
        assert_eq!(noted(node, &ids), vec![1; ids.len()]);
    });
}

#[test]
fn what_was_on_its_way_while_the_ledger_was_looked_through_is_noted_once() {
    let scratch = Scratch::new();
    let clock = Arc::new(FakeClock::at(life::START));
    start(scratch.path(), &clock, async |node| {
        let id = node.run(life::job("a", 0)).await.unwrap();
        node.aside(|shelf| drop(shelf.remove(&id).unwrap()));
        assert!(node.until(|| noted(node, slice::from_ref(&id)) == [1]).await);
        let went = node.shelf.deleted_before(None).unwrap().unwrap();
        let (sender, queue) = mpsc::channel(1);
        let missed = Arc::new(AtomicBool::new(true));
        let deletions = Deletions::of(queue, Arc::clone(&missed));
        let noting =
            tokio::task::spawn_local(deletions.note(node.orchestrator.clone(), Arc::clone(&node.shelf)));
        assert!(node.until(|| !missed.load(Ordering::Relaxed)).await);
        sender.send(went.deletion).await.unwrap();
        drop(sender);
        noting.await.unwrap();
        assert_eq!(noted(node, &[id]), [1]);
    });
}
