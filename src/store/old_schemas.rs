//! Databases that earlier versions wrote, checked in for ever: each schema has its directory in `tests/fixtures`, with
//! the two files and, in `records.json`, what is in them.
//!
//! When [`SCHEMA`] rises, make the new one's before anything else writes it:
//! `cargo test --lib store::old_schemas -- --ignored`, after `records.json` was copied and extended.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use super::conformance::TempDir;
use super::*;
use crate::model::*;

/// What is in the files. JSON as it was then: a field that has since been added is not in it.
#[derive(Deserialize)]
struct Records {
    executions: Vec<Value>,
    results: Vec<Value>,
    bodies: Vec<String>,
    jobs: Vec<Value>,
    rows: Vec<Value>,
    history: BTreeMap<JobId, Vec<Value>>,
}

fn fixtures(schema: u32) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/schema-{schema}"))
}

fn records(schema: u32) -> Records {
    serde_json::from_slice(&std::fs::read(fixtures(schema).join("records.json")).unwrap()).unwrap()
}

fn read<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error}: {value}"))
}

/// All that the old value says, the new one says as well.
fn says(new: &impl serde::Serialize, old: &Value) {
    fn within(old: &Value, new: &Value) -> bool {
        match (old, new) {
            (Value::Object(old), Value::Object(new)) => {
                old.iter().all(|(key, value)| new.get(key).is_some_and(|new| within(value, new)))
            }
            _ => old == new,
        }
    }
    let new = serde_json::to_value(new).unwrap();
    assert!(within(old, &new), "{old} was read as {new}");
}

fn places(dir: &std::path::Path) -> StoreSettings {
    StoreSettings::new(Place::Redb(dir.join("executions.db")), Place::Redb(dir.join("jobs.db")))
}

/// Writes the files of the present schema.
#[test]
#[ignore = "writes what is checked in"]
fn write_the_files_of_this_schema() {
    let (dir, records) = (fixtures(SCHEMA), records(SCHEMA));
    for name in ["executions.db", "jobs.db"] {
        assert!(!dir.join(name).exists(), "{name} is there already: it is never written again");
    }
    let stores = open(&places(&dir)).unwrap();
    let mut change = stores.executions.change();
    records.executions.iter().for_each(|record| change.put_execution(&read(record)));
    records.results.iter().for_each(|entry| change.put_result(&read(entry)));
    stores.executions.write(change).wait().unwrap();
    let mut change = stores.jobs.change();
    for body in &records.bodies {
        change.put_body(&JobDigest::of(body.as_bytes()), body.as_bytes());
    }
    records.jobs.iter().for_each(|job| change.put_job(&read(job)));
    records.rows.iter().for_each(|row| change.put_execution(&read(row)));
    for (job, events) in &records.history {
        events.iter().for_each(|event| change.put_history(job, &read(event)));
    }
    stores.jobs.write(change).wait().unwrap();
    stores.close().unwrap();
}

#[test]
fn what_every_schema_so_far_wrote_is_read() {
    for schema in 1..=SCHEMA {
        let dir = TempDir::new();
        for name in ["executions.db", "jobs.db"] {
            std::fs::copy(fixtures(schema).join(name), dir.file(name)).unwrap();
        }
        // Opened, closed, and opened again as whatever the first open made of it.
        for _ in 0..2 {
            let stores = open(&places(&dir.0)).unwrap();
            check_executions(&stores.executions, &records(schema));
            check_jobs(&stores.jobs, &records(schema));
            stores.close().unwrap();
        }
    }
}

fn check_executions(store: &ExecutionStore, records: &Records) {
    let (mut active, mut unreported) = (Vec::new(), Vec::new());
    for old in &records.executions {
        let known: ExecutionRecord = read(old);
        says(&store.get(&known.id).unwrap().unwrap(), old);
        if !known.state.is_terminal() {
            active.push(known.id.clone());
        } else if !known.reported {
            unreported.push(known.id.clone());
        }
    }
    let ids = |found: Vec<ExecutionRecord>| found.into_iter().map(|record| record.id).collect::<Vec<_>>();
    assert_eq!((ids(store.active().unwrap()), ids(store.unreported().unwrap())), (active, unreported));
    let mut listed = 0;
    store.ledger().each_result(&mut |_| listed += 1).unwrap();
    assert_eq!(listed, records.results.len());
    for old in &records.results {
        let known: ResultEntry = read(old);
        says(&store.result(&known.execution_id).unwrap().unwrap(), old);
    }
    assert_eq!(store.counts().unwrap().total, records.executions.len() as u64);
}

fn check_jobs(store: &JobStore, records: &Records) {
    let mut active = Vec::new();
    for old in &records.jobs {
        let known: JobRecord = read(old);
        says(&store.get(&known.id).unwrap().unwrap(), old);
        let same_name = records.jobs.iter().filter(|job| job["name"] == known.name.as_str()).count();
        match store.find(&known.name).unwrap() {
            Found::One(found) => assert_eq!((found.id, same_name), (known.id.clone(), 1)),
            Found::Many(ids) => assert!(ids.contains(&known.id) && ids.len() == same_name),
            Found::None => panic!("{} is not found by its name", known.name),
        }
        if !known.state.is_terminal() {
            active.push(known.id.clone());
        }
        let events = store.history(&known.id, 0, usize::MAX).unwrap();
        let before = records.history.get(&known.id).map(Vec::as_slice).unwrap_or_default();
        assert_eq!(events.len(), before.len());
        events.iter().zip(before).for_each(|(event, old)| says(event, old));
    }
    let found: Vec<JobId> = store.active().unwrap().into_iter().map(|job| job.id).collect();
    assert_eq!(found, active);
    for body in &records.bodies {
        let spec = store.body(&JobDigest::of(body.as_bytes())).unwrap().unwrap();
        says(&*spec, &serde_json::from_str(body).unwrap());
    }
    for old in &records.rows {
        let known: ExecutionRow = read(old);
        says(&store.execution(&known.id).unwrap().unwrap(), old);
        assert!(store.executions(&known.job_id).unwrap().iter().any(|row| row.id == known.id));
    }
    let total = store.counts().unwrap();
    assert_eq!((total.total, total.active), (records.jobs.len() as u64, active.len() as u64));
}
