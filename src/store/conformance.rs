//! One suite over both back ends, and over the two stores on top of them.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// A directory that goes with the test.
pub(super) struct TempDir(pub PathBuf);

impl TempDir {
    pub(super) fn new() -> Self {
        let path = std::env::temp_dir().join(format!("codling-store-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs a test over each back end.
fn over_both(test: impl Fn(Arc<dyn Backend>)) {
    test(Arc::new(MemoryBackend::new()));
    let dir = TempDir::new();
    test(Arc::new(RedbBackend::open(&dir.file("a.db"), StoreSettings::DEFAULT_CACHE).unwrap()));
}

fn entries(db: &dyn Backend, from: &[u8], to: &[u8], reverse: bool) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    db.scan(from, to, reverse, &mut |key, value| {
        found.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    })
    .unwrap();
    found
}

fn put(key: &str, value: &str) -> Change {
    Change::Put(key.into(), value.into())
}

#[test]
fn changes_apply_in_order_and_scans_have_open_ends() {
    over_both(|db| {
        let changes = [
            put("a", "1"),
            put("b", "1"),
            put("a", "2"),
            put("c", "3"),
            Change::Delete("b".into()),
            Change::Delete("never".into()),
            put("d", ""),
        ];
        db.commit(&changes, Durability::Lazy).unwrap();
        assert_eq!(db.get(b"a").unwrap().unwrap(), b"2");
        assert_eq!(db.get(b"b").unwrap(), None);
        assert_eq!(db.get(b"d").unwrap().unwrap(), b"");
        let pair = |key: &str, value: &str| (key.as_bytes().to_vec(), value.as_bytes().to_vec());
        assert_eq!(entries(&*db, b"a", b"d", false), [pair("a", "2"), pair("c", "3")]);
        assert_eq!(entries(&*db, b"a", b"d\0", true), [pair("d", ""), pair("c", "3"), pair("a", "2")]);
        assert_eq!(entries(&*db, b"d", b"a", false), []);
        assert_eq!(entries(&*db, b"a", b"a", true), []);
        let mut seen = 0;
        db.scan(b"a", b"z", false, &mut |_, _| {
            seen += 1;
            ControlFlow::Break(())
        })
        .unwrap();
        assert_eq!(seen, 1);
        db.commit(&[], Durability::Durable).unwrap();
        db.close().unwrap();
        assert!(matches!(db.get(b"a"), Err(StoreError::Closed)));
        assert!(matches!(db.commit(&[], Durability::Durable), Err(StoreError::Closed)));
        db.close().unwrap();
    });
}

#[test]
fn an_orphan_goes_with_the_last_reference() {
    over_both(|db| {
        let orphan = || Change::DeleteOrphan { key: "k0".into(), from: "k1".into(), to: "k2".into() };
        db.commit(&[put("k0", "body"), put("k1a", ""), put("k1b", "")], Durability::Durable).unwrap();
        db.commit(&[Change::Delete("k1a".into()), orphan()], Durability::Durable).unwrap();
        assert!(db.get(b"k0").unwrap().is_some());
        db.commit(&[Change::Delete("k1b".into()), orphan(), orphan()], Durability::Durable).unwrap();
        assert!(db.get(b"k0").unwrap().is_none());
    });
}

fn any_change() -> impl Strategy<Value = Change> {
    // Around the border of the redb back end's two tables.
    let key = || proptest::collection::vec(0x7eu8..0x82, 0..4);
    let simple = prop_oneof![
        4 => (key(), proptest::collection::vec(any::<u8>(), 0..6000)).prop_map(|(k, v)| Change::Put(k, v)),
        2 => (key(), proptest::collection::vec(any::<u8>(), 0..9), key())
            .prop_map(|(key, value, witness)| Change::PutBeside { key, value, witness }),
        2 => key().prop_map(Change::Delete),
        1 => (key(), key()).prop_map(|(a, b)| Change::DeleteRange(a, b)),
        1 => (key(), key(), key()).prop_map(|(key, from, to)| Change::DeleteOrphan { key, from, to }),
    ];
    simple.prop_recursive(1, 4, 3, move |step| {
        (key(), proptest::collection::vec(step, 0..4))
            .prop_map(|(witness, steps)| Change::Unless { witness, steps })
    })
}

/// What the back ends must agree with, written as plainly as can be.
fn model(map: &mut BTreeMap<Vec<u8>, Vec<u8>>, change: &Change) {
    let within = |key: &[u8], from: &[u8], to: &[u8]| key >= from && key < to;
    match change {
        Change::Put(key, value) => drop(map.insert(key.clone(), value.clone())),
        Change::PutBeside { key, value, witness } => {
            if map.contains_key(witness) {
                map.insert(key.clone(), value.clone());
            }
        }
        Change::Delete(key) => drop(map.remove(key)),
        Change::DeleteRange(from, to) => map.retain(|key, _| !within(key, from, to)),
        Change::DeleteOrphan { key, from, to } => {
            if !map.keys().any(|key| within(key, from, to)) {
                map.remove(key);
            }
        }
        Change::Unless { witness, steps } => {
            if !map.contains_key(witness) {
                steps.iter().for_each(|step| model(map, step));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn back_ends_agree_with_a_sorted_map(
        transactions in proptest::collection::vec(
            (proptest::collection::vec(any_change(), 0..8), any::<bool>()), 1..8),
        from in proptest::collection::vec(0x7eu8..0x82, 0..3),
        to in proptest::collection::vec(0x7eu8..0x83, 0..3),
    ) {
        over_both(|db| {
            let mut map = BTreeMap::new();
            for (changes, durable) in &transactions {
                let durability = if *durable { Durability::Durable } else { Durability::Lazy };
                db.commit(changes, durability).unwrap();
                changes.iter().for_each(|change| model(&mut map, change));
                let mut wanted: Vec<_> = map
                    .iter()
                    .filter(|(key, _)| **key >= from && **key < to)
                    .map(|(key, value)| (key.clone(), value.clone()))
                    .collect();
                assert_eq!(entries(&*db, &from, &to, false), wanted);
                wanted.reverse();
                assert_eq!(entries(&*db, &from, &to, true), wanted);
                for (key, value) in &map {
                    assert_eq!(db.get(key).unwrap().as_ref(), Some(value));
                }
            }
        });
    }
}
