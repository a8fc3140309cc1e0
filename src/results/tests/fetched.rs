//! Results that somebody has downloaded.

use super::*;
use crate::model::EvictFirst;

fn bench() -> Bench {
    Bench::with(
        100 * KIB,
        |settings| settings.evict_first = EvictFirst::Fetched,
        |_| Arc::new(FixedDisk::new(Bytes::gib(100), Bytes::gib(100))),
    )
}

#[test]
fn what_was_fetched_makes_room_first() {
    let bench = bench();
    let first = bench.publish(40 * KIB).unwrap();
    let second = bench.publish(40 * KIB).unwrap();
    bench.shelf.note_fetched(&second.execution_id);
    bench.shelf.note_fetched(&ExecutionId::random());
    assert!(bench.shelf.entry(&second.execution_id).unwrap().unwrap().fetched);
    assert_eq!(bench.shelf.df().next[0].execution_id, second.execution_id);
    bench.publish(40 * KIB).unwrap();
    assert_eq!(bench.gone(), [second.execution_id]);
    bench.publish(40 * KIB).unwrap();
    assert_eq!(bench.gone()[1], first.execution_id);
    bench.check();
}

#[test]
fn that_it_was_fetched_costs_no_commit_and_is_known_after_a_restart() {
    let bench = bench();
    let first = bench.publish(30 * KIB).unwrap();
    let second = bench.publish(30 * KIB).unwrap();
    let before = bench.stores.stats();
    bench.shelf.note_fetched(&second.execution_id);
    assert_eq!(bench.stores.stats(), before);
    assert!(!bench.stores.executions.result(&second.execution_id).unwrap().unwrap().fetched);
    // It rides along with the next commit.
    let mut change = bench.stores.executions.change();
    bench.shelf.notes(&mut change);
    bench.stores.executions.write(change).wait().unwrap();
    let Bench { scratch: _scratch, stores, clock, shelf, settings, .. } = bench;
    drop(shelf);
    let disk = Arc::new(FixedDisk::new(Bytes::gib(100), Bytes::gib(100)));
    let (shelf, _) = Shelf::open(settings, stores.executions.clone(), disk, clock as _).unwrap();
    let fetched: Vec<bool> = shelf.list().unwrap().iter().map(|row| row.fetched).collect();
    assert_eq!(fetched, [true, false], "newest first");
    assert_eq!(shelf.df().next[0].execution_id, second.execution_id);
    // The mark goes with the result.
    shelf.remove(&second.execution_id).unwrap();
    assert!(!shelf.entry(&second.execution_id).unwrap().unwrap().fetched);
    assert_eq!(shelf.df().next[0].execution_id, first.execution_id);
}
