//! A node's life, from its first start to its second stop, as the roles, the stores and the shelf live it. Only the
//! guests are scripted: a job's name says what it does.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::LocalSet;

use super::disk::Disk;
use crate::agent::{Ground, Node, deletions, offer};
use crate::compute::Compute;
use crate::compute::bid::Offer;
use crate::compute::runner::{Ended, Runner, Work};
use crate::config::{CliOverrides, FakeEnv, Settings, load};
use crate::model::{
    Bytes, ExecutionId, ExecutionRow, ExecutionState, Failure, FailureCode, JobId, JobRecord, JobSpec,
    JobType, Pin, RunOutput, Sha256, Timestamp, with_causes,
};
use crate::orchestrator::Orchestrator;
use crate::publisher::Packer;
use crate::results::Shelf;
use crate::store::{JobStore, ListOrder, ListQuery, Stores};
use crate::sys::{Clock, EARLIEST_BELIEVABLE, FakeClock, Machine};

/// Deletions that may wait to be noted: fewer than the quota lets be stored.
pub(super) const DELETIONS_MAX: usize = 32;

/// How long anything may take before a test gives up. Generous: machines are shared.
const PATIENCE: Duration = Duration::from_secs(60);

/// The same once the disk has failed: what has not happened by then may never.
const PATIENCE_WITH_A_BROKEN_DISK: Duration = Duration::from_millis(100);

/// What a node has said to somebody.
#[derive(Debug, Clone)]
pub(in crate::agent) enum Mark {
    /// A job was taken.
    Submitted(JobId),
    /// A job was stopped.
    Stopped(JobId),
    /// A result could be fetched.
    Served(ExecutionId, Sha256),
    /// A result was pinned.
    Pinned(ExecutionId),
    /// Somebody has begun to unpin it.
    Unpinning(ExecutionId),
}

/// When the life begins.
pub(super) const START: Timestamp = Timestamp(EARLIEST_BELIEVABLE.0 + 1_000_000_000_000_000);

pub(super) fn settings(root: &Path) -> Settings {
    let mut cli = CliOverrides::default();
    for (key, value) in [
        ("DataDir", root.to_str().unwrap()),
        ("Results.Quota", "900KiB"),
        ("Results.MinFree", "0"),
        ("Results.CompressionLevel", "0"),
        ("Compute.AllocatedCapacity.CPU", "1000m"),
        ("Compute.AllocatedCapacity.Disk", "800KiB"),
        ("Compute.RestartPause", "0"),
        // What is lazy waits for others, or for the end: the worst that can be.
        ("Store.FlushInterval", "1h"),
    ] {
        cli.set(key, value, "-c");
    }
    load(&cli, &FakeEnv::of(&[("HOME", "/nowhere")])).unwrap().settings
}

/// What a job's program writes to its standard output.
pub(super) fn output(name: &str, size: u64) -> Vec<u8> {
    let mut dice =
        super::disk::Dice(name.bytes().fold(7, |seed: u64, byte| seed.wrapping_mul(31) ^ u64::from(byte)));
    std::iter::repeat_with(|| dice.roll().to_be_bytes())
        .flatten()
        .take(usize::try_from(size).unwrap())
        .collect()
}

/// A job: its name begins with what it does; `kib` is the size of its output.
pub(super) fn job(name: &str, kib: u64) -> JobSpec {
    let body = format!(
        r#"{{"name":"{name}","namespace":"default","type":"batch","count":1,"meta":{{"kib":"{kib}"}},
            "task":{{"name":"main","engine":{{"kind":"script"}},"publisher":{{"kind":"local"}},
                     "resources":{{"cpu":600,"disk":{}}}}}}}"#,
        (kib + 16) << 10
    );
    serde_json::from_str(&body).unwrap()
}

/// A job that runs for ever.
fn service(name: &str) -> JobSpec {
    let mut spec = JobSpec { job_type: JobType::Service, ..job(name, 1) };
    spec.task.publisher = None;
    spec
}

pub(super) fn kib(spec: &JobSpec) -> u64 {
    spec.meta["kib"].parse().unwrap()
}

/// Runs jobs by their names: `hold` waits for the node to stop it, `long` takes six seconds of the node's clock,
/// `fail` fails; `serve` ends twice before it goes on until it is stopped; all else ends at once.
struct Script {
    shelf: Arc<Shelf>,
    clock: Arc<FakeClock>,
    /// Whether `hold` waits.
    holds: bool,
    /// Who has begun, in order.
    begun: Mutex<Vec<ExecutionId>>,
}

impl Runner for Script {
    fn run(&self, work: &Work) -> Ended {
        let name = &work.order.spec.name;
        self.begun.lock().unwrap().push(work.order.id.clone());
        let ended = |exit_code, failure, lease| Ended {
            output: RunOutput { exit_code, ..RunOutput::default() },
            failure,
            lease,
        };
        let lease = match self.shelf.reserve_scratch(&work.order.id, work.needs.disk) {
            Ok(lease) => lease,
            Err(error) => return ended(-1, Some(error.into()), None),
        };
        let serves = name.starts_with("serve") && work.order.restarts >= 2;
        if serves || (name.starts_with("hold") && self.holds) {
            let _ = work.interrupt.sleep(Duration::from_secs(3600));
            return ended(-1, Some(Failure::new(FailureCode::Cancelled, "stopped")), Some(lease));
        }
        if name.starts_with("long") {
            self.clock.set(self.clock.now().plus(Duration::from_secs(6)));
        }
        let bytes = output(name, kib(&work.order.spec) << 10);
        let written = (|| {
            let files = self.shelf.files();
            files.remove_tree(work.scratch.dir())?;
            files.create_dir(&work.scratch.result())?;
            files.create(&work.scratch.stdout(), 0o600)?.write_all(&bytes)?;
            files.create(&work.scratch.exit_code(), 0o600)?.write_all(b"0")
        })();
        let _ = lease.meter().charge(Bytes(bytes.len() as u64));
        lease.settle();
        let failure = match written {
            Err(error) => Some(Failure::new(FailureCode::Internal, format!("cannot write: {error}"))),
            Ok(()) if name.starts_with("fail") => Some(Failure::new(FailureCode::Trap, "scripted")),
            Ok(()) => None,
        };
        ended(if failure.is_some() { -1 } else { 0 }, failure, Some(lease))
    }
}

/// A node that runs, without its front.
pub(super) struct Alive {
    pub(super) stores: Stores,
    pub(super) shelf: Arc<Shelf>,
    pub(super) orchestrator: Orchestrator,
    compute: Compute,
    script: Arc<Script>,
    disk: Disk,
    clock: Arc<FakeClock>,
}

/// Starts a node as [`crate::agent::run`] does and runs `then` on its core thread; then stops the node in order.
pub(super) fn node<T>(
    disk: &Disk,
    root: &Path,
    clock: &Arc<FakeClock>,
    holds: bool,
    look: impl FnOnce(&Stores),
    then: impl AsyncFnOnce(&Alive) -> T,
) -> Result<T, String> {
    let settings = settings(root);
    let ground = Ground { files: Arc::new(disk.clone()), clock: Arc::clone(clock) as _ };
    let node = Node::build(&settings, &Machine::detect(), ground).map_err(|error| with_causes(&error))?;
    look(&node.stores);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let lived: Result<(T, Stores), String> = LocalSet::new().block_on(&runtime, async {
        let offer = Offer {
            engines: vec!["script".into()],
            ..offer::offer(&settings, &node.resolved, &node.machine, &node.identity.id)
        };
        let script = Arc::new(Script {
            shelf: Arc::clone(&node.shelf),
            clock: Arc::clone(clock),
            holds,
            begun: Mutex::default(),
        });
        let packer = Packer::start().unwrap();
        let (reports, mut reported) = mpsc::unbounded_channel();
        let runner = Arc::clone(&script) as _;
        let (compute, orchestrator) = node.roles(&settings, &offer, runner, packer, reports);
        let mut deletions =
            deletions::hook(&node.shelf, DELETIONS_MAX).map_err(|error| with_causes(&error))?;
        node.recover(&settings, &compute, &orchestrator, &mut deletions)
            .await
            .map_err(|error| with_causes(&error))?;
        while let Ok(report) = reported.try_recv() {
            orchestrator.on_report(report);
        }
        tokio::task::spawn_local(deletions.note(orchestrator.clone(), Arc::clone(&node.shelf)));
        let listener = orchestrator.clone();
        let pump = tokio::task::spawn_local(async move {
            while let Some(report) = reported.recv().await {
                listener.on_report(report);
            }
        });
        let (shelf, clock) = (Arc::clone(&node.shelf), Arc::clone(clock));
        let alive =
            Alive { stores: node.stores, shelf, orchestrator, compute, script, disk: disk.clone(), clock };
        let result = then(&alive).await;
        alive.compute.shut_down();
        pump.abort();
        alive.until(|| alive.compute.load().running == 0).await;
        Ok((result, alive.stores))
    });
    drop(runtime);
    let (result, stores) = lived?;
    stores.close().map_err(|error| with_causes(&error))?;
    Ok(result)
}

impl Alive {
    /// Waits until it is so; false if a broken disk may keep it from ever being so.
    pub(super) async fn until(&self, so: impl Fn() -> bool) -> bool {
        let began = Instant::now();
        while !so() {
            if self.disk.failed() && began.elapsed() > PATIENCE_WITH_A_BROKEN_DISK {
                return false;
            }
            assert!(began.elapsed() < PATIENCE, "waited too long");
            // Nobody rings a bell for all of this; the pause lets the other tasks of this thread go on.
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        true
    }

    /// In which order executions have begun.
    pub(super) fn begun(&self) -> Vec<ExecutionId> {
        self.script.begun.lock().unwrap().clone()
    }

    pub(super) fn is_idle(&self) -> bool {
        let load = self.compute.load();
        load.running == 0 && load.queued == 0
    }

    /// Does what may wait for the store away from the core thread, as the handlers of the API do.
    pub(super) fn aside<T: Send>(&self, act: impl FnOnce(&Shelf) -> T + Send) -> T {
        let shelf = &*self.shelf;
        std::thread::scope(|scope| scope.spawn(|| act(shelf)).join().unwrap())
    }

    async fn submit(&self, spec: JobSpec) -> Option<JobId> {
        self.clock.set(self.clock.now().plus(Duration::from_secs(1)));
        let id = self.orchestrator.submit(spec).await.ok()?.job_id;
        self.disk.told(Mark::Submitted(id.clone()));
        Some(id)
    }

    fn rows(&self, job: &JobId) -> Vec<ExecutionRow> {
        self.stores.jobs.executions(job).unwrap_or_default()
    }

    async fn ended(&self, job: Option<&JobId>) {
        let Some(job) = job else { return };
        let over = |jobs: &JobStore| jobs.get(job).ok().flatten().is_some_and(|job| job.state.is_terminal());
        self.until(|| over(&self.stores.jobs) && self.rows(job).iter().all(|row| row.state.is_terminal()))
            .await;
        for row in self.rows(job) {
            if let Ok(open) = self.shelf.open_result(&row.id) {
                self.disk.told(Mark::Served(row.id, open.entry.sha256));
            }
        }
    }

    /// Stops what runs for ever, once it has come to run.
    pub(super) async fn stop_services(&self) {
        for record in self.stores.jobs.active().unwrap_or_default() {
            let spec = self.stores.jobs.body(&record.digest).ok().flatten();
            if spec.is_some_and(|spec| !spec.job_type.runs_to_completion()) {
                self.running(Some(&record.id)).await;
                // It is stopped all the same if that cannot be stored now.
                let _ = self.orchestrator.stop(&record.id, "enough").await;
                self.until(|| self.rows(&record.id).iter().all(|row| row.state.is_terminal())).await;
            }
        }
    }

    async fn running(&self, job: Option<&JobId>) {
        let Some(job) = job else { return };
        self.until(|| self.rows(job).iter().any(|row| row.state == ExecutionState::Running)).await;
    }

    /// Submits a job and waits for its end; answers with its execution.
    pub(super) async fn run(&self, spec: JobSpec) -> Option<ExecutionId> {
        let job = self.submit(spec).await?;
        self.ended(Some(&job)).await;
        self.rows(&job).into_iter().next().map(|row| row.id)
    }

    /// Gives room in the jobs' database back, as a node does that has nothing to do. What makes that worth it is the
    /// large body of a job that nobody has.
    async fn compact(&self) {
        let (jobs, body) = (&self.stores.jobs, vec![7; 3 << 20]);
        let Some(record) = a_job(jobs) else { return };
        let nobody_s = JobRecord { digest: Sha256::of(&body), version: 99, ..record };
        // Pages that one commit lets go of are free after the next.
        for bytes in [&body[..], &[]] {
            let (mut put, mut gone) = (jobs.change(), jobs.change());
            put.put_body(&nobody_s.digest, bytes);
            gone.delete_version(&nobody_s, false);
            let _ = jobs.write_internal(put).await;
            let _ = jobs.write_internal(gone).await;
        }
        let compacted = self.aside(|_| jobs.compact());
        assert!(self.disk.failed() || matches!(compacted, Ok(Some(_))), "{compacted:?}");
    }

    fn pin(&self, id: &ExecutionId) {
        let until = None;
        if self.aside(|shelf| shelf.pin(id, Pin { until })).is_ok() {
            self.disk.told(Mark::Pinned(id.clone()));
        }
    }

    fn unpin(&self, id: &ExecutionId) {
        self.disk.told(Mark::Unpinning(id.clone()));
        let _ = self.aside(|shelf| shelf.unpin(id));
    }
}

/// Any job that is stored.
fn a_job(jobs: &JobStore) -> Option<JobRecord> {
    let any = ListQuery { order: ListOrder::Created, reverse: false, offset: 0, limit: 1 };
    jobs.list(&any, &mut |_| true).ok()?.pop()
}

/// The first run: everything that a node does.
async fn first(node: &Alive) {
    let kept = node.run(job("kept", 20)).await;
    if let Some(kept) = &kept {
        node.pin(kept);
    }
    let removed = node.run(job("removed", 30)).await;
    // One holds the node's capacity; two wait behind it, and the later one is more urgent.
    let hold = node.submit(job("hold-and-stop", 1)).await;
    node.running(hold.as_ref()).await;
    let calm = node.submit(job("calm", 10)).await;
    let urgent = node.submit(JobSpec { priority: 5, ..job("urgent", 10) }).await;
    if let Some(hold) = &hold
        && node.orchestrator.stop(hold, "enough").await.is_ok()
    {
        node.disk.told(Mark::Stopped(hold.clone()));
    }
    for id in [&hold, &urgent, &calm] {
        node.ended(id.as_ref()).await;
    }
    let serve = node.submit(service("serve")).await;
    node.running(serve.as_ref()).await;
    if let Some(serve) = &serve
        && node.orchestrator.stop(serve, "enough").await.is_ok()
    {
        node.disk.told(Mark::Stopped(serve.clone()));
    }
    node.ended(serve.as_ref()).await;
    node.run(job("fail", 1)).await;
    // Worth a commit of its own when it ends.
    node.run(job("long", 40)).await;
    if let Some(removed) = &removed {
        let _ = node.aside(|shelf| shelf.remove(removed));
    }
    let mut brief = job("brief", 10);
    brief.labels.insert("codling/retention".into(), "1s".into());
    node.run(brief).await;
    node.clock.set(node.clock.now().plus(Duration::from_secs(60)));
    let _ = node.aside(|shelf| shelf.expire());
    // More than fits: the older ones go.
    for name in ["big-1", "big-2", "big-3"] {
        node.run(job(name, 200)).await;
    }
    if let Some(kept) = &kept {
        node.unpin(kept);
    }
    node.run(JobSpec { count: 3, ..job("three", 5) }).await;
    let _ = node.aside(|shelf| shelf.gc(false));
    node.compact().await;
    // These are cut off by the stop of the node.
    let hold = node.submit(job("hold", 1)).await;
    node.running(hold.as_ref()).await;
    node.submit(job("waits", 1)).await;
    let stopped = node.submit(job("never-runs", 1)).await;
    if let Some(stopped) = &stopped
        && node.orchestrator.stop(stopped, "not needed").await.is_ok()
    {
        node.disk.told(Mark::Stopped(stopped.clone()));
    }
}

/// A life in `root`, two runs of a node; the errors that its starts and stops met.
pub(super) fn live(disk: &Disk, root: &Path) -> Vec<String> {
    let clock = Arc::new(FakeClock::at(START));
    let mut errors = Vec::new();
    errors.extend(node(disk, root, &clock, true, |_| {}, first).err());
    clock.set(clock.now().plus(Duration::from_secs(60)));
    let second = async |node: &Alive| {
        node.stop_services().await;
        node.until(|| node.is_idle() && node.stores.jobs.active().is_ok_and(|jobs| jobs.is_empty())).await;
        node.run(job("last", 10)).await;
    };
    errors.extend(node(disk, root, &clock, false, |_| {}, second).err());
    errors
}
