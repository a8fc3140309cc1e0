//! The two stores, over both back ends: what is written is found, by every way that leads to it.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::conformance::TempDir;
use super::*;
use crate::model::*;

/// Runs a test over a store of each kind.
fn over_both(test: impl Fn(&Stores)) {
    test(&open(&StoreSettings::memory()).unwrap());
    let dir = TempDir::new();
    test(&open(&files(&dir)).unwrap());
}

/// Files in directories that are not there yet.
pub(super) fn files(dir: &TempDir) -> StoreSettings {
    StoreSettings::new(
        Place::Redb(dir.file("compute/executions.db")),
        Place::Redb(dir.file("orchestrator/new/jobs.db")),
    )
}

fn at(second: i64) -> Timestamp {
    Timestamp(1_700_000_000_000_000_000 + second * 1_000_000_000)
}

fn spec(name: &str) -> JobSpec {
    let json = serde_json::json!({
        "name": name, "namespace": "default", "type": "batch", "count": 1,
        "task": {"name": "main", "engine": {"kind": "wasm"}},
    });
    serde_json::from_value(json).unwrap()
}

fn job(second: i64, name: &str) -> JobRecord {
    let id = JobId::random();
    JobRecord {
        head: None,
        digest: spec(name).encode().unwrap().0,
        name: if name.is_empty() { id.to_string() } else { name.into() },
        id,
        state: JobState::Pending,
        message: String::new(),
        version: 1,
        revision: 1,
        created: at(second),
        modified: at(second),
    }
}

fn row(job: &JobRecord, second: i64) -> ExecutionRow {
    ExecutionRow {
        id: ExecutionId::random(),
        job_id: job.id.clone(),
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
        created: at(second),
        modified: at(second),
    }
}

fn event(seq: u64) -> HistoryEvent {
    HistoryEvent {
        seq,
        version: 1,
        level: Level::Job { previous: None, new: JobState::Pending },
        topic: Topic::Submission,
        message: format!("event {seq}"),
        failure: None,
        time: at(0),
    }
}

fn execution(second: i64, state: ExecutionState) -> ExecutionRecord {
    ExecutionRecord {
        id: ExecutionId::random(),
        job_id: JobId::random(),
        digest: Sha256::of(b"body"),
        partition: 0,
        restarts: 0,
        state,
        revision: 1,
        resources: Resources::default(),
        created: at(second),
        modified: at(second),
        failure: None,
        output: None,
        reported: false,
    }
}

fn result(execution: &ExecutionRecord) -> ResultEntry {
    ResultEntry {
        execution_id: execution.id.clone(),
        job_id: execution.job_id.clone(),
        size: Bytes(u64::MAX),
        sha256: Sha256::of(b"archive"),
        created: at(9),
        dating: Default::default(),
        fetched: false,
        retention: Some(Duration::from_secs(60)),
        pin: Some(Pin { until: None }),
        status: ResultStatus::Deleted { reason: DeletionReason::Quota, at: at(10) },
    }
}

fn put(stores: &Stores, record: &ExecutionRecord) {
    let mut change = stores.executions.change();
    change.put_execution(record);
    stores.executions.write(change).wait().unwrap();
}

fn put_job(stores: &Stores, record: &JobRecord) {
    let mut change = stores.jobs.change();
    change.put_job(record);
    stores.jobs.write(change).wait().unwrap();
}

#[test]
fn an_execution_is_found_at_each_stage_of_its_life() {
    over_both(|stores| {
        let store = &stores.executions;
        let mut record = execution(2, ExecutionState::AskForBidAccepted);
        let other = execution(1, ExecutionState::Running);
        put(stores, &other);
        put(stores, &record);
        assert_eq!(store.get(&record.id).unwrap().as_ref(), Some(&record));
        assert_eq!(store.active().unwrap(), [other.clone(), record.clone()]);
        assert_eq!(store.unreported().unwrap(), []);
        assert_eq!(store.of_job(&record.job_id).unwrap(), vec![record.clone()]);

        record.state = ExecutionState::Failed;
        record.failure = Some(Failure::new(FailureCode::Trap, "unreachable").hint("mend it"));
        let mut change = store.change();
        change.put_execution(&record);
        change.put_result(&result(&record));
        store.write(change).wait().unwrap();
        assert_eq!(store.get(&record.id).unwrap().as_ref(), Some(&record));
        assert_eq!(store.active().unwrap(), vec![other.clone()]);
        assert_eq!(store.unreported().unwrap(), vec![record.clone()]);
        assert_eq!(store.of_job(&record.job_id).unwrap(), vec![record.clone()]);
        assert_eq!(store.counts().unwrap(), ExecutionCounts { total: 2, active: 1, unreported: 1 });

        let mut change = store.change();
        change.put_reported(&record.id);
        store.write_lazy(change).wait().unwrap();
        assert!(store.get(&record.id).unwrap().unwrap().reported);
        assert_eq!(store.unreported().unwrap(), []);

        record.reported = true;
        put(stores, &record);
        assert_eq!(store.get(&record.id).unwrap().as_ref(), Some(&record));
        assert_eq!(store.counts().unwrap(), ExecutionCounts { total: 2, active: 1, unreported: 0 });

        let mut change = store.change();
        change.delete_execution(&record.id);
        store.write_internal(change).wait().unwrap();
        assert_eq!(store.get(&record.id).unwrap(), None);
        assert_eq!(store.of_job(&record.job_id).unwrap(), []);
        assert_eq!(store.result(&record.id).unwrap(), Some(result(&record)));
    });
}

#[test]
fn results_are_kept_apart_from_the_records_beside_them() {
    over_both(|stores| {
        let store = &stores.executions;
        let ended: Vec<_> = (0..5).map(|n| execution(n, ExecutionState::Completed)).collect();
        let mut change = store.change();
        for record in &ended {
            change.put_execution(record);
            change.put_result(&result(record));
        }
        change.delete_result(&ended[0].id);
        store.write(change).wait().unwrap();
        let mut found = BTreeSet::new();
        store.ledger().each_result(&mut |entry| assert!(found.insert(entry.execution_id))).unwrap();
        assert_eq!(found, ended[1..].iter().map(|record| record.id.clone()).collect());
        assert_eq!(store.result(&ended[0].id).unwrap(), None);
        assert_eq!(store.counts().unwrap().total, 5);
    });
}

#[test]
fn executions_are_found_by_the_beginning_of_their_id() {
    over_both(|stores| {
        let mut records: Vec<_> = (0..40).map(|n| execution(n, ExecutionState::Running)).collect();
        for record in &mut records[20..] {
            record.state = ExecutionState::Completed;
        }
        records.iter().for_each(|record| put(stores, record));
        let store = &stores.executions;
        for record in &records {
            let id = record.id.as_str();
            for prefix in [id, record.id.short(), &id[2..], &id[..14]] {
                assert_eq!(store.find(prefix, 9).unwrap(), vec![record.id.clone()], "{prefix}");
            }
        }
        assert_eq!(store.find("", 7).unwrap().len(), 7);
        assert_eq!(store.find("e-", 100).unwrap().len(), 40);
        let a: Vec<_> = store.find("a", 100).unwrap();
        assert_eq!(a.len(), records.iter().filter(|record| record.id.as_str().starts_with("e-a")).count());
        for bad in ["x", "e-!", "A", "--", "e-e-", "\u{e9}", &"a".repeat(5000)] {
            assert_eq!(store.find(bad, 9).unwrap(), [], "{bad}");
        }
    });
}

#[test]
fn a_job_is_found_by_id_name_and_prefix() {
    over_both(|stores| {
        let store = &stores.jobs;
        let (unnamed, named) = (job(1, ""), job(2, "hello"));
        put_job(stores, &unnamed);
        put_job(stores, &named);
        let one = |record: &JobRecord| Found::One(Box::new(record.clone()));
        for record in [&unnamed, &named] {
            assert_eq!(store.find(record.id.as_str()).unwrap(), one(record));
            assert_eq!(store.find(record.id.short()).unwrap(), one(record));
            assert_eq!(store.find(&record.id.as_str()[2..12]).unwrap(), one(record));
        }
        assert_eq!(store.find("hello").unwrap(), one(&named));
        for missing in
            ["", "j-", "hell", "j-zzz", "\0", &JobId::random().to_string(), &unnamed.id.as_str()[..4]]
        {
            assert_eq!(store.find(missing).unwrap(), Found::None, "{missing:?}");
        }
        let twin = job(3, "hello");
        put_job(stores, &twin);
        assert_eq!(store.find("hello").unwrap(), Found::Many(vec![twin.id.clone(), named.id.clone()]));
        for n in 0..2 * MANY_MAX {
            put_job(stores, &job(n as i64, "many"));
        }
        assert!(matches!(store.find("many").unwrap(), Found::Many(ids) if ids.len() == MANY_MAX));
    });
}

#[test]
fn bodies_are_shared_and_go_with_their_last_job() {
    over_both(|stores| {
        let store = &stores.jobs;
        let (digest, bytes) = spec("shared").encode().unwrap();
        let jobs = [job(1, "shared"), job(2, "shared")];
        for record in &jobs {
            let mut change = store.change();
            change.put_body(&digest, &bytes);
            change.put_job(record);
            store.write(change).wait().unwrap();
        }
        assert_eq!(*store.body(&digest).unwrap().unwrap(), spec("shared"));
        for (record, left) in jobs.iter().zip([true, false]) {
            let mut change = store.change();
            change.delete_job(record, &[], &[]);
            store.write(change).wait().unwrap();
            assert_eq!(store.body(&digest).unwrap().is_some(), left);
            assert_eq!(store.get(&record.id).unwrap(), None);
        }
        let mut change = store.change();
        change.put_body(&Sha256::of(b"another"), &bytes);
        store.write(change).wait().unwrap();
        assert!(matches!(store.body(&Sha256::of(b"another")), Err(StoreError::Corrupt { .. })));
    });
}

#[test]
fn a_version_keeps_its_body_until_it_leaves() {
    over_both(|stores| {
        let store = &stores.jobs;
        let bodies: Vec<_> = ["a", "b"].map(|name| spec(name).encode().unwrap()).into();
        let mut record = job(1, "versions");
        for (version, body) in (1..=4).zip([1, 0, 1, 0]) {
            let mut change = store.change();
            if version > 1 {
                change.put_version(&record);
            }
            // Every other version is the same.
            let (digest, bytes) = &bodies[body];
            change.put_body(digest, bytes);
            (record.version, record.digest) = (version, *digest);
            change.put_job(&record);
            store.write(change).wait().unwrap();
        }
        let versions = store.versions(&record.id).unwrap();
        assert_eq!(versions.iter().map(|old| old.version).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(store.last_seq(&record.id).unwrap(), 0);
        let there =
            || bodies.iter().map(|(digest, _)| store.body(digest).unwrap().is_some()).collect::<Vec<_>>();
        let mut change = store.change();
        change.delete_version(&versions[0], true);
        store.write(change).wait().unwrap();
        assert_eq!((store.versions(&record.id).unwrap().len(), there()), (2, vec![true, true]));
        let mut change = store.change();
        change.delete_version(&versions[2], false);
        store.write(change).wait().unwrap();
        assert_eq!(there(), [true, false]);
        // It runs again: it does not leave.
        let mut change = store.change();
        change.delete_job(&record, &versions, &[]);
        change.unless_active(&record.id);
        store.write(change).wait().unwrap();
        assert_eq!(store.get(&record.id).unwrap().as_ref(), Some(&record));
        assert_eq!(there(), [true, false]);
        record.state = JobState::Completed;
        let mut change = store.change();
        change.put_job(&record);
        change.delete_job(&record, &versions, &[]);
        change.unless_active(&JobId::random());
        store.write(change).wait().unwrap();
        assert_eq!((store.get(&record.id).unwrap(), there()), (None, vec![false, false]));
    });
}

#[test]
fn a_job_s_executions_and_history_are_its_own() {
    over_both(|stores| {
        let store = &stores.jobs;
        let jobs = [job(1, "a"), job(2, "b")];
        let mut rows = Vec::new();
        for record in &jobs {
            let mut change = store.change();
            change.put_job(record);
            for n in 0..3 {
                let row = row(record, 10 - n);
                change.put_execution(&row);
                rows.push(row);
            }
            // What is noted after a job's end has another place and the same order.
            for seq in 1..=300 {
                if seq % 100 == 0 || seq > 290 {
                    change.put_note(record, &event(seq));
                } else {
                    change.put_history(&record.id, &event(seq));
                }
            }
            store.write(change).wait().unwrap();
        }
        for record in &jobs {
            let mut wanted: Vec<_> = rows.iter().filter(|row| row.job_id == record.id).cloned().collect();
            wanted.sort_by_key(|row| row.created);
            assert_eq!(store.executions(&record.id).unwrap(), wanted);
            assert_eq!(store.last_seq(&record.id).unwrap(), 300);
            let seqs = |after, limit| -> Vec<u64> {
                store.history(&record.id, after, limit).unwrap().iter().map(|event| event.seq).collect()
            };
            assert_eq!(seqs(0, usize::MAX), (1..=300).collect::<Vec<_>>());
            assert_eq!(seqs(254, 3), [255, 256, 257]);
            assert_eq!(seqs(198, 3), [199, 200, 201]);
            assert_eq!(seqs(288, 5), [289, 290, 291, 292, 293]);
            assert_eq!(seqs(300, 9), [] as [u64; 0]);
            assert_eq!(seqs(u64::MAX, 9), [] as [u64; 0]);
            assert_eq!(seqs(0, 0), [] as [u64; 0]);
            let mut change = store.change();
            change.delete_history(record, (99, 202));
            store.write(change).wait().unwrap();
            assert_eq!(seqs(97, 3), [98, 202, 203]);
        }
        for (n, row) in rows.iter_mut().enumerate() {
            assert_eq!(store.execution(&row.id).unwrap().as_ref(), Some(&*row));
            row.state = if n % 2 == 0 { ExecutionState::Completed } else { ExecutionState::BidAccepted };
            let mut change = store.change();
            change.put_execution(row);
            store.write(change).wait().unwrap();
            assert_eq!(store.execution(&row.id).unwrap().as_ref(), Some(&*row));
        }
        let mut change = store.change();
        change.delete_job(&jobs[0], &[], &rows[..3]);
        store.write(change).wait().unwrap();
        assert_eq!(store.executions(&jobs[0].id).unwrap(), []);
        // Also of a job that comes again with the same id and time.
        for _ in 0..2 {
            assert_eq!(store.history(&jobs[0].id, 0, 9).unwrap(), []);
            assert_eq!(store.last_seq(&jobs[0].id).unwrap(), 0);
            put_job(stores, &jobs[0]);
        }
        let mut change = store.change();
        change.delete_job(&jobs[0], &[], &[]);
        store.write(change).wait().unwrap();
        assert_eq!(store.execution(&rows[0].id).unwrap(), None);
        assert_eq!(store.executions(&jobs[1].id).unwrap().len(), 3);
        assert_eq!(store.find("a").unwrap(), Found::None);
        assert_eq!(store.counts().unwrap(), JobCounts { total: 1, active: 1 });
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn lists_are_slices_of_the_sorted_whole(
        times in proptest::collection::vec((-5i64..200, 0i64..200, any::<bool>()), 0..150),
        reverse in any::<bool>(),
        modified in any::<bool>(),
        offset in 0u64..100,
        limit in 0usize..100,
    ) {
        let stores = open(&StoreSettings::memory()).unwrap();
        let mut all = Vec::new();
        for (created, age, ended) in times {
            let mut record = job(created, "");
            // Before 1970 too: boards without a clock battery.
            if created < 0 {
                record.created = Timestamp(created);
            }
            record.modified = record.created.plus(Duration::from_secs(age.unsigned_abs()));
            record.state = if ended { JobState::Failed } else { JobState::Queued };
            put_job(&stores, &record);
            all.push(record);
        }
        let time = |record: &JobRecord| if modified { record.modified } else { record.created };
        all.sort_by(|a, b| (time(a), &a.id).cmp(&(time(b), &b.id)));
        let mut active: Vec<_> = all.iter().filter(|r| !r.state.is_terminal()).cloned().collect();
        if reverse {
            all.reverse();
        }
        let wanted: Vec<_> = all
            .into_iter()
            .filter(|record| record.state == JobState::Failed)
            .skip(usize::try_from(offset).unwrap())
            .take(limit)
            .collect();
        let order = if modified { ListOrder::Modified } else { ListOrder::Created };
        let query = ListQuery { order, reverse, offset, limit };
        let found = stores.jobs.list(&query, &mut |record| record.state == JobState::Failed).unwrap();
        prop_assert_eq!(found, wanted);
        active.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        prop_assert_eq!(stores.jobs.active().unwrap(), active);
    }
}

#[test]
fn fields_of_a_later_version_are_tolerated_and_nonsense_is_reported() {
    let db = Arc::new(MemoryBackend::new());
    let stores = Stores::over(
        Arc::clone(&db) as Arc<dyn Backend>,
        Arc::clone(&db) as Arc<dyn Backend>,
        Duration::ZERO,
    )
    .unwrap();
    let record = execution(1, ExecutionState::Running);
    put(&stores, &record);
    let mut key = Vec::new();
    db.scan(&[0x80], &[0x81], false, &mut |found, _| {
        key = found.to_vec();
        ControlFlow::Continue(())
    })
    .unwrap();
    let mut json = serde_json::to_value(&record).unwrap();
    json["invented_later"] = serde_json::json!({"deep": [1, 2]});
    db.commit(&[Change::Put(key.clone(), json.to_string().into_bytes())], Durability::Durable).unwrap();
    assert_eq!(stores.executions.get(&record.id).unwrap(), Some(record.clone()));
    db.commit(&[Change::Put(key.clone(), b"{\"id\":".to_vec())], Durability::Durable).unwrap();
    let error = stores.executions.get(&record.id).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }) && error.to_string().contains(record.id.as_str()));
    assert!(stores.executions.active().is_err());
    db.commit(&[Change::Put(vec![0x81, 1, 2], Vec::new())], Durability::Durable).unwrap();
    assert!(matches!(stores.executions.unreported(), Err(StoreError::Corrupt { .. })));
}

#[test]
fn what_was_written_is_there_after_a_restart() {
    let dir = TempDir::new();
    let record = execution(1, ExecutionState::Running);
    let submitted = job(1, "kept");
    for close in [true, false] {
        let stores = open(&files(&dir)).unwrap();
        let mut change = stores.executions.change();
        change.put_execution(&record);
        // Without an ear for the answer: the close is to make it durable.
        drop(stores.executions.write_lazy(change));
        put_job(&stores, &submitted);
        if close {
            stores.close().unwrap();
        }
    }
    let stores = open(&files(&dir)).unwrap();
    assert_eq!(stores.executions.get(&record.id).unwrap(), Some(record));
    assert_eq!(stores.jobs.get(&submitted.id).unwrap(), Some(submitted));
}
