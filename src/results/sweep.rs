//! Opening the shelf: ledger and directory are made to agree, whatever the last run left.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::error::ShelfError;
use super::policy::Pick;
use super::shelf::{PARTIAL_SUFFIX, SUFFIX, Shelf, ShelfSettings, TOMBSTONES_MAX};
use super::state::{Phase, Slot, State, execution_id};
use crate::model::{Deletion, DeletionReason, ExecutionId, ResultEntry, ResultStatus};
use crate::store::{ExecutionStore, Ledger};
use crate::sys::{Clock, DiskProbe, Files, RealFiles};

/// What was found and put right.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Results that are there.
    pub kept: u32,
    /// Archives that were being written when the last run ended: removed.
    pub partials: u32,
    /// Archives without a row in the ledger: removed.
    pub orphans: u32,
    /// Rows whose archive was missing or had the wrong size.
    pub lost: Vec<Deletion>,
    /// Results that no longer fit the settings.
    pub evicted: Vec<Deletion>,
    /// Files that are none of the shelf's: left alone, and not counted.
    pub foreign: u32,
}

impl Shelf {
    /// Opens the shelf. The directory is created if it is missing. Blocking.
    ///
    /// # Errors
    /// The directory or the ledger cannot be read or changed.
    pub fn open(
        settings: ShelfSettings,
        executions: ExecutionStore,
        disk: Arc<dyn DiskProbe>,
        clock: Arc<dyn Clock>,
    ) -> Result<(Arc<Self>, SweepReport), ShelfError> {
        RealFiles.create_dir(&settings.dir).map_err(|source| failed("create", &settings.dir, source))?;
        let rows = Rows::read(&RealFiles, executions.ledger(), &settings.dir)?;
        Self::open_on(Arc::new(RealFiles), rows, settings, executions, disk, clock)
    }

    /// As [`Shelf::open`], on a file layer of one's own, with what was found in the ledger and in the directory, which
    /// is there.
    ///
    /// # Errors
    /// As there.
    pub fn open_on(
        files: Arc<dyn Files>,
        rows: Rows,
        settings: ShelfSettings,
        executions: ExecutionStore,
        disk: Arc<dyn DiskProbe>,
        clock: Arc<dyn Clock>,
    ) -> Result<(Arc<Self>, SweepReport), ShelfError> {
        let dir = settings.dir.clone();
        let mut report = SweepReport::default();
        let Rows { state, lost } = rows;
        let shelf = Self::over(settings, files, executions, disk, clock, state);
        let room = shelf.room();
        report.lost = shelf.delete(&room, &lost).map_err(ShelfError::Limits)?;
        drop(room);
        let removed = shelf.sweep_dir(&mut report)?;
        shelf.forget_old_rows()?;
        report.evicted = shelf.gc(false).map_err(ShelfError::Limits)?;
        report.kept = u32::try_from(shelf.state().slots().len()).unwrap_or(u32::MAX);
        if removed || !report.lost.is_empty() || !report.evicted.is_empty() {
            shelf.files.sync_dir(&dir).map_err(|source| failed("sync", &dir, source))?;
        }
        Ok((Arc::new(shelf), report))
    }

    /// Removes what was being written and what the ledger does not know. Answers whether anything went.
    fn sweep_dir(&self, report: &mut SweepReport) -> Result<bool, ShelfError> {
        let dir = &self.settings.dir;
        let unreadable = |source| failed("read", dir, source);
        for entry in self.files.list(dir).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let name = entry.file_name();
            let is_dir = entry.file_type().map_err(unreadable)?.is_dir();
            let count = match name.to_str().filter(|_| !is_dir).map(kind_of) {
                Some(Name::Partial) => &mut report.partials,
                Some(Name::Archive(id)) if self.state().slot(&id.uuid()).is_none() => &mut report.orphans,
                Some(Name::Archive(_)) => continue,
                Some(Name::Foreign) | None => {
                    report.foreign += 1;
                    continue;
                }
            };
            *count += 1;
            let path = entry.path();
            self.files.remove(&path).map_err(|source| failed("remove", &path, source))?;
        }
        Ok(report.partials + report.orphans > 0)
    }

    /// Forgets the oldest rows of deleted results beyond [`TOMBSTONES_MAX`].
    fn forget_old_rows(&self) -> Result<(), ShelfError> {
        let _room = self.room();
        let rows = self.state().oldest_tombstones(0, TOMBSTONES_MAX);
        if rows.is_empty() {
            return Ok(());
        }
        let mut change = self.executions.change();
        for (_, execution) in &rows {
            change.delete_result(&execution_id(execution));
        }
        self.executions.write_internal(change).wait()?;
        let mut state = self.state();
        for row in &rows {
            state.tombstones.remove(row);
        }
        Ok(())
    }
}

/// The ledger in memory.
#[derive(Debug)]
pub struct Rows {
    state: State,
    /// Rows whose archive is not what they say.
    lost: Vec<Pick>,
}

impl Rows {
    /// Reads the ledger and looks at the archives in `dir`. Blocking.
    ///
    /// # Errors
    /// The directory or the ledger cannot be read.
    pub fn read(files: &dyn Files, ledger: Ledger<'_>, dir: &Path) -> Result<Self, ShelfError> {
        let mut state = State::default();
        let mut lost = Vec::new();
        let mut unreadable = None;
        ledger.each_result(&mut |entry: ResultEntry| {
            let execution = entry.execution_id.uuid();
            if let ResultStatus::Deleted { at, .. } = entry.status {
                state.tombstones.insert((at, execution));
                return;
            }
            let path = dir.join(format!("{}{SUFFIX}", entry.execution_id));
            let phase = match files.file_len(&path) {
                Ok(Some(len)) if len == entry.size.0 => Phase::Stored,
                Ok(_) => Phase::Leaving,
                Err(error) if error.kind() == io::ErrorKind::NotFound => Phase::Leaving,
                Err(source) => {
                    unreadable.get_or_insert_with(|| failed("look at", &path, source));
                    return;
                }
            };
            if phase == Phase::Leaving {
                lost.push(Pick { execution, size: entry.size.on_disk(), reason: DeletionReason::Lost });
            }
            state.insert(execution, Slot::of(&entry, phase));
        })?;
        unreadable.map_or(Ok(Self { state, lost }), Err)
    }
}

enum Name {
    Archive(ExecutionId),
    Partial,
    Foreign,
}

fn kind_of(name: &str) -> Name {
    let id = |suffix| name.strip_suffix(suffix).and_then(|stem| stem.parse::<ExecutionId>().ok());
    match (id(SUFFIX), id(PARTIAL_SUFFIX)) {
        (Some(id), _) => Name::Archive(id),
        (_, Some(_)) => Name::Partial,
        _ => Name::Foreign,
    }
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> ShelfError {
    ShelfError::Io { action, path: path.to_owned(), source }
}
