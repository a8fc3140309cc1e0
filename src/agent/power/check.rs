//! What must be true of what a power cut has left: the node is started on it, settles, and is looked at.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::disk::{Disk, Fault, Step};
use super::life::{self, Alive, Mark, kib, node, output};
use crate::archive::{UnpackLimits, unpack};
use crate::model::{
    Bytes, ExecutionId, ExecutionRecord, ExecutionState, FailureCode, JobId, JobRecord, JobState, JobType,
    ResultEntry, ResultStatus, Sha256, Topic,
};
use crate::store::{ListQuery, Stores};
use crate::sys::FakeClock;

/// What somebody has been told by then.
#[derive(Debug, Default, Clone)]
pub(super) struct Told {
    submitted: BTreeSet<JobId>,
    stopped: BTreeSet<JobId>,
    served: BTreeMap<ExecutionId, Sha256>,
    pinned: BTreeSet<ExecutionId>,
    /// The disk has failed while the node ran: its work may have failed, too, and said so.
    failures: bool,
}

impl Told {
    pub(super) fn of_a_broken_disk(steps: &[Step]) -> Self {
        let mut told = Self { failures: true, ..Self::default() };
        steps.iter().for_each(|step| told.hear(step));
        told
    }

    pub(super) fn hear(&mut self, step: &Step) {
        let Step::Told(mark) = step else { return };
        match mark.clone() {
            Mark::Submitted(id) => drop(self.submitted.insert(id)),
            Mark::Stopped(id) => drop(self.stopped.insert(id)),
            Mark::Served(id, digest) => drop(self.served.insert(id, digest)),
            Mark::Pinned(id) => drop(self.pinned.insert(id)),
            Mark::Unpinning(id) => drop(self.pinned.remove(&id)),
        }
    }
}

/// What the start finds.
#[derive(Debug)]
struct Found {
    live: Vec<ExecutionRecord>,
    /// Jobs that are not over.
    active: BTreeSet<JobId>,
    /// Executions that nobody has begun, in the order in which they are to begin.
    waiting: Vec<ExecutionId>,
}

fn found(stores: &Stores) -> Found {
    let live = stores.executions.active().unwrap();
    let (mut waiting, mut active) = (Vec::new(), BTreeSet::new());
    for job in stores.jobs.active().unwrap() {
        active.insert(job.id.clone());
        let spec = stores.jobs.body(&job.digest).unwrap().unwrap();
        for row in stores.jobs.executions(&job.id).unwrap() {
            if stores.executions.get(&row.id).unwrap().is_none() && !row.state.is_terminal() {
                waiting.push((-spec.priority, job.created, job.id.clone(), row.partition, row.id));
            }
        }
    }
    waiting.sort();
    Found { live, active, waiting: waiting.into_iter().map(|(.., id)| id).collect() }
}

fn all_jobs(stores: &Stores) -> Vec<JobRecord> {
    let all = ListQuery { order: Default::default(), reverse: false, offset: 0, limit: 10_000 };
    stores.jobs.list(&all, &mut |_| true).unwrap()
}

/// Everything that is stored, as text, and the files beside the databases.
fn everything(node: &Alive, root: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for job in all_jobs(&node.stores) {
        all.push(format!("{job:?}"));
        all.extend(node.stores.jobs.executions(&job.id).unwrap().iter().map(|row| format!("{row:?}")));
        all.extend(node.stores.jobs.history(&job.id, 0, 10_000).unwrap().iter().map(|e| format!("{e:?}")));
    }
    for id in node.stores.executions.find("", 10_000).unwrap() {
        all.push(format!("{:?} {:?}", node.stores.executions.get(&id), node.stores.executions.result(&id)));
    }
    all.extend(files(root).into_iter().map(|(path, bytes)| format!("{path:?} {}", Sha256::of(&bytes).hex())));
    all
}

/// What is in the data directory, without the databases.
fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut found, mut dirs) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_none_or(|end| end != "db") {
                found.insert(path.strip_prefix(root).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// Starts a node on what is in `root`, twice, and holds both against the rules.
pub(super) fn check(root: &Path, told: &Told) {
    let clock = Arc::new(FakeClock::at(life::START.plus(Duration::from_secs(24 * 3600))));
    let before = OnceCell::new();
    let settled = node(
        &Disk::new(root, Fault::Never),
        root,
        &clock,
        false,
        |stores| before.set(found(stores)).unwrap(),
        async |node| {
            node.stop_services().await;
            let over = || node.stores.jobs.active().unwrap().is_empty() && node.is_idle();
            assert!(node.until(over).await);
            // The ends of executions whose jobs had ended are written a moment later than they are heard.
            let ended = |job: &JobRecord| {
                let rows = node.stores.jobs.executions(&job.id).unwrap();
                rows.iter().all(|row| row.state.is_terminal())
            };
            assert!(node.until(|| all_jobs(&node.stores).iter().all(ended)).await);
            // What is done for a job after its end is done on this thread or the packer's.
            node.until(|| fs::read_dir(root.join("scratch")).unwrap().count() == 0).await;
            rules(node, root, told, before.get().unwrap());
            everything(node, root)
        },
    )
    .unwrap();
    let again = node(
        &Disk::new(root, Fault::Never),
        root,
        &clock,
        false,
        |_| {},
        async |node| everything(node, root),
    )
    .unwrap();
    assert_eq!(settled, again, "a second start changed something");
}

fn rules(node: &Alive, root: &Path, told: &Told, before: &Found) {
    let stores = &node.stores;
    for id in &told.submitted {
        assert!(stores.jobs.get(id).unwrap().is_some(), "{id} was acknowledged and is lost");
    }
    for id in &told.stopped {
        assert_eq!(stores.jobs.get(id).unwrap().unwrap().state, JobState::Stopped, "{id} was stopped");
    }
    jobs_and_executions_agree(node, told.failures);
    ledger_and_files_agree(node, root);
    for (id, digest) in &told.served {
        let row = stores.executions.result(id).unwrap();
        let row = row.unwrap_or_else(|| panic!("the result of {id} was served and has no row"));
        let lost =
            matches!(row.status, ResultStatus::Deleted { reason: crate::model::DeletionReason::Lost, .. });
        assert!(row.sha256 == *digest && !lost, "the result of {id} was served: {row:?}");
    }
    for id in &told.pinned {
        let row = stores.executions.result(id).unwrap().unwrap();
        assert!(row.pin.is_some() && row.is_stored(), "{id} was pinned: {row:?}");
    }
    restart_table(node, before);
}

fn jobs_and_executions_agree(node: &Alive, failures: bool) {
    for job in all_jobs(&node.stores) {
        let spec = node.stores.jobs.body(&job.digest).unwrap().expect("a job has its body");
        let rows = node.stores.jobs.executions(&job.id).unwrap();
        let history = node.stores.jobs.history(&job.id, 0, 10_000).unwrap();
        let seqs: Vec<u64> = history.iter().map(|event| event.seq).collect();
        assert_eq!(
            seqs,
            (1..=history.len() as u64).collect::<Vec<_>>(),
            "gaps in the history of {}",
            spec.name
        );
        assert_eq!(history[0].topic, Topic::Submission);
        if spec.job_type == JobType::Service {
            assert!(matches!(job.state, JobState::Stopped | JobState::Failed), "{job:?}");
            assert!(rows.iter().all(|row| row.state.is_terminal()), "{rows:?}");
            assert!(failures || job.state == JobState::Stopped, "{job:?}");
            continue;
        }
        let completed =
            |p| rows.iter().any(|row| row.partition == p && row.state == ExecutionState::Completed);
        let all = (0..spec.count).all(completed);
        assert_eq!(
            job.state == JobState::Completed,
            all && job.state != JobState::Stopped,
            "{job:?} {rows:?}"
        );
        match spec.name.as_str() {
            _ if failures && job.state == JobState::Failed => assert!(!job.message.is_empty()),
            "fail" => assert!(matches!(job.state, JobState::Failed), "{job:?}"),
            "hold-and-stop" | "never-runs" => {
                assert!(matches!(job.state, JobState::Stopped | JobState::Completed), "{job:?}")
            }
            _ => assert_eq!(job.state, JobState::Completed, "{job:?} {rows:?} {history:?}"),
        }
        for row in rows {
            assert!(row.state.is_terminal(), "{}: {row:?}", spec.name);
            let record = node.stores.executions.get(&row.id).unwrap();
            match &record {
                // Whether a commit that fails was made or not, nobody can tell before the next start.
                Some(record) if failures && row.state == ExecutionState::Failed => {
                    assert!(record.state.is_terminal() && !row.message.is_empty());
                    continue;
                }
                Some(record) => assert_eq!(record.state, row.state, "{}: {record:?} {row:?}", spec.name),
                None => assert_ne!(row.state, ExecutionState::Completed, "{}: {row:?}", spec.name),
            }
            let entry = node.stores.executions.result(&row.id).unwrap();
            assert_eq!(row.published, entry.is_some(), "{}: {row:?} {entry:?}", spec.name);
            if let Some(ResultEntry { status: ResultStatus::Deleted { reason, .. }, .. }) = entry {
                let said = history.iter().any(|event| {
                    event.topic == Topic::Results
                        && event.message.contains(row.id.short())
                        && event.message.contains(&reason.to_string())
                });
                assert!(said, "the history of {} does not say that its result went: {history:#?}", spec.name);
            }
        }
    }
}

fn ledger_and_files_agree(node: &Alive, root: &Path) {
    let mut occupied = Bytes::ZERO;
    let mut listed = BTreeSet::from([PathBuf::from("node.json"), PathBuf::from("reserve")]);
    let jobs: BTreeMap<JobId, JobRecord> =
        all_jobs(&node.stores).into_iter().map(|job| (job.id.clone(), job)).collect();
    let found = files(root);
    for entry in node.shelf.list().unwrap().into_iter().filter(ResultEntry::is_stored) {
        let path = PathBuf::from(format!("results/{}.tar.gz", entry.execution_id));
        let bytes = found.get(&path).unwrap_or_else(|| panic!("{entry:?} has no file"));
        assert_eq!((Bytes(bytes.len() as u64), Sha256::of(bytes)), (entry.size, entry.sha256));
        let spec = node.stores.jobs.body(&jobs[&entry.job_id].digest).unwrap().unwrap();
        let dest = root.with_extension("unpacked");
        fs::create_dir(&dest).unwrap();
        unpack(bytes.as_slice(), &dest, &UnpackLimits::default()).unwrap();
        let stdout = fs::read(dest.join("stdout"));
        fs::remove_dir_all(&dest).unwrap();
        let whole = stdout.is_ok_and(|bytes| bytes == output(&spec.name, kib(&spec) << 10));
        assert!(whole, "the result of {} is not what its program wrote", spec.name);
        occupied = occupied.plus(entry.size.on_disk());
        listed.insert(path);
    }
    assert_eq!(found.keys().cloned().collect::<BTreeSet<_>>(), listed, "files that nobody owns");
    let df = node.shelf.df();
    assert_eq!((df.results, df.scratch), (occupied, Bytes::ZERO), "{df:?}");
    assert!(df.results <= df.quota, "{df:?}");
}

/// What was waiting waits again in its order; what was running was cut off; what was publishing went on.
fn restart_table(node: &Alive, before: &Found) {
    let begun = node.begun();
    let again: Vec<&ExecutionId> = begun.iter().filter(|id| before.waiting.contains(id)).collect();
    assert_eq!(again, before.waiting.iter().collect::<Vec<_>>(), "the order of the queue");
    for old in &before.live {
        let record = node.stores.executions.get(&old.id).unwrap().unwrap();
        let cut_off = record.failure.as_ref().is_some_and(|f| f.code == FailureCode::NodeRestart);
        match old.state {
            ExecutionState::Publishing => {
                assert!(record.state == ExecutionState::Completed || cut_off, "{old:?} became {record:?}")
            }
            _ => assert!(cut_off, "{old:?} became {record:?}"),
        }
        assert!(!begun.contains(&old.id), "{} was run twice", old.id);
        let replaced = node.stores.jobs.executions(&old.job_id).unwrap();
        let replaced = replaced.iter().any(|row| row.previous.as_ref() == Some(&old.id));
        assert_eq!(replaced, cut_off && before.active.contains(&old.job_id), "{old:?}");
    }
}
