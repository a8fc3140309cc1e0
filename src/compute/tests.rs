//! The compute role with real stores in memory, a real shelf on disk, and a scripted guest.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::bid::Offer;
use super::runner::{Ended, Runner, Work};
use super::*;
use crate::archive::PackOptions;
use crate::model::{Bytes, JobId, MilliCpu, Sha256, Timestamp};
use crate::results::ShelfSettings;
use crate::store::{StoreSettings, Stores, open};
use crate::sys::{FakeClock, FixedDisk};

/// What the next guest does.
enum Act {
    Prints(&'static str),
    Fails(FailureCode),
    /// Runs until it is stopped.
    Waits,
}

/// Long enough to be seen waiting.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

struct Script(Mutex<VecDeque<Act>>);

impl Runner for Script {
    fn run(&self, work: &Work) -> Ended {
        let act = self.0.lock().unwrap().pop_front().unwrap_or(Act::Prints("more"));
        let ended = |exit_code, failure| Ended {
            output: RunOutput { exit_code, ..RunOutput::default() },
            failure,
            lease: None,
        };
        match act {
            Act::Prints(text) => {
                std::fs::create_dir_all(work.scratch.result()).unwrap();
                std::fs::write(work.scratch.stdout(), text).unwrap();
                ended(0, None)
            }
            Act::Fails(code) => ended(-1, Some(Failure::new(code, "scripted"))),
            Act::Waits => {
                let _ = work.interrupt.sleep(std::time::Duration::from_secs(3600));
                ended(-1, Some(Failure::new(FailureCode::Cancelled, "stopped")))
            }
        }
    }
}

struct Bench {
    dir: PathBuf,
    stores: Stores,
}

impl Bench {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("codling-compute-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(dir.join("scratch")).unwrap();
        Self { dir, stores: open(&StoreSettings::memory()).unwrap() }
    }

    fn role(&self, acts: Vec<Act>) -> (Compute, UnboundedReceiver<FromCompute>, Arc<Shelf>) {
        let clock: Arc<dyn Clock> = Arc::new(FakeClock::at(Timestamp(1)));
        let settings = ShelfSettings {
            dir: self.dir.join("results"),
            quota: Bytes::mib(64),
            min_free: Bytes::ZERO,
            retention: std::time::Duration::ZERO,
            max_count: 100,
            max_size: Bytes(u64::MAX),
            evict_first: crate::model::EvictFirst::Oldest,
            pack: PackOptions::default(),
        };
        let disk = Arc::new(FixedDisk::new(Bytes::gib(1), Bytes::gib(1)));
        let (shelf, _) =
            Shelf::open(settings, self.stores.executions.clone(), disk, Arc::clone(&clock)).unwrap();
        let packer = Packer::start().unwrap();
        let all = Resources { cpu: MilliCpu(1000), memory: Bytes::mib(64), disk: Bytes::mib(64), gpu: 0 };
        let (reports, heard) = unbounded_channel();
        let parts = Parts {
            offer: Offer {
                engines: vec!["wasm".into()],
                publishers: vec!["local".into()],
                capacity: all,
                per_job: all,
                defaults: Resources { cpu: MilliCpu(600), disk: Bytes::mib(1), ..Resources::default() },
                ..Offer::default()
            },
            running_max: 8,
            scratch: self.dir.join("scratch"),
            store: self.stores.executions.clone(),
            bodies: Box::new(|_| Some(Arc::new(spec()))),
            shelf: Arc::clone(&shelf),
            publisher: LocalPublisher::new(Arc::clone(&shelf), packer.clone()),
            packer,
            readers: Arc::default(),
            runner: Arc::new(Script(Mutex::new(acts.into()))),
            clock,
            reports,
            restart_pause: PAUSE,
            outbox: false,
        };
        (Compute::new(parts), heard, shelf)
    }

    fn record(&self, id: &ExecutionId) -> ExecutionRecord {
        self.stores.executions.get(id).unwrap().unwrap()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn spec() -> JobSpec {
    let body = r#"{"namespace":"default","type":"batch","count":1,
        "task":{"name":"main","engine":{"kind":"wasm"},"publisher":{"kind":"local"}}}"#;
    serde_json::from_str(body).unwrap()
}

fn order() -> Order {
    Order {
        id: ExecutionId::random(),
        job_id: JobId::random(),
        spec: Arc::new(spec()),
        digest: Sha256([0; 32]),
        partition: 0,
        restarts: 0,
    }
}

fn run_now(compute: &Compute, order: &Order) {
    compute.handle(ToCompute::AskForBid { execution: Box::new(order.clone()), run_now: true });
}

fn on_core<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

/// The next report that ends an execution.
async fn end(heard: &mut UnboundedReceiver<FromCompute>) -> FromCompute {
    loop {
        let report = heard.recv().await.unwrap();
        if matches!(report, FromCompute::RunResult { .. } | FromCompute::ComputeError { .. }) {
            return report;
        }
    }
}

#[test]
fn a_run_ends_on_the_shelf_and_is_answered_again_without_running_again() {
    let bench = Bench::new();
    on_core(async {
        let (compute, mut heard, shelf) = bench.role(vec![Act::Prints("hello")]);
        let order = order();
        run_now(&compute, &order);
        let first = end(&mut heard).await;
        assert!(
            matches!(&first, FromCompute::RunResult { published: true, output, .. } if output.exit_code == 0)
        );
        let record = bench.record(&order.id);
        assert_eq!(record.state, ExecutionState::Completed);
        assert!(shelf.open_result(&order.id).is_ok());
        assert!(!bench.dir.join("scratch").join(order.id.as_str()).exists());
        run_now(&compute, &order);
        assert_eq!(end(&mut heard).await, first);
        assert_eq!(bench.record(&order.id).revision, record.revision);
    });
}

#[test]
fn what_does_not_fit_waits_its_turn_and_can_be_cancelled_there() {
    let bench = Bench::new();
    on_core(async {
        let (compute, mut heard, _) = bench.role(vec![Act::Waits, Act::Prints("next")]);
        let (first, second, third) = (order(), order(), order());
        for order in [&first, &second, &third] {
            run_now(&compute, order);
            run_now(&compute, order);
        }
        assert_eq!(
            (compute.load().running, compute.load().queued),
            (1, 2),
            "two of 600m do not fit into 1000m"
        );
        compute.handle(ToCompute::Cancel { id: second.id.clone(), reason: "not needed".into() });
        let FromCompute::ComputeError { id, failure } = end(&mut heard).await else { panic!() };
        assert_eq!((id, failure.code), (second.id, FailureCode::Cancelled));
        compute.handle(ToCompute::Cancel { id: first.id.clone(), reason: "enough".into() });
        let FromCompute::ComputeError { id, failure } = end(&mut heard).await else { panic!() };
        assert_eq!((id, failure.message.as_str()), (first.id.clone(), "enough"));
        assert_eq!(bench.record(&first.id).state, ExecutionState::Cancelled);
        let FromCompute::RunResult { id, .. } = end(&mut heard).await else { panic!() };
        assert_eq!(id, third.id);
        assert_eq!(compute.load().available, compute.parts.offer.capacity, "everything was given back");
    });
}

#[test]
fn a_failure_is_stored_with_its_reason() {
    let bench = Bench::new();
    on_core(async {
        let (compute, mut heard, _) = bench.role(vec![Act::Fails(FailureCode::OutOfMemory)]);
        let order = order();
        run_now(&compute, &order);
        let FromCompute::ComputeError { failure, .. } = end(&mut heard).await else { panic!() };
        assert_eq!(failure.code, FailureCode::OutOfMemory);
        let record = bench.record(&order.id);
        assert_eq!((record.state, record.failure), (ExecutionState::Failed, Some(failure)));
    });
}

#[test]
fn after_a_restart_publishing_goes_on_and_running_was_cut_off() {
    let bench = Bench::new();
    let (published, cut_off) = (order(), order());
    on_core(async {
        for (order, state) in [(&published, ExecutionState::Publishing), (&cut_off, ExecutionState::Running)]
        {
            let record = ExecutionRecord {
                id: order.id.clone(),
                job_id: order.job_id.clone(),
                digest: order.digest,
                partition: 0,
                restarts: 0,
                state,
                revision: 3,
                resources: Resources { disk: Bytes::mib(1), ..Resources::default() },
                created: Timestamp(1),
                modified: Timestamp(1),
                failure: None,
                output: Some(RunOutput { stdout: "kept".into(), ..RunOutput::default() }),
                reported: false,
            };
            let mut change = bench.stores.executions.change();
            change.put_execution(&record);
            bench.stores.executions.write(change).await.unwrap();
            let result = scratch::of(&bench.dir.join("scratch"), &order.id).result();
            std::fs::create_dir_all(&result).unwrap();
            std::fs::write(result.join("stdout"), "kept").unwrap();
        }
        std::fs::create_dir_all(bench.dir.join("scratch/of-nobody")).unwrap();
        let (compute, mut heard, shelf) = bench.role(Vec::new());
        let found = compute.recover().await.unwrap();
        assert_eq!(found, Recovered { interrupted: 1, resumed: 1, swept: 2 });
        let FromCompute::RunResult { id, output, published: true, .. } = end(&mut heard).await else {
            panic!()
        };
        assert_eq!((id, output.stdout.as_str()), (published.id.clone(), "kept"));
        assert!(shelf.open_result(&published.id).is_ok());
        let record = bench.record(&cut_off.id);
        assert_eq!(record.failure.map(|f| f.code), Some(FailureCode::NodeRestart));
        // The orchestrator asks again, and hears how it ended.
        run_now(&compute, &cut_off);
        assert!(matches!(end(&mut heard).await, FromCompute::ComputeError { .. }));
    });
}

#[test]
fn a_stop_of_the_node_leaves_running_work_to_the_next_start() {
    let bench = Bench::new();
    on_core(async {
        let (compute, mut heard, _) = bench.role(vec![Act::Waits]);
        let order = order();
        run_now(&compute, &order);
        while !matches!(heard.recv().await, Some(FromCompute::Started(_))) {}
        compute.shut_down();
        while compute.load().running > 0 {
            compute.changed().await;
        }
        assert!(heard.try_recv().is_err(), "nothing is reported as failed");
        assert_eq!(bench.record(&order.id).state, ExecutionState::Running);
    });
}

#[test]
fn a_run_of_a_moment_shares_a_commit_and_a_longer_one_is_on_the_disk_before_it_is_told() {
    let bench = Bench::new();
    on_core(async {
        let (compute, mut heard, _) = bench.role(vec![Act::Prints("short"), Act::Waits, Act::Prints("wary")]);
        let commits = || bench.stores.stats().commits;
        let started = async |heard: &mut UnboundedReceiver<FromCompute>| {
            while !matches!(heard.recv().await, Some(FromCompute::Started(_))) {}
        };
        run_now(&compute, &order());
        started(&mut heard).await;
        let FromCompute::RunResult { .. } = heard.recv().await.unwrap() else {
            panic!("told once, and first")
        };
        assert_eq!(commits(), 1, "for its end");
        let long = order();
        run_now(&compute, &long);
        started(&mut heard).await;
        assert_eq!(commits(), 2, "for its beginning");
        compute.handle(ToCompute::Cancel { id: long.id, reason: "enough".into() });
        let FromCompute::ComputeError { .. } = heard.recv().await.unwrap() else { panic!("told once") };
        compute.beware();
        run_now(&compute, &order());
        started(&mut heard).await;
        assert_eq!(commits(), 4, "for the end of the second, and before the third begins");
        end(&mut heard).await;
        assert_eq!(commits(), 5);
    });
}

#[test]
fn what_was_cut_off_twice_waits_and_can_be_cancelled_meanwhile() {
    let bench = Bench::new();
    on_core(async {
        let (compute, mut heard, _) = bench.role(vec![Act::Prints("once"), Act::Prints("twice")]);
        let (once, twice, gone) = (
            Order { restarts: 1, ..order() },
            Order { restarts: 2, ..order() },
            Order { restarts: 2, ..order() },
        );
        for order in [&twice, &gone, &once] {
            run_now(&compute, order);
            // Asked once more meanwhile, it is not run twice.
            run_now(&compute, order);
        }
        assert_eq!(compute.load().running, 1, "the one that was cut off once does not wait");
        let mut told = Vec::new();
        while let Ok(report) = heard.try_recv() {
            if let FromCompute::Queued { id, reason } = report {
                told.push((id, reason));
            }
        }
        let reason = "restarts of the node have cut it off 2 times: it is run again in 50ms".to_owned();
        assert_eq!(told, [(twice.id.clone(), reason.clone()), (gone.id.clone(), reason)]);
        compute.handle(ToCompute::Cancel { id: gone.id.clone(), reason: "not needed".into() });
        assert!(matches!(end(&mut heard).await, FromCompute::ComputeError { id, .. } if id == gone.id));
        let mut ended = Vec::new();
        for _ in 0..2 {
            let FromCompute::RunResult { id, .. } = end(&mut heard).await else { panic!() };
            ended.push(id);
        }
        assert_eq!(ended, [once.id, twice.id]);
        assert!(bench.stores.executions.get(&gone.id).unwrap().is_none(), "it never ran");
    });
}

#[test]
fn what_is_held_back_waits_for_its_release_and_then_runs_one_by_one() {
    let bench = Bench::new();
    let resumed = order();
    on_core(async {
        let record = ExecutionRecord {
            id: resumed.id.clone(),
            job_id: resumed.job_id.clone(),
            digest: resumed.digest,
            partition: 0,
            restarts: 0,
            state: ExecutionState::Publishing,
            revision: 3,
            resources: Resources { disk: Bytes::mib(1), ..Resources::default() },
            created: Timestamp(1),
            modified: Timestamp(1),
            failure: None,
            output: Some(RunOutput::default()),
            reported: false,
        };
        let mut change = bench.stores.executions.change();
        change.put_execution(&record);
        bench.stores.executions.write(change).await.unwrap();
        std::fs::create_dir_all(scratch::of(&bench.dir.join("scratch"), &resumed.id).result()).unwrap();

        let (compute, mut heard, _) = bench.role(vec![Act::Waits, Act::Prints("second")]);
        compute.hold("held back");
        compute.recover().await.unwrap();
        let small = |mut order: Order| {
            let mut spec = spec();
            spec.task.resources.cpu = Some(MilliCpu(100));
            order.spec = Arc::new(spec);
            order
        };
        let (first, second) = (small(order()), small(order()));
        for order in [&first, &second] {
            run_now(&compute, order);
            let FromCompute::BidResult { refused: None, .. } = heard.recv().await.unwrap() else { panic!() };
            let FromCompute::Queued { reason, .. } = heard.recv().await.unwrap() else { panic!() };
            assert_eq!(reason, "held back");
        }
        // Whoever could go on would have by now.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(bench.record(&resumed.id).state, ExecutionState::Publishing);
        compute.release();
        let FromCompute::RunResult { id, .. } = end(&mut heard).await else { panic!() };
        assert_eq!(id, resumed.id);
        while !matches!(heard.recv().await, Some(FromCompute::Started(_))) {}
        assert_eq!(
            (compute.load().running, compute.load().queued),
            (1, 1),
            "there is room, and yet one at a time"
        );
        compute.trust();
        let FromCompute::RunResult { id, .. } = end(&mut heard).await else { panic!() };
        assert_eq!(id, second.id);
        compute.shut_down();
        while compute.load().running > 0 {
            compute.changed().await;
        }
    });
}

#[test]
fn a_stop_does_not_wait_for_what_is_held_back() {
    let bench = Bench::new();
    on_core(async {
        let (compute, _heard, _) = bench.role(Vec::new());
        compute.hold("held back");
        run_now(&compute, &order());
        compute.shut_down();
        assert_eq!((compute.load().running, compute.is_held()), (0, false));
        compute.until_released().await;
    });
}
