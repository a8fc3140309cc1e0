use std::io::Read;

use super::*;
use crate::model::{DeletionReason, Pin, ResultStatus, Sha256};
use crate::store::{Backend, Change, Durability, MemoryBackend, StoreError, Visit};
use crate::sys::Clock;

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn the_oldest_goes_and_says_so() {
    let bench = Bench::new(100 * KIB);
    let entries: Vec<_> = (0..4).map(|_| bench.publish(40 * KIB).unwrap()).collect();
    assert_eq!(bench.gone(), [entries[0].execution_id.clone(), entries[1].execution_id.clone()]);
    bench.check();
    let Err(Missing::Deleted { reason, at }) = bench.shelf.open_result(&entries[0].execution_id) else {
        panic!("it is there")
    };
    assert_eq!(reason, DeletionReason::Quota);
    assert!(at > entries[0].created && at <= bench.clock.now());
    let heard = bench.heard.lock().unwrap();
    assert_eq!((&heard[0].job_id, heard[0].size), (&entries[0].job_id, entries[0].size));
    assert!(matches!(bench.shelf.open_result(&ExecutionId::random()), Err(Missing::Never)));
}

#[test]
fn readers_keep_their_bytes() {
    let bench = Bench::new(100 * KIB);
    let first = bench.publish(40 * KIB).unwrap();
    let mut open = bench.shelf.open_result(&first.execution_id).unwrap();
    let second = bench.publish(40 * KIB).unwrap();
    bench.publish(40 * KIB).unwrap();
    assert_eq!(bench.gone(), [second.execution_id]);
    assert!(matches!(bench.shelf.remove(&first.execution_id), Err(Refusal::InUse)));
    let mut bytes = Vec::new();
    open.file.read_to_end(&mut bytes).unwrap();
    assert_eq!(Sha256::of(&bytes), first.sha256);
    // A second reader ends before the first: it is still in use.
    drop(bench.shelf.open_result(&first.execution_id).unwrap());
    assert!(matches!(bench.shelf.remove(&first.execution_id), Err(Refusal::InUse)));
    drop(open);
    bench.shelf.remove(&first.execution_id).unwrap();
    bench.check();
}

#[test]
fn pins_hold_until_they_end() {
    let bench = Bench::new(100 * KIB);
    let first = bench.publish(40 * KIB).unwrap();
    let until = bench.clock.now().plus(HOUR);
    let pinned = bench.shelf.pin(&first.execution_id, Pin { until: Some(until) }).unwrap();
    assert_eq!(bench.stores.executions.result(&first.execution_id).unwrap(), Some(pinned));
    let second = bench.publish(40 * KIB).unwrap();
    bench.publish(40 * KIB).unwrap();
    assert_eq!(bench.gone(), [second.execution_id]);
    assert!(matches!(bench.shelf.remove(&first.execution_id), Err(Refusal::Pinned)));
    bench.advance(HOUR);
    bench.publish(40 * KIB).unwrap();
    assert_eq!(bench.gone().last(), Some(&first.execution_id));
    assert!(matches!(
        bench.shelf.pin(&first.execution_id, Pin { until: None }),
        Err(Refusal::Missing(Missing::Deleted { reason: DeletionReason::Quota, .. }))
    ));
    assert!(matches!(bench.shelf.unpin(&ExecutionId::random()), Err(Refusal::Missing(Missing::Never))));
}

#[test]
fn scratch_takes_room_from_results_but_the_cache_does_not() {
    let bench = Bench::new(100 * KIB);
    bench.publish(40 * KIB).unwrap();
    bench.publish(40 * KIB).unwrap();
    assert!(bench.shelf.set_cache_bytes(Bytes(20 * KIB)).is_err());
    assert_eq!(bench.shelf.df().cache, Bytes::ZERO);
    bench.shelf.set_cache_bytes(Bytes(4 * KIB)).unwrap();
    let error = bench.shelf.reserve_scratch(&ExecutionId::random(), Bytes(97 * KIB)).unwrap_err();
    assert!(matches!(error, NoRoom::Quota { room, .. } if room == Bytes(96 * KIB)), "{error}");
    assert!(bench.gone().is_empty());
    let lease = bench.shelf.reserve_scratch(&ExecutionId::random(), Bytes(50 * KIB)).unwrap();
    assert_eq!(bench.gone().len(), 1);
    lease.meter().charge(Bytes(10 * KIB)).unwrap();
    let df = bench.shelf.df();
    assert_eq!((df.scratch, df.reserved), (Bytes(52 * KIB), Bytes(42 * KIB)));
    assert!(lease.meter().charge(Bytes(41 * KIB)).is_err());
    drop(lease);
    assert_eq!(bench.shelf.df().scratch, Bytes::ZERO);
    bench.check();
}

#[test]
fn promised_scratch_space_is_kept_free_on_the_disk() {
    let disk = Arc::new(FixedDisk::new(Bytes(1 << 30), Bytes(1 << 20)));
    let probe = Arc::clone(&disk);
    let bench = Bench::with(1 << 30, |settings| settings.min_free = Bytes(256 * KIB), |_| probe);
    let first = bench.shelf.reserve_scratch(&ExecutionId::random(), Bytes(512 * KIB)).unwrap();
    let error = bench.shelf.reserve_scratch(&ExecutionId::random(), Bytes(300 * KIB)).unwrap_err();
    assert!(matches!(error, NoRoom::Disk { room, .. } if room == Bytes(256 * KIB)), "{error}");
    // What was written of it shows on the disk and is no longer promised.
    first.meter().charge(Bytes(512 * KIB)).unwrap();
    disk.set_free(Bytes(512 * KIB));
    bench.shelf.reserve_scratch(&ExecutionId::random(), Bytes(256 * KIB)).unwrap();
}

#[test]
fn count_has_a_bound() {
    let bench = Bench::with(
        1 << 20,
        |settings| settings.max_count = 2,
        |_| Arc::new(FixedDisk::new(Bytes::gib(1), Bytes::gib(1))),
    );
    let entries: Vec<_> = (0..4).map(|_| bench.publish(KIB).unwrap()).collect();
    assert_eq!(bench.gone(), [entries[0].execution_id.clone(), entries[1].execution_id.clone()]);
    assert!(bench.heard.lock().unwrap().iter().all(|deletion| deletion.reason == DeletionReason::Count));
    for entry in &entries[2..] {
        bench.shelf.pin(&entry.execution_id, Pin { until: None }).unwrap();
    }
    let error = bench.publish(KIB).unwrap_err();
    assert!(matches!(error, PublishError::NoRoom(NoRoom::Count { limit: 2 })), "{error}");
    // Known before anything is read.
    let missing = bench.scratch.path().join("missing");
    let (id, job) = (ExecutionId::random(), JobId::random());
    let error = bench.shelf.publish(&id, &job, &missing, None, &Interrupt::new()).unwrap_err();
    assert!(matches!(error, PublishError::NoRoom(NoRoom::Count { limit: 2 })), "{error}");
    bench.check();
}

#[test]
fn results_expire_by_age_once_the_clock_is_trusted() {
    let hour = |settings: &mut ShelfSettings| settings.retention = HOUR;
    let bench = Bench::with(1 << 20, hour, |_| Arc::new(FixedDisk::new(Bytes::gib(1), Bytes::gib(1))));
    let usual = bench.publish(KIB).unwrap();
    let short = bench.publish_for(KIB, Some(HOUR / 2)).unwrap();
    let for_ever = bench.publish_for(KIB, Some(Duration::ZERO)).unwrap();
    assert!(bench.shelf.expire().unwrap().is_empty());
    assert_eq!(bench.shelf.next_expiry(), Some(short.created.plus(HOUR / 2)));

    bench.clock.set(START.plus(HOUR * 2));
    bench.clock.trust(false);
    assert!(bench.shelf.expire().unwrap().is_empty());
    // Still due: whoever waits for the clock knows what for.
    assert_eq!(bench.shelf.next_expiry(), Some(short.created.plus(HOUR / 2)));
    bench.clock.trust(true);
    let open = bench.shelf.open_result(&usual.execution_id).unwrap();
    let gone = bench.shelf.expire().unwrap();
    assert_eq!(gone.iter().map(|gone| &gone.execution_id).collect::<Vec<_>>(), [&short.execution_id]);
    assert_eq!(gone[0].reason, DeletionReason::Expired);
    // Being read: looked at again later, not at once.
    assert!(bench.shelf.next_expiry().unwrap() > bench.clock.now());
    drop(open);
    assert_eq!(bench.shelf.expire().unwrap().len(), 1);
    assert_eq!(bench.shelf.next_expiry(), None);
    assert_eq!(bench.files().into_keys().collect::<Vec<_>>(), [format!("{}{SUFFIX}", for_ever.execution_id)]);
    bench.check();
}

#[test]
fn results_from_before_the_clock_was_set_begin_to_age_when_it_is() {
    let hour = |settings: &mut ShelfSettings| settings.retention = HOUR;
    let bench = Bench::with(1 << 20, hour, |_| Arc::new(FixedDisk::new(Bytes::gib(1), Bytes::gib(1))));
    bench.clock.set(Timestamp(0));
    bench.clock.trust(false);
    let entries: Vec<_> = (0..3).map(|_| bench.publish(KIB).unwrap()).collect();
    bench.clock.set(START);
    bench.clock.trust(true);
    assert!(bench.shelf.expire().unwrap().is_empty());
    let mut listed = bench.shelf.list().unwrap();
    listed.reverse();
    // Same order, new dates.
    assert!(
        listed.iter().map(|entry| &entry.execution_id).eq(entries.iter().map(|entry| &entry.execution_id))
    );
    assert!(listed.iter().all(|entry| START.since(entry.created) < Duration::from_secs(1)));
    bench.clock.set(START.plus(HOUR));
    assert_eq!(bench.shelf.expire().unwrap().len(), 3);
}

#[test]
fn a_clock_that_jumps_back_deletes_nothing() {
    let hour = |settings: &mut ShelfSettings| settings.retention = HOUR;
    let bench = Bench::with(1 << 20, hour, |_| Arc::new(FixedDisk::new(Bytes::gib(1), Bytes::gib(1))));
    bench.publish(KIB).unwrap();
    bench.clock.set(Timestamp(START.0 - 1_000_000_000));
    assert!(bench.shelf.expire().unwrap().is_empty());
    bench.check();
}

/// 640 results that are due go in ten steps; who comes after the first of them waits for one step, not for all.
#[test]
fn deleting_many_results_keeps_nobody_waiting_for_all_of_them() {
    let hour = |settings: &mut ShelfSettings| (settings.retention, settings.max_count) = (HOUR, 1000);
    let collectors: [fn(&Shelf) -> Vec<Deletion>; 2] =
        [|shelf| shelf.gc(false).unwrap(), |shelf| shelf.expire().unwrap()];
    for collect in collectors {
        let bench = Bench::with(1 << 30, hour, |_| Arc::new(FixedDisk::new(Bytes::gib(10), Bytes::gib(10))));
        let due: Vec<ExecutionId> = (0..640).map(|_| bench.publish(1).unwrap().execution_id).collect();
        bench.advance(HOUR);
        let kept = bench.publish(1).unwrap();
        let told = bench.shelf.gc(true).unwrap();
        let (begun, begins) = std::sync::mpsc::channel();
        bench.shelf.on_deleted(Box::new(move |_| {
            let _ = begun.send(());
        }));
        let (shelf, heard) = (&bench.shelf, &bench.heard);
        let gone = std::thread::scope(|scope| {
            let other = scope.spawn(move || {
                begins.recv().unwrap();
                shelf.pin(&kept.execution_id, Pin { until: None }).unwrap();
                heard.lock().unwrap().len()
            });
            let gone = collect(&bench.shelf);
            let seen = other.join().unwrap();
            assert!(seen < due.len(), "it was let in after {seen} deletions");
            gone
        });
        assert_eq!(gone, told, "the answer has what went");
        assert!(gone.iter().map(|gone| &gone.execution_id).eq(&due));
        bench.check();
    }
}

#[test]
fn gc_tells_first_and_then_does_it() {
    let hour = |settings: &mut ShelfSettings| settings.retention = HOUR;
    let bench = Bench::with(1 << 20, hour, |_| Arc::new(FixedDisk::new(Bytes::gib(1), Bytes::gib(1))));
    bench.publish(KIB).unwrap();
    bench.advance(HOUR);
    bench.publish(KIB).unwrap();
    let told = bench.shelf.gc(true).unwrap();
    assert_eq!(told.len(), 1);
    assert_eq!(bench.files().len(), 2);
    let next = bench.shelf.df().next;
    assert_eq!(next[0], told[0]);
    assert_eq!(next[1].reason, DeletionReason::Quota);
    assert_eq!(bench.shelf.gc(false).unwrap(), told);
    assert!(bench.shelf.gc(false).unwrap().is_empty());
    bench.check();
}

#[test]
fn removing_says_what_went() {
    let bench = Bench::new(1 << 20);
    let entry = bench.publish(KIB).unwrap();
    let gone = bench.shelf.remove(&entry.execution_id).unwrap();
    assert_eq!((gone.execution_id, gone.reason), (entry.execution_id.clone(), DeletionReason::Removed));
    let again = bench.shelf.remove(&entry.execution_id);
    assert!(matches!(again, Err(Refusal::Missing(Missing::Deleted { reason: DeletionReason::Removed, .. }))));
    bench.check();
}

/// A row of a result that has gone; numbers make ids and times.
fn tombstone(n: usize) -> ResultEntry {
    let at = Timestamp(START.0 - 1_000_000 + i64::try_from(n).unwrap());
    ResultEntry {
        execution_id: ExecutionId::from_uuid(uuid::Uuid::from_u128(n as u128)),
        job_id: JobId::random(),
        size: Bytes(1),
        sha256: Sha256::of(b""),
        created: START,
        dating: Default::default(),
        fetched: false,
        retention: None,
        pin: None,
        status: ResultStatus::Deleted { reason: DeletionReason::Count, at },
    }
}

/// A shelf that opens a ledger with that many of them.
fn with_tombstones(count: usize) -> Bench {
    let bench = Bench::new(1 << 20);
    let mut change = bench.stores.executions.change();
    (0..count).for_each(|n| change.put_result(&tombstone(n)));
    bench.stores.executions.write(change).wait().unwrap();
    let disk = Arc::new(FixedDisk::new(Bytes::gib(1), Bytes::gib(1)));
    let (shelf, _) = Shelf::open(
        bench.settings.clone(),
        bench.stores.executions.clone(),
        disk,
        Arc::clone(&bench.clock) as _,
    )
    .unwrap();
    Bench { shelf, ..bench }
}

#[test]
fn rows_of_deleted_results_have_a_bound() {
    let bench = with_tombstones(TOMBSTONES_MAX + 5);
    assert_eq!(bench.shelf.list().unwrap().len(), TOMBSTONES_MAX);
    let entry = bench.publish(KIB).unwrap();
    bench.shelf.remove(&entry.execution_id).unwrap();
    assert_eq!(bench.shelf.list().unwrap().len(), TOMBSTONES_MAX);
    assert!(matches!(bench.shelf.open_result(&tombstone(5).execution_id), Err(Missing::Never)));
    assert!(matches!(bench.shelf.open_result(&tombstone(6).execution_id), Err(Missing::Deleted { .. })));
    assert!(matches!(bench.shelf.open_result(&entry.execution_id), Err(Missing::Deleted { .. })));
}

#[test]
fn a_result_that_is_published_again_is_no_row_to_be_forgotten() {
    let bench = with_tombstones(TOMBSTONES_MAX - 1);
    // It goes first, so its row would be the first to be forgotten.
    let id = ExecutionId::random();
    let dir = bench.output(KIB);
    let publish = || {
        let published = bench.shelf.publish(&id, &JobId::random(), &dir, None, &Interrupt::new()).unwrap();
        bench.confirm(&published.entry);
    };
    bench.clock.set(EARLIEST_BELIEVABLE);
    publish();
    bench.shelf.remove(&id).unwrap();
    bench.clock.set(START);
    publish();
    for _ in 0..2 {
        let other = bench.publish(KIB).unwrap();
        bench.shelf.remove(&other.execution_id).unwrap();
    }
    bench.shelf.open_result(&id).unwrap();
    bench.check();
}

#[test]
fn a_file_system_that_frees_late_costs_no_more_results() {
    // It shows the same free space whatever is deleted.
    let bench = Bench::with(
        1 << 20,
        |settings| settings.min_free = Bytes(200 * KIB),
        |_| Arc::new(FixedDisk::new(Bytes(1 << 20), Bytes(260 * KIB))),
    );
    for _ in 0..3 {
        bench.publish(40 * KIB).unwrap();
    }
    bench.shelf.reserve_scratch(&ExecutionId::random(), Bytes(80 * KIB)).unwrap();
    assert_eq!(bench.gone().len(), 1);
    assert_eq!(bench.heard.lock().unwrap()[0].reason, DeletionReason::MinFree);
    bench.check();
}

/// Looks at each commit before it is made, and may refuse it.
type Guard = Box<dyn FnMut() -> bool + Send>;

struct Guarded {
    inner: MemoryBackend,
    guard: Mutex<Guard>,
}

impl Guarded {
    /// A shelf with room for two results of 40 KiB, and the ledger under it.
    fn bench() -> (Bench, Arc<Self>) {
        let guarded = Arc::new(Self { inner: MemoryBackend::new(), guard: Mutex::new(Box::new(|| true)) });
        let executions = Arc::clone(&guarded) as Arc<dyn Backend>;
        let stores =
            Stores::over(executions, Arc::new(MemoryBackend::new()), Duration::from_secs(1)).unwrap();
        let scratch = Scratch::new();
        let settings = settings(&scratch, 100 * KIB);
        let disk = Arc::new(FixedDisk::new(Bytes::gib(1), Bytes::gib(1)));
        (Bench::over(scratch, settings, stores, |_| disk), guarded)
    }

    fn guard_with(&self, guard: impl FnMut() -> bool + Send + 'static) {
        *self.guard.lock().unwrap() = Box::new(guard);
    }
}

impl Backend for Guarded {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], reverse: bool, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.inner.scan(from, to, reverse, visit)
    }

    fn close(&self) -> Result<(), StoreError> {
        self.inner.close()
    }

    fn commit(&self, changes: &[Change], durability: Durability) -> Result<(), StoreError> {
        let allowed = (self.guard.lock().unwrap())();
        if allowed { self.inner.commit(changes, durability) } else { Err(StoreError::Closed) }
    }
}

#[test]
fn nobody_begins_to_read_what_is_being_deleted() {
    let (bench, guarded) = Guarded::bench();
    let first = bench.publish(40 * KIB).unwrap();
    let file = bench.settings.dir.join(format!("{}{SUFFIX}", first.execution_id));
    let (shelf, asked) = (Arc::clone(&bench.shelf), Arc::new(AtomicU64::new(0)));
    let count = Arc::clone(&asked);
    guarded.guard_with(move || {
        // The row is about to say that it is gone; the file is still there.
        count.fetch_add(1, Ordering::SeqCst);
        assert!(file.exists());
        matches!(shelf.open_result(&first.execution_id), Err(Missing::Never))
    });
    bench.shelf.reserve_scratch(&ExecutionId::random(), Bytes(80 * KIB)).unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    bench.check();
}

#[test]
fn without_a_ledger_nothing_is_deleted() {
    let (bench, guarded) = Guarded::bench();
    let first = bench.publish(40 * KIB).unwrap();
    bench.publish(40 * KIB).unwrap();
    let before = bench.files();
    guarded.guard_with(|| false);
    let error = bench.publish(40 * KIB).unwrap_err();
    assert!(matches!(error, PublishError::NoRoom(NoRoom::Ledger(_))), "{error}");
    assert!(matches!(bench.shelf.remove(&first.execution_id), Err(Refusal::Failed(NoRoom::Ledger(_)))));
    assert_eq!(bench.files(), before);
    assert!(bench.gone().is_empty());
    // Everything is still served, and goes when the ledger is well again.
    bench.shelf.open_result(&first.execution_id).unwrap();
    guarded.guard_with(|| true);
    bench.publish(40 * KIB).unwrap();
    assert_eq!(bench.gone(), [first.execution_id]);
    bench.check();
}

#[test]
fn results_keep_their_own_size_whatever_the_quota_has_left() {
    let bench = Bench::with(
        64 << 20,
        |settings| settings.max_size = Bytes(3 << 20),
        |_| Arc::new(FixedDisk::new(Bytes::gib(100), Bytes::gib(100))),
    );
    let entries: Vec<_> = (0..4).map(|_| bench.publish(900 * KIB).unwrap()).collect();
    bench.check();
    assert!(bench.shelf.df().results <= Bytes(3 << 20), "{:?}", bench.shelf.df());
    let heard = bench.heard.lock().unwrap().clone();
    assert_eq!(heard.len(), 1);
    assert_eq!((&heard[0].execution_id, heard[0].reason), (&entries[0].execution_id, DeletionReason::Size));
    // Scratch space is no part of it, and costs no result.
    let lease = bench.shelf.reserve_scratch(&ExecutionId::random(), Bytes(40 << 20)).unwrap();
    assert_eq!(bench.gone().len(), 1);
    drop(lease);
    // What could never fit is refused with the limit that it breaks, and costs no result either.
    let error = bench.publish(4 << 20).unwrap_err();
    assert!(matches!(error, PublishError::TooLarge { room, .. } if room == Bytes(3 << 20)), "{error}");
    assert_eq!(bench.gone().len(), 1);
    // A limit that was lowered is kept from the next start on, by what the dry run names.
    let mut settings = bench.settings.clone();
    settings.max_size = Bytes(1 << 20);
    let Bench { scratch: _scratch, stores, clock, shelf, .. } = bench;
    drop(shelf);
    let disk = Arc::new(FixedDisk::new(Bytes::gib(100), Bytes::gib(100)));
    let (shelf, report) = Shelf::open(settings, stores.executions.clone(), disk, clock as _).unwrap();
    let gone: Vec<_> = report.evicted.iter().map(|gone| (&gone.execution_id, gone.reason)).collect();
    assert_eq!(
        gone,
        [(&entries[1].execution_id, DeletionReason::Size), (&entries[2].execution_id, DeletionReason::Size)]
    );
    assert_eq!(shelf.df().count, 1);
}

#[test]
fn a_result_can_be_pinned_from_the_beginning() {
    let bench = Bench::new(2 << 20);
    let (id, job) = (ExecutionId::random(), JobId::random());
    let dir = bench.output(900 * KIB);
    let mut made = bench.shelf.publish(&id, &job, &dir, None, &Interrupt::new()).unwrap();
    made.entry.pin = Some(Pin { until: None });
    bench.confirm(&made.entry);
    bench.publish(900 * KIB).unwrap();
    bench.publish(900 * KIB).unwrap();
    assert!(!bench.gone().contains(&id));
    assert!(matches!(bench.shelf.remove(&id), Err(Refusal::Pinned)));
}
