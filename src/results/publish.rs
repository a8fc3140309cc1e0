//! From an execution's output to an archive on the shelf.
//!
//! `.partial`, synced, renamed, directory synced; then the caller writes the row and confirms. Room is taken in steps
//! before it is written, so that quota and free space hold at every instant.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use uuid::Uuid;

use super::error::{NoRoom, PublishError};
use super::shelf::{PARTIAL_SUFFIX, Shelf};
use super::state::{Packing, Phase, Slot, Wish};
use crate::archive::{self, Packed, Warnings};
use crate::model::{Bytes, ExecutionId, JobId, ResultEntry, ResultStatus};
use crate::sys::{FileOut, Files, Interrupt};

/// Room that is taken at once.
pub const STEP: Bytes = Bytes::mib(1);

/// An archive that is on the shelf, not yet in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Its row, to be stored and then [confirmed](Shelf::confirm), or [abandoned](Shelf::abandon).
    pub entry: ResultEntry,
    /// Regular files in it.
    pub files: u64,
    /// What the job's owner should hear about it.
    pub warnings: Warnings,
}

impl Shelf {
    /// Packs `dir` and puts the archive on the shelf. Until it is confirmed it is neither served nor deleted, but it
    /// counts. Blocking, for as long as packing takes.
    ///
    /// # Errors
    /// The archive would be larger than all room that can be made, something cannot be read or written, or it was
    /// told to stop. Then nothing of it remains.
    pub fn publish(
        &self,
        id: &ExecutionId,
        job: &JobId,
        dir: &Path,
        retention: Option<Duration>,
        interrupt: &Interrupt,
    ) -> Result<Published, PublishError> {
        let mut draft = Draft::begin(self, id)?;
        self.check_place()?;
        let most = self.check_size(dir, interrupt)?;
        let packed = draft.pack(dir, most, interrupt)?;
        let entry = ResultEntry {
            execution_id: id.clone(),
            job_id: job.clone(),
            size: packed.size,
            sha256: packed.sha256,
            created: self.clock.now(),
            dating: super::dates::dating(&*self.clock),
            fetched: false,
            retention,
            pin: None,
            status: ResultStatus::Stored,
        };
        draft.place(&entry)?;
        for warning in packed.warnings.kept() {
            log::warn!(target: "results", "packing the result of {id}: {warning}");
        }
        Ok(Published { entry, files: packed.files, warnings: packed.warnings })
    }

    /// The most that the archive will take. If that is more than the room that can be made, the archive is made once
    /// for nothing but its size.
    fn check_size(&self, dir: &Path, interrupt: &Interrupt) -> Result<Bytes, PublishError> {
        let most = archive::pack::upper_bound(dir, &self.settings.pack, interrupt)?;
        let (allowed, disk) = self.room_to_be_made()?;
        let room = allowed.min(disk);
        if most.on_disk() <= room {
            return Ok(most);
        }
        let size = archive::pack(dir, &mut io::sink(), &self.settings.pack, interrupt)?.size;
        if size.on_disk() <= room {
            Ok(size)
        } else if size.on_disk() <= allowed {
            // Others have the room that the quota promises.
            Err(NoRoom::Disk { asked: size, room, min_free: self.settings.min_free }.into())
        } else {
            Err(PublishError::TooLarge { size, room })
        }
    }

    /// The row is durable: from now on the result is served, and may be deleted. Never blocks.
    pub fn confirm(&self, entry: &ResultEntry) {
        let execution = entry.execution_id.uuid();
        let mut state = self.state();
        // A row that was a tombstone is none any more.
        state.tombstones.retain(|(_, known)| *known != execution);
        match state.slot_mut(&execution) {
            Some(slot) if slot.phase == Phase::Unconfirmed => {
                slot.phase = Phase::Stored;
                slot.pin = entry.pin;
                self.tell_of_change();
            }
            _ => {
                log::error!(target: "results", "confirmed a result that is not there: {}", entry.execution_id)
            }
        }
    }

    /// The row could not be written: the archive goes. Blocking.
    pub fn abandon(&self, id: &ExecutionId) {
        let execution = id.uuid();
        if self.state().slot(&execution).is_none_or(|slot| slot.phase != Phase::Unconfirmed) {
            return;
        }
        let path = self.path(id);
        if let Err(error) = remove_if_there(&*self.files, &path) {
            log::error!(target: "results", "cannot delete {}: {error}", path.display());
            return;
        }
        self.state().remove(&execution);
    }
}

fn remove_if_there(files: &dyn Files, path: &Path) -> io::Result<()> {
    match files.remove(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// An archive that is being made. Dropped before it was placed, it leaves nothing.
struct Draft<'a> {
    shelf: &'a Shelf,
    execution: Uuid,
    partial: PathBuf,
    placed: bool,
}

impl<'a> Draft<'a> {
    fn begin(shelf: &'a Shelf, id: &ExecutionId) -> Result<Self, PublishError> {
        let execution = id.uuid();
        let mut state = shelf.state();
        if state.slot(&execution).is_some() || state.packing.contains_key(&execution) {
            return Err(PublishError::Exists(id.clone()));
        }
        state.packing.insert(execution, Packing::default());
        drop(state);
        let partial = shelf.settings.dir.join(format!("{id}{PARTIAL_SUFFIX}"));
        Ok(Self { shelf, execution, partial, placed: false })
    }

    /// Writes the whole `.partial` and makes it durable.
    fn pack(&mut self, dir: &Path, most: Bytes, interrupt: &Interrupt) -> Result<Packed, PublishError> {
        let created = self.shelf.files.create(&self.partial, 0o600);
        let file = created.map_err(|source| self.failed("create", source))?;
        let mut out = Stepper {
            shelf: self.shelf,
            execution: self.execution,
            file,
            most,
            reserved: Bytes::ZERO,
            written: Bytes::ZERO,
        };
        let packed = archive::pack(dir, &mut out, &self.shelf.settings.pack, interrupt)?;
        out.file.sync().map_err(|source| self.failed("sync", source))?;
        if let Some(cause) = interrupt.cause() {
            return Err(PublishError::Interrupted(cause));
        }
        Ok(packed)
    }

    /// Gives the archive its name and its place.
    fn place(&mut self, entry: &ResultEntry) -> Result<(), PublishError> {
        let size = entry.size.on_disk();
        if let Some(packing) = self.shelf.state().packing.get_mut(&self.execution) {
            *packing = Packing { reserved: size, written: size };
        }
        let path = self.shelf.path(&entry.execution_id);
        let (jumps, published) = (self.shelf.clock.jumps(), Some(self.shelf.clock.uptime()));
        self.shelf.make_room(Wish::Place, |state| {
            state.packing.remove(&self.execution);
            let slot = Slot { jumps, published, ..Slot::of(entry, Phase::Unconfirmed) };
            state.insert(self.execution, slot);
        })?;
        let files = &self.shelf.files;
        let named =
            files.rename(&self.partial, &path).and_then(|()| files.sync_dir(&self.shelf.settings.dir));
        if let Err(source) = named {
            // Under whichever name: what could not be named durably is not kept.
            let _ = files.remove(&path);
            let _ = files.remove(&self.partial);
            self.shelf.state().remove(&self.execution);
            return Err(PublishError::File { action: "rename", path, source });
        }
        self.placed = true;
        Ok(())
    }

    fn failed(&self, action: &'static str, source: io::Error) -> PublishError {
        PublishError::File { action, path: self.partial.clone(), source }
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if self.placed {
            return;
        }
        match remove_if_there(&*self.shelf.files, &self.partial) {
            Ok(()) => {
                self.shelf.state().packing.remove(&self.execution);
            }
            // Still there, so it still counts; the next start tries again.
            Err(error) => {
                log::error!(target: "results", "cannot delete {}: {error}", self.partial.display());
            }
        }
    }
}

/// Takes room before it writes.
struct Stepper<'a> {
    shelf: &'a Shelf,
    execution: Uuid,
    file: Box<dyn FileOut>,
    /// What the archive will take at most; no step goes beyond it without need.
    most: Bytes,
    reserved: Bytes,
    written: Bytes,
}

impl Stepper<'_> {
    fn reserve(&mut self, end: Bytes) -> Result<(), NoRoom> {
        let needed = end.on_disk().minus(self.reserved);
        let step = STEP.min(self.most.on_disk().minus(self.reserved)).max(needed);
        self.shelf.make_room(Wish::Archive(step), |state| {
            if let Some(packing) = state.packing.get_mut(&self.execution) {
                packing.reserved = packing.reserved.plus(step);
            }
        })?;
        self.reserved = self.reserved.plus(step);
        Ok(())
    }
}

impl Write for Stepper<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let end = self.written.plus(Bytes(bytes.len() as u64));
        if end > self.reserved {
            self.reserve(end).map_err(io::Error::other)?;
        }
        let n = self.file.write(bytes)?;
        self.written = self.written.plus(Bytes(n as u64));
        if let Some(packing) = self.shelf.state().packing.get_mut(&self.execution) {
            packing.written = self.written;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
