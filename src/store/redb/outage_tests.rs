//! A file that fails and works again: nothing answered is lost, nothing refused is there, readers go on.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::super::{Backend, Change, Durability, Place, RedbBackend, StoreError, StoreSettings, Stores};
use super::faulty::Disk;
use crate::model::Trouble;
use crate::store::conformance::TempDir;

const KINDS: [(ErrorKind, Trouble); 3] = [
    (ErrorKind::StorageFull, Trouble::Full),
    (ErrorKind::ReadOnlyFilesystem, Trouble::ReadOnly),
    (ErrorKind::Other, Trouble::Failing),
];

fn open(disk: &Disk) -> RedbBackend {
    let disk = disk.clone();
    RedbBackend::over_each(move || disk.open(), Path::new("disk"), StoreSettings::DEFAULT_CACHE).unwrap()
}

fn put(key: &str, value: &str) -> Change {
    Change::Put(key.into(), value.into())
}

fn text(db: &RedbBackend, key: &str) -> Option<String> {
    db.get(key.as_bytes()).unwrap().map(|value| String::from_utf8(value).unwrap())
}

/// Ten commits with a lazy one before each; answers how many went well before one failed.
fn ten(db: &RedbBackend) -> (u32, Option<StoreError>) {
    for n in 1..=10 {
        db.commit(&[put("lazy", &n.to_string())], Durability::Lazy).unwrap();
        let big = put(&format!("k{n}"), &"x".repeat(3000));
        let all = [put("count", &n.to_string()), big, Change::Delete(format!("k{}", n - 1).into())];
        if let Err(error) = db.commit(&all, Durability::Durable) {
            return (n - 1, Some(error));
        }
    }
    (10, None)
}

#[test]
fn an_error_at_any_step_costs_nothing_that_was_answered_and_leaves_nothing_that_was_refused() {
    let whole = Disk::default();
    let db = open(&whole);
    let before = whole.steps();
    assert_eq!(ten(&db).0, 10);
    let steps = whole.steps() - before;
    assert!(steps > 60, "{steps}");
    for (kind, trouble) in KINDS {
        for (after, does_it) in (0..steps).flat_map(|n| [(n, false), (n, true)]) {
            let disk = Disk::default();
            let db = open(&disk);
            disk.fail(after, kind, does_it);
            let (done, error) = ten(&db);
            let Some(error) = error else { continue };
            let what = format!("{kind:?} after {after} steps, does it: {does_it}");
            assert_eq!(error.trouble(), Some(trouble), "{what}: {error:?}");
            // Meanwhile: readers see what was answered, no more; lazy changes are taken.
            let expected = (done > 0).then(|| done.to_string());
            assert_eq!(text(&db, "count"), expected, "{what}");
            assert_eq!(text(&db, "lazy"), Some((done + 1).to_string()), "{what}");
            db.commit(&[put("lazy", "meanwhile")], Durability::Lazy).unwrap();
            assert!(db.commit(&[put("count", "refused")], Durability::Durable).is_err(), "{what}");
            assert!(db.recover().is_err(), "{what}");
            assert!(db.retry_at().is_some() && db.trouble().is_some(), "{what}");
            disk.repair();
            db.recover().unwrap();
            assert!(db.retry_at().is_none() && db.trouble().is_none(), "{what}");
            let check = |db: &RedbBackend| {
                assert_eq!(text(db, "count"), expected, "{what}");
                assert_eq!(text(db, "lazy").unwrap(), "meanwhile", "{what}");
                for n in 1..=10 {
                    assert_eq!(text(db, &format!("k{n}")).is_some(), n == done, "{what}: k{n}");
                }
            };
            check(&db);
            // It is on the disk, too: a power cut now costs nothing.
            let cut = Disk::default();
            cut.0.lock().unwrap().bytes = disk.0.lock().unwrap().bytes.clone();
            check(&open(&cut));
            db.commit(&[put("count", "on")], Durability::Durable).unwrap();
            assert_eq!(text(&db, "count").unwrap(), "on");
        }
    }
}

#[test]
fn a_read_that_fails_is_survived_and_what_waits_is_kept() {
    let disk = Disk::default();
    let db = open(&disk);
    let value = "x".repeat(3000);
    for n in 0..300 {
        db.commit(&[put(&format!("k{n}"), &value)], Durability::Lazy).unwrap();
    }
    db.commit(&[], Durability::Durable).unwrap();
    db.commit(&[put("lazy", "1")], Durability::Lazy).unwrap();
    disk.0.lock().unwrap().reads_fail = Some(ErrorKind::Other);
    // More than the cache holds.
    let error = (0..300).find_map(|n| db.get(format!("k{n}").as_bytes()).err()).unwrap();
    assert_eq!(error.trouble(), Some(Trouble::Failing), "{error:?}");
    // Nothing can be read now: that is said, and what is written lazily is kept blindly.
    assert!(matches!(db.get(b"k1"), Err(StoreError::OutOfOrder { .. })));
    db.commit(&[put("lazy", "2")], Durability::Lazy).unwrap();
    assert!(db.commit(&[Change::DeleteRange("a".into(), "b".into())], Durability::Lazy).is_err());
    // However often it is asked, the disk is left alone until it is time.
    let opened = disk.0.lock().unwrap().opened;
    (0..100).for_each(|_| assert!(db.get(b"k1").is_err()));
    assert_eq!(disk.0.lock().unwrap().opened, opened);
    disk.repair();
    db.recover().unwrap();
    assert_eq!(text(&db, "lazy").unwrap(), "2");
    assert_eq!(text(&db, "k299").unwrap(), value);
}

#[test]
fn what_waits_in_an_outage_has_a_bound() {
    let disk = Disk::default();
    let db = open(&disk);
    disk.fail(0, ErrorKind::StorageFull, false);
    assert!(db.commit(&[put("a", "1")], Durability::Durable).is_err());
    let value = "x".repeat(super::PENDING_MAX_IN_OUTAGE / 16);
    let taken =
        (0..32).take_while(|n| db.commit(&[put(&format!("k{n}"), &value)], Durability::Lazy).is_ok()).count();
    assert!((14..=16).contains(&taken), "{taken}");
    disk.repair();
    db.recover().unwrap();
    assert!((0..taken).all(|n| text(&db, &format!("k{n}")).is_some()));
}

#[test]
fn a_file_is_opened_again_and_one_that_is_gone_is_not_made_anew() {
    let dir = TempDir::new();
    let path = dir.file("c.db");
    let db = RedbBackend::open(&path, StoreSettings::DEFAULT_CACHE).unwrap();
    db.commit(&[put("a", "1")], Durability::Durable).unwrap();
    // As after an I/O error: the storage itself cannot be made to fail here.
    let error = StoreError::Busy;
    db.begin_outage(&error, super::Undo::default());
    assert_eq!(text(&db, "a").unwrap(), "1");
    db.recover().unwrap();
    db.commit(&[put("a", "2")], Durability::Durable).unwrap();
    db.begin_outage(&error, super::Undo::default());
    // On a file system that was mounted in its place there is no such file.
    let away = dir.file("away.db");
    std::fs::rename(&path, &away).unwrap();
    let _ = db.recover();
    db.begin_outage(&error, super::Undo::default());
    assert!(db.recover().is_err());
    assert!(!path.exists());
    std::fs::rename(&away, &path).unwrap();
    db.recover().unwrap();
    assert_eq!(text(&db, "a").unwrap(), "2");
}

fn stores(disk: &Disk) -> Stores {
    let settings = StoreSettings::new(Place::Memory, Place::Memory);
    Stores::over(
        Arc::new(super::super::MemoryBackend::new()),
        Arc::new(open(disk)),
        settings.flush_after.min(Duration::from_millis(1)),
    )
    .unwrap()
}

#[test]
fn the_writer_lets_it_recover_by_itself_and_sleeps_when_it_is_well() {
    let disk = Disk::default();
    let stores = stores(&disk);
    let write = |stores: &Stores, body: &[u8]| {
        let mut change = stores.jobs.change();
        let digest = crate::model::Sha256::of(body);
        change.put_body(&digest, body);
        stores.jobs.write(change).wait()
    };
    write(&stores, b"{}").unwrap();
    disk.fail(0, ErrorKind::Other, false);
    assert!(write(&stores, b"[]").is_err());
    assert!(stores.trouble().is_some());
    disk.repair();
    // Nobody writes or reads: the store's thread looks by itself.
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while stores.trouble().is_some() {
        assert!(std::time::Instant::now() < deadline, "it does not recover");
        std::thread::yield_now();
    }
    write(&stores, b"[1]").unwrap();
    stores.close().unwrap();
}

#[test]
fn a_full_disk_is_relieved_before_anybody_is_told() {
    let disk = Disk::default();
    let stores = stores(&disk);
    let reserve = disk.clone();
    stores.on_full(Box::new(move || {
        reserve.repair();
        true
    }));
    disk.fail(3, ErrorKind::StorageFull, false);
    let mut change = stores.jobs.change();
    let digest = crate::model::Sha256::of(b"{}");
    change.put_body(&digest, b"{}");
    stores.jobs.write(change).wait().unwrap();
    assert!(stores.trouble().is_none());
}
