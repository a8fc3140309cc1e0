//! The database that forgets: for tests, and for nodes whose state may be lost at restart.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock};

use super::StoreError;
use super::backend::{Backend, Change, Durability, Visit};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// An ordered map in memory; `None` once closed.
#[derive(Debug)]
pub struct MemoryBackend(RwLock<Option<Map>>);

impl Default for MemoryBackend {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryBackend {
    /// An empty database.
    #[must_use]
    pub fn new() -> Self {
        Self(RwLock::new(Some(Map::new())))
    }
}

/// The entries of `[from, to)`; none if the bounds are the wrong way round (where `BTreeMap` would panic).
fn range<'a>(
    map: &'a Map,
    from: &[u8],
    to: &[u8],
) -> impl DoubleEndedIterator<Item = (&'a Vec<u8>, &'a Vec<u8>)> {
    let to = to.max(from);
    map.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)))
}

fn apply(map: &mut Map, change: &Change) {
    match change {
        Change::Put(key, value) => {
            map.insert(key.clone(), value.clone());
        }
        Change::PutBeside { key, value, witness } => {
            if map.contains_key(witness) {
                map.insert(key.clone(), value.clone());
            }
        }
        Change::Delete(key) => {
            map.remove(key);
        }
        Change::DeleteRange(from, to) => {
            let keys: Vec<Vec<u8>> = range(map, from, to).map(|(key, _)| key.clone()).collect();
            for key in keys {
                map.remove(&key);
            }
        }
        Change::DeleteOrphan { key, from, to } => {
            if range(map, from, to).next().is_none() {
                map.remove(key);
            }
        }
        Change::Unless { witness, steps } => {
            if !map.contains_key(witness) {
                steps.iter().for_each(|step| apply(map, step));
            }
        }
    }
}

impl Backend for MemoryBackend {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        // A map that a panicking thread left is still a map: changes are applied by code that cannot panic halfway.
        let guard = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Ok(guard.as_ref().ok_or(StoreError::Closed)?.get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], reverse: bool, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let guard = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut entries = range(guard.as_ref().ok_or(StoreError::Closed)?, from, to);
        while let Some((key, value)) = if reverse { entries.next_back() } else { entries.next() } {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn commit(&self, changes: &[Change], _durability: Durability) -> Result<(), StoreError> {
        let mut guard = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let map = guard.as_mut().ok_or(StoreError::Closed)?;
        changes.iter().for_each(|change| apply(map, change));
        Ok(())
    }

    fn close(&self) -> Result<(), StoreError> {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }
}
