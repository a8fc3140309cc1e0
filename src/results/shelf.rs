//! The shelf: the one owner of the results directory, of the quota, and of the ledger's rows once they are confirmed.
//!
//! Locks: `room` is held by whoever makes room or changes a row, also while the ledger is written; `state` only for
//! moments, never over I/O. `room` is taken before `state`, `turn` only to wait for `room`. Methods that say "blocking"
//! may wait for `room` and for the ledger: they are not for the core thread.

use std::fs::File;
use std::io;
use std::ops::Bound;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::OFlags;
use tokio::sync::Notify;

use super::disk::Watch;
use super::error::{Missing, Refusal};
use super::lease::ReadLease;
use super::policy::{self, Pick, Policy};
use super::state::{Gone, Phase, State, execution_id};
use crate::archive::PackOptions;
use crate::model::{
    Bytes, Deletion, DeletionReason, EvictFirst, ExecutionId, Pin, ResultEntry, ResultStatus, Timestamp,
};
use crate::store::{ExecutionStore, StoreError};
use crate::sys::{Clock, DiskProbe, Doubt, Files, Space};

/// Rows of deleted results that are kept so that it can be said that and why they went. The oldest are forgotten
/// first; then the execution looks as if it had no result.
pub const TOMBSTONES_MAX: usize = 1000;

/// How many results [`Df::next`] names.
pub const NEXT_SHOWN: usize = 10;

/// What the names of archives end with, behind the execution's id.
pub const SUFFIX: &str = ".tar.gz";
/// The same while one is written.
pub const PARTIAL_SUFFIX: &str = ".tar.gz.partial";

/// How the shelf is set up.
#[derive(Debug, Clone)]
pub struct ShelfSettings {
    /// Where the archives are.
    pub dir: PathBuf,
    /// `Results.Quota`: results, scratch directories and cache together.
    pub quota: Bytes,
    /// `Results.MinFree`: what the file system keeps free.
    pub min_free: Bytes,
    /// `Results.Retention`: for results whose job says nothing; 0 is for ever.
    pub retention: Duration,
    /// `Results.MaxCount`; with 0 nothing can be published.
    pub max_count: u32,
    /// `Results.MaxSize`: most that archives take together; the greatest number is no limit but the quota.
    pub max_size: Bytes,
    /// `Results.EvictFirst`.
    pub evict_first: EvictFirst,
    /// How archives are made.
    pub pack: PackOptions,
}

/// Where the bytes are, and what goes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Df {
    /// `Results.Quota`.
    pub quota: Bytes,
    /// What archives take, also those in the making.
    pub results: Bytes,
    /// What running executions may write.
    pub scratch: Bytes,
    /// What the cache takes.
    pub cache: Bytes,
    /// What the databases and their reserve take.
    pub beside: Bytes,
    /// Of all this, what was promised and is not yet written.
    pub reserved: Bytes,
    /// What is left of the quota.
    pub free: Bytes,
    /// `Results.MinFree`.
    pub min_free: Bytes,
    /// The file system; None if it does not answer.
    pub space: Option<Space>,
    /// How many results there are.
    pub count: u32,
    /// `Results.MaxCount`.
    pub max_count: u32,
    /// `Results.MaxSize`, if there is such a limit.
    pub max_size: Option<Bytes>,
    /// What went since the start, by reason.
    pub gone: Vec<(DeletionReason, Gone)>,
    /// Why nothing is deleted by age now, if so.
    pub doubt: Option<Doubt>,
    /// What goes next and why: what is due now, then what goes first when room is needed.
    pub next: Vec<Deletion>,
}

/// A result that is no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Went {
    /// When, by the wall clock of that time.
    pub at: Timestamp,
    /// What, and why.
    pub deletion: Deletion,
}

/// An archive that is being read.
#[derive(Debug)]
pub struct OpenResult {
    /// Its bytes.
    pub file: File,
    /// Its row.
    pub entry: ResultEntry,
    /// While this lives, the result stays.
    pub lease: ReadLease,
}

type Listener = Arc<dyn Fn(&Deletion) + Send + Sync>;

/// See the module's text.
pub struct Shelf {
    pub(super) settings: ShelfSettings,
    pub(super) files: Arc<dyn Files>,
    pub(super) executions: ExecutionStore,
    pub(super) disk: Arc<dyn DiskProbe>,
    pub(super) clock: Arc<dyn Clock>,
    state: Mutex<State>,
    room: Mutex<()>,
    turn: Mutex<()>,
    changed: Notify,
    listeners: Mutex<Vec<Listener>>,
    pub(super) watch: Watch,
}

/// Nothing that is done under these locks can panic half way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shelf {
    pub(super) fn over(
        settings: ShelfSettings,
        files: Arc<dyn Files>,
        executions: ExecutionStore,
        disk: Arc<dyn DiskProbe>,
        clock: Arc<dyn Clock>,
        state: State,
    ) -> Self {
        Self {
            settings,
            files,
            executions,
            disk,
            clock,
            state: Mutex::new(state),
            room: Mutex::default(),
            turn: Mutex::default(),
            changed: Notify::new(),
            listeners: Mutex::default(),
            watch: Watch::default(),
        }
    }

    /// The file layer beneath, which scratch directories share.
    #[must_use]
    pub fn files(&self) -> Arc<dyn Files> {
        Arc::clone(&self.files)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The same, with what databases and reserve take by now.
    pub(super) fn whole_state(&self) -> MutexGuard<'_, State> {
        let beside = self.taken_beside();
        let mut state = self.state();
        state.beside = beside;
        state
    }

    /// Whoever waits for it gets it before those who come later, so that deleting much in steps keeps nobody out.
    pub(super) fn room(&self) -> MutexGuard<'_, ()> {
        let _turn = lock(&self.turn);
        lock(&self.room)
    }

    /// Waits until something was stored or its pin was changed: [`Shelf::next_expiry`] may be another then. For one
    /// who waits; what changed before is told once.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    pub(super) fn tell_of_change(&self) {
        self.changed.notify_one();
    }

    pub(super) fn policy(&self) -> Policy {
        let ShelfSettings { retention, max_count, evict_first, .. } = self.settings;
        Policy { retention, max_count, evict_first }
    }

    /// The time, if it is to be believed.
    pub(super) fn trusted_now(&self) -> Option<Timestamp> {
        self.clock.is_trusted().then(|| self.clock.now())
    }

    /// Where an execution's archive is, or would be.
    pub(super) fn path(&self, id: &ExecutionId) -> PathBuf {
        self.settings.dir.join(format!("{id}{SUFFIX}"))
    }

    /// Calls `listener` after each deletion, on the thread that deletes. It must not call the shelf back.
    pub fn on_deleted(&self, listener: Box<dyn Fn(&Deletion) + Send + Sync>) {
        lock(&self.listeners).push(Arc::from(listener));
    }

    pub(super) fn tell(&self, deletion: &Deletion) {
        let listeners = lock(&self.listeners).clone();
        for listener in listeners {
            listener(deletion);
        }
    }

    /// Opens an archive for reading.
    ///
    /// # Errors
    /// There is none (any more), or it cannot be read.
    pub fn open_result(self: &Arc<Self>, id: &ExecutionId) -> Result<OpenResult, Missing> {
        let lease = ReadLease::take(self, id.uuid()).ok_or_else(|| self.why_missing(id))?;
        let entry = self.executions.result(id)?.filter(ResultEntry::is_stored).ok_or(Missing::Never)?;
        let path = self.path(id);
        let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::CLOEXEC).bits()).unwrap_or(0);
        let opened = File::options().read(true).custom_flags(flags).open(&path).and_then(|file| {
            let size = file.metadata()?.len();
            if size == entry.size.0 { Ok(file) } else { Err(io::ErrorKind::InvalidData.into()) }
        });
        match opened {
            Ok(file) => Ok(OpenResult { file, entry, lease }),
            Err(source) => Err(Missing::File { path, source }),
        }
    }

    fn why_missing(&self, id: &ExecutionId) -> Missing {
        match self.executions.result(id) {
            Ok(Some(ResultEntry { status: ResultStatus::Deleted { reason, at }, .. })) => {
                Missing::Deleted { reason, at }
            }
            Ok(_) => Missing::Never,
            Err(error) => error.into(),
        }
    }

    /// Every row of the ledger, also of results that have gone, newest first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn list(&self) -> Result<Vec<ResultEntry>, StoreError> {
        let mut rows = Vec::new();
        self.executions.ledger().each_result(&mut |entry| rows.push(entry))?;
        let state = self.state();
        for row in &mut rows {
            row.fetched |= state.slot(&row.execution_id.uuid()).is_some_and(|slot| slot.fetched);
        }
        drop(state);
        rows.sort_by(|a, b| (b.created, &b.execution_id).cmp(&(a.created, &a.execution_id)));
        Ok(rows)
    }

    /// The deletion before the one given, or the newest one.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn deleted_before(&self, place: Option<&Went>) -> Result<Option<Went>, StoreError> {
        let mut place = place.map(|went| (went.at, went.deletion.execution_id.uuid()));
        loop {
            let before = {
                let state = self.state();
                let end = place.map_or(Bound::Unbounded, Bound::Excluded);
                state.tombstones.range((Bound::Unbounded, end)).next_back().copied()
            };
            let Some((at, id)) = before else { return Ok(None) };
            place = before;
            // One that has just been forgotten, or published again, is not in the ledger as deleted.
            if let Some(ResultEntry { execution_id, job_id, size, status, .. }) =
                self.executions.result(&execution_id(&id))?
                && let ResultStatus::Deleted { reason, .. } = status
            {
                return Ok(Some(Went { at, deletion: Deletion { execution_id, job_id, size, reason } }));
            }
        }
    }

    /// The row of one result, also if it has gone.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub fn entry(&self, id: &ExecutionId) -> Result<Option<ResultEntry>, StoreError> {
        let mut row = self.executions.result(id)?;
        if let Some(row) = &mut row {
            row.fetched |= self.state().slot(&id.uuid()).is_some_and(|slot| slot.fetched);
        }
        Ok(row)
    }

    /// `Results.Quota`.
    #[must_use]
    pub fn quota(&self) -> Bytes {
        self.settings.quota
    }

    /// Where the bytes are, and what goes next.
    #[must_use]
    pub fn df(&self) -> Df {
        let (now, jumps) = (self.trusted_now(), self.clock.jumps());
        let state = self.whole_state();
        let next = policy::next(&state.items(jumps), &self.policy(), now, NEXT_SHOWN);
        let next = next.iter().filter_map(|pick| deletion(&state, pick)).collect();
        drop(state);
        Df { next, ..self.room_taken() }
    }

    /// The same without what goes next, which is what takes time.
    #[must_use]
    pub fn room_taken(&self) -> Df {
        let space = self.disk.space().ok();
        let state = self.whole_state();
        Df {
            quota: self.settings.quota,
            results: state.results(),
            scratch: state.scratch(),
            cache: state.cache,
            beside: state.beside,
            reserved: state.unwritten(),
            free: self.settings.quota.minus(state.used()),
            min_free: self.settings.min_free,
            space,
            count: u32::try_from(state.slots().len()).unwrap_or(u32::MAX),
            max_count: self.settings.max_count,
            max_size: Some(self.settings.max_size).filter(|size| *size != Bytes(u64::MAX)),
            gone: state.gone.iter().map(|(reason, gone)| (*reason, *gone)).collect(),
            doubt: self.clock.doubt(),
            next: Vec::new(),
        }
    }

    /// Keeps a result until the pin ends. Blocking.
    ///
    /// # Errors
    /// It is not there, or the ledger cannot be written.
    pub fn pin(&self, id: &ExecutionId, pin: Pin) -> Result<ResultEntry, Refusal> {
        self.set_pin(id, Some(pin))
    }

    /// Lets a result go when its time comes. Blocking.
    ///
    /// # Errors
    /// It is not there, or the ledger cannot be written.
    pub fn unpin(&self, id: &ExecutionId) -> Result<ResultEntry, Refusal> {
        self.set_pin(id, None)
    }

    fn set_pin(&self, id: &ExecutionId, pin: Option<Pin>) -> Result<ResultEntry, Refusal> {
        let _room = self.room();
        if self.state().slot(&id.uuid()).is_none_or(|slot| slot.phase != Phase::Stored) {
            return Err(self.why_missing(id).into());
        }
        let mut entry = self.executions.result(id).map_err(Missing::from)?.ok_or(Missing::Never)?;
        entry.pin = pin;
        let mut change = self.executions.change();
        change.put_result(&entry);
        self.notes(&mut change);
        self.executions.write(change).wait().map_err(Missing::from)?;
        // Nothing was deleted meanwhile: `room` is held.
        if let Some(slot) = self.state().slot_mut(&id.uuid()) {
            slot.pin = pin;
        }
        self.tell_of_change();
        Ok(entry)
    }

    /// Deletes a result because a user wants that. Blocking.
    ///
    /// # Errors
    /// It is not there, pinned or being read, or cannot be deleted.
    pub fn remove(&self, id: &ExecutionId) -> Result<Deletion, Refusal> {
        let room = self.room();
        let execution = id.uuid();
        let pick = {
            let now = self.clock.now();
            let mut state = self.state();
            match state.slot_mut(&execution) {
                Some(slot) if slot.phase == Phase::Stored => {
                    if slot.readers > 0 {
                        return Err(Refusal::InUse);
                    }
                    if slot.pin.is_some_and(|pin| pin.until.is_none_or(|until| until > now)) {
                        return Err(Refusal::Pinned);
                    }
                    slot.phase = Phase::Leaving;
                    Pick { execution, size: slot.size.on_disk(), reason: DeletionReason::Removed }
                }
                _ => {
                    drop(state);
                    return Err(self.why_missing(id).into());
                }
            }
        };
        let gone = self.delete(&room, &[pick])?;
        gone.into_iter().next().ok_or_else(|| Missing::Never.into())
    }
}

/// A pick as others see it.
pub(super) fn deletion(state: &State, pick: &Pick) -> Option<Deletion> {
    let slot = state.slot(&pick.execution)?;
    Some(Deletion {
        execution_id: execution_id(&pick.execution),
        job_id: slot.job_id(),
        size: slot.size,
        reason: pick.reason,
    })
}

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shelf").field("settings", &self.settings).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::{Duration, Instant};

    use crate::results::tests::Bench;

    #[test]
    fn who_waits_for_room_gets_it_before_who_comes_back_for_more() {
        let bench = Bench::new(1 << 20);
        let (shelf, order) = (&bench.shelf, Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            let room = shelf.room();
            scope.spawn(|| {
                let _room = shelf.room();
                order.lock().unwrap().push("who waited");
            });
            let patience = Instant::now() + Duration::from_secs(10);
            while shelf.turn.try_lock().is_ok() && Instant::now() < patience {
                std::thread::yield_now();
            }
            drop(room);
            let _room = shelf.room();
            order.lock().unwrap().push("who came back");
        });
        assert_eq!(order.into_inner().unwrap(), ["who waited", "who came back"]);
    }
}
