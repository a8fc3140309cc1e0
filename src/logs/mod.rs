//! What executions write to standard output and error, for those who follow it: which execution is meant, its files
//! while it runs, what is kept of it afterwards.

pub mod cut;
mod readers;

use std::cell::OnceCell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::archive::Member;
use crate::engine::Scratch;
use crate::model::{ExecutionId, ExecutionRecord, ExecutionRow, ExecutionState, JobId};
use crate::results::{ReadLease, Shelf};
use crate::store::{ExecutionStore, JobStore, StoreError};
use crate::sys::Bell;
use crate::wire::log_line::LogStream;

pub use readers::{Hold, Readers};

/// What somebody wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Of which job.
    pub job: JobId,
    /// Of which execution: its id, or how that begins. Without, the one that changed last.
    pub execution: Option<String>,
    /// Of which version of the job.
    pub version: Option<u64>,
    /// Go on until the execution ends; if there is none yet, wait for it.
    pub follow: bool,
    /// Only what is written from now on.
    pub tail: bool,
}

/// What there is of that.
#[derive(Debug)]
pub enum Found {
    /// It runs: its files are there, or about to be.
    Running(ExecutionId),
    /// It has ended.
    Ended(Box<ExecutionRecord>),
    /// It has written nothing, and does not run yet.
    NotYet,
    /// There is none, and none will come.
    Never(String),
}

/// The way to all logs of a node.
pub struct Logs {
    /// Jobs and what was asked for.
    pub jobs: JobStore,
    /// How executions stand.
    pub executions: ExecutionStore,
    /// Published results.
    pub shelf: Arc<Shelf>,
    /// Where executions work.
    pub scratch: PathBuf,
    /// Who reads there.
    pub readers: Arc<Readers>,
    /// Rings when there is something new.
    pub bell: Bell,
}

impl Logs {
    /// Looks for what is wanted.
    ///
    /// # Errors
    /// A database cannot be read.
    pub fn find(&self, wanted: &Wanted) -> Result<Found, StoreError> {
        let job = &wanted.job;
        let Some(record) = self.jobs.get(job)? else {
            return Ok(Found::Never(format!("job not found: {job}")));
        };
        let mut rows = self.jobs.executions(job)?;
        rows.retain(|row| wanted.version.is_none_or(|version| row.job_version == version));
        let waits = wanted.follow && !record.state.is_terminal();
        if let Some(id) = &wanted.execution {
            rows.retain(|row| row.id.as_str().starts_with(id.as_str()));
            let id: String = id.chars().take(64).collect();
            return match rows.as_slice() {
                [] => Ok(Found::Never(format!("execution not found: job {job} has none whose id is {id}"))),
                [row] => self.found(row),
                _ => Ok(Found::Never(format!("several executions of job {job} begin with {id}"))),
            };
        }
        rows.sort_by(|a, b| (b.modified, &b.id).cmp(&(a.modified, &a.id)));
        let (mut best, others): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| !is_discarded(row.state));
        // What failed has written something, too; what was refused has not.
        if best.is_empty() && !waits {
            best = others;
        }
        let (mut never, mut not_yet) = (None, waits);
        for row in &best {
            match self.found(row)? {
                Found::Never(why) => drop(never.get_or_insert(why)),
                Found::NotYet => not_yet = true,
                found => return Ok(found),
            }
        }
        if not_yet {
            return Ok(Found::NotYet);
        }
        Ok(Found::Never(never.unwrap_or_else(|| format!("no executions found for job {job}"))))
    }

    fn found(&self, row: &ExecutionRow) -> Result<Found, StoreError> {
        match self.executions.get(&row.id)? {
            Some(record) if record.state.is_terminal() => Ok(Found::Ended(Box::new(record))),
            Some(record) if record.state != ExecutionState::BidAccepted => Ok(Found::Running(record.id)),
            _ if row.state.is_terminal() => {
                let why = if row.message.is_empty() { row.state.as_str() } else { &row.message };
                Ok(Found::Never(format!("execution {} never ran: {why}", row.id)))
            }
            _ => Ok(Found::NotYet),
        }
    }

    /// How an execution ended, if it has.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn ended(&self, id: &ExecutionId) -> Result<Option<ExecutionRecord>, StoreError> {
        Ok(self.executions.get(id)?.filter(|record| record.state.is_terminal()))
    }

    /// The files of an execution that runs. They stay for as long as the answer lives.
    #[must_use]
    pub fn live(&self, id: &ExecutionId) -> Live {
        let scratch = Scratch::at(self.scratch.join(id.as_str()));
        Live { scratch, files: [const { OnceCell::new() }; 2], _hold: self.readers.hold(id) }
    }

    /// A stream in the published result; `None` if that cannot be had.
    #[must_use]
    pub fn archived(&self, id: &ExecutionId, stream: LogStream) -> Option<(Member, ReadLease)> {
        let open = self.shelf.open_result(id).ok()?;
        Some((Member::open(open.file, stream.as_str()), open.lease))
    }
}

/// Whether an execution counts for nothing any more (Bacalhau's word for it).
const fn is_discarded(state: ExecutionState) -> bool {
    use ExecutionState as S;
    matches!(state, S::AskForBidRejected | S::BidRejected | S::Cancelled | S::Failed)
}

/// The files of one execution, opened once they are there.
#[derive(Debug)]
pub struct Live {
    scratch: Scratch,
    files: [OnceCell<File>; 2],
    _hold: Hold,
}

impl Live {
    /// The file, if it is there by now.
    fn file(&self, stream: LogStream) -> Option<&File> {
        let (cell, path) = match stream {
            LogStream::Stdout => (&self.files[0], self.scratch.stdout()),
            LogStream::Stderr => (&self.files[1], self.scratch.stderr()),
        };
        if cell.get().is_none()
            && let Ok(file) = File::open(path)
        {
            return Some(cell.get_or_init(|| file));
        }
        cell.get()
    }

    /// Bytes written so far; `None` if the file is not there.
    #[must_use]
    pub fn length(&self, stream: LogStream) -> Option<u64> {
        self.file(stream)?.metadata().ok().map(|metadata| metadata.len())
    }

    /// Reads what is there from `at` on.
    ///
    /// # Errors
    /// As the system says.
    pub fn read(&self, stream: LogStream, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file(stream).map_or(Ok(0), |file| file.read_at(buffer, at))
    }
}

/// The logs of a node that has done nothing, for tests.
#[cfg(test)]
pub(crate) fn none(directory: &std::path::Path) -> Logs {
    use crate::model::{Bytes, EvictFirst, Timestamp};
    let stores = crate::store::open(&crate::store::StoreSettings::memory()).unwrap();
    let settings = crate::results::ShelfSettings {
        dir: directory.join("logs-results"),
        quota: Bytes::mib(64),
        min_free: Bytes::ZERO,
        retention: std::time::Duration::ZERO,
        max_count: 100,
        max_size: Bytes(u64::MAX),
        evict_first: EvictFirst::Oldest,
        pack: crate::archive::PackOptions::default(),
    };
    let disk = Arc::new(crate::sys::FixedDisk::new(Bytes::gib(1), Bytes::gib(1)));
    let clock = Arc::new(crate::sys::FakeClock::at(Timestamp(1)));
    let (shelf, _) = Shelf::open(settings, stores.executions.clone(), disk, clock).unwrap();
    Logs {
        jobs: stores.jobs.clone(),
        executions: stores.executions.clone(),
        shelf,
        scratch: directory.join("scratch"),
        readers: Arc::default(),
        bell: Bell::default(),
    }
}
