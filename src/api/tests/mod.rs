//! Gate, handlers, stores and shelf, all real, over real sockets. Only the core is played: it stores what it is given.

mod fetching;
mod handshake;
mod jobs;
mod keeping;
mod ready;
mod serving;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::LocalSet;

use crate::archive::PackOptions;
use crate::config::{Advertise, Secret};
use crate::gate::testing::{Answered, Client, PATIENCE};
use crate::gate::{self, GateSettings, InnerAddress, Limits, Parcels, Site, bind};
use crate::model::{
    Bytes, DesiredState, ExecutionId, ExecutionRecord, ExecutionRow, ExecutionState, Failure, FailureCode,
    HistoryEvent, JobHead, JobRecord, JobState, Level, MilliCpu, ResultEntry, RunOutput, Sha256, Topic,
};
use crate::orchestrator::keep::{JobKeeper, JobPolicy};
use crate::results::ShelfSettings;
use crate::store::{self, StoreSettings, Stores};
use crate::sys::{FakeClock, FixedDisk, Interrupt, RealFiles};

use super::*;

/// 2026-02-03T04:05:06Z.
const NOW: Timestamp = Timestamp(1_770_091_506_000_000_000);

/// A core that stores jobs and lets them lie.
struct Core {
    jobs: JobStore,
    clock: Arc<FakeClock>,
    stopped: Arc<Mutex<Vec<(JobId, String)>>>,
    refuse: Arc<Mutex<Option<NodeError>>>,
}

impl Core {
    fn put(&self, record: &JobRecord) -> Result<(), NodeError> {
        let mut change = self.jobs.change();
        change.put_job(record);
        Ok(self.jobs.write(change).wait()?)
    }
}

impl Node for Core {
    fn submit(&self, spec: JobSpec) -> Result<Submitted, NodeError> {
        if let Some(error) = self.refuse.lock().unwrap().take() {
            return Err(error);
        }
        let (digest, body) = spec.encode().unwrap();
        let id = JobId::random();
        let name = if spec.name.is_empty() { id.to_string() } else { spec.name.clone() };
        // Each job a moment after the one before.
        let created = self.clock.now();
        self.clock.set(created.plus(Duration::from_secs(1)));
        let record = JobRecord {
            // Records made before it was kept have none.
            head: JobHead::kept(&spec).filter(|_| spec.name.ends_with(['1', '3'])),
            id: id.clone(),
            digest,
            name,
            state: JobState::Pending,
            message: String::new(),
            version: 1,
            revision: 1,
            created,
            modified: created,
        };
        let mut change = self.jobs.change();
        change.put_body(&digest, &body);
        change.put_job(&record);
        let event = HistoryEvent {
            seq: 1,
            version: 1,
            level: Level::Job { previous: None, new: JobState::Pending },
            topic: Topic::Submission,
            message: "job submitted".into(),
            failure: None,
            time: created,
        };
        change.put_history(&id, &event);
        self.jobs.write(change).wait()?;
        Ok(Submitted { job_id: id, version: 1, evaluation_id: EvaluationId::random() })
    }

    fn update(&self, id: &JobId, spec: JobSpec, force: bool) -> Result<Submitted, NodeError> {
        let before = self.jobs.get(id)?.ok_or_else(|| NodeError::NotFound(format!("job not found: {id}")))?;
        let (digest, body) = spec.encode().unwrap();
        if before.digest == digest && !force {
            return Err(NodeError::Unchanged("no changes".into()));
        }
        let (version, head) = (before.version + 1, JobHead::kept(&spec));
        let after = JobRecord { version, digest, head, state: JobState::Pending, ..before.clone() };
        let mut change = self.jobs.change();
        change.put_version(&before);
        change.put_body(&digest, &body);
        change.put_job(&after);
        self.jobs.write(change).wait()?;
        Ok(Submitted { job_id: id.clone(), version: after.version, evaluation_id: EvaluationId::random() })
    }

    fn rerun(&self, id: &JobId, spec: JobSpec, _reason: &str) -> Result<Submitted, NodeError> {
        let state = self.jobs.get(id)?.map(|record| record.state);
        if matches!(state, Some(JobState::Pending | JobState::Queued)) {
            return Err(NodeError::Conflict("job cannot take 'Rerun' in this state".into()));
        }
        self.update(id, spec, true)
    }

    fn complete(&self, spec: JobSpec) -> Result<JobSpec, NodeError> {
        Ok(spec)
    }

    fn stop(&self, id: &JobId, reason: &str) -> Result<EvaluationId, NodeError> {
        let mut record =
            self.jobs.get(id)?.ok_or_else(|| NodeError::NotFound(format!("job not found: {id}")))?;
        if record.state == JobState::Completed {
            return Err(NodeError::Conflict("job cannot take 'Stop' in state Completed".into()));
        }
        self.stopped.lock().unwrap().push((id.clone(), reason.to_owned()));
        record.state = JobState::Stopped;
        self.put(&record)?;
        Ok(EvaluationId::random())
    }

    fn load(&self) -> Result<NodeLoad, NodeError> {
        let available = Resources { cpu: MilliCpu(1500), ..Resources::default() };
        Ok(NodeLoad { running: 1, queued: 2, available })
    }

    fn check(&self) -> Result<(), NodeError> {
        self.refuse.lock().unwrap().take().map_or(Ok(()), Err)
    }
}

struct World {
    app: Arc<App>,
    clock: Arc<FakeClock>,
    stopped: Arc<Mutex<Vec<(JobId, String)>>>,
    refuse: Arc<Mutex<Option<NodeError>>>,
    api: SocketAddr,
    results: SocketAddr,
    directory: PathBuf,
    stores: Stores,
    stop: Option<oneshot::Sender<()>>,
    gate: Option<JoinHandle<()>>,
    /// Ends the accept loop of the handlers.
    break_handlers: Box<dyn Fn() + Send>,
}

impl World {
    fn start() -> Self {
        Self::with(None)
    }

    fn with(token: Option<&str>) -> Self {
        Self::of(token, None)
    }

    fn of(token: Option<&str>, lifetime: Option<Duration>) -> Self {
        let directory = std::env::temp_dir().join(format!("api-{}", uuid::Uuid::new_v4()));
        crate::sys::fs::create_private_dir(&directory).unwrap();
        let stores = store::open(&StoreSettings::memory()).unwrap();
        let clock = Arc::new(FakeClock::at(NOW));
        let shelf = shelf(&directory, stores.executions.clone(), clock.clone());
        let (api, results) = (listener(), listener());
        let (api_at, results_at) = (api.local_addr().unwrap(), results.local_addr().unwrap());
        let (stopped, refuse) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<Mutex<Option<_>>>::default());
        let core = Core {
            jobs: stores.jobs.clone(),
            clock: Arc::clone(&clock),
            stopped: Arc::clone(&stopped),
            refuse: Arc::clone(&refuse),
        };
        let token = token.map(|token| Token::new(Secret::parse(token).unwrap()));
        let app = Arc::new(App {
            node: Box::new(core),
            jobs: stores.jobs.clone(),
            executions: stores.executions.clone(),
            shelf,
            health: Arc::default(),
            keeper: Arc::new(JobKeeper::new(
                JobPolicy { retention: Duration::ZERO, max_jobs: 1000 },
                stores.jobs.clone(),
                stores.executions.clone(),
                clock.clone(),
            )),
            clock: clock.clone(),
            facts: NodeFacts {
                id: "n-edge-01".into(),
                labels: [("zone".to_owned(), "a".to_owned())].into(),
                engines: vec!["wasm".into()],
                ..NodeFacts::default()
            },
            urls: ResultUrls::new(UrlSettings {
                advertise: Advertise::Asked,
                bind: results_at,
                scheme: "http",
                links: lifetime.map(|lifetime| {
                    Links::new(lifetime, directory.join("link.key"), Arc::new(RealFiles), clock.clone())
                }),
                bases: Bases::open(None, Arc::new(RealFiles)),
                clock: clock.clone(),
            }),
            hosts: Hosts::new("board", &[]),
            names: Names::default(),
            token: token.clone(),
            parcels: Parcels::new(),
            ended: Default::default(),
            started: NOW,
        });
        let (stop, told) = oneshot::channel();
        let (inner, socket) = (InnerAddress::default(), directory.join("run"));
        let settings = GateSettings {
            limits: Limits::default(),
            sites: vec![
                Site { name: API, listeners: vec![api], rules: rules_of_api },
                Site { name: RESULTS, listeners: vec![results], rules: rules_of_results },
            ],
            inner: inner.clone(),
            parcels: app.parcels.clone(),
            logs: crate::logs::none(&directory),
            token,
            tls: None,
        };
        let handlers_app = Arc::clone(&app);
        let (breaker, breakers) = std::sync::mpsc::channel();
        let gate = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            LocalSet::new().block_on(&runtime, async move {
                let handlers = Handlers::start(handlers_app, &socket, inner).unwrap();
                breaker.send(handlers.breaker()).unwrap();
                let gate = gate::open(settings).unwrap();
                let _ = told.await;
                gate.close(Duration::ZERO).await;
                handlers.stop(PATIENCE).await;
            });
        });
        let (api, results) = (api_at, results_at);
        let (stop, gate) = (Some(stop), Some(gate));
        let break_handlers = breakers.recv().unwrap();
        Self { app, clock, stopped, refuse, api, results, directory, stores, stop, gate, break_handlers }
    }

    /// A request as a client of that version sends it; the answer as JSON.
    fn say(&self, version: &str, method: &str, path: &str, body: &str) -> (Answered, Value) {
        let fields =
            if version.is_empty() { String::new() } else { format!("X-Bacalhau-Git-Version: {version}\r\n") };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: board.local:1234\r\n{fields}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = Client::connect(self.api).ask(request);
        let value = serde_json::from_slice(&answer.body).unwrap();
        (answer, value)
    }

    /// What 1.9 gets from there.
    fn get(&self, path: &str) -> Value {
        let (answer, value) = self.say("v1.9.3", "GET", path, "");
        assert_eq!(answer.status, 200, "{path}: {value}");
        assert!(value.is_object(), "{path}: {value}");
        value
    }

    fn status(&self, method: &str, path: &str, body: &str) -> u16 {
        let (answer, value) = self.say("v1.9.3", method, path, body);
        // Every error has the one shape.
        assert!(answer.status < 400 || value["Status"] == answer.status, "{path}: {value}");
        answer.status
    }

    /// Submits a job with these fields besides its task, and returns its id.
    fn submit(&self, fields: &str) -> JobId {
        let job = format!(r#"{{"Job":{{"Type":"batch",{fields}"Tasks":[{TASK}]}}}}"#);
        let (answer, value) = self.say("v1.9.3", "PUT", "/api/v1/orchestrator/jobs", &job);
        assert_eq!(answer.status, 200, "{value}");
        value["JobID"].as_str().unwrap().parse().unwrap()
    }

    /// An execution of a job, as both roles have it.
    fn execution(&self, job: &JobId, state: ExecutionState) -> ExecutionId {
        let now = self.clock.now();
        self.clock.set(now.plus(Duration::from_secs(1)));
        let record = self.app.jobs.get(job).unwrap().unwrap();
        let row = ExecutionRow {
            id: ExecutionId::random(),
            job_id: job.clone(),
            job_version: 1,
            partition: 0,
            restarts: 0,
            previous: None,
            desired: DesiredState::Running,
            state,
            message: String::new(),
            exit_code: (state == ExecutionState::Completed).then_some(0),
            published: false,
            revision: 3,
            created: now,
            modified: now,
        };
        let kept = ExecutionRecord {
            id: row.id.clone(),
            job_id: job.clone(),
            digest: record.digest,
            partition: 0,
            restarts: 0,
            state,
            revision: 3,
            resources: Resources { cpu: MilliCpu(500), memory: Bytes(512_000_000), ..Resources::default() },
            created: now,
            modified: now,
            failure: None,
            output: Some(RunOutput { stdout: "hi\n".into(), ..RunOutput::default() }),
            reported: true,
        };
        let mut change = self.app.jobs.change();
        change.put_execution(&row);
        self.app.jobs.write(change).wait().unwrap();
        self.keep(&kept);
        row.id
    }

    fn keep(&self, record: &ExecutionRecord) {
        let mut change = self.app.executions.change();
        change.put_execution(record);
        self.app.executions.write(change).wait().unwrap();
    }

    fn note(&self, job: &JobId, seq: u64, level: Level, failure: Option<Failure>) {
        let time = self.clock.now();
        let event = HistoryEvent {
            seq,
            version: 1,
            level,
            topic: Topic::Execution,
            message: format!("event {seq}"),
            failure,
            time,
        };
        let mut change = self.app.jobs.change();
        change.put_history(job, &event);
        self.app.jobs.write(change).wait().unwrap();
    }

    fn advance(&self, job: &JobId, state: JobState) {
        let record = JobRecord { state, ..self.app.jobs.get(job).unwrap().unwrap() };
        let mut change = self.app.jobs.change();
        change.put_job(&record);
        self.app.jobs.write(change).wait().unwrap();
    }

    /// Publishes a result of `size` bytes that do not compress.
    fn publish(&self, job: &JobId, execution: &ExecutionId, size: usize) -> ResultEntry {
        let directory = self.directory.join(execution.as_str());
        crate::sys::fs::create_private_dir(&directory).unwrap();
        let mut seed = 7_u64;
        let bytes: Vec<u8> = (0..size)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                seed.to_be_bytes()[0]
            })
            .collect();
        std::fs::write(directory.join("stdout"), bytes).unwrap();
        let published = self.app.shelf.publish(execution, job, &directory, None, &Interrupt::new()).unwrap();
        let mut change = self.app.executions.change();
        change.put_result(&published.entry);
        self.app.executions.write(change).wait().unwrap();
        self.app.shelf.confirm(&published.entry);
        published.entry
    }
}

/// A shelf of 64 MiB in `directory`.
fn shelf(directory: &std::path::Path, executions: ExecutionStore, clock: Arc<FakeClock>) -> Arc<Shelf> {
    let settings = ShelfSettings {
        dir: directory.join("results"),
        quota: Bytes::mib(64),
        min_free: Bytes::ZERO,
        retention: Duration::ZERO,
        max_count: 100,
        max_size: Bytes(u64::MAX),
        evict_first: crate::model::EvictFirst::Oldest,
        pack: PackOptions::default(),
    };
    crate::sys::fs::create_private_dir(&settings.dir).unwrap();
    let disk = Arc::new(FixedDisk::new(Bytes::gib(1), Bytes::gib(1)));
    Shelf::open(settings, executions, disk, clock).unwrap().0
}

const TASK: &str = r#"{"Name":"main","Engine":{"Type":"docker","Params":{"Image":"busybox"}}}"#;

fn listener() -> std::net::TcpListener {
    bind("127.0.0.1:0".parse().unwrap()).unwrap()
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(gate) = self.gate.take() {
            let _ = gate.join();
        }
        let _ = std::fs::remove_dir_all(&self.directory);
        let _ = &self.stores;
    }
}
