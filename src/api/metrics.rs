//! `/metrics`: what Prometheus scrapes, as text of version 0.0.4.
//!
//! No label is ever an id: the number of series is fixed. A scrape costs little: what is counted is counted where it
//! happens; only jobs that have ended are looked through, and that at most once in [`ENDED_FOR`].

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::model::{Bytes, DeletionReason, JobState};
use crate::store::{JobStore, ListOrder, ListQuery, StoreError};
use crate::sys::tally::{BOUNDS, JOB_DURATION, STATE_WRITTEN};
use crate::wire::ApiError;

use super::App;
use super::ask::Reply;

/// How long the numbers of jobs that have ended are good for: to get them, all jobs are looked through.
const ENDED_FOR: Duration = Duration::from_secs(30);
/// Ticks of a second in `/proc/self/stat`: Linux shows programs this many on every architecture.
const TICKS: f64 = 100.0;
/// States of jobs that have ended, and whose numbers are kept for a while.
const ENDED: [JobState; 3] = [JobState::Completed, JobState::Failed, JobState::Stopped];

/// How many jobs ended how, and when that was looked up.
#[derive(Debug, Default)]
pub struct EndedJobs(Mutex<Option<(Instant, [u64; ENDED.len()])>>);

impl EndedJobs {
    fn get(&self, jobs: &JobStore, now: Instant) -> Result<[u64; ENDED.len()], StoreError> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((when, counts)) = *known
            && now.saturating_duration_since(when) < ENDED_FOR
        {
            return Ok(counts);
        }
        let mut counts = [0; ENDED.len()];
        let all = ListQuery { order: ListOrder::Created, reverse: false, offset: 0, limit: 1 };
        jobs.list(&all, &mut |record| {
            if let Some(at) = ENDED.iter().position(|state| *state == record.state) {
                counts[at] += 1;
            }
            false
        })?;
        *known = Some((now, counts));
        Ok(counts)
    }
}

/// `GET /metrics`.
pub fn get(app: &App) -> Result<Reply, ApiError> {
    let mut page = Page(String::with_capacity(4 << 10));
    page.family("codling_build_info", "gauge", "What runs here.");
    let version = [("version", env!("CARGO_PKG_VERSION")), ("arch", std::env::consts::ARCH)];
    page.sample("codling_build_info", &version, 1.0);
    work(app, &mut page)?;
    durations(&mut page);
    disk(app, &mut page);
    store(app, &mut page);
    process(app, &mut page);
    let fields = vec![("Content-Type", "text/plain; version=0.0.4; charset=utf-8".to_owned())];
    Ok(Reply { status: 200, fields, body: page.0.into_bytes(), send: None })
}

/// Metrics as text.
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to memory does not fail; neither does it below.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// Values of labels are words of the program: there is nothing in them to escape.
    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.0.push_str(name);
        for (place, (label, text)) in labels.iter().enumerate() {
            let _ = write!(self.0, "{}{label}=\"{text}\"", if place == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
const fn number(n: u64) -> f64 {
    n as f64
}

const fn bytes(bytes: Bytes) -> f64 {
    number(bytes.0)
}

fn work(app: &App, page: &mut Page) -> Result<(), ApiError> {
    let ended = app.ended.get(&app.jobs, Instant::now())?;
    let active = app.jobs.active()?;
    page.family(
        "codling_jobs",
        "gauge",
        "Jobs that are remembered, by state; ended ones as of the last half minute.",
    );
    for state in [JobState::Pending, JobState::Queued, JobState::Running] {
        let count = active.iter().filter(|record| record.state == state).count();
        page.sample("codling_jobs", &[("state", state.as_str())], number(count as u64));
    }
    for (state, count) in ENDED.iter().zip(ended) {
        page.sample("codling_jobs", &[("state", state.as_str())], number(count));
    }
    let load = app.node.load()?;
    page.family("codling_executions", "gauge", "Executions that run, and that wait for room.");
    for (state, count) in [("running", load.running), ("queued", load.queued)] {
        page.sample("codling_executions", &[("state", state)], f64::from(count));
    }
    let left = app.keeper.left();
    page.family("codling_jobs_left_total", "counter", "Jobs that left the database, by reason.");
    for (reason, count) in [("age", left.by_age), ("count", left.by_count)] {
        page.sample("codling_jobs_left_total", &[("reason", reason)], number(count));
    }
    Ok(())
}

fn durations(page: &mut Page) {
    const NAME: &str = "codling_job_duration_seconds";
    let observed = JOB_DURATION.observed();
    page.family(
        NAME,
        "histogram",
        "From submission to the end of a job, of those that ended since the start.",
    );
    let bucket = format!("{NAME}_bucket");
    for (bound, count) in BOUNDS.iter().zip(observed.cumulated) {
        page.sample(&bucket, &[("le", &bound.to_string())], number(count));
    }
    page.sample(&bucket, &[("le", "+Inf")], number(observed.count));
    page.sample(&format!("{NAME}_sum"), &[], observed.sum.as_secs_f64());
    page.sample(&format!("{NAME}_count"), &[], number(observed.count));
}

fn disk(app: &App, page: &mut Page) {
    let room = app.shelf.room_taken();
    page.single("codling_disk_quota_bytes", "gauge", "Results.Quota.", bytes(room.quota));
    page.family("codling_disk_used_bytes", "gauge", "What counts against the quota, by kind.");
    let kinds = [
        ("results", room.results),
        ("scratch", room.scratch),
        ("cache", room.cache),
        ("databases", room.beside),
    ];
    for (kind, used) in kinds {
        page.sample("codling_disk_used_bytes", &[("kind", kind)], bytes(used));
    }
    page.single("codling_results", "gauge", "Published results that are there.", f64::from(room.count));
    if let Some(space) = room.space {
        page.single("codling_disk_free_bytes", "gauge", "Free on the file system.", bytes(space.free));
    }
    let gone = |reason: DeletionReason| room.gone.iter().find(|(r, _)| *r == reason).map(|(_, gone)| *gone);
    page.family("codling_gc_deleted_bytes_total", "counter", "Results that were deleted, by reason.");
    for reason in DeletionReason::ALL {
        let freed = gone(reason).map_or(Bytes::ZERO, |gone| gone.bytes);
        page.sample("codling_gc_deleted_bytes_total", &[("reason", reason.word())], bytes(freed));
    }
    page.family("codling_gc_deleted_results_total", "counter", "How many were deleted, by reason.");
    for reason in DeletionReason::ALL {
        let count = gone(reason).map_or(0, |gone| gone.count);
        page.sample("codling_gc_deleted_results_total", &[("reason", reason.word())], number(count));
    }
}

fn store(app: &App, page: &mut Page) {
    let stats = app.executions.stats();
    let name = "codling_state_commits_total";
    page.single(
        name,
        "counter",
        "Durable commits of the databases, each one fdatasync.",
        number(stats.commits),
    );
    let name = "codling_state_lazy_commits_total";
    page.single(name, "counter", "Changes that left it to a later commit.", number(stats.lazy_commits));
    page.single(
        "codling_state_written_bytes_total",
        "counter",
        "What the databases wrote to their files.",
        number(STATE_WRITTEN.load(Ordering::Relaxed)),
    );
}

/// What the kernel knows of the process. What it does not tell is left out.
fn process(app: &App, page: &mut Page) {
    #[expect(clippy::cast_precision_loss, reason = "seconds, to the microsecond")]
    let started = app.started.0 as f64 / 1e9;
    page.single("process_start_time_seconds", "gauge", "Start, in seconds since 1970.", started);
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the program is in parentheses, and may have blanks in it.
    let fields: Vec<u64> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect())
        .unwrap_or_default();
    // Numbered as proc(5) does, without the two before the parenthesis' end.
    if let (Some(user), Some(system), Some(threads), Some(size)) =
        (fields.get(11), fields.get(12), fields.get(17), fields.get(20))
    {
        let seconds = number(user + system) / TICKS;
        page.single("process_cpu_seconds_total", "counter", "Time on processors.", seconds);
        page.single("process_threads", "gauge", "Threads.", number(*threads));
        page.single("process_virtual_memory_bytes", "gauge", "Addresses taken.", number(*size));
    }
    if let Some(pages) = fields.get(21) {
        let resident = number(pages * rustix::param::page_size() as u64);
        page.single("process_resident_memory_bytes", "gauge", "Memory.", resident);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        // One of them is the directory itself.
        let open = open.count().saturating_sub(1) as u64;
        page.single("process_open_fds", "gauge", "Open files.", number(open));
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    page.single("process_max_fds", "gauge", "Files that may be open.", limit.map_or(f64::INFINITY, number));
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    if let Some(written) = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse().ok()) {
        let name = "codling_storage_written_bytes_total";
        page.single(
            name,
            "counter",
            "What the process had written to storage: state, results and scratch.",
            number(written),
        );
    }
}

#[cfg(test)]
mod tests {
    use crate::model::{JobDigest, JobId, JobRecord, Timestamp};
    use crate::store::{StoreSettings, open};

    use super::*;

    #[test]
    fn ended_jobs_are_looked_through_once_in_a_while_only() {
        let stores = open(&StoreSettings::memory()).unwrap();
        let put = |state| {
            let record = JobRecord {
                head: None,
                id: JobId::random(),
                digest: JobDigest::of(b""),
                name: String::new(),
                state,
                message: String::new(),
                version: 1,
                revision: 1,
                created: Timestamp(1),
                modified: Timestamp(1),
            };
            let mut change = stores.jobs.change();
            change.put_job(&record);
            stores.jobs.write(change).wait().unwrap();
        };
        let (ended, now) = (EndedJobs::default(), Instant::now());
        put(JobState::Failed);
        put(JobState::Running);
        assert_eq!(ended.get(&stores.jobs, now).unwrap(), [0, 1, 0]);
        put(JobState::Completed);
        assert_eq!(ended.get(&stores.jobs, now + ENDED_FOR / 2).unwrap(), [0, 1, 0], "as they were");
        assert_eq!(ended.get(&stores.jobs, now + ENDED_FOR).unwrap(), [1, 1, 0]);
    }

    #[test]
    fn a_page_is_as_prometheus_reads_it() {
        let mut page = Page(String::new());
        page.single("a_bytes", "gauge", "What.", bytes(Bytes(5 << 30)));
        page.sample("a_bytes", &[("kind", "x"), ("state", "y")], 0.25);
        assert_eq!(
            page.0,
            "# HELP a_bytes What.\n# TYPE a_bytes gauge\na_bytes 5368709120\na_bytes{kind=\"x\",state=\"y\"} 0.25\n"
        );
    }
}
