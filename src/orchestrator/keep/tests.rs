use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::model::{
    Bytes, ClockNote, DeletionReason, DesiredState, ExecutionRecord, ExecutionState, HistoryEvent, JobSpec,
    JobState, Level, Resources, ResultEntry, ResultStatus, Sha256, Topic,
};
use crate::store::{Place, StoreSettings, Stores, open};
use crate::sys::FakeClock;
use crate::sys::judge::{FakeTimes, JudgedClock};

const DAY: Duration = Duration::from_secs(86_400);
const NOW: Timestamp = Timestamp(EARLIEST_BELIEVABLE.0 + 400 * 86_400 * 1_000_000_000);

fn ago(days: u32) -> Timestamp {
    Timestamp(NOW.0 - i64::from(days) * 86_400_000_000_000)
}

fn keeper(stores: &Stores, days: u32, max_jobs: u32) -> (JobKeeper, Arc<FakeClock>) {
    let clock = Arc::new(FakeClock::at(NOW));
    let policy = JobPolicy { retention: DAY * days, max_jobs };
    (JobKeeper::new(policy, stores.jobs.clone(), stores.executions.clone(), Arc::clone(&clock) as _), clock)
}

struct Made {
    record: JobRecord,
    execution: ExecutionId,
}

/// A job with one execution, as a run of it leaves them; jobs with the same `body` share it.
fn add(stores: &Stores, ended: Timestamp, body: &str, state: JobState) -> Made {
    let spec: JobSpec = serde_json::from_str(&format!(
        r#"{{"name":"{body}","namespace":"default","type":"batch","count":1,
            "task":{{"name":"main","engine":{{"kind":"other"}}}}}}"#
    ))
    .unwrap();
    let (digest, bytes) = spec.encode().unwrap();
    let id = JobId::random();
    let record = JobRecord {
        head: None,
        id: id.clone(),
        digest,
        name: body.into(),
        state,
        message: String::new(),
        version: 1,
        revision: 3,
        created: ended,
        modified: ended,
    };
    let execution = ExecutionId::random();
    let over = state.is_terminal();
    let row_state = if over { ExecutionState::Completed } else { ExecutionState::Running };
    let row = ExecutionRow {
        id: execution.clone(),
        job_id: id.clone(),
        job_version: 1,
        partition: 0,
        restarts: 0,
        previous: None,
        desired: DesiredState::Running,
        state: row_state,
        message: "x".repeat(200),
        exit_code: Some(0),
        published: true,
        revision: 4,
        created: ended,
        modified: ended,
    };
    let mut change = stores.jobs.change();
    change.put_body(&digest, &bytes);
    change.put_job(&record);
    change.put_execution(&row);
    for seq in 1..6 {
        change.put_history(&id, &event(seq));
    }
    drop(stores.jobs.write_lazy(change));
    let mut change = stores.executions.change();
    change.put_execution(&ExecutionRecord {
        id: execution.clone(),
        job_id: id,
        digest,
        partition: 0,
        restarts: 0,
        state: row_state,
        revision: 4,
        resources: Resources::default(),
        created: ended,
        modified: ended,
        failure: None,
        output: None,
        reported: over,
    });
    stores.executions.write_lazy(change).wait().unwrap();
    Made { record, execution }
}

fn event(seq: u64) -> HistoryEvent {
    HistoryEvent {
        seq,
        version: 1,
        level: Level::Job { previous: None, new: JobState::Completed },
        topic: Topic::StateUpdate,
        message: "something happened to it".into(),
        failure: None,
        time: NOW,
    }
}

fn put_result(stores: &Stores, made: &Made, status: ResultStatus) {
    let mut change = stores.executions.change();
    change.put_result(&ResultEntry {
        execution_id: made.execution.clone(),
        job_id: made.record.id.clone(),
        size: Bytes(1),
        sha256: Sha256::of(b""),
        created: NOW,
        dating: Default::default(),
        fetched: false,
        retention: None,
        pin: None,
        status,
    });
    stores.executions.write(change).wait().unwrap();
}

fn settle(stores: &Stores) {
    stores.jobs.write(stores.jobs.change()).wait().unwrap();
    stores.executions.write(stores.executions.change()).wait().unwrap();
}

fn is_there(stores: &Stores, made: &Made) -> bool {
    let there = stores.jobs.get(&made.record.id).unwrap().is_some();
    // All of it or nothing of it.
    assert_eq!(stores.jobs.executions(&made.record.id).unwrap().len(), usize::from(there));
    assert_eq!(stores.jobs.execution(&made.execution).unwrap().is_some(), there);
    assert_eq!(stores.jobs.history(&made.record.id, 0, 99).unwrap().is_empty(), !there);
    assert_eq!(stores.executions.get(&made.execution).unwrap().is_some(), there);
    there
}

#[test]
fn the_oldest_leave_first_with_everything_of_theirs() {
    let stores = open(&StoreSettings::memory()).unwrap();
    let (keeper, clock) = keeper(&stores, 0, 10);
    clock.trust(false);
    let jobs: Vec<Made> = (0..30)
        .map(|n| add(&stores, ago(40 - n), if n % 2 == 0 { "even" } else { "last" }, JobState::Completed))
        .collect();
    let running = add(&stores, ago(50), "running", JobState::Running);
    let lone = add(&stores, ago(60), "lone", JobState::Failed);
    settle(&stores);
    let due = keeper.due(&HashSet::new()).unwrap();
    assert_eq!(keeper.sweep().unwrap(), due, "what was said is what left");
    assert_eq!(due.len(), 21);
    assert_eq!(due[0], lone.record.id);
    assert!(!is_there(&stores, &lone) && is_there(&stores, &running));
    for (n, job) in jobs.iter().enumerate() {
        assert_eq!(is_there(&stores, job), n >= 20, "{n}");
    }
    // A body stays as long as somebody has it.
    assert_eq!(stores.jobs.body(&lone.record.digest).unwrap(), None);
    assert!(stores.jobs.body(&jobs[0].record.digest).unwrap().is_some());
    assert_eq!(stores.jobs.counts().unwrap().total, 11);
    assert_eq!(keeper.left(), Left { by_age: 0, by_count: 21, executions: 21 });
    assert_eq!(keeper.sweep().unwrap(), []);
}

#[test]
fn age_counts_only_while_the_clock_is_believed() {
    let stores = open(&StoreSettings::memory()).unwrap();
    let (keeper, clock) = keeper(&stores, 30, 1000);
    let old = add(&stores, ago(31), "old", JobState::Stopped);
    let young = add(&stores, ago(29), "young", JobState::Completed);
    let undated = add(&stores, Timestamp(5), "undated", JobState::Completed);
    settle(&stores);
    clock.trust(false);
    assert_eq!(keeper.sweep().unwrap(), []);
    clock.trust(true);
    assert_eq!(keeper.sweep().unwrap(), std::slice::from_ref(&old.record.id));
    assert_eq!(keeper.left(), Left { by_age: 1, by_count: 0, executions: 1 });
    assert!(is_there(&stores, &young) && is_there(&stores, &undated));
}

#[test]
fn a_job_from_before_the_clock_was_set_counts_from_then() {
    let stores = open(&StoreSettings::memory()).unwrap();
    let times = FakeTimes::at(ago(300));
    let clock = Arc::new(JudgedClock::new(times.hand(), ClockNote::default()));
    let policy = JobPolicy { retention: 30 * DAY, max_jobs: 1000 };
    let keeper =
        JobKeeper::new(policy, stores.jobs.clone(), stores.executions.clone(), Arc::clone(&clock) as _);
    let job = add(&stores, ago(300), "just now, as it seemed", JobState::Completed);
    settle(&stores);
    times.set(NOW);
    assert_eq!(keeper.sweep().unwrap(), [], "the clock just jumped");
    times.pass(2 * DAY);
    assert!(clock.is_trusted());
    assert_eq!(keeper.sweep().unwrap(), [], "it is two days old");
    times.pass(29 * DAY);
    assert_eq!(keeper.sweep().unwrap(), [job.record.id]);
}

#[test]
fn a_job_stays_while_its_result_is_stored_and_the_ledger_remembers_longer() {
    let stores = open(&StoreSettings::memory()).unwrap();
    let (keeper, _) = keeper(&stores, 1, 2);
    let kept = add(&stores, ago(9), "kept", JobState::Completed);
    put_result(&stores, &kept, ResultStatus::Stored);
    let open = add(&stores, ago(8), "open", JobState::Completed);
    let mut record = stores.executions.get(&open.execution).unwrap().unwrap();
    record.reported = false;
    let mut change = stores.executions.change();
    change.put_execution(&record);
    stores.executions.write(change).wait().unwrap();
    let young: Vec<Made> =
        (0..3).map(|n| add(&stores, Timestamp(NOW.0 + n), "young", JobState::Completed)).collect();
    settle(&stores);
    // Those that must stay push no younger one out.
    assert_eq!(keeper.sweep().unwrap(), [young[0].record.id.clone()]);
    let planned = HashSet::from([kept.execution.clone()]);
    assert_eq!(keeper.due(&planned).unwrap(), std::slice::from_ref(&kept.record.id));
    let status = ResultStatus::Deleted { reason: DeletionReason::Quota, at: NOW };
    put_result(&stores, &kept, status);
    assert_eq!(keeper.sweep().unwrap(), std::slice::from_ref(&kept.record.id));
    assert!(!is_there(&stores, &kept) && is_there(&stores, &open));
    assert_eq!(stores.executions.result(&kept.execution).unwrap().unwrap().status, status, "410 goes on");
}

#[test]
fn nothing_is_written_beside_a_job_that_left() {
    let stores = open(&StoreSettings::memory()).unwrap();
    let (keeper, _) = keeper(&stores, 1, 10);
    let (gone, there) =
        (add(&stores, ago(9), "a", JobState::Failed), add(&stores, NOW, "b", JobState::Failed));
    settle(&stores);
    keeper.sweep().unwrap();
    for made in [&gone, &there] {
        let mut change = stores.jobs.change();
        change.put_history(&made.record.id, &event(6));
        change.put_job(&made.record);
        change.if_there(&made.record.id);
        stores.jobs.write(change).wait().unwrap();
    }
    assert!(!is_there(&stores, &gone));
    assert_eq!(stores.jobs.last_seq(&there.record.id).unwrap(), 6);
    assert_eq!(stores.jobs.counts().unwrap().total, 1);
}

/// Files that go with the test.
struct Files(PathBuf);

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn when_five_thousand_jobs_have_left_the_files_shrink_while_others_read_and_write() {
    let files = Files(std::env::temp_dir().join(format!("codling-keep-{}", uuid::Uuid::new_v4())));
    let (executions, jobs) = (files.0.join("e.db"), files.0.join("j.db"));
    let settings = StoreSettings::new(Place::Redb(executions.clone()), Place::Redb(jobs.clone()));
    let stores = open(&settings).unwrap();
    let (keeper, _) = keeper(&stores, 30, 100);
    for n in 0..5100 {
        add(&stores, Timestamp(NOW.0 + n), "small", JobState::Completed);
    }
    settle(&stores);
    let len = |path: &PathBuf| std::fs::metadata(path).unwrap().len();
    let before = (len(&executions), len(&jobs));
    let commits = stores.stats().commits;
    assert_eq!(keeper.sweep().unwrap().len(), 5000);
    assert!(
        stores.stats().commits - commits <= 2 * 5000 / CHUNK as u64 + 2,
        "{}",
        stores.stats().commits - commits
    );
    assert!(len(&jobs) >= before.1 / 2, "redb does not shrink by itself, or this test is not needed");

    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let others = scope.spawn(|| {
            let mut rounds = 0;
            while !over.load(Ordering::Relaxed) || rounds == 0 {
                let made = add(&stores, NOW.plus(DAY), "meanwhile", JobState::Completed);
                settle(&stores);
                assert!(is_there(&stores, &made));
                rounds += 1;
            }
            rounds
        });
        let compacted = [stores.jobs.compact(), stores.executions.compact()];
        over.store(true, Ordering::Relaxed);
        others.join().unwrap();
        for done in compacted {
            let done = done.unwrap().unwrap();
            assert!(done.after.0 * 4 < done.before.0, "{done:?}");
        }
    });
    assert!(len(&executions) * 4 < before.0 && len(&jobs) * 4 < before.1, "{before:?}");
    assert_eq!(stores.jobs.compact().unwrap(), None, "there is nothing to gain any more");
    let total = stores.jobs.counts().unwrap().total;
    stores.close().unwrap();
    let again = open(&settings).unwrap();
    assert_eq!(again.jobs.counts().unwrap().total, total);
}
