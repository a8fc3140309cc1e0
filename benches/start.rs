//! What a start costs with a long past: 10,000 completed jobs with their executions, history and results.
//!
//! `cargo bench --bench start [-- DIRECTORY]`; the directory should not be a tmpfs. Prints figures, asserts none.

#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

use codling::model::*;
use codling::store::*;

type Outcome<T> = Result<T, Box<dyn Error>>;

const CODLING: &str = env!("CARGO_BIN_EXE_codling");

/// Jobs of the past, with one execution each.
const JOBS: usize = 10_000;
/// Of those, the results that are still there: as many as `Results.MaxCount` keeps by default.
const KEPT: usize = 1_000;
/// Starts that are measured.
const STARTS: usize = 15;

/// Seconds of the past: one after the other up to now, so that nothing leaves by its age while it is measured.
fn at(second: usize) -> Timestamp {
    static BEGAN: LazyLock<Timestamp> = LazyLock::new(|| {
        let past = SystemTime::now() - Duration::from_secs(JOBS as u64 + 60);
        let since = past.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_nanos()).unwrap_or_default())
    });
    BEGAN.plus(Duration::from_secs(second as u64))
}

/// A job as `codling job run` submits it.
fn spec(number: usize) -> Outcome<JobSpec> {
    Ok(serde_json::from_value(serde_json::json!({
        "name": format!("count-{number}"), "namespace": "default", "type": "batch", "count": 1,
        "task": {
            "name": "main",
            "engine": { "kind": "wasm", "params": {
                "EntryModule": {"Source": {"Type": "urlDownload", "Params": {"URL": "https://example.org/count.wasm"}}},
                "Entrypoint": "_start", "Parameters": ["/inputs/data.csv", "/outputs/counts.csv"] } },
            "publisher": { "kind": "local" },
        },
    }))?)
}

/// What a run job leaves in both databases.
fn past(stores: &Stores, number: usize, archive: &Archive) -> Outcome<(Ticket, Ticket)> {
    let (digest, body) = spec(number)?.encode()?;
    let (job_id, id) = (JobId::random(), ExecutionId::random());
    let (created, modified) = (at(number), at(number + 30));
    let mut jobs = stores.jobs.change();
    jobs.put_body(&digest, &body);
    jobs.put_job(&JobRecord {
        head: None,
        id: job_id.clone(),
        digest,
        name: format!("count-{number}"),
        state: JobState::Completed,
        message: String::new(),
        version: 1,
        revision: 3,
        created,
        modified,
    });
    jobs.put_execution(&ExecutionRow {
        id: id.clone(),
        job_id: job_id.clone(),
        job_version: 1,
        partition: 0,
        restarts: 0,
        previous: None,
        desired: DesiredState::Stopped,
        state: ExecutionState::Completed,
        message: "completed with exit code 0, result published".into(),
        exit_code: Some(0),
        published: true,
        revision: 4,
        created,
        modified,
    });
    let job = |previous, new| Level::Job { previous, new };
    let run = |previous, new| Level::Execution { id: id.clone(), previous: Some(previous), new };
    let events = [
        (job(None, JobState::Pending), Topic::Submission, "job submitted"),
        (run(ExecutionState::New, ExecutionState::BidAccepted), Topic::Scheduling, "the node takes it"),
        (run(ExecutionState::BidAccepted, ExecutionState::Running), Topic::Execution, "started"),
        (job(Some(JobState::Pending), JobState::Running), Topic::StateUpdate, "job is now Running"),
        (
            run(ExecutionState::Running, ExecutionState::Completed),
            Topic::Execution,
            "completed with exit code 0, result published",
        ),
        (job(Some(JobState::Running), JobState::Completed), Topic::StateUpdate, "job is now Completed"),
    ];
    for (seq, (level, topic, message)) in (1..).zip(events) {
        let message = message.to_owned();
        jobs.put_history(
            &job_id,
            &HistoryEvent { seq, version: 1, level, topic, message, failure: None, time: created },
        );
    }
    let mut executions = stores.executions.change();
    executions.put_execution(&ExecutionRecord {
        id: id.clone(),
        job_id: job_id.clone(),
        digest,
        partition: 0,
        restarts: 0,
        state: ExecutionState::Completed,
        revision: 4,
        resources: Resources { cpu: MilliCpu(100), memory: Bytes::mib(64), disk: Bytes::mib(64), gpu: 0 },
        created,
        modified,
        failure: None,
        output: Some(RunOutput { stdout: "station,day,mean\n".repeat(12), ..RunOutput::default() }),
        reported: true,
    });
    let gone = ResultStatus::Deleted { reason: DeletionReason::Quota, at: modified };
    let kept = number >= JOBS - KEPT;
    if kept {
        archive.place(&id)?;
    }
    executions.put_result(&ResultEntry {
        execution_id: id,
        job_id,
        size: archive.size,
        sha256: archive.sha256,
        status: if kept { ResultStatus::Stored } else { gone },
        created: modified,
        dating: Dating::default(),
        retention: None,
        pin: None,
        fetched: false,
    });
    Ok((stores.jobs.write_internal(jobs), stores.executions.write_internal(executions)))
}

/// A small archive that stands for all.
struct Archive {
    directory: PathBuf,
    size: Bytes,
    sha256: Sha256,
}

impl Archive {
    const BYTES: &[u8] = b"not looked into at a start";

    fn place(&self, id: &ExecutionId) -> Outcome<()> {
        Ok(std::fs::write(self.directory.join(format!("{id}.tar.gz")), Self::BYTES)?)
    }
}

fn fill(data: &Path) -> Outcome<()> {
    let place = |name: &str| Place::Redb(data.join(name));
    let stores = open(&StoreSettings::new(place("compute/executions.db"), place("orchestrator/jobs.db")))?;
    let directory = data.join("results");
    std::fs::create_dir_all(&directory)?;
    let bytes = Archive::BYTES;
    let archive = Archive { directory, size: Bytes(bytes.len() as u64), sha256: Sha256::of(bytes) };
    let mut waiting = Vec::new();
    for number in 0..JOBS {
        waiting.push(past(&stores, number, &archive)?);
        if waiting.len() == 100 || number + 1 == JOBS {
            for (jobs, executions) in waiting.drain(..) {
                jobs.wait()?;
                executions.wait()?;
            }
        }
    }
    Ok(stores.close()?)
}

struct Node {
    child: Child,
    answered: Duration,
    /// CPU time of all threads until then.
    worked: Duration,
}

/// CPU time that this thread has had: unlike the clock's, the same on a busy machine.
fn worked() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0))
}

/// CPU time of a process and of all its threads, also those that have ended, in steps of 10 ms.
fn worked_in_all(pid: u32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    Duration::from_millis(fields.filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * 10)
}

impl Node {
    /// Starts the node and asks it until it answers.
    fn start(data: &Path, port: u16) -> Outcome<Self> {
        let begin = Instant::now();
        let port_text = port.to_string();
        let mut child = Command::new(CODLING)
            .args(["serve", "--api-port", &port_text, "-c", "Publishers.Types.Local.Port=0", "--data-dir"])
            .arg(data)
            .env_remove("LOG_LEVEL")
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = child.stderr.take().ok_or("piped")?;
        std::thread::spawn(move || {
            BufReader::new(stderr).lines().map_while(Result::ok).for_each(drop);
        });
        let answered = loop {
            if ask(port).is_ok() {
                break begin.elapsed();
            }
            if begin.elapsed() > Duration::from_secs(60) || child.try_wait()?.is_some() {
                return Err("the node does not answer".into());
            }
            std::thread::sleep(Duration::from_micros(200));
        };
        let worked = worked_in_all(child.id());
        Ok(Self { child, answered, worked })
    }

    /// KiB of a line of a file below /proc/PID.
    fn memory(&self, file: &str, field: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap_or_default();
        text.lines().find_map(|l| l.strip_prefix(field)?.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    }

    fn end(mut self, how: &str) -> Outcome<()> {
        Command::new("kill").args([how, &self.child.id().to_string()]).status()?;
        self.child.wait()?;
        Ok(())
    }
}

fn ask(port: u16) -> Outcome<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    if text.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(text.into()) }
}

/// A port that nobody has now.
fn free_port() -> Outcome<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Starts the node again and again, and ends it with that signal.
fn measure(data: &Path, what: &str, how: &str) -> Outcome<()> {
    let port = free_port()?;
    let (mut times, mut cpu, mut peak, mut idle) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..STARTS {
        let node = Node::start(data, port)?;
        times.push(node.answered);
        cpu.push(node.worked);
        if round + 1 == STARTS {
            std::thread::sleep(Duration::from_secs(3));
            idle.push(node.memory("smaps_rollup", "Pss:"));
        }
        peak.push(node.memory("status", "VmHWM:"));
        node.end(how)?;
    }
    times.sort_unstable();
    peak.sort_unstable();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "{what}: median {:.1} ms (fastest {:.1}, slowest {:.1}) from exec to the first answer, {:.1} ms of CPU on average, peak RSS {} KiB, PSS idle {} KiB",
        ms(times[STARTS / 2]),
        ms(times[0]),
        ms(times[STARTS - 1]),
        ms(cpu.iter().sum::<Duration>()) / STARTS as f64,
        peak[STARTS / 2],
        idle.first().unwrap_or(&0),
    );
    Ok(())
}

/// What of a start is the reading of the databases: opened here, as the node does it.
fn open_alone(data: &Path) -> Outcome<()> {
    for name in ["compute/executions.db", "orchestrator/jobs.db"] {
        let path = data.join(name);
        let (mut times, mut cpu) = (Vec::new(), Vec::new());
        for _ in 0..STARTS {
            let (begin, before) = (Instant::now(), worked());
            let opened = RedbBackend::open(&path, StoreSettings::DEFAULT_CACHE)?;
            times.push(begin.elapsed());
            cpu.push(worked() - before);
            opened.close()?;
        }
        times.sort_unstable();
        cpu.sort_unstable();
        let size = std::fs::metadata(&path)?.len() as f64 / 1e6;
        println!(
            "{name}: {size:.1} MB, opened with its check in {:.1} ms, {:.1} ms of CPU",
            times[STARTS / 2].as_secs_f64() * 1e3,
            cpu[STARTS / 2].as_secs_f64() * 1e3
        );
    }
    Ok(())
}

fn main() -> Outcome<()> {
    let base = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let base = base.map_or_else(std::env::temp_dir, PathBuf::from);
    let data = base.join(format!("codling-start-{}", std::process::id()));
    let empty = base.join(format!("codling-start-{}-empty", std::process::id()));
    std::fs::create_dir_all(&data)?;
    let begin = Instant::now();
    fill(&data)?;
    println!(
        "{JOBS} jobs with their executions and {KEPT} results stored in {:.1} s",
        begin.elapsed().as_secs_f64()
    );
    open_alone(&data)?;
    measure(&empty, "nothing stored", "-TERM")?;
    measure(&data, "after a clean stop", "-TERM")?;
    measure(&data, "after a kill", "-KILL")?;
    std::fs::remove_dir_all(&data)?;
    Ok(std::fs::remove_dir_all(&empty)?)
}
