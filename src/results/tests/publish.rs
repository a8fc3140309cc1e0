use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::archive::{UnpackLimits, unpack};
use crate::model::{DeletionReason, Sha256};
use crate::sys::Cause;

#[test]
fn what_is_published_is_served_once_it_is_confirmed() {
    let bench = Bench::new(1 << 20);
    let (id, job) = (ExecutionId::random(), JobId::random());
    let dir = bench.output(10 * KIB);
    let published = bench.shelf.publish(&id, &job, &dir, None, &Interrupt::new()).unwrap();
    assert_eq!((published.files, published.entry.job_id.clone()), (1, job));
    // Complete under its name, counted, but neither served nor deletable.
    assert_eq!(bench.files().into_keys().collect::<Vec<_>>(), [format!("{id}{SUFFIX}")]);
    assert!(matches!(bench.shelf.open_result(&id), Err(Missing::Never)));
    assert!(bench.shelf.df().results > Bytes::ZERO);
    assert!(bench.shelf.df().next.is_empty());

    bench.confirm(&published.entry);
    let mut open = bench.shelf.open_result(&id).unwrap();
    assert_eq!(open.entry, published.entry);
    let mut bytes = Vec::new();
    open.file.read_to_end(&mut bytes).unwrap();
    assert_eq!(Sha256::of(&bytes), published.entry.sha256);
    assert_eq!(open.file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let dest = Scratch::new();
    unpack(&bytes[..], dest.path(), &UnpackLimits::default()).unwrap();
    assert_eq!(fs::read(dest.path().join("stdout")).unwrap(), noise(10 * KIB));
    drop(open);
    bench.check();
    let again = bench.shelf.publish(&id, &JobId::random(), &dir, None, &Interrupt::new());
    assert!(matches!(again, Err(PublishError::Exists(_))));
    bench.check();
}

#[test]
fn what_is_abandoned_leaves_nothing() {
    let bench = Bench::new(1 << 20);
    let id = ExecutionId::random();
    let dir = bench.output(KIB);
    bench.shelf.publish(&id, &JobId::random(), &dir, None, &Interrupt::new()).unwrap();
    bench.shelf.abandon(&id);
    bench.check();
    assert_eq!(bench.shelf.df().results, Bytes::ZERO);
    // And it can be tried again.
    let again = bench.shelf.publish(&id, &JobId::random(), &dir, None, &Interrupt::new()).unwrap();
    bench.confirm(&again.entry);
    // Too late now.
    bench.shelf.abandon(&id);
    bench.check();
    assert_eq!(bench.files().len(), 1);
}

#[test]
fn a_result_larger_than_the_quota_fails_with_both_sizes_and_evicts_nothing() {
    let bench = Bench::new(256 * KIB);
    for _ in 0..3 {
        bench.publish(50 * KIB).unwrap();
    }
    let before = bench.files();
    let Err(PublishError::TooLarge { size, room }) = bench.publish(300 * KIB) else {
        panic!("it was published")
    };
    assert!(size > Bytes(300 * KIB) && size < Bytes(310 * KIB), "{size}");
    assert_eq!(room, Bytes(256 * KIB));
    assert_eq!(bench.files(), before);
    assert!(bench.gone().is_empty());
    bench.check();
}

#[test]
fn what_is_pinned_or_promised_is_no_room() {
    let bench = Bench::new(256 * KIB);
    let pinned = bench.publish(60 * KIB).unwrap();
    bench.publish(60 * KIB).unwrap();
    bench.shelf.pin(&pinned.execution_id, crate::model::Pin { until: None }).unwrap();
    let lease = bench.shelf.reserve_scratch(&ExecutionId::random(), Bytes(64 * KIB)).unwrap();
    let Err(PublishError::TooLarge { room, .. }) = bench.publish(150 * KIB) else {
        panic!("it was published")
    };
    assert_eq!(room, Bytes(256 * KIB - 64 * KIB).minus(pinned.size.on_disk()));
    assert!(bench.gone().is_empty());
    // The guest has written next to nothing: what it does not need is room again.
    lease.meter().charge(Bytes(10)).unwrap();
    lease.settle();
    assert_eq!(bench.shelf.df().scratch, Bytes(4096));
    bench.publish(150 * KIB).unwrap();
    assert_eq!(bench.gone().len(), 1);
    drop(lease);
    bench.check();
}

#[test]
fn what_shrinks_below_the_room_is_published_after_it_was_measured() {
    let quota = 256 * KIB;
    let compressing = |settings: &mut ShelfSettings| settings.pack = PackOptions::default();
    let bench = Bench::with(quota, compressing, |_| Arc::new(FixedDisk::new(Bytes::gib(1), Bytes::gib(1))));
    let dir = bench.scratch.path().join("zeros");
    bench.scratch.write("zeros/outputs/zeros", vec![0; 4 << 20]);
    let published =
        bench.shelf.publish(&ExecutionId::random(), &JobId::random(), &dir, None, &Interrupt::new()).unwrap();
    assert!(published.entry.size < Bytes(16 * KIB));
    bench.confirm(&published.entry);
    bench.check();
}

#[test]
fn quota_and_free_space_hold_at_every_step() {
    let (quota, min_free, total) = (12 << 20, 2 << 20, 10 << 20);
    let mut live = None;
    let bench = Bench::with(
        quota,
        |settings| settings.min_free = Bytes(min_free),
        |dir| {
            let disk = LiveDisk::new(dir, total);
            live = Some(Arc::clone(&disk));
            disk
        },
    );
    let live = live.unwrap();
    for size in [3, 2, 3, 5, 1, 7, 2] {
        bench.publish(size << 20).unwrap();
        bench.check();
    }
    // The disk is the tighter limit: 8 MiB in all, used to nearly the last.
    assert!(live.peak() <= total - min_free, "{}", live.peak());
    assert!(live.peak() > 7 << 20, "{}", live.peak());
    let reasons: Vec<_> = bench.heard.lock().unwrap().iter().map(|deletion| deletion.reason).collect();
    assert!(
        reasons.len() >= 5 && reasons.iter().all(|reason| *reason == DeletionReason::MinFree),
        "{reasons:?}"
    );
}

/// A disk that loses its free space after some questions.
struct Shrinking {
    asked: AtomicU64,
    after: u64,
}

impl DiskProbe for Shrinking {
    fn space(&self) -> io::Result<Space> {
        let free = if self.asked.fetch_add(1, Ordering::SeqCst) < self.after { 1 << 30 } else { 0 };
        Ok(Space { total: Bytes(1 << 30), free: Bytes(free) })
    }
}

#[test]
fn a_disk_that_runs_full_while_packing_ends_the_run_cleanly() {
    // Opening asks once, the size check once, each of five steps once.
    for after in 2..8 {
        let disk = Arc::new(Shrinking { asked: AtomicU64::new(0), after });
        let bench = Bench::with(16 << 20, |settings| settings.min_free = Bytes(1 << 20), |_| disk);
        match bench.publish((4 << 20) + 1000) {
            Err(PublishError::NoRoom(NoRoom::Disk { asked, room, min_free })) => {
                assert!(after < 7);
                assert_eq!((room, min_free), (Bytes::ZERO, Bytes(1 << 20)));
                assert!(asked <= STEP);
            }
            Ok(_) => assert_eq!(after, 7),
            other => panic!("{after}: {other:?}"),
        }
        bench.check();
        assert_eq!(bench.shelf.df().reserved, Bytes::ZERO);
    }
}

#[test]
fn a_stopped_run_leaves_nothing() {
    let interrupt = Interrupt::new();
    /// Raises the interrupt when the packing run asks for its second step.
    struct Raising(Interrupt, AtomicU64);
    impl DiskProbe for Raising {
        fn space(&self) -> io::Result<Space> {
            if self.1.fetch_add(1, Ordering::SeqCst) == 3 {
                self.0.raise(Cause::Timeout);
            }
            Ok(Space { total: Bytes(1 << 30), free: Bytes(1 << 30) })
        }
    }
    let disk = Arc::new(Raising(interrupt.clone(), AtomicU64::new(0)));
    let bench = Bench::with(16 << 20, |_| {}, |_| disk);
    let dir = bench.output(8 << 20);
    let result = bench.shelf.publish(&ExecutionId::random(), &JobId::random(), &dir, None, &interrupt);
    assert!(matches!(result, Err(PublishError::Interrupted(Cause::Timeout))), "{result:?}");
    bench.check();
    assert_eq!(bench.shelf.df().results, Bytes::ZERO);
}

#[test]
fn a_name_that_is_taken_fails_the_publication_and_nothing_else() {
    let bench = Bench::new(1 << 20);
    let id = ExecutionId::random();
    let dir = bench.output(KIB);
    let blocker = bench.settings.dir.join(format!("{id}{SUFFIX}"));
    fs::create_dir(&blocker).unwrap();
    let result = bench.shelf.publish(&id, &JobId::random(), &dir, None, &Interrupt::new());
    assert!(matches!(result, Err(PublishError::File { action: "rename", .. })), "{result:?}");
    fs::remove_dir(&blocker).unwrap();
    bench.check();

    // The same while it is written.
    let blocker = bench.settings.dir.join(format!("{id}{PARTIAL_SUFFIX}"));
    fs::create_dir(&blocker).unwrap();
    let result = bench.shelf.publish(&id, &JobId::random(), &dir, None, &Interrupt::new());
    assert!(matches!(result, Err(PublishError::File { action: "create", .. })), "{result:?}");
    fs::remove_dir(&blocker).unwrap();
}

#[test]
fn what_cannot_be_read_fails_with_its_name() {
    let bench = Bench::new(1 << 20);
    let missing = bench.scratch.path().join("nowhere");
    let result =
        bench.shelf.publish(&ExecutionId::random(), &JobId::random(), &missing, None, &Interrupt::new());
    assert!(matches!(result, Err(PublishError::Pack(_))), "{result:?}");
    bench.check();
}

#[test]
fn a_file_that_is_not_what_its_row_says_is_not_served() {
    let bench = Bench::new(1 << 20);
    let entry = bench.publish(KIB).unwrap();
    let path = bench.settings.dir.join(format!("{}{SUFFIX}", entry.execution_id));
    let mut file = fs::File::options().write(true).open(&path).unwrap();
    file.seek(SeekFrom::End(0)).unwrap();
    file.set_len(entry.size.0 - 1).unwrap();
    assert!(matches!(bench.shelf.open_result(&entry.execution_id), Err(Missing::File { .. })));
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
    assert!(matches!(bench.shelf.open_result(&entry.execution_id), Err(Missing::File { .. })));
    // The failed attempts hold nothing.
    bench.shelf.remove(&entry.execution_id).unwrap();
}
