//! `executions.db`: the compute role's records of executions, and the ledger of results.
//!
//! | key | value |
//! |---|---|
//! | `LIVE`, execution | [`ExecutionRecord`] that has not ended |
//! | `UNREPORTED`, execution | empty; the execution has ended, and that is still to be acknowledged |
//! | `EXECUTION`, execution, `RECORD` | [`ExecutionRecord`] that has ended |
//! | `EXECUTION`, execution, `RESULT` | [`ResultEntry`] |
//! | `EXECUTION`, execution, `FETCHED` | empty; somebody has downloaded the result whole |
//! | `CLOCK` | [`ClockNote`] |
//!
//! All that changes while work is in hand is in the small table (keys from 128 on), and is its own index of what is
//! active and what is to be reported. A record is written to the large table once, when it ends, beside its result;
//! that it was reported is the absence of a key.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::model::{ClockNote, ExecutionId, ExecutionRecord, JobId, ResultEntry};

use super::backend::{Backend, Change};
use super::keys::{Key, id_at};
use super::writer::{Mode, Ticket, Writer};
use super::{EXECUTIONS, StoreError, decode, encode, scan_keys, scan_results, scan_values};

const EXECUTION: u8 = 0x10;
const RECORD: u8 = 0;
const RESULT: u8 = 1;
const FETCHED: u8 = 2;
const LIVE: u8 = 0x80;
const UNREPORTED: u8 = 0x81;
const CLOCK: u8 = 0x82;

/// The compute role's database. Clones share it; reads block only as long as a page takes to read.
#[derive(Clone)]
pub struct ExecutionStore {
    db: Arc<dyn Backend>,
    writer: Writer,
}

impl fmt::Debug for ExecutionStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecutionStore").finish_non_exhaustive()
    }
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

    /// What is wrong with the database, while something is.
    #[must_use]
    pub fn trouble(&self) -> Option<StoreError> {
        self.db.trouble()
    }

    /// What the writer of both databases has done so far.
    #[must_use]
    pub fn stats(&self) -> super::Stats {
        self.writer.stats()
    }

    /// Asks the thread that writes both databases for a sign of life; nothing is written for it.
    pub fn ping(&self) -> Ticket {
        self.writer.ping()
    }

    /// Why the last commit of either database failed, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<StoreError> {
        self.writer.failure()
    }

    /// The record of an execution.
    ///
    /// # Errors
    /// The database cannot be read, or the record makes no sense.
    pub fn get(&self, id: &ExecutionId) -> Result<Option<ExecutionRecord>, StoreError> {
        let what = || format!("the record of execution {id}");
        // Records move from LIVE to EXECUTION, never back: in this order none is missed on its way.
        if let Some(bytes) = self.db.get(&Key::kind(LIVE).id(id).done())? {
            return decode(&bytes, what).map(Some);
        }
        let Some(bytes) = self.db.get(&Key::kind(EXECUTION).id(id).byte(RECORD).done())? else {
            return Ok(None);
        };
        let mut record: ExecutionRecord = decode(&bytes, what)?;
        record.reported = self.db.get(&Key::kind(UNREPORTED).id(id).done())?.is_none();
        Ok(Some(record))
    }

    /// All executions that have not ended, oldest first.
    ///
    /// # Errors
    /// The database cannot be read, or a record makes no sense.
    pub fn active(&self) -> Result<Vec<ExecutionRecord>, StoreError> {
        let mut found = Vec::new();
        scan_values(&*self.db, Key::kind(LIVE).range(), false, |_, record| {
            found.push(record);
            ControlFlow::Continue(())
        })?;
        Ok(oldest_first(found))
    }

    /// All executions that have ended and whose end has not been acknowledged, oldest first: the outbox.
    ///
    /// # Errors
    /// The database cannot be read, or a record makes no sense.
    pub fn unreported(&self) -> Result<Vec<ExecutionRecord>, StoreError> {
        let ids: Vec<ExecutionId> =
            scan_keys(&*self.db, Key::kind(UNREPORTED).range(), usize::MAX, |key| id_at(key, 1))?;
        let mut found = Vec::with_capacity(ids.len());
        for id in ids {
            found.extend(self.get(&id)?.filter(|record| !record.reported));
        }
        Ok(oldest_first(found))
    }

    /// All executions of a job, oldest first. Reads every record there is: it answers people's questions, the run
    /// of a job does not need it, and an index would be written with each execution.
    ///
    /// # Errors
    /// The database cannot be read, or a record makes no sense.
    pub fn of_job(&self, job: &JobId) -> Result<Vec<ExecutionRecord>, StoreError> {
        let mut found = self.active()?;
        found.retain(|record| record.job_id == *job);
        let mut ended = Vec::new();
        scan_results(&*self.db, Key::kind(EXECUTION).range(), false, |key, value| {
            if key.last() == Some(&RECORD) {
                let record: ExecutionRecord = decode(value, || format!("the record with key {key:02x?}"))?;
                // One that ended since it was found in LIVE is there twice.
                if record.job_id == *job && found.iter().all(|other| other.id != record.id) {
                    ended.push(record.id);
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        for id in ended {
            found.extend(self.get(&id)?);
        }
        Ok(oldest_first(found))
    }

    /// The ledger's row of an execution's result.
    ///
    /// # Errors
    /// The database cannot be read, or the row makes no sense.
    pub fn result(&self, id: &ExecutionId) -> Result<Option<ResultEntry>, StoreError> {
        let bytes = self.db.get(&Key::kind(EXECUTION).id(id).byte(RESULT).done())?;
        let Some(bytes) = bytes else { return Ok(None) };
        let mut entry: ResultEntry = decode(&bytes, || format!("the result of execution {id}"))?;
        entry.fetched = self.db.get(&Key::kind(EXECUTION).id(id).byte(FETCHED).done())?.is_some();
        Ok(Some(entry))
    }

    /// What the last run believed of the time, if anything.
    ///
    /// # Errors
    /// The database cannot be read, or the note makes no sense.
    pub fn clock_note(&self) -> Result<Option<ClockNote>, StoreError> {
        let bytes = self.db.get(&Key::kind(CLOCK).done())?;
        bytes.map(|bytes| decode(&bytes, || "what is known of the time".into())).transpose()
    }

    /// The rows of results alone.
    #[must_use]
    pub fn ledger(&self) -> Ledger<'_> {
        Ledger::of(&*self.db)
    }

    /// The ids, at most `limit`, of executions and results that begin with `prefix` (with or without `e-`).
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn find(&self, prefix: &str, limit: usize) -> Result<Vec<ExecutionId>, StoreError> {
        let digits = prefix.strip_prefix("e-").unwrap_or(prefix);
        let mut found: Vec<ExecutionId> = Vec::new();
        for kind in [LIVE, EXECUTION] {
            let mut here = 0;
            scan_results(&*self.db, Key::kind(kind).id_range(digits), false, |key, _| {
                let id: ExecutionId = id_at(key, 1)?;
                if id.as_str()[2..].starts_with(digits) && found.last() != Some(&id) && here < limit {
                    found.push(id);
                    here += 1;
                }
                Ok(if here < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
            })?;
        }
        found.sort();
        found.dedup();
        found.truncate(limit);
        Ok(found)
    }

    /// How many executions there are.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn counts(&self) -> Result<ExecutionCounts, StoreError> {
        let count = |kind, wanted: &dyn Fn(&[u8]) -> bool| {
            let mut count = 0;
            let (from, to) = Key::kind(kind).range();
            self.db.scan(&from, &to, false, &mut |key, _| {
                count += u64::from(wanted(key));
                ControlFlow::Continue(())
            })?;
            Ok::<u64, StoreError>(count)
        };
        let active = count(LIVE, &|_| true)?;
        let ended = count(EXECUTION, &|key| key.last() == Some(&RECORD))?;
        Ok(ExecutionCounts { total: active + ended, active, unreported: count(UNREPORTED, &|_| true)? })
    }

    /// See [`Backend::compact`]. Blocking, and so is everything that is written meanwhile.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn compact(&self) -> Result<Option<super::Compacted>, StoreError> {
        self.db.compact()
    }

    /// See [`Backend::entry_bytes`]. Blocking.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn entry_bytes(&self) -> Result<crate::model::Bytes, StoreError> {
        self.db.entry_bytes()
    }

    /// An empty set of changes, to be filled and written.
    pub fn change(&self) -> ExecutionChange {
        ExecutionChange::default()
    }

    /// Writes the changes, all or none; they are durable when the ticket says so.
    /// Refused with [`StoreError::Busy`] if too much is waiting.
    pub fn write(&self, change: ExecutionChange) -> Ticket {
        self.submit(change, Mode::Outside)
    }

    /// As [`Self::write`], but never refused for being busy: for the node's own running work, which waits for
    /// each write before its next.
    pub fn write_internal(&self, change: ExecutionChange) -> Ticket {
        self.submit(change, Mode::Inside)
    }

    /// Writes the changes, all or none; readers see them when the ticket says so, and they become durable with the
    /// next durable write or a little later. Never refused for being busy; for the node's own running work.
    pub fn write_lazy(&self, change: ExecutionChange) -> Ticket {
        self.submit(change, Mode::Lazy)
    }

    /// As [`Self::write_lazy`], but the ticket is answered when the changes are durable: for what must be, but can
    /// wait a moment for others to share a commit with.
    pub fn write_soon(&self, change: ExecutionChange) -> Ticket {
        self.submit(change, Mode::Soon)
    }

    fn submit(&self, change: ExecutionChange, mode: Mode) -> Ticket {
        match change.0 {
            Ok(changes) => self.writer.submit(EXECUTIONS, changes, mode),
            Err(error) => Ticket::answered(Err(error)),
        }
    }
}

/// The ledger of results, to be looked through.
#[derive(Clone, Copy)]
pub struct Ledger<'a>(&'a dyn Backend);

impl fmt::Debug for Ledger<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").finish_non_exhaustive()
    }
}

impl<'a> Ledger<'a> {
    pub(super) fn of(db: &'a dyn Backend) -> Self {
        Self(db)
    }

    /// Hands over every row of the ledger, in no particular order, without holding them all in memory.
    /// `visit` must not call the store.
    ///
    /// # Errors
    /// The database cannot be read, or a row makes no sense.
    pub fn each_result(&self, visit: &mut dyn FnMut(ResultEntry)) -> Result<(), StoreError> {
        // That it was fetched stands behind the row.
        let mut row: Option<ResultEntry> = None;
        scan_results(self.0, Key::kind(EXECUTION).range(), false, |key, value| {
            match (key.last(), &mut row) {
                (Some(&RESULT), _) => {
                    let next = decode(value, || format!("the result with key {key:02x?}"))?;
                    row.replace(next).into_iter().for_each(&mut *visit);
                }
                (Some(&FETCHED), Some(row)) if id_at::<ExecutionId>(key, 1)? == row.execution_id => {
                    row.fetched = true;
                }
                _ => {}
            }
            Ok(ControlFlow::Continue(()))
        })?;
        row.into_iter().for_each(visit);
        Ok(())
    }
}

fn fetched_key(id: &ExecutionId) -> Vec<u8> {
    Key::kind(EXECUTION).id(id).byte(FETCHED).done()
}

fn oldest_first(mut records: Vec<ExecutionRecord>) -> Vec<ExecutionRecord> {
    records.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
    records
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
        let ended = Key::kind(EXECUTION).id(id).byte(RECORD).done();
        let unreported = Key::kind(UNREPORTED).id(id).done();
        // Whether it was reported is not said twice: the record would be written again for that alone.
        let value = encode(&ExecutionRecord { reported: false, ..record.clone() }, || {
            format!("the record of execution {id}")
        });
        self.extend(value.map(|value| {
            if !record.state.is_terminal() {
                vec![Change::Put(live, value), Change::Delete(ended), Change::Delete(unreported)]
            } else if record.reported {
                vec![Change::Delete(live), Change::Put(ended, value), Change::Delete(unreported)]
            } else {
                vec![Change::Delete(live), Change::Put(ended, value), Change::Put(unreported, Vec::new())]
            }
        }));
    }

    /// Notes that the end of an execution has been acknowledged, and nothing else: the cheapest change there is.
    /// The same as [`Self::put_execution`] of a record that differs in nothing but `reported`.
    pub fn put_reported(&mut self, id: &ExecutionId) {
        self.extend(Ok(vec![Change::Delete(Key::kind(UNREPORTED).id(id).done())]));
    }

    /// Removes a record. Its result has its own life.
    pub fn delete_execution(&mut self, id: &ExecutionId) {
        self.extend(Ok(vec![
            Change::Delete(Key::kind(LIVE).id(id).done()),
            Change::Delete(Key::kind(EXECUTION).id(id).byte(RECORD).done()),
            Change::Delete(Key::kind(UNREPORTED).id(id).done()),
        ]));
    }

    /// Stores a row of the ledger in place of the one with its execution's id, if there is one.
    pub fn put_result(&mut self, entry: &ResultEntry) {
        let id = &entry.execution_id;
        let key = Key::kind(EXECUTION).id(id).byte(RESULT).done();
        let value = encode(entry, || format!("the result of execution {id}"));
        self.extend(value.map(|value| vec![Change::Put(key, value)]));
        if !entry.is_stored() {
            self.extend(Ok(vec![Change::Delete(fetched_key(id))]));
        }
    }

    /// Removes a row of the ledger.
    pub fn delete_result(&mut self, id: &ExecutionId) {
        let row = Key::kind(EXECUTION).id(id).byte(RESULT).done();
        self.extend(Ok(vec![Change::Delete(row), Change::Delete(fetched_key(id))]));
    }

    /// Notes that somebody has downloaded a result whole.
    pub fn put_fetched(&mut self, id: &ExecutionId) {
        self.extend(Ok(vec![Change::Put(fetched_key(id), Vec::new())]));
    }

    /// Notes what the next run should know of the time.
    pub fn put_clock_note(&mut self, note: &ClockNote) {
        let value = encode(note, || "what is known of the time".into());
        self.extend(value.map(|value| vec![Change::Put(Key::kind(CLOCK).done(), value)]));
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.as_ref().is_ok_and(Vec::is_empty)
    }

    fn extend(&mut self, more: Result<Vec<Change>, StoreError>) {
        match (&mut self.0, more) {
            (Ok(changes), Ok(more)) => changes.extend(more),
            (Ok(_), Err(error)) => self.0 = Err(error),
            (Err(_), _) => {}
        }
    }
}
