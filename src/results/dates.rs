//! Ages that can be believed: what becomes of the dates of results when the clock was set.
//!
//! A result that was published since the node started has the age that was witnessed, whatever the wall clock did. One
//! from before has its date, unless that is of a clock that was not believed, or that nothing vouched for and that
//! then jumped: its age begins when a clock is believed.

use std::time::Duration;

use uuid::Uuid;

use super::error::NoRoom;
use super::room::RoomGuard;
use super::shelf::Shelf;
use super::state::{Phase, Slot, execution_id};
use crate::model::{Dating, ResultEntry, Timestamp};
use crate::store::ExecutionChange;
use crate::sys::{Clock, EARLIEST_BELIEVABLE};

/// Rows that are changed in one commit.
const CHUNK: usize = 64;

/// What a date that is made now is worth.
pub(super) fn dating(clock: &dyn Clock) -> Dating {
    if !clock.is_trusted() {
        Dating::Doubtful
    } else if clock.is_confirmed() {
        Dating::Sure
    } else {
        Dating::Plausible
    }
}

impl Slot {
    /// Whether its date says nothing, with a clock that has jumped so often.
    pub(super) fn is_undated(&self, jumps: u64) -> bool {
        self.dating == Dating::Doubtful || self.created < EARLIEST_BELIEVABLE || self.jumps != jumps
    }

    /// The date that it gets, if it needs one and can have one.
    fn new_date(&self, present: &Present) -> Option<(Timestamp, Dating)> {
        let jumped = self.jumps != present.jumps;
        let undated = self.is_undated(self.jumps);
        match self.published {
            // Witnessed: a date can be told even if nobody knows what year it is.
            Some(at) if jumped || (undated && present.dating != Dating::Doubtful) => {
                let age = present.uptime.saturating_sub(at);
                let age = i64::try_from(age.as_nanos()).unwrap_or(i64::MAX);
                Some((Timestamp(present.now.0.saturating_sub(age)), present.dating))
            }
            Some(_) => None,
            None if undated && present.dating != Dating::Doubtful => Some((present.now, present.dating)),
            None if jumped && self.dating == Dating::Plausible => Some((self.created, Dating::Doubtful)),
            None => jumped.then_some((self.created, self.dating)),
        }
    }
}

/// What there is to date by.
struct Present {
    now: Timestamp,
    uptime: Duration,
    jumps: u64,
    dating: Dating,
}

impl Shelf {
    /// Gives results whose dates say nothing others that do, as far as that can be done now. Those without any age get
    /// dates in their old order.
    pub(super) fn settle_dates(&self, _room: &RoomGuard<'_>) -> Result<(), NoRoom> {
        let clock = &*self.clock;
        // A doubtful date that jumped becomes one in one step, and gets a new one in the next.
        for _ in 0..2 {
            let (jumps, dating) = (clock.jumps(), dating(clock));
            let present = Present { now: clock.now(), uptime: clock.uptime(), jumps, dating };
            let mut dated: Vec<(Timestamp, Uuid, Timestamp, Dating)> = self
                .state()
                .slots()
                .filter(|(_, slot)| slot.phase == Phase::Stored)
                .filter_map(|(id, slot)| {
                    slot.new_date(&present).map(|(at, dating)| (slot.created, *id, at, dating))
                })
                .collect();
            dated.sort_unstable_by_key(|(old, id, ..)| (*old, *id));
            let mut before = i64::try_from(dated.len()).unwrap_or(i64::MAX);
            for (_, _, at, _) in dated.iter_mut().filter(|(.., at, _)| *at == present.now) {
                before -= 1;
                at.0 = at.0.saturating_sub(before.max(0));
            }
            for chunk in dated.chunks(CHUNK) {
                self.write_dates(chunk, jumps)?;
            }
        }
        Ok(())
    }

    fn write_dates(&self, chunk: &[(Timestamp, Uuid, Timestamp, Dating)], jumps: u64) -> Result<(), NoRoom> {
        let mut change = self.executions.change();
        for (_, id, created, dating) in chunk {
            let row: Option<ResultEntry> = self.executions.result(&execution_id(id))?;
            if let Some(mut row) = row.filter(|row| (row.created, row.dating) != (*created, *dating)) {
                (row.created, row.dating) = (*created, *dating);
                change.put_result(&row);
            }
        }
        if !change.is_empty() {
            self.notes(&mut change);
            self.executions.write_internal(change).wait()?;
        }
        let mut state = self.state();
        for (_, id, created, dating) in chunk {
            if let Some(slot) = state.slot_mut(id) {
                (slot.created, slot.dating, slot.jumps) = (*created, *dating, jumps);
            }
        }
        Ok(())
    }

    /// Adds to a change what may ride along with a commit that is made anyway: which results were fetched, and
    /// what is known of the time. Never blocks.
    pub fn notes(&self, change: &mut ExecutionChange) {
        if let Some(note) = self.clock.note() {
            change.put_clock_note(&note);
        }
        let mut state = self.state();
        for id in std::mem::take(&mut state.fetched) {
            if state.slot(&id).is_some_and(|slot| slot.phase != Phase::Leaving) {
                change.put_fetched(&execution_id(&id));
            }
        }
    }

    /// Somebody has downloaded a result to its end. Never blocks; it is written down with the next commit.
    pub fn note_fetched(&self, id: &crate::model::ExecutionId) {
        let id = id.uuid();
        let mut state = self.state();
        let new = state.slot_mut(&id).is_some_and(|slot| !std::mem::replace(&mut slot.fetched, true));
        if new {
            state.fetched.insert(id);
        }
    }
}
