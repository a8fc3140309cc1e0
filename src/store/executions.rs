//! `executions.db`: the compute role's records of executions, and the ledger of results.
//!
//! | key | value |
//! |---|---|
//! | `LIVE`, execution | [`ExecutionRecord`] that has not ended, or whose end is not reported yet |
//! | `DONE`, execution | [`ExecutionRecord`] that nothing will happen to any more |
//! | `BY_JOB`, job, execution | empty; for every execution in `DONE` |
//! | `RESULT`, execution | [`ResultEntry`] |
//!
//! Records move from `LIVE` to `DONE` once. While work is in hand, all that changes lies together in `LIVE`, and
//! it is its own index of what is active and what is to be reported.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::model::{ExecutionId, ExecutionRecord, JobId, ResultEntry};

use super::backend::{Backend, Change, Durability};
use super::keys::{ID, Key, id_at};
use super::writer::{Origin, Ticket, Writer};
use super::{EXECUTIONS, StoreError, decode, encode, scan_keys, scan_values};

const DONE: u8 = 0x10;
const BY_JOB: u8 = 0x11;
const RESULT: u8 = 0x12;
const LIVE: u8 = 0x80;

/// Whether a record belongs in `LIVE`.
fn is_live(record: &ExecutionRecord) -> bool {
    !(record.state.is_terminal() && record.reported)
}

/// The compute role's database. Clones share it; reads block only as long as a page takes to read.
#[derive(Clone)]
pub struct ExecutionStore {
    db: Arc<dyn Backend>,
    writer: Writer,
}

/// How many executions there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExecutionCounts {
    /// All.
    pub total: u64,
    /// Those that have not ended.
    pub active: u64,
    /// Those that have ended and whose end has not been acknowledged.
    pub unreported: u64,
}

impl ExecutionStore {
    pub(super) fn new(db: Arc<dyn Backend>, writer: Writer) -> Self {
        Self { db, writer }
    }

    /// The record of an execution.
    ///
    /// # Errors
    /// The database cannot be read, or the record makes no sense.
    pub fn get(&self, id: &ExecutionId) -> Result<Option<ExecutionRecord>, StoreError> {
        // Records move from LIVE to DONE, never back: in this order none is missed on its way.
        for kind in [LIVE, DONE] {
            if let Some(bytes) = self.db.get(&Key::kind(kind).id(id).done())? {
                return decode(&bytes, || format!("the record of execution {id}")).map(Some);
            }
        }
        Ok(None)
    }

    /// All executions that have not ended, oldest first.
    ///
    /// # Errors
    /// The database cannot be read, or a record makes no sense.
    pub fn active(&self) -> Result<Vec<ExecutionRecord>, StoreError> {
        self.live(|record| !record.state.is_terminal())
    }

    /// All executions that have ended and whose end has not been acknowledged, oldest first: the outbox.
    ///
    /// # Errors
    /// The database cannot be read, or a record makes no sense.
    pub fn unreported(&self) -> Result<Vec<ExecutionRecord>, StoreError> {
        self.live(|record| record.state.is_terminal())
    }

    /// All executions of a job, oldest first.
    ///
    /// # Errors
    /// The database cannot be read, or a record makes no sense.
    pub fn of_job(&self, job: &JobId) -> Result<Vec<ExecutionRecord>, StoreError> {
        let mut found = self.live(|record| record.job_id == *job)?;
        for id in self.ids(Key::kind(BY_JOB).id(job).range(), usize::MAX)? {
            // One that ended since it was found in LIVE is there twice.
            if found.iter().all(|record| record.id != id) {
                found.extend(self.get(&id)?);
            }
        }
        found.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        Ok(found)
    }

    /// The ledger's row of an execution's result.
    ///
    /// # Errors
    /// The database cannot be read, or the row makes no sense.
    pub fn result(&self, id: &ExecutionId) -> Result<Option<ResultEntry>, StoreError> {
        let bytes = self.db.get(&Key::kind(RESULT).id(id).done())?;
        bytes.map(|bytes| decode(&bytes, || format!("the result of execution {id}"))).transpose()
    }

    /// Hands over every row of the ledger, in no particular order, without holding them all in memory.
    /// `visit` must not wait for a write.
    ///
    /// # Errors
    /// The database cannot be read, or a row makes no sense.
    pub fn each_result(&self, visit: &mut dyn FnMut(ResultEntry)) -> Result<(), StoreError> {
        scan_values(&*self.db, Key::kind(RESULT).range(), false, |_, entry| {
            visit(entry);
            ControlFlow::Continue(())
        })
    }

    /// The ids, at most `limit`, that begin with `prefix` (with or without `e-`).
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn find(&self, prefix: &str, limit: usize) -> Result<Vec<ExecutionId>, StoreError> {
        let digits = prefix.strip_prefix("e-").unwrap_or(prefix);
        let mut found = Vec::new();
        for kind in [LIVE, DONE] {
            let ids = self.ids(Key::kind(kind).id_range(digits), limit)?;
            found.extend(ids.into_iter().filter(|id| id.as_str()[2..].starts_with(digits)));
        }
        found.sort();
        found.dedup();
        found.truncate(limit);
        Ok(found)
    }

    /// How many executions there are.
    ///
    /// # Errors
    /// The database cannot be read, or a record makes no sense.
    pub fn counts(&self) -> Result<ExecutionCounts, StoreError> {
        let mut counts = ExecutionCounts::default();
        scan_values(&*self.db, Key::kind(LIVE).range(), false, |_, record: ExecutionRecord| {
            let count = if record.state.is_terminal() { &mut counts.unreported } else { &mut counts.active };
            *count += 1;
            ControlFlow::Continue(())
        })?;
        let (from, to) = Key::kind(BY_JOB).range();
        let mut done = 0;
        self.db.scan(&from, &to, false, &mut |_, _| {
            done += 1;
            ControlFlow::Continue(())
        })?;
        counts.total = counts.active + counts.unreported + done;
        Ok(counts)
    }

    /// An empty set of changes, to be filled and written.
    #[must_use]
    pub fn change(&self) -> ExecutionChange {
        ExecutionChange::default()
    }

    /// Writes the changes, all or none; they are durable when the ticket says so.
    /// Refused with [`StoreError::Busy`] if too much is waiting.
    pub fn write(&self, change: ExecutionChange) -> Ticket {
        self.submit(change, Durability::Durable, Origin::Outside)
    }

    /// As [`Self::write`], but never refused for being busy: for the node's own running work, which waits for
    /// each write before its next.
    pub fn write_internal(&self, change: ExecutionChange) -> Ticket {
        self.submit(change, Durability::Durable, Origin::Inside)
    }

    /// Writes the changes, all or none; readers see them when the ticket says so, and they become durable with the
    /// next durable write or a little later. Never refused for being busy; for the node's own running work.
    pub fn write_lazy(&self, change: ExecutionChange) -> Ticket {
        self.submit(change, Durability::Lazy, Origin::Inside)
    }

    fn submit(&self, change: ExecutionChange, durability: Durability, origin: Origin) -> Ticket {
        match change.0 {
            Ok(changes) => self.writer.submit(EXECUTIONS, changes, durability, origin),
            Err(error) => Ticket::answered(Err(error)),
        }
    }

    fn live(&self, wanted: impl Fn(&ExecutionRecord) -> bool) -> Result<Vec<ExecutionRecord>, StoreError> {
        let mut found = Vec::new();
        scan_values(&*self.db, Key::kind(LIVE).range(), false, |_, record| {
            if wanted(&record) {
                found.push(record);
            }
            ControlFlow::Continue(())
        })?;
        found.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        Ok(found)
    }

    /// The ids at the end of the keys in a range.
    fn ids(&self, range: (Vec<u8>, Vec<u8>), limit: usize) -> Result<Vec<ExecutionId>, StoreError> {
        scan_keys(&*self.db, range, limit, |key| id_at(key, key.len().saturating_sub(ID)))
    }
}

/// Changes to the compute role's database that belong together.
#[derive(Debug)]
#[must_use = "changes do nothing until they are written"]
pub struct ExecutionChange(Result<Vec<Change>, StoreError>);

impl Default for ExecutionChange {
    fn default() -> Self {
        Self(Ok(Vec::new()))
    }
}

impl ExecutionChange {
    /// Stores a record in place of the one with its id, if there is one.
    pub fn put_execution(&mut self, record: &ExecutionRecord) {
        let id = &record.id;
        let live = Key::kind(LIVE).id(id).done();
        let done = Key::kind(DONE).id(id).done();
        let by_job = Key::kind(BY_JOB).id(&record.job_id).id(id).done();
        let value = encode(record, || format!("the record of execution {id}"));
        self.extend(value.map(|value| {
            if is_live(record) {
                vec![Change::Put(live, value), Change::Delete(done), Change::Delete(by_job)]
            } else {
                vec![Change::Delete(live), Change::Put(done, value), Change::Put(by_job, Vec::new())]
            }
        }));
    }

    /// Removes a record. Its result has its own life.
    pub fn delete_execution(&mut self, record: &ExecutionRecord) {
        let id = &record.id;
        self.extend(Ok(vec![
            Change::Delete(Key::kind(LIVE).id(id).done()),
            Change::Delete(Key::kind(DONE).id(id).done()),
            Change::Delete(Key::kind(BY_JOB).id(&record.job_id).id(id).done()),
        ]));
    }

    /// Stores a row of the ledger in place of the one with its execution's id, if there is one.
    pub fn put_result(&mut self, entry: &ResultEntry) {
        let id = &entry.execution_id;
        let key = Key::kind(RESULT).id(id).done();
        let value = encode(entry, || format!("the result of execution {id}"));
        self.extend(value.map(|value| vec![Change::Put(key, value)]));
    }

    /// Removes a row of the ledger.
    pub fn delete_result(&mut self, id: &ExecutionId) {
        self.extend(Ok(vec![Change::Delete(Key::kind(RESULT).id(id).done())]));
    }

    fn extend(&mut self, more: Result<Vec<Change>, StoreError>) {
        match (&mut self.0, more) {
            (Ok(changes), Ok(more)) => changes.extend(more),
            (Ok(_), Err(error)) => self.0 = Err(error),
            (Err(_), _) => {}
        }
    }
}
