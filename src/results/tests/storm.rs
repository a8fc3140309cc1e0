use std::collections::BTreeSet;
use std::io::Read;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::*;
use crate::model::{Pin, Sha256};
use crate::sys::Clock;

/// What may happen to a shelf; numbers choose among what is there.
#[derive(Debug, Clone)]
enum Event {
    Publish { kib: u64, retention: Option<u64> },
    Abandon { kib: u64 },
    Reserve { kib: u64 },
    Charge { which: usize, kib: u64 },
    Settle { which: usize },
    Release { which: usize },
    Cache { kib: u64 },
    Pin { which: usize, until: Option<u64> },
    Unpin { which: usize },
    Remove { which: usize },
    Read { which: usize },
    StopReading { which: usize },
    Expire,
    Gc,
    Wait { seconds: u64 },
    ClockBack { seconds: u64 },
}

fn event() -> impl Strategy<Value = Event> {
    use Event as E;
    prop_oneof![
        6 => (0u64..80, proptest::option::of(0u64..50))
            .prop_map(|(kib, retention)| E::Publish { kib, retention }),
        1 => (0u64..80).prop_map(|kib| E::Abandon { kib }),
        2 => (0u64..150).prop_map(|kib| E::Reserve { kib }),
        1 => (0usize..9, 0u64..50).prop_map(|(which, kib)| E::Charge { which, kib }),
        1 => (0usize..9).prop_map(|which| E::Settle { which }),
        2 => (0usize..9).prop_map(|which| E::Release { which }),
        1 => (0u64..40).prop_map(|kib| E::Cache { kib }),
        1 => (0usize..99, proptest::option::of(0u64..50)).prop_map(|(which, until)| E::Pin { which, until }),
        1 => (0usize..99).prop_map(|which| E::Unpin { which }),
        1 => (0usize..99).prop_map(|which| E::Remove { which }),
        2 => (0usize..99).prop_map(|which| E::Read { which }),
        2 => (0usize..9).prop_map(|which| E::StopReading { which }),
        1 => Just(E::Expire),
        1 => Just(E::Gc),
        2 => (0u64..30).prop_map(|seconds| E::Wait { seconds }),
        1 => (0u64..30).prop_map(|seconds| E::ClockBack { seconds }),
    ]
}

struct World {
    bench: Bench,
    leases: Vec<ScratchLease>,
    readers: Vec<OpenResult>,
}

impl World {
    fn stored(&self) -> Vec<ResultEntry> {
        self.bench.shelf.list().unwrap().into_iter().filter(ResultEntry::is_stored).collect()
    }

    fn pick(&self, which: usize) -> Option<ExecutionId> {
        let stored = self.stored();
        (!stored.is_empty()).then(|| stored[which % stored.len()].execution_id.clone())
    }

    fn happen(&mut self, event: &Event) {
        let bench = &self.bench;
        let shelf = &bench.shelf;
        match *event {
            Event::Publish { kib, retention } => {
                let _ = bench.publish_for(kib * KIB, retention.map(Duration::from_secs));
            }
            Event::Abandon { kib } => {
                let dir = bench.output(kib * KIB);
                let id = ExecutionId::random();
                if shelf.publish(&id, &JobId::random(), &dir, None, &Interrupt::new()).is_ok() {
                    shelf.abandon(&id);
                }
            }
            Event::Reserve { kib } => {
                self.leases.extend(shelf.reserve_scratch(&ExecutionId::random(), Bytes(kib * KIB)).ok());
            }
            Event::Charge { which, kib } => {
                if let Some(lease) = self.leases.get(which) {
                    let _ = lease.meter().charge(Bytes(kib * KIB));
                }
            }
            Event::Settle { which } => self.leases.get(which).into_iter().for_each(ScratchLease::settle),
            Event::Release { which } if which < self.leases.len() => drop(self.leases.swap_remove(which)),
            Event::StopReading { which } if which < self.readers.len() => {
                drop(self.readers.swap_remove(which));
            }
            Event::Release { .. } | Event::StopReading { .. } => {}
            Event::Cache { kib } => drop(shelf.set_cache_bytes(Bytes(kib * KIB))),
            Event::Pin { which, until } => {
                let until = until.map(|seconds| bench.clock.now().plus(Duration::from_secs(seconds)));
                self.pick(which).map(|id| shelf.pin(&id, Pin { until }).unwrap());
            }
            Event::Unpin { which } => drop(self.pick(which).map(|id| shelf.unpin(&id).unwrap())),
            Event::Remove { which } => drop(self.pick(which).map(|id| shelf.remove(&id))),
            Event::Read { which } => {
                let opened = self.pick(which).map(|id| shelf.open_result(&id).unwrap());
                self.readers.extend(opened);
            }
            Event::Expire => drop(shelf.expire().unwrap()),
            Event::Gc => drop(shelf.gc(false).unwrap()),
            Event::Wait { seconds } => bench.advance(Duration::from_secs(seconds)),
            Event::ClockBack { seconds } => {
                let back = i64::try_from(seconds * 1_000_000_000).unwrap();
                bench.clock.set(Timestamp(bench.clock.now().0 - back));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn quota_ledger_and_files_agree_whatever_happens(
        events in proptest::collection::vec(event(), 1..60),
    ) {
        let quota = 300 * KIB;
        let mut live = None;
        let bench = Bench::with(
            quota,
            |settings| {
                settings.min_free = Bytes(20 * KIB);
                settings.retention = Duration::from_secs(60);
                settings.max_count = 8;
            },
            |dir| {
                let disk = LiveDisk::new(dir, 290 * KIB);
                live = Some(Arc::clone(&disk));
                disk
            },
        );
        let live = live.unwrap();
        let mut world = World { bench, leases: Vec::new(), readers: Vec::new() };
        for event in &events {
            let now = world.bench.clock.now();
            let held: BTreeSet<ExecutionId> = world
                .stored()
                .into_iter()
                .filter(|entry| entry.is_pinned(now.plus(Duration::from_secs(31))))
                .map(|entry| entry.execution_id)
                .chain(world.readers.iter().map(|open| open.entry.execution_id.clone()))
                .collect();
            let before = world.bench.gone().len();
            world.happen(event);
            world.bench.check();
            // Nobody took what was held, and what went is not served.
            for gone in &world.bench.gone()[before..] {
                prop_assert!(!held.contains(gone), "{event:?} took {gone}");
                let missing = matches!(world.bench.shelf.open_result(gone), Err(Missing::Deleted { .. }));
                prop_assert!(missing);
            }
            let df = world.bench.shelf.df();
            prop_assert!(df.count <= df.max_count);
        }
        prop_assert!(live.peak() <= 270 * KIB, "MinFree was touched: {}", live.peak());
        // Everything that is still there is whole.
        for entry in world.stored() {
            let mut open = world.bench.shelf.open_result(&entry.execution_id).unwrap();
            let mut bytes = Vec::new();
            open.file.read_to_end(&mut bytes).unwrap();
            prop_assert_eq!(Sha256::of(&bytes), entry.sha256);
        }
    }
}

#[test]
fn readers_janitor_and_publishers_at_once() {
    let mut live = None;
    let bench = Bench::with(
        256 * KIB,
        |settings| settings.max_count = 10,
        |dir| {
            let disk = LiveDisk::new(dir, 1 << 20);
            live = Some(Arc::clone(&disk));
            disk
        },
    );
    let done = AtomicBool::new(false);
    let read = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let publishers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    for n in 0..25 {
                        // Readers may hold what would have to go: then it fails, cleanly.
                        match bench.publish(n * 2 * KIB) {
                            Ok(_) | Err(PublishError::TooLarge { .. } | PublishError::NoRoom(_)) => {}
                            Err(other) => panic!("{other}"),
                        }
                    }
                })
            })
            .collect();
        for _ in 0..2 {
            scope.spawn(|| {
                // At least one whole turn, however fast the others are.
                loop {
                    let last = done.load(Ordering::SeqCst);
                    for entry in bench.shelf.list().unwrap() {
                        let Ok(mut open) = bench.shelf.open_result(&entry.execution_id) else { continue };
                        let mut bytes = Vec::new();
                        open.file.read_to_end(&mut bytes).unwrap();
                        assert_eq!(Sha256::of(&bytes), open.entry.sha256);
                        read.fetch_add(1, Ordering::SeqCst);
                    }
                    bench.shelf.gc(false).unwrap();
                    let _ = bench.shelf.df();
                    if last {
                        break;
                    }
                }
            });
        }
        for publisher in publishers {
            publisher.join().unwrap();
        }
        done.store(true, Ordering::SeqCst);
    });
    bench.check();
    assert!(read.load(Ordering::SeqCst) > 0);
    assert!(live.unwrap().peak() <= 256 * KIB);
    assert!(bench.shelf.state().slots().all(|(_, slot)| slot.readers == 0));
}
