//! Files: made whole or not at all, left alone when they are not ours, and whole again after a crash.

use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::redb::{Database, TableDefinition};

use super::super::conformance::TempDir;
use super::super::{
    Backend, Change, Durability, JobChange, MemoryBackend, SCHEMA, StoreError, StoreSettings, Stores,
};
use super::RedbBackend;
use super::faulty::{Disk, DiskState};
use crate::model::{HistoryEvent, JobId, JobRecord, JobState, Level, Sha256, Timestamp, Topic};

fn open(path: &Path) -> Result<RedbBackend, StoreError> {
    RedbBackend::open(path, StoreSettings::DEFAULT_CACHE)
}

fn put(key: &str, value: &str) -> Change {
    Change::Put(key.into(), value.into())
}

fn digest(path: &Path) -> Sha256 {
    Sha256::of(&std::fs::read(path).unwrap())
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_new_file_is_its_owner_s_and_has_no_leftovers_beside_it() {
    let dir = TempDir::new();
    let path = dir.file("a/b/c.db");
    open(&path).unwrap();
    assert_eq!(mode(&path), 0o600);
    assert_eq!((mode(&dir.file("a")), mode(&dir.file("a/b"))), (0o700, 0o700));
    assert_eq!(std::fs::read_dir(dir.file("a/b")).unwrap().count(), 1);
}

#[test]
fn an_empty_file_and_an_interrupted_attempt_are_no_obstacle() {
    let dir = TempDir::new();
    let path = dir.file("c.db");
    std::fs::write(&path, b"").unwrap();
    std::fs::write(dir.file("c.db.partial"), b"half a database").unwrap();
    let db = open(&path).unwrap();
    db.commit(&[put("k", "v")], Durability::Durable).unwrap();
    db.close().unwrap();
    assert_eq!(open(&path).unwrap().get(b"k").unwrap().unwrap(), b"v");
    assert_eq!(std::fs::read_dir(&dir.0).unwrap().count(), 1);
}

#[test]
fn an_open_file_is_locked() {
    let dir = TempDir::new();
    let path = dir.file("c.db");
    let db = open(&path).unwrap();
    assert!(matches!(open(&path), Err(StoreError::Locked { path: locked }) if locked == path));
    db.close().unwrap();
    open(&path).unwrap();

    // Somebody else is making it.
    let path = dir.file("d.db");
    let other = std::fs::File::create(dir.file("d.db.partial")).unwrap();
    other.lock().unwrap();
    assert!(matches!(open(&path), Err(StoreError::Locked { .. })));
    drop(other);
    open(&path).unwrap();
}

/// Makes a file with that in place of the schema's version; closed, or as a crash leaves it.
fn with_schema(dir: &TempDir, version: &str, crashed: bool) -> std::path::PathBuf {
    let path = dir.file("schema.db");
    open(&path).unwrap().commit(&[put("k", "v")], Durability::Durable).unwrap();
    let db = Database::open(&path).unwrap();
    let write = db.begin_write().unwrap();
    write.open_table(super::open::META).unwrap().insert("schema", version).unwrap();
    write.commit().unwrap();
    if crashed {
        std::fs::copy(&path, dir.file("crashed.db")).unwrap();
        return dir.file("crashed.db");
    }
    path
}

#[test]
fn a_later_schema_is_refused_and_the_file_left_as_it_is() {
    for crashed in [false, true] {
        let dir = TempDir::new();
        let path = with_schema(&dir, &(SCHEMA + 1).to_string(), crashed);
        let before = (digest(&path), std::fs::metadata(&path).unwrap().modified().unwrap());
        for _ in 0..2 {
            let error = open(&path).err().unwrap();
            assert!(
                matches!(&error, StoreError::NewerSchema { path: refused, found, known }
                    if *refused == path && *found == SCHEMA + 1 && *known == SCHEMA),
                "{error}"
            );
        }
        assert_eq!((digest(&path), std::fs::metadata(&path).unwrap().modified().unwrap()), before);
    }
}

#[test]
fn what_is_no_database_of_ours_is_refused_and_left_as_it_is() {
    let dir = TempDir::new();
    let nonsense = with_schema(&dir, "soon", false);
    let foreign = dir.file("foreign.db");
    let db = Database::create(&foreign).unwrap();
    let write = db.begin_write().unwrap();
    write.open_table(TableDefinition::<u64, u64>::new("theirs")).unwrap().insert(1, 1).unwrap();
    write.commit().unwrap();
    drop(db);
    let text = dir.file("text.db");
    std::fs::write(&text, "not a database\n".repeat(1000)).unwrap();
    let short = dir.file("short.db");
    std::fs::write(&short, "x").unwrap();
    let zeros = dir.file("zeros.db");
    std::fs::write(&zeros, vec![0; 65536]).unwrap();
    for path in [nonsense, foreign, text, short, zeros] {
        let before = digest(&path);
        let error = open(&path).err().unwrap();
        let name = path.display().to_string();
        assert!(
            matches!(error, StoreError::Corrupt { .. }) && error.to_string().contains(&name),
            "{error:?}"
        );
        assert_eq!(digest(&path), before);
    }
    assert!(matches!(open(&dir.0), Err(StoreError::Corrupt { .. })));
    assert!(matches!(open(&dir.file("short.db/x.db")), Err(StoreError::Io { .. })));
}

#[test]
fn damage_is_an_error_that_leaves_the_file_as_it_is() {
    let dir = TempDir::new();
    let path = dir.file("c.db");
    let db = open(&path).unwrap();
    for n in 0..200 {
        db.commit(&[put(&format!("key {n}"), &"value ".repeat(100))], Durability::Lazy).unwrap();
    }
    db.close().unwrap();
    let good = std::fs::read(&path).unwrap();
    let mut refused = 0;
    for at in (0..good.len()).step_by(1021) {
        let mut bad = good.clone();
        bad[at] ^= 0x40;
        if at % 2 == 0 {
            bad.truncate(at);
        }
        if bad.is_empty() {
            continue;
        }
        std::fs::write(&path, &bad).unwrap();
        match open(&path) {
            // The byte was in a page that nothing uses.
            Ok(db) => {
                let mut count = 0;
                db.scan(b"", b"\xff", false, &mut |_, value| {
                    assert_eq!(value, "value ".repeat(100).as_bytes());
                    count += 1;
                    ControlFlow::Continue(())
                })
                .unwrap();
                assert_eq!(count, 200);
            }
            Err(error) => {
                assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
                assert_eq!(std::fs::read(&path).unwrap(), bad);
                refused += 1;
            }
        }
    }
    assert!(refused > 20, "only {refused} kinds of damage were seen");
}

#[test]
fn a_crash_loses_what_was_lazy_and_nothing_else() {
    let dir = TempDir::new();
    let db = open(&dir.file("c.db")).unwrap();
    let crash = |name: &str| {
        std::fs::copy(dir.file("c.db"), dir.file(name)).unwrap();
        let db = open(&dir.file(name)).unwrap();
        ["a", "b", "c"].map(|key| db.get(key.as_bytes()).unwrap().is_some())
    };
    db.commit(&[put("a", "1")], Durability::Durable).unwrap();
    db.commit(&[put("b", "1")], Durability::Lazy).unwrap();
    assert!(db.get(b"b").unwrap().is_some());
    assert_eq!(crash("1.db"), [true, false, false]);
    db.commit(&[put("c", "1"), Change::Delete("a".into())], Durability::Durable).unwrap();
    assert_eq!(crash("2.db"), [false, true, true]);
    db.commit(&[put("a", "1"), Change::Delete("b".into())], Durability::Lazy).unwrap();
    db.commit(&[], Durability::Durable).unwrap();
    assert_eq!(crash("3.db"), [true, false, true]);
}

#[test]
fn too_much_that_is_lazy_becomes_durable() {
    let dir = TempDir::new();
    let db = open(&dir.file("c.db")).unwrap();
    let value = "x".repeat(super::PENDING_MAX / 4);
    let on_disk = || std::fs::copy(dir.file("c.db"), dir.file("copy.db")).unwrap();
    for n in 0..5 {
        db.commit(&[put(&format!("k{n}"), &value)], Durability::Lazy).unwrap();
    }
    on_disk();
    let copy = open(&dir.file("copy.db")).unwrap();
    assert!(copy.get(b"k0").unwrap().is_some() && copy.get(b"k3").unwrap().is_some());
    // The same key over and over is one key.
    for _ in 0..20 {
        db.commit(&[put("again", &value)], Durability::Lazy).unwrap();
    }
    copy.close().unwrap();
    on_disk();
    assert!(open(&dir.file("copy.db")).unwrap().get(b"again").unwrap().is_none());
}

#[test]
fn commits_that_change_nothing_write_nothing() {
    let disk = Disk::default();
    let db = RedbBackend::over(disk.clone(), Path::new("disk"), StoreSettings::DEFAULT_CACHE).unwrap();
    db.commit(&[put("a", "1"), put("\u{3b1}", "2")], Durability::Durable).unwrap();
    let before = disk.0.lock().unwrap().steps;
    for changes in [
        vec![],
        vec![put("a", "1"), put("\u{3b1}", "2"), Change::Delete("b".into())],
        vec![Change::DeleteRange("b".into(), "c".into()), Change::DeleteRange("z".into(), "a".into())],
        vec![Change::DeleteOrphan { key: "a".into(), from: "a".into(), to: "b".into() }],
    ] {
        db.commit(&changes, Durability::Lazy).unwrap();
        db.commit(&changes, Durability::Durable).unwrap();
    }
    assert_eq!(disk.0.lock().unwrap().steps, before);
}

/// Numbers as durable as their commits said, one by one; how many commits were answered with success.
fn count_up(disk: &Disk) -> u32 {
    let Ok(db) = RedbBackend::over(disk.clone(), Path::new("disk"), StoreSettings::DEFAULT_CACHE) else {
        return 0;
    };
    let mut done = 0;
    for n in 1..20 {
        let lazy = db.commit(&[put("lazy", &n.to_string())], Durability::Lazy);
        let change = [put("count", &n.to_string()), put(&format!("\u{3b1}{n}"), &"x".repeat(3000))];
        match lazy.and(db.commit(&change, Durability::Durable)) {
            Ok(()) => done = n,
            // Nothing panics after a failure either.
            Err(_) => drop((db.get(b"count"), db.get(b"lazy"))),
        }
    }
    let _ = db.close();
    done
}

#[test]
fn a_disk_that_fails_at_any_step_costs_no_answered_commit() {
    let whole = Disk::default();
    assert_eq!(count_up(&whole), 19);
    let steps = whole.0.lock().unwrap().steps;
    assert!(steps > 100);
    for fails_from in 0..steps {
        let disk = Disk::default();
        disk.0.lock().unwrap().fails_from = Some(fails_from);
        let done = count_up(&disk);
        {
            let mut state = disk.0.lock().unwrap();
            (state.fails_from, state.steps) = (None, 0);
        }
        match RedbBackend::over(disk.clone(), Path::new("disk"), StoreSettings::DEFAULT_CACHE) {
            Ok(db) => {
                let number = |key: &str| {
                    let value = db.get(key.as_bytes()).unwrap();
                    value.map_or(0, |value| String::from_utf8(value).unwrap().parse::<u32>().unwrap())
                };
                // One that was not answered may have made it.
                assert!((done..=done + 1).contains(&number("count")), "failed from step {fails_from}");
                assert!(number("lazy") >= number("count"));
            }
            // Making the database was cut off; a file would not have its name yet.
            Err(error) => assert!(done == 0 && matches!(error, StoreError::Corrupt { .. }), "{error:?}"),
        }
    }
}

#[test]
fn a_compaction_that_is_cut_off_at_any_step_costs_nothing() {
    // It is told the length of the file of that name: one that is worth compacting.
    let dir = TempDir::new();
    let path = dir.file("large");
    std::fs::File::create(&path).unwrap().set_len(100 << 20).unwrap();
    let full = Disk::default();
    let open = |disk: &Disk| RedbBackend::over(disk.clone(), &path, StoreSettings::DEFAULT_CACHE).unwrap();
    let db = open(&full);
    let value = "x".repeat(2000);
    let fill: Vec<Change> = (0..600).map(|n| put(&format!("{n:04}"), &value)).collect();
    db.commit(&fill, Durability::Durable).unwrap();
    let gone: Vec<Change> =
        (0..600).filter(|n| n % 30 != 0).map(|n| Change::Delete(format!("{n:04}").into())).collect();
    db.commit(&gone, Durability::Durable).unwrap();
    db.close().unwrap();
    let (image, start) = {
        let state = full.0.lock().unwrap();
        (state.bytes.clone(), state.steps)
    };
    let check = |db: &RedbBackend| {
        for n in 0..600 {
            let found = db.get(format!("{n:04}").as_bytes()).unwrap();
            assert_eq!(found.as_deref(), (n % 30 == 0).then_some(value.as_bytes()), "{n}");
        }
    };
    let db = open(&full);
    db.compact().unwrap().unwrap();
    check(&db);
    db.commit(&[put("more", "1")], Durability::Durable).unwrap();
    db.close().unwrap();
    let (steps, after) = {
        let state = full.0.lock().unwrap();
        (state.steps - start, state.bytes.len())
    };
    assert!(after * 4 < image.len() && steps > 40, "{after} of {} in {steps}", image.len());
    for fails_from in (0..steps).step_by(3) {
        let state = DiskState { bytes: image.clone(), fails_from: Some(fails_from), ..DiskState::default() };
        let disk = Disk(Arc::new(Mutex::new(state)));
        if let Ok(db) = RedbBackend::over(disk.clone(), &path, StoreSettings::DEFAULT_CACHE) {
            let _ = db.compact();
            let _ = db.close();
        }
        {
            let mut state = disk.0.lock().unwrap();
            (state.fails_from, state.steps) = (None, 0);
        }
        check(&open(&disk));
    }
}

#[test]
fn what_is_noted_of_jobs_that_came_together_shares_pages() {
    let disk = Disk::default();
    let jobs = RedbBackend::over(disk.clone(), Path::new("jobs"), StoreSettings::DEFAULT_CACHE).unwrap();
    let (executions, hour) = (Arc::new(MemoryBackend::new()), Duration::from_secs(3600));
    let stores = Stores::over(executions, Arc::new(jobs), hour).unwrap();
    let job = |n| JobRecord {
        head: None,
        id: JobId::random(),
        digest: Sha256::of(b"body"),
        name: format!("job-{n}"),
        state: JobState::Completed,
        message: "m".repeat(800),
        version: 1,
        revision: 1,
        created: Timestamp(n),
        modified: Timestamp(n),
    };
    let level = Level::Job { previous: None, new: JobState::Completed };
    let message = "the result of e-0123abcd (1 KiB) was deleted: evicted to keep Results.MaxCount".into();
    let (topic, failure, time) = (Topic::Results, None, Timestamp(9));
    let event = HistoryEvent { seq: 9, version: 1, level, topic, message, failure, time };
    let records: Vec<JobRecord> = (0..600).map(job).collect();
    let steps = |put: &dyn Fn(&mut JobChange)| {
        let before = disk.steps();
        let mut change = stores.jobs.change();
        put(&mut change);
        stores.jobs.write(change).wait().unwrap();
        disk.steps() - before
    };
    steps(&|change| records.iter().for_each(|record| change.put_job(record)));
    let together = steps(&|change| records[200..215].iter().for_each(|job| change.put_note(job, &event)));
    let apart = steps(&|change| records[300..315].iter().for_each(|job| change.put_history(&job.id, &event)));
    assert!(together + 10 < apart, "{together} writes, and {apart} for as many that lie with their jobs");
}
