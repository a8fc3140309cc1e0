//! Making room: the only place where results are deleted.

use std::sync::MutexGuard;

use uuid::Uuid;

use super::error::NoRoom;
use super::policy::{self, Need, Pick, Policy};
use super::shelf::{Shelf, ShelfSettings, TOMBSTONES_MAX, deletion};
use super::state::{Phase, Shortage, State, Wish, execution_id};
use crate::model::{Bytes, Deletion, DeletionReason, ResultEntry, ResultStatus, Timestamp};
use crate::store::ExecutionChange;

/// Rows that are changed in one commit.
const CHUNK: usize = 64;

/// Room is made at least this part of the quota at a time, and places this part of the count: a full shelf would pay
/// one more commit for each result that comes otherwise. Few results, or a small quota, are made room for one by one.
const ROOM_STEPS: u64 = 256;
const PLACE_STEPS: u32 = 32;

/// When to look again for expired results that somebody was reading.
const RECHECK: std::time::Duration = std::time::Duration::from_secs(60);

/// Less room than this is none: no execution can be given any (`Compute.JobDisk` begins there).
pub const ROOM_LEAST: Bytes = Bytes::mib(1);

/// What must be held to delete: nobody else makes room at the same time.
pub(super) type RoomGuard<'a> = MutexGuard<'a, ()>;

impl Shelf {
    /// Makes sure that there is room for what is wished for, deleting results if that helps, and lets `take` take it
    /// before anybody else can. Blocking.
    pub(super) fn make_room<T>(&self, wish: Wish, take: impl FnOnce(&mut State) -> T) -> Result<T, NoRoom> {
        let room = self.room();
        // Some file systems show late what was freed. It counts at once, for this call.
        let mut freed = Bytes::ZERO;
        let mut first = None;
        let mut settled = false;
        loop {
            let seen = self.disk.space().map_err(NoRoom::Probe)?.free;
            let free = seen.max(first.get_or_insert(seen).plus(freed));
            let now = self.trusted_now();
            let jumps = self.clock.jumps();
            let victims = {
                let mut state = self.whole_state();
                let shortage = self.shortage(&state, wish, free);
                let places = wish.places();
                let crowded = state.count() + places as usize > self.settings.max_count as usize;
                if shortage.worst() == Bytes::ZERO && (places == 0 || !crowded) {
                    return Ok(take(&mut state));
                }
                if !settled {
                    // Something has to go: what has outlived its retention is told from what only seems so.
                    drop(state);
                    self.settle_dates(&room)?;
                    settled = true;
                    continue;
                }
                let items = state.items(jumps);
                let need = Need { room: shortage.worst(), places, reason: shortage.reason() };
                let mut plan = policy::plan(&items, &self.policy(), now, &self.in_steps(&need, crowded));
                if !plan.enough {
                    plan = policy::plan(&items, &self.policy(), now, &need);
                }
                if plan.deletions.is_empty() {
                    let deletable = policy::deletable(&items, now);
                    return Err(self.no_room(&state, wish.bytes(), shortage, deletable, free));
                }
                mark(&mut state, &plan.deletions);
                plan.deletions
            };
            let gone = self.delete(&room, &victims)?;
            freed = gone.iter().fold(freed, |sum, gone| sum.plus(gone.size.on_disk()));
        }
    }

    /// The need, made so large that what goes for it is worth the commit that says so.
    fn in_steps(&self, need: &Need, crowded: bool) -> Need {
        let room = match need.room {
            Bytes::ZERO => Bytes::ZERO,
            room => room.max(Bytes(self.settings.quota.0 / ROOM_STEPS)),
        };
        let places =
            if crowded { need.places.max(self.settings.max_count / PLACE_STEPS) } else { need.places };
        Need { room, places, ..*need }
    }

    /// What is missing. Nothing can be missing for nothing: who asks for a place only has written its bytes already.
    fn shortage(&self, state: &State, wish: Wish, free: Bytes) -> Shortage {
        if wish.bytes() == Bytes::ZERO {
            return Shortage::default();
        }
        state.shortage(wish, &self.settings, free)
    }

    fn no_room(
        &self,
        state: &State,
        asked: Bytes,
        shortage: Shortage,
        deletable: Bytes,
        free: Bytes,
    ) -> NoRoom {
        let (quota, min_free) = (self.settings.quota, self.settings.min_free);
        if shortage.worst() == Bytes::ZERO {
            return NoRoom::Count { limit: self.settings.max_count };
        }
        if shortage.reason() == DeletionReason::Size {
            let max_size = self.settings.max_size;
            let room = max_size.plus(deletable).minus(state.results());
            return NoRoom::Size { asked, room: room.min(max_size), max_size };
        }
        if shortage.quota >= shortage.disk {
            let room = quota.plus(deletable).minus(state.used());
            return NoRoom::Quota { asked, room: room.min(quota), quota, held: state.held() };
        }
        let room = free.plus(deletable).minus(state.unwritten().plus(min_free));
        NoRoom::Disk { asked, room, min_free }
    }

    /// All that could be made free now, deleting whatever may go: of what is allowed, and of the file system.
    pub(super) fn room_to_be_made(&self) -> Result<(Bytes, Bytes), NoRoom> {
        let free = self.disk.space().map_err(NoRoom::Probe)?.free;
        let (now, jumps) = (self.trusted_now(), self.clock.jumps());
        let state = self.whole_state();
        let deletable = policy::deletable(&state.items(jumps), now);
        let quota = self.settings.quota.plus(deletable).minus(state.used());
        let disk = free.plus(deletable).minus(state.unwritten().plus(self.settings.min_free));
        let size = self.settings.max_size.plus(deletable).minus(state.results()).min(self.settings.max_size);
        Ok((quota.min(size), disk))
    }

    /// Why there is no room left to work in, whatever is deleted for it; none if there is [`ROOM_LEAST`].
    #[must_use]
    pub fn no_room_left(&self) -> Option<NoRoom> {
        let free = match self.disk.space() {
            Ok(space) => space.free,
            Err(error) => return Some(NoRoom::Probe(error)),
        };
        let (now, jumps) = (self.trusted_now(), self.clock.jumps());
        let state = self.state();
        let shortage = self.shortage(&state, Wish::Scratch(ROOM_LEAST), free);
        let deletable = policy::deletable(&state.items(jumps), now);
        (shortage.worst() > deletable).then(|| self.no_room(&state, ROOM_LEAST, shortage, deletable, free))
    }

    /// Whether a place for one more result can be made.
    pub(super) fn check_place(&self) -> Result<(), NoRoom> {
        let need = Need { places: 1, ..Need::NONE };
        let items = self.state().items(self.clock.jumps());
        let plan = policy::plan(&items, &self.policy(), self.trusted_now(), &need);
        if plan.enough { Ok(()) } else { Err(NoRoom::Count { limit: self.settings.max_count }) }
    }

    /// Deletes what has outlived its retention. Does nothing while the clock is not to be believed. Blocking.
    ///
    /// # Errors
    /// The ledger or a file cannot be changed.
    pub fn expire(&self) -> Result<Vec<Deletion>, NoRoom> {
        let policy = Policy { max_count: u32::MAX, ..self.policy() };
        let mut gone = Vec::new();
        loop {
            // Given back after each step: others make room, pin and publish in between.
            let room = self.room();
            self.settle_dates(&room)?;
            let Some(now) = self.trusted_now() else { return Ok(gone) };
            let due = |items: &[policy::Item]| policy::plan(items, &policy, Some(now), &Need::NONE).deletions;
            let step = self.sweep_out(&room, due)?;
            if step.is_empty() {
                return Ok(gone);
            }
            gone.extend(step);
        }
    }

    /// When [`Shelf::expire`] has something to do next, if the clock is to be believed by then. None: never, as
    /// things are.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Timestamp> {
        let now = self.clock.now();
        let policy = self.policy();
        let due = |item: policy::Item| {
            let end = item.expires(&policy)?;
            let end = match item.pin {
                Some(pin) => end.max(pin.until?),
                None => end,
            };
            // Who reads it does not say when that ends.
            Some(if item.in_use { end.max(now.plus(RECHECK)) } else { end })
        };
        self.state().items(self.clock.jumps()).into_iter().filter_map(due).min()
    }

    /// Deletes what the policy does not keep: what has expired, what exceeds the count, the quota or the free space
    /// (after a setting was changed). Only answers what would go if `dry_run`. Blocking.
    ///
    /// # Errors
    /// The ledger or a file cannot be changed, or the file system does not answer.
    pub fn gc(&self, dry_run: bool) -> Result<Vec<Deletion>, NoRoom> {
        self.collect(self.settings.min_free, dry_run)
    }

    /// The same with so much free space to be had.
    pub(super) fn collect(&self, min_free: Bytes, dry_run: bool) -> Result<Vec<Deletion>, NoRoom> {
        let (mut gone, mut first) = (Vec::new(), None);
        loop {
            // Given back after each step: others make room, pin and publish in between.
            let room = self.room();
            self.settle_dates(&room)?;
            let seen = self.disk.space().map_err(NoRoom::Probe)?.free;
            // As in `make_room`: some file systems show late what was freed.
            let freed =
                gone.iter().fold(Bytes::ZERO, |sum: Bytes, gone: &Deletion| sum.plus(gone.size.on_disk()));
            let free = seen.max(first.get_or_insert(seen).plus(freed));
            let step =
                self.collect_some(&room, ShelfSettings { min_free, ..self.settings.clone() }, free, dry_run)?;
            let done = dry_run || step.is_empty();
            gone.extend(step);
            if done {
                return Ok(gone);
            }
        }
    }

    /// The next step of it, or what all steps would delete.
    fn collect_some(
        &self,
        room: &RoomGuard<'_>,
        settings: ShelfSettings,
        free: Bytes,
        dry_run: bool,
    ) -> Result<Vec<Deletion>, NoRoom> {
        let now = self.trusted_now();
        let shortage = self.whole_state().shortage(Wish::Nothing, &settings, free);
        let need = Need { room: shortage.worst(), places: 0, reason: shortage.reason() };
        let choose = |items: &[policy::Item]| {
            let mut plan = policy::plan(items, &self.policy(), now, &need);
            if !plan.enough {
                // Nothing is asked for here: as far as it goes is better than not at all.
                let most = policy::deletable(items, now).min(need.room);
                plan = policy::plan(items, &self.policy(), now, &Need { room: most, ..need });
            }
            plan.deletions
        };
        if dry_run {
            let jumps = self.clock.jumps();
            let state = self.state();
            return Ok(choose(&state.items(jumps))
                .iter()
                .filter_map(|pick| deletion(&state, pick))
                .collect());
        }
        self.sweep_out(room, choose)
    }

    /// Deletes the results that would go next, at most so many, because what is remembered with them takes too much of
    /// the quota. Blocking.
    ///
    /// # Errors
    /// The ledger or a file cannot be changed.
    pub fn give_up(&self, results: usize) -> Result<Vec<Deletion>, NoRoom> {
        let room = self.room();
        self.settle_dates(&room)?;
        let now = self.trusted_now();
        self.sweep_out(&room, |items| policy::next(items, &self.policy(), now, results))
    }

    /// Deletes what is chosen, as much of it as goes in one commit.
    fn sweep_out(
        &self,
        room: &RoomGuard<'_>,
        choose: impl FnOnce(&[policy::Item]) -> Vec<Pick>,
    ) -> Result<Vec<Deletion>, NoRoom> {
        let jumps = self.clock.jumps();
        let victims = {
            let mut state = self.state();
            let mut victims = choose(&state.items(jumps));
            victims.truncate(CHUNK);
            mark(&mut state, &victims);
            victims
        };
        self.delete(room, &victims)
    }

    /// Deletes results that were marked: row, then file, then word to the listeners.
    pub(super) fn delete(&self, _room: &RoomGuard<'_>, picks: &[Pick]) -> Result<Vec<Deletion>, NoRoom> {
        let mut gone = Vec::new();
        for (i, chunk) in picks.chunks(CHUNK).enumerate() {
            match self.delete_chunk(chunk) {
                Ok(deletions) => gone.extend(deletions),
                Err(error) => {
                    let rest = picks.get((i + 1) * CHUNK..).unwrap_or_default();
                    self.unmark(rest);
                    return Err(error);
                }
            }
        }
        Ok(gone)
    }

    fn delete_chunk(&self, picks: &[Pick]) -> Result<Vec<Deletion>, NoRoom> {
        let at = self.clock.now();
        let forgotten = self.state().oldest_tombstones(picks.len(), TOMBSTONES_MAX);
        let written = self.rows_of_deleted(picks, &forgotten, at).and_then(|mut change| {
            self.notes(&mut change);
            self.executions.write_internal(change).wait()?;
            Ok(())
        });
        if let Err(error) = written {
            self.unmark(picks);
            return Err(error);
        }
        {
            let mut state = self.state();
            for row in &forgotten {
                state.tombstones.remove(row);
            }
            state.tombstones.extend(picks.iter().map(|pick| (at, pick.execution)));
        }
        let mut gone = Vec::new();
        for pick in picks {
            let path = self.path(&execution_id(&pick.execution));
            match self.files.remove(&path) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    // It stays marked and counted; the next start tries again.
                    return Err(NoRoom::Delete { path, source });
                }
                _ => {}
            }
            let deletion = {
                let mut state = self.state();
                let deletion = deletion(&state, pick);
                state.remove(&pick.execution);
                let gone = state.gone.entry(pick.reason).or_default();
                gone.count += 1;
                gone.bytes = gone.bytes.plus(pick.size);
                deletion
            };
            if let Some(deletion) = deletion {
                log::info!(target: "results", "deleted the result of {}: {}", deletion.execution_id, deletion.reason);
                self.tell(&deletion);
                gone.push(deletion);
            }
        }
        Ok(gone)
    }

    fn rows_of_deleted(
        &self,
        picks: &[Pick],
        forgotten: &[(Timestamp, Uuid)],
        at: Timestamp,
    ) -> Result<ExecutionChange, NoRoom> {
        let mut change = self.executions.change();
        for pick in picks {
            let row: Option<ResultEntry> = self.executions.result(&execution_id(&pick.execution))?;
            if let Some(mut entry) = row {
                entry.status = ResultStatus::Deleted { reason: pick.reason, at };
                change.put_result(&entry);
            }
        }
        for (_, execution) in forgotten {
            change.delete_result(&execution_id(execution));
        }
        Ok(change)
    }

    /// Takes back what was marked and not deleted.
    fn unmark(&self, picks: &[Pick]) {
        let mut state = self.state();
        for pick in picks {
            if let Some(slot) = state.slot_mut(&pick.execution) {
                slot.phase = Phase::Stored;
            }
        }
    }
}

/// From now on nobody can begin to read them.
fn mark(state: &mut State, picks: &[Pick]) {
    for pick in picks {
        if let Some(slot) = state.slot_mut(&pick.execution) {
            slot.phase = Phase::Leaving;
        }
    }
}

impl Shortage {
    pub(super) fn worst(self) -> Bytes {
        self.quota.max(self.disk).max(self.size)
    }

    pub(super) fn reason(self) -> DeletionReason {
        if self.size > self.quota.max(self.disk) {
            return DeletionReason::Size;
        }
        if self.quota >= self.disk { DeletionReason::Quota } else { DeletionReason::MinFree }
    }
}
