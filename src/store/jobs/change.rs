//! Changes to jobs: which keys each of them touches.

use crate::model::{ExecutionRow, HistoryEvent, JobDigest, JobId, JobRecord};

use super::super::backend::Change;
use super::super::keys::Key;
use super::super::{StoreError, encode};
use super::{
    ACTIVE, ACTIVE_EXECUTION, BODY, BYTES, JOB, MADE, RECORD, ROW, SUBMITTED, TIMELINE, USER, VERSION,
    events, notes,
};

/// Changes to the orchestrator role's database that belong together.
#[derive(Debug, Clone)]
#[must_use = "changes do nothing until they are written"]
pub struct JobChange(pub(super) Result<Vec<Change>, StoreError>);

impl Default for JobChange {
    fn default() -> Self {
        Self(Ok(Vec::new()))
    }
}

impl JobChange {
    /// Stores a record in place of the one with its id, if there is one. A job's name and the time of its
    /// submission never change.
    pub fn put_job(&mut self, record: &JobRecord) {
        let id = &record.id;
        let value = encode(record, || format!("the record of job {id}"));
        self.extend(value.map(|value| {
            let active = Key::kind(ACTIVE).id(id).done();
            vec![
                Change::Put(Key::kind(JOB).id(id).byte(RECORD).done(), value),
                Change::Put(submitted_key(record), own_name(record).into()),
                Change::Put(user_key(record), Vec::new()),
                if record.state.is_terminal() {
                    Change::Delete(active)
                } else {
                    Change::Put(active, Vec::new())
                },
            ]
        }));
    }

    /// Stores a body: the bytes that [`crate::model::JobSpec::encode`] made, and their digest. In the same change as the first
    /// job that has it.
    pub fn put_body(&mut self, digest: &JobDigest, bytes: &[u8]) {
        let key = Key::kind(BODY).digest(digest).byte(BYTES).done();
        self.extend(Ok(vec![Change::Put(key, bytes.to_vec())]));
    }

    /// Stores an execution's row in place of the one with its id, if there is one.
    pub fn put_execution(&mut self, row: &ExecutionRow) {
        let (id, job) = (&row.id, &row.job_id);
        let value = encode(row, || format!("the row of execution {id}"));
        let job_bytes = Key::bare().id(job).done();
        let active = Key::kind(ACTIVE_EXECUTION).id(id).done();
        self.extend(value.map(|value| {
            vec![
                Change::Put(Key::kind(JOB).id(job).byte(ROW).id(id).done(), value),
                Change::Put(made_key(row), job_bytes.clone()),
                if row.state.is_terminal() { Change::Delete(active) } else { Change::Put(active, job_bytes) },
            ]
        }));
    }

    /// Stores an event under its sequence number.
    pub fn put_history(&mut self, job: &JobId, event: &HistoryEvent) {
        self.put_event(job, events(job), event);
    }

    /// The same for an event after the job's end.
    pub fn put_note(&mut self, record: &JobRecord, event: &HistoryEvent) {
        self.put_event(&record.id, notes(record), event);
    }

    fn put_event(&mut self, job: &JobId, place: Key, event: &HistoryEvent) {
        let value = encode(event, || format!("event {} of job {job}", event.seq));
        self.extend(value.map(|value| vec![Change::Put(place.number(event.seq).done(), value)]));
    }

    /// Removes the events from the first number (included) to the second (excluded).
    pub fn delete_history(&mut self, record: &JobRecord, (from, to): (u64, u64)) {
        let range =
            |place: Key| Change::DeleteRange(place.clone().number(from).done(), place.number(to).done());
        self.extend(Ok(vec![range(events(&record.id)), range(notes(record))]));
    }

    /// Removes the row of an execution.
    pub fn delete_execution(&mut self, row: &ExecutionRow) {
        let (id, job) = (&row.id, &row.job_id);
        self.extend(Ok(vec![
            Change::Delete(Key::kind(JOB).id(job).byte(ROW).id(id).done()),
            Change::Delete(made_key(row)),
            Change::Delete(Key::kind(ACTIVE_EXECUTION).id(id).done()),
        ]));
    }

    /// Stores a version that another has taken the place of. It keeps its body.
    pub fn put_version(&mut self, record: &JobRecord) {
        let id = &record.id;
        let value = encode(record, || format!("version {} of job {id}", record.version));
        let key = Key::kind(JOB).id(id).byte(VERSION).number(record.version).done();
        self.extend(
            value.map(|value| vec![Change::Put(key, value), Change::Put(user_key(record), Vec::new())]),
        );
    }

    /// Removes an earlier version; and its body, unless another of the job's versions has it too (`shared`), or another
    /// job.
    pub fn delete_version(&mut self, record: &JobRecord, shared: bool) {
        let key = Key::kind(JOB).id(&record.id).byte(VERSION).number(record.version).done();
        self.extend(Ok(vec![Change::Delete(key)]));
        if !shared {
            self.extend(Ok(release(record)));
        }
    }

    /// Does these changes, too.
    pub fn append(&mut self, more: Self) {
        self.extend(more.0);
    }

    /// Makes what was put so far count only if the job is not active when it is written: it may have been run again
    /// meanwhile.
    pub fn unless_active(&mut self, id: &JobId) {
        let witness = Key::kind(ACTIVE).id(id).done();
        if let Ok(steps) = &mut self.0 {
            let steps = std::mem::take(steps);
            self.extend(Ok(vec![Change::Unless { witness, steps }]));
        }
    }

    /// Makes what was put so far count only if the job is still there when it is written: it may leave meanwhile.
    pub fn if_there(&mut self, id: &JobId) {
        let witness = Key::kind(JOB).id(id).byte(RECORD).done();
        for change in self.0.iter_mut().flatten() {
            if let Change::Put(key, value) = change {
                let (key, value) = (std::mem::take(key), std::mem::take(value));
                *change = Change::PutBeside { key, value, witness: witness.clone() };
            }
        }
    }

    /// Removes a job with its history, its earlier versions and the rows of its executions, which are given; and each
    /// body if no other job has the same.
    pub fn delete_job(&mut self, record: &JobRecord, versions: &[JobRecord], executions: &[ExecutionRow]) {
        let id = &record.id;
        let range = |(from, to)| Change::DeleteRange(from, to);
        let mut changes = vec![
            range(Key::kind(JOB).id(id).range()),
            range(notes(record).range()),
            Change::Delete(submitted_key(record)),
            Change::Delete(Key::kind(ACTIVE).id(id).done()),
        ];
        changes.extend(std::iter::once(record).chain(versions).flat_map(release));
        for row in executions {
            changes.push(Change::Delete(made_key(row)));
            changes.push(Change::Delete(Key::kind(ACTIVE_EXECUTION).id(&row.id).done()));
        }
        self.extend(Ok(changes));
    }

    fn extend(&mut self, more: Result<Vec<Change>, StoreError>) {
        match (&mut self.0, more) {
            (Ok(changes), Ok(more)) => changes.extend(more),
            (Ok(_), Err(error)) => self.0 = Err(error),
            (Err(_), _) => {}
        }
    }
}

fn submitted_key(record: &JobRecord) -> Vec<u8> {
    Key::kind(TIMELINE).time(record.created).byte(SUBMITTED).id(&record.id).done()
}

fn made_key(row: &ExecutionRow) -> Vec<u8> {
    Key::kind(TIMELINE).time(row.created).byte(MADE).id(&row.id).done()
}

fn user_key(record: &JobRecord) -> Vec<u8> {
    Key::kind(BODY).digest(&record.digest).byte(USER).id(&record.id).done()
}

/// Takes a version's body from its job, and away if no other job has it.
fn release(record: &JobRecord) -> Vec<Change> {
    let (from, to) = Key::kind(BODY).digest(&record.digest).byte(USER).range();
    let key = Key::kind(BODY).digest(&record.digest).byte(BYTES).done();
    vec![Change::Delete(user_key(record)), Change::DeleteOrphan { key, from, to }]
}

/// The job's name, unless it is its id.
fn own_name(record: &JobRecord) -> &str {
    if record.name == record.id.as_str() { "" } else { &record.name }
}
