//! `jobs.db`: the orchestrator role's jobs, their bodies, their executions and their history.
//!
//! | key | value |
//! |---|---|
//! | `JOB`, job, `RECORD` | [`JobRecord`] |
//! | `JOB`, job, `ROW`, execution | [`ExecutionRow`] |
//! | `JOB`, job, `EVENT`, sequence | [`HistoryEvent`] |
//! | `JOB`, job, `VERSION`, number | [`JobRecord`] of an earlier version, as it was when the next one came |
//! | `BODY`, digest, `BYTES` | the job's body, as submitted; once, however many jobs share it |
//! | `BODY`, digest, `USER`, job | empty; the body goes with its last user |
//! | `TIMELINE`, time of submission, `SUBMITTED`, job | the job's name, if it has one of its own |
//! | `TIMELINE`, time of its making, `MADE`, execution | id of its job |
//! | `TIMELINE`, time of submission, `NOTED`, job, sequence | [`HistoryEvent`] of after the job's end |
//! | `ACTIVE`, job | empty; for every job that has not ended |
//! | `ACTIVE_EXECUTION`, execution | id of its job; for every execution that has not ended |
//!
//! What changes when a job moves on lies together: its record, rows and events. What is looked up while a job runs
//! is in the small table (keys from 128 on). What people ask for afterwards (a name, an execution's id) is looked
//! for in the timeline, newest first: one place at the end of it takes what a submission adds, where each index by
//! name or id would take it in a place of its own. What befalls jobs long after their end (their results go, the
//! oldest first) befalls neighbours in time: it is noted there, and a page takes what each would have a page for.

mod change;
mod list;

use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::model::{ExecutionId, ExecutionRow, HistoryEvent, JobDigest, JobId, JobRecord, JobSpec};

use super::backend::Backend;
use super::keys::{Key, id_at};
use super::writer::{Mode, Ticket, Writer};
use super::{JOBS, StoreError, decode, scan_keys, scan_results, scan_values};

pub use change::JobChange;
pub use list::{ListOrder, ListQuery};

const JOB: u8 = 0x10;
const RECORD: u8 = 0;
const ROW: u8 = 1;
const EVENT: u8 = 2;
const VERSION: u8 = 3;
const BODY: u8 = 0x11;
const BYTES: u8 = 0;
const USER: u8 = 1;
const TIMELINE: u8 = 0x12;
const SUBMITTED: u8 = 0;
const MADE: u8 = 1;
const NOTED: u8 = 2;
const ACTIVE: u8 = 0x80;
const ACTIVE_EXECUTION: u8 = 0x81;

/// Where the timeline's keys say what the entry is.
const TAG: usize = 1 + size_of::<u64>();

/// Characters of an id (without `j-`) that [`JobStore::find`] needs at least.
pub const MIN_PREFIX: usize = 3;

/// Ids that [`Found::Many`] lists at most.
pub const MANY_MAX: usize = 16;

/// The orchestrator role's database. Clones share it; reads block only as long as a page takes to read.
#[derive(Clone)]
pub struct JobStore {
    db: Arc<dyn Backend>,
    writer: Writer,
}

impl fmt::Debug for JobStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobStore").finish_non_exhaustive()
    }
}

/// What was found for a user's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// This job.
    One(Box<JobRecord>),
    /// None.
    None,
    /// Several; at most [`MANY_MAX`] are named.
    Many(Vec<JobId>),
}

/// How many jobs there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobCounts {
    /// All.
    pub total: u64,
    /// Those that have not ended.
    pub active: u64,
}

impl JobStore {
    /// What is wrong with the database, while something is.
    #[must_use]
    pub fn trouble(&self) -> Option<StoreError> {
        self.db.trouble()
    }

    pub(super) fn new(db: Arc<dyn Backend>, writer: Writer) -> Self {
        Self { db, writer }
    }

    /// The record of a job.
    ///
    /// # Errors
    /// The database cannot be read, or the record makes no sense.
    pub fn get(&self, id: &JobId) -> Result<Option<JobRecord>, StoreError> {
        let bytes = self.db.get(&Key::kind(JOB).id(id).byte(RECORD).done())?;
        bytes.map(|bytes| decode(&bytes, || format!("the record of job {id}"))).transpose()
    }

    /// The job that a user means: by its whole id, else by its name, else by the beginning of its id (with or
    /// without `j-`, at least [`MIN_PREFIX`] characters).
    ///
    /// # Errors
    /// The database cannot be read, or the record makes no sense.
    pub fn find(&self, text: &str) -> Result<Found, StoreError> {
        if let Ok(id) = text.parse::<JobId>()
            && let Some(record) = self.get(&id)?
        {
            return Ok(Found::One(Box::new(record)));
        }
        let mut ids = self.named(text)?;
        let digits = text.strip_prefix("j-").unwrap_or(text);
        if ids.is_empty() && digits.len() >= MIN_PREFIX {
            ids = self.ids_from(digits)?;
        }
        match ids.as_slice() {
            [] => Ok(Found::None),
            [id] => Ok(self.get(id)?.map_or(Found::None, |record| Found::One(Box::new(record)))),
            _ => Ok(Found::Many(ids)),
        }
    }

    /// The jobs of that name, newest first, at most [`MANY_MAX`].
    fn named(&self, name: &str) -> Result<Vec<JobId>, StoreError> {
        let mut found = Vec::new();
        scan_results(&*self.db, Key::kind(TIMELINE).range(), true, |key, value| {
            if key.get(TAG) == Some(&SUBMITTED) && !name.is_empty() && value == name.as_bytes() {
                found.push(id_at(key, TAG + 1)?);
            }
            Ok(if found.len() < MANY_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        Ok(found)
    }

    /// The newest job of that name that `wanted` takes. Reads the timeline once.
    ///
    /// # Errors
    /// The database cannot be read, a record makes no sense, or `wanted` failed.
    pub fn newest_named<E: From<StoreError>>(
        &self,
        name: &str,
        mut wanted: impl FnMut(&JobRecord) -> Result<bool, E>,
    ) -> Result<Option<JobRecord>, E> {
        let mut ids: Vec<JobId> = Vec::new();
        scan_results(&*self.db, Key::kind(TIMELINE).range(), true, |key, value| {
            if key.get(TAG) == Some(&SUBMITTED) && !name.is_empty() && value == name.as_bytes() {
                ids.push(id_at(key, TAG + 1)?);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        // A job without a name has its id for one.
        ids.extend(name.parse::<JobId>().ok());
        for id in ids {
            if let Some(record) = self.get(&id)?.filter(|record| record.name == name)
                && wanted(&record)?
            {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// The earlier versions of a job that are still known, oldest first.
    ///
    /// # Errors
    /// The database cannot be read, or a record makes no sense.
    pub fn versions(&self, job: &JobId) -> Result<Vec<JobRecord>, StoreError> {
        let mut found = Vec::new();
        scan_values(&*self.db, Key::kind(JOB).id(job).byte(VERSION).range(), false, |_, record| {
            found.push(record);
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    /// The ids that begin with these digits, at most [`MANY_MAX`].
    fn ids_from(&self, digits: &str) -> Result<Vec<JobId>, StoreError> {
        let (mut from, to) = Key::kind(JOB).id_range(digits);
        let mut found: Vec<JobId> = Vec::new();
        while found.len() < MANY_MAX {
            let next = scan_keys(&*self.db, (from, to.clone()), 1, |key| id_at::<JobId>(key, 1))?;
            let Some(id) = next.into_iter().next() else { break };
            // On to the next job: behind everything of this one.
            from = Key::kind(JOB).id(&id).byte(u8::MAX).done();
            if id.as_str()[2..].starts_with(digits) {
                found.push(id);
            }
        }
        Ok(found)
    }

    /// All jobs that have not ended, oldest first.
    ///
    /// # Errors
    /// The database cannot be read, or a record makes no sense.
    pub fn active(&self) -> Result<Vec<JobRecord>, StoreError> {
        let ids: Vec<JobId> =
            scan_keys(&*self.db, Key::kind(ACTIVE).range(), usize::MAX, |key| id_at(key, 1))?;
        let mut found = Vec::with_capacity(ids.len());
        for id in ids {
            found.extend(self.get(&id)?.filter(|record| !record.state.is_terminal()));
        }
        found.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        Ok(found)
    }

    /// Whether there is a job that has not ended.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn any_active(&self) -> Result<bool, StoreError> {
        let first = scan_keys(&*self.db, Key::kind(ACTIVE).range(), 1, |key| id_at::<JobId>(key, 1))?;
        Ok(!first.is_empty())
    }

    /// Jobs that have ended although executions of theirs have not: the node was cut off in between.
    ///
    /// # Errors
    /// The database cannot be read, or a record makes no sense.
    pub fn ending(&self) -> Result<Vec<JobRecord>, StoreError> {
        let mut ids = BTreeSet::new();
        scan_results(&*self.db, Key::kind(ACTIVE_EXECUTION).range(), false, |_, job| {
            ids.insert(id_at::<JobId>(job, 0)?);
            Ok(ControlFlow::Continue(()))
        })?;
        let mut found = Vec::new();
        for id in ids {
            found.extend(self.get(&id)?.filter(|record| record.state.is_terminal()));
        }
        Ok(found)
    }

    /// A job's body.
    ///
    /// # Errors
    /// The database cannot be read, or the bytes are not those that have the digest.
    pub fn body(&self, digest: &JobDigest) -> Result<Option<Arc<JobSpec>>, StoreError> {
        let Some(bytes) = self.db.get(&Key::kind(BODY).digest(digest).byte(BYTES).done())? else {
            return Ok(None);
        };
        let what = || format!("the job body with digest {digest}");
        if JobDigest::of(&bytes) != *digest {
            return Err(StoreError::Corrupt { what: what(), cause: None });
        }
        decode(&bytes, what).map(|spec| Some(Arc::new(spec)))
    }

    /// All executions of a job, oldest first.
    ///
    /// # Errors
    /// The database cannot be read, or a row makes no sense.
    pub fn executions(&self, job: &JobId) -> Result<Vec<ExecutionRow>, StoreError> {
        let mut found: Vec<ExecutionRow> = Vec::new();
        scan_values(&*self.db, Key::kind(JOB).id(job).byte(ROW).range(), false, |_, row| {
            found.push(row);
            ControlFlow::Continue(())
        })?;
        found.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        Ok(found)
    }

    /// The row of an execution.
    ///
    /// # Errors
    /// The database cannot be read, or the row makes no sense.
    pub fn execution(&self, id: &ExecutionId) -> Result<Option<ExecutionRow>, StoreError> {
        let Some(job) = self.job_of(id)? else { return Ok(None) };
        let bytes = self.db.get(&Key::kind(JOB).id(&job).byte(ROW).id(id).done())?;
        bytes.map(|bytes| decode(&bytes, || format!("the row of execution {id}"))).transpose()
    }

    /// The job of an execution: at once if the execution has not ended.
    fn job_of(&self, id: &ExecutionId) -> Result<Option<JobId>, StoreError> {
        if let Some(job) = self.db.get(&Key::kind(ACTIVE_EXECUTION).id(id).done())? {
            return id_at(&job, 0).map(Some);
        }
        let wanted = Key::kind(MADE).id(id).done();
        let mut found = None;
        scan_results(&*self.db, Key::kind(TIMELINE).range(), true, |key, value| {
            if key.get(TAG..) != Some(wanted.as_slice()) {
                return Ok(ControlFlow::Continue(()));
            }
            found = Some(id_at(value, 0)?);
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    /// The events of a job after that sequence number, in order, at most `limit`.
    ///
    /// # Errors
    /// The database cannot be read, or an event makes no sense.
    pub fn history(&self, job: &JobId, after: u64, limit: usize) -> Result<Vec<HistoryEvent>, StoreError> {
        let Some(first) = after.checked_add(1).filter(|_| limit > 0) else { return Ok(Vec::new()) };
        let read = |events: Key| {
            let mut found: Vec<HistoryEvent> = Vec::new();
            let (_, to) = events.clone().range();
            scan_values(&*self.db, (events.number(first).done(), to), false, |_, event| {
                found.push(event);
                if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            Ok::<_, StoreError>(found)
        };
        let mut found = read(events(job))?;
        if let Some(record) = self.get(job)? {
            found.append(&mut read(notes(&record))?);
            found.sort_by_key(|event| event.seq);
            found.truncate(limit);
        }
        Ok(found)
    }

    /// The sequence number of a job's last event; 0 if there is none.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn last_seq(&self, job: &JobId) -> Result<u64, StoreError> {
        let last = |events: Key| {
            let (from, to) = events.range();
            let mut last = 0;
            self.db.scan(&from, &to, true, &mut |key, _| {
                let number = key.last_chunk::<8>().copied().unwrap_or_default();
                last = u64::from_be_bytes(number);
                ControlFlow::Break(())
            })?;
            Ok::<u64, StoreError>(last)
        };
        let noted = self.get(job)?.map_or(Ok(0), |record| last(notes(&record)))?;
        Ok(noted.max(last(events(job))?))
    }

    /// How many jobs there are.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn counts(&self) -> Result<JobCounts, StoreError> {
        let count = |kind, wanted: &dyn Fn(&[u8]) -> bool| {
            let (from, to) = Key::kind(kind).range();
            let mut count = 0;
            self.db.scan(&from, &to, false, &mut |key, _| {
                count += u64::from(wanted(key));
                ControlFlow::Continue(())
            })?;
            Ok::<u64, StoreError>(count)
        };
        let total = count(TIMELINE, &|key| key.get(TAG) == Some(&SUBMITTED))?;
        Ok(JobCounts { total, active: count(ACTIVE, &|_| true)? })
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
    pub fn change(&self) -> JobChange {
        JobChange::default()
    }

    /// Writes the changes, all or none; they are durable when the ticket says so.
    /// Refused with [`StoreError::Busy`] if too much is waiting.
    pub fn write(&self, change: JobChange) -> Ticket {
        self.submit(change, Mode::Outside)
    }

    /// As [`Self::write`], but never refused for being busy: for the node's own running work, which waits for
    /// each write before its next.
    pub fn write_internal(&self, change: JobChange) -> Ticket {
        self.submit(change, Mode::Inside)
    }

    /// Writes the changes, all or none; readers see them when the ticket says so, and they become durable with the
    /// next durable write or a little later. Never refused for being busy; for the node's own running work.
    pub fn write_lazy(&self, change: JobChange) -> Ticket {
        self.submit(change, Mode::Lazy)
    }

    /// As [`Self::write_lazy`], but the ticket is answered when the changes are durable: for what must be, but can
    /// wait a moment for others to share a commit with.
    pub fn write_soon(&self, change: JobChange) -> Ticket {
        self.submit(change, Mode::Soon)
    }

    fn submit(&self, change: JobChange, mode: Mode) -> Ticket {
        match change.0 {
            Ok(changes) => self.writer.submit(JOBS, changes, mode),
            Err(error) => Ticket::answered(Err(error)),
        }
    }
}

/// Where the events of a job's life are.
fn events(job: &JobId) -> Key {
    Key::kind(JOB).id(job).byte(EVENT)
}

/// Where those are that came after its end.
fn notes(record: &JobRecord) -> Key {
    Key::kind(TIMELINE).time(record.created).byte(NOTED).id(&record.id)
}
