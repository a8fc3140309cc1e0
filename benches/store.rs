//! What a commit costs: bytes that reach the block layer (`write_bytes` of `/proc/self/io`) and durable commits,
//! for what the node writes when a job moves on. Prints figures, tests nothing.
//!
//! `cargo bench --bench store [-- DIRECTORY]`; the directory must not be a tmpfs.

#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::error::Error;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use codling::model::*;
use codling::store::*;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Jobs and executions that are there before the measuring begins.
const STOCK: usize = 1000;
/// Times that each step is measured.
const ROUNDS: usize = 50;

fn written() -> Outcome<u64> {
    let io = std::fs::read_to_string("/proc/self/io")?;
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(line.ok_or("no write_bytes in /proc/self/io")?.trim().parse()?)
}

fn at(second: usize) -> Timestamp {
    Timestamp(1_780_000_000_000_000_000).plus(Duration::from_secs(second as u64))
}

fn spec(number: usize) -> JobSpec {
    JobSpec {
        name: format!("count-words-{number}"),
        namespace: "default".into(),
        job_type: JobType::Batch,
        priority: 0,
        count: 1,
        constraints: Vec::new(),
        meta: [("source", "weather station"), ("owner", "field team")]
            .map(|(key, value)| (key.into(), value.into()))
            .into(),
        labels: [("zone".into(), "north".into())].into(),
        task: Task {
            name: "main".into(),
            engine: SpecConfig {
                kind: "wasm".into(),
                params: serde_json::from_value(serde_json::json!({
                    "EntryModule": {"Type": "urlDownload", "Params": {"URL": "https://example.org/wordcount.wasm"}},
                    "Entrypoint": "_start",
                    "Parameters": ["--input", "/inputs/data.txt", "--output", "/outputs/counts.csv"],
                }))
                .unwrap_or_default(),
            },
            publisher: Some(SpecConfig { kind: "local".into(), params: serde_json::Map::new() }),
            env: [("LANG".into(), "C.UTF-8".into())].into(),
            meta: [].into(),
            inputs: Vec::new(),
            result_paths: vec![ResultPath { name: "outputs".into(), path: "/outputs".into() }],
            resources: ResourceRequest::default(),
            network: Network::default(),
            timeouts: Timeouts { execution: Duration::from_secs(600), ..Timeouts::default() },
        },
    }
}

/// Everything that one job leaves in the two databases.
struct Case {
    spec: (JobDigest, Vec<u8>),
    job: JobRecord,
    row: ExecutionRow,
    execution: ExecutionRecord,
    result: ResultEntry,
    seq: u64,
}

impl Case {
    fn new(number: usize) -> Outcome<Self> {
        let spec = spec(number).encode()?;
        let (job_id, id, created) = (JobId::random(), ExecutionId::random(), at(number));
        Ok(Self {
            job: JobRecord {
                head: None,
                id: job_id.clone(),
                digest: spec.0,
                name: format!("count-words-{number}"),
                state: JobState::Pending,
                message: String::new(),
                version: 1,
                revision: 1,
                created,
                modified: created,
            },
            row: ExecutionRow {
                id: id.clone(),
                job_id: job_id.clone(),
                job_version: 1,
                partition: 0,
                restarts: 0,
                previous: None,
                desired: DesiredState::Pending,
                state: ExecutionState::New,
                message: String::new(),
                exit_code: None,
                published: false,
                revision: 1,
                created,
                modified: created,
            },
            execution: ExecutionRecord {
                id: id.clone(),
                job_id: job_id.clone(),
                digest: spec.0,
                partition: 0,
                restarts: 0,
                state: ExecutionState::AskForBidAccepted,
                revision: 1,
                resources: Resources::default(),
                created,
                modified: created,
                failure: None,
                output: None,
                reported: false,
            },
            result: ResultEntry {
                execution_id: id,
                job_id,
                size: Bytes::mib(3),
                sha256: Sha256::of(&number.to_be_bytes()),
                created,
                dating: Default::default(),
                fetched: false,
                retention: None,
                pin: None,
                status: ResultStatus::Stored,
            },
            spec,
            seq: 0,
        })
    }

    fn event(&mut self, change: &mut JobChange, topic: Topic, message: &str) {
        self.seq += 1;
        let event = HistoryEvent {
            seq: self.seq,
            version: 1,
            level: Level::Execution {
                id: self.execution.id.clone(),
                previous: Some(ExecutionState::BidAccepted),
                new: self.row.state,
            },
            topic,
            message: message.into(),
            failure: None,
            time: self.job.created,
        };
        change.put_history(&self.job.id, &event);
    }

    fn submit(&mut self, jobs: &JobStore) -> Ticket {
        let mut change = jobs.change();
        change.put_body(&self.spec.0, &self.spec.1);
        change.put_job(&self.job);
        change.put_execution(&self.row);
        self.event(&mut change, Topic::Submission, "job submitted");
        self.event(&mut change, Topic::Scheduling, "execution e-1 made for partition 0");
        jobs.write(change)
    }

    fn job_moves(&mut self, jobs: &JobStore, job: JobState, row: ExecutionState, lazy: bool) -> Ticket {
        (self.job.state, self.row.state) = (job, row);
        (self.job.revision, self.row.revision) = (self.job.revision + 1, self.row.revision + 1);
        let mut change = jobs.change();
        change.put_job(&self.job);
        change.put_execution(&self.row);
        self.event(&mut change, Topic::Execution, "the execution moved on, as it should");
        if lazy { jobs.write_lazy(change) } else { jobs.write(change) }
    }

    fn moves(&mut self, executions: &ExecutionStore, state: ExecutionState, lazy: bool) -> Ticket {
        self.execution.state = state;
        self.execution.revision += 1;
        let mut change = executions.change();
        change.put_execution(&self.execution);
        if lazy { executions.write_lazy(change) } else { executions.write(change) }
    }

    fn completes(&mut self, executions: &ExecutionStore) -> Ticket {
        self.execution.state = ExecutionState::Completed;
        self.execution.output = Some(RunOutput {
            stdout: "12345 words in 678 lines\n".repeat(12),
            stderr: String::new(),
            ..RunOutput::default()
        });
        let mut change = executions.change();
        change.put_execution(&self.execution);
        change.put_result(&self.result);
        executions.write(change)
    }

    fn reported(&self, executions: &ExecutionStore, lazy: bool) -> Ticket {
        let mut change = executions.change();
        change.put_reported(&self.execution.id);
        if lazy { executions.write_lazy(change) } else { executions.write(change) }
    }
}

/// Prints what `step` costs on average over the cases.
fn measure(
    name: &str,
    cases: &mut [Case],
    stores: &Stores,
    mut step: impl FnMut(&mut Case) -> Outcome<()>,
) -> Outcome<()> {
    let (bytes, commits, start) = (written()?, stores.stats().commits, Instant::now());
    let count = cases.len() as f64;
    for case in cases {
        step(case)?;
    }
    let (bytes, commits) = (written()? - bytes, stores.stats().commits - commits);
    println!(
        "{name:52} {:7.1} KiB {:5.2} durable commits {:8.2} ms",
        bytes as f64 / 1024.0 / count,
        commits as f64 / count,
        start.elapsed().as_secs_f64() * 1000.0 / count
    );
    Ok(())
}

/// Prints how long `act` takes and what it writes, on average over `times`.
fn time<T>(name: &str, times: u32, mut act: impl FnMut() -> Outcome<T>) -> Outcome<T> {
    let (start, bytes) = (Instant::now(), written()?);
    for _ in 1..times {
        act()?;
    }
    let last = act()?;
    let took = start.elapsed().as_secs_f64() * 1000.0 / f64::from(times);
    println!("{name:52} {:7.1} KiB {took:8.2} ms", (written()? - bytes) as f64 / 1024.0 / f64::from(times));
    Ok(last)
}

/// How the node writes it: what nobody outside has been told of waits for company.
fn life(case: &mut Case, stores: &Stores, patient: bool) -> Outcome<()> {
    use ExecutionState as E;
    let (jobs, executions) = (&stores.jobs, &stores.executions);
    case.submit(jobs).wait()?;
    case.moves(executions, E::BidAccepted, patient).wait()?;
    case.moves(executions, E::Running, true).wait()?;
    case.job_moves(jobs, JobState::Running, E::BidAccepted, true).wait()?;
    case.moves(executions, E::Publishing, true).wait()?;
    case.completes(executions).wait()?;
    case.job_moves(jobs, JobState::Completed, E::Completed, patient).wait()?;
    case.reported(executions, true).wait()?;
    Ok(())
}

/// A step of a job's life.
type Step<'a> = (&'static str, Box<dyn FnMut(&mut Case) -> Ticket + 'a>);

fn single_steps(stores: &Stores) -> Outcome<()> {
    use ExecutionState as E;
    let (jobs, executions) = (&stores.jobs, &stores.executions);
    let mut steps: Vec<Step<'_>> = vec![
        ("job submit (job, body, row, 2 events, indexes)", Box::new(|c| c.submit(jobs))),
        ("execution accepted (new record)", Box::new(|c| c.moves(executions, E::BidAccepted, false))),
        ("execution runs (record)", Box::new(|c| c.moves(executions, E::Running, false))),
        (
            "job starts (job, row, event)",
            Box::new(|c| c.job_moves(jobs, JobState::Running, E::BidAccepted, false)),
        ),
        ("execution completes (record, index, result)", Box::new(|c| c.completes(executions))),
        (
            "job completes (job, row, event, indexes)",
            Box::new(|c| c.job_moves(jobs, JobState::Completed, E::Completed, false)),
        ),
        ("execution reported (index)", Box::new(|c| c.reported(executions, false))),
    ];
    println!("\nwith {STOCK} jobs in the store, each step durable by itself, one job after the other:");
    let mut costs = vec![0; steps.len()];
    for number in 0..ROUNDS {
        let mut case = Case::new(STOCK + number)?;
        for ((_, step), cost) in steps.iter_mut().zip(&mut costs) {
            let before = written()?;
            step(&mut case).wait()?;
            *cost += written()? - before;
        }
    }
    for ((name, _), cost) in steps.iter().zip(&costs) {
        println!("{name:52} {:7.1} KiB", *cost as f64 / 1024.0 / ROUNDS as f64);
    }
    Ok(())
}

fn whole_lives(stores: &Stores) -> Outcome<()> {
    println!("\n{ROUNDS} more jobs, one after the other, whole lives:");
    for (name, patient) in
        [("accepted and completed are durable at once", false), ("these too wait for company", true)]
    {
        let mut cases = (0..ROUNDS).map(|n| Case::new(STOCK * 2 + n)).collect::<Outcome<Vec<_>>>()?;
        measure(name, &mut cases, stores, |case| life(case, stores, patient))?;
    }
    let mut cases = (0..8).map(|n| Case::new(STOCK * 3 + n)).collect::<Outcome<Vec<_>>>()?;
    time("8 submits at once", 1, || {
        let tickets: Vec<Ticket> = cases.iter_mut().map(|case| case.submit(&stores.jobs)).collect();
        tickets.into_iter().try_for_each(|ticket| Ok(ticket.wait()?))
    })
}

fn reads(jobs: &JobStore) -> Outcome<()> {
    println!();
    for (name, order) in
        [("list 20 newest", ListOrder::Created), ("list 20 last modified", ListOrder::Modified)]
    {
        let query = ListQuery { order, reverse: true, offset: 0, limit: 20 };
        time(name, 10, || Ok(jobs.list(&query, &mut |_| true)?))?;
    }
    time("find by name, the oldest but one", 10, || Ok(jobs.find("count-words-1")?))?;
    Ok(())
}

/// Times that the writer's thread gave up the processor of its own will.
fn wakeups() -> Outcome<u64> {
    for task in std::fs::read_dir("/proc/self/task")? {
        let path = task?.path();
        if std::fs::read_to_string(path.join("comm"))?.trim() == "store" {
            let status = std::fs::read_to_string(path.join("status"))?;
            let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            return Ok(line.ok_or("no voluntary_ctxt_switches")?.trim().parse()?);
        }
    }
    Err("no thread named store".into())
}

fn main() -> Outcome<()> {
    let base = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let directory = base.map_or_else(|| PathBuf::from("target"), PathBuf::from).join("store-bench");
    // Left by a run that was cut off.
    let _ = std::fs::remove_dir_all(&directory);
    let place = |name: &str| Place::Redb(directory.join(name));
    let mut settings = StoreSettings::new(place("executions.db"), place("jobs.db"));
    // Longer than the run: lazy commits become durable only with durable ones.
    settings.flush_after = Duration::from_secs(3600);
    let mut stores = open(&settings)?;

    let mut stock = (0..STOCK).map(Case::new).collect::<Outcome<Vec<_>>>()?;
    measure(&format!("filling: whole lives of {STOCK} jobs"), &mut stock, &stores, |case| {
        life(case, &stores, false)
    })?;
    single_steps(&stores)?;
    whole_lives(&stores)?;
    reads(&stores.jobs)?;

    println!();
    for name in ["executions.db", "jobs.db"] {
        let found = std::fs::metadata(directory.join(name))?;
        println!("{name}: {} KiB, {} KiB on disk", found.len() / 1024, found.blocks() / 2);
    }
    let mut full = Some(stores);
    time("close", 1, || Ok(full.take().map_or(Ok(()), Stores::close)?))?;
    stores = time("open", 1, || Ok(open(&settings)?))?;
    // The thread goes to sleep for the first time.
    std::thread::sleep(Duration::from_millis(200));
    let before = wakeups()?;
    time("idle for 3 s", 1, || {
        std::thread::sleep(Duration::from_secs(3));
        Ok(())
    })?;
    println!("wakeups of the writer in that time: {}", wakeups()? - before);
    stores.close()?;
    Ok(std::fs::remove_dir_all(&directory)?)
}
