//! Ages when the clock is set: nothing vanishes at a jump, and nothing stays for ever because of one.

use super::*;
use crate::model::{ClockNote, Dating};
use crate::sys::judge::{FakeTimes, JudgedClock, SYNC_FOR};
use crate::sys::{Clock, Doubt};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const YEAR: Duration = Duration::from_secs(365 * 86_400);
/// An hour from which nobody would think that something is wrong.
const NOW: Timestamp = Timestamp(EARLIEST_BELIEVABLE.0 + 400 * 86_400 * 1_000_000_000);

/// A shelf that keeps results for an hour, with a clock that is judged.
struct Board {
    scratch: Scratch,
    stores: Stores,
    times: FakeTimes,
}

impl Board {
    fn at(wall: Timestamp) -> Self {
        let stores = store::open(&StoreSettings::memory()).unwrap();
        Self { scratch: Scratch::new(), stores, times: FakeTimes::at(wall) }
    }

    /// Starts the node: what the last run noted of the time is known.
    fn start(&self) -> Run<'_> {
        let settings = ShelfSettings { retention: HOUR, ..settings(&self.scratch, 64 << 20) };
        let note = self.stores.executions.clock_note().unwrap().unwrap_or_default();
        let clock = Arc::new(JudgedClock::new(self.times.hand(), note));
        let disk = Arc::new(FixedDisk::new(Bytes::gib(100), Bytes::gib(100)));
        let executions = self.stores.executions.clone();
        let (shelf, report) = Shelf::open(settings, executions, disk, Arc::clone(&clock) as _).unwrap();
        assert_eq!(report.evicted, []);
        Run { board: self, clock, shelf }
    }
}

struct Run<'a> {
    board: &'a Board,
    clock: Arc<JudgedClock<FakeTimes>>,
    shelf: Arc<Shelf>,
}

impl Run<'_> {
    fn publish(&self) -> ExecutionId {
        let (id, job) = (ExecutionId::random(), JobId::random());
        self.board.scratch.write(format!("{id}/stdout"), "hello");
        let dir = self.board.scratch.path().join(id.as_str());
        let entry = self.shelf.publish(&id, &job, &dir, None, &Interrupt::new()).unwrap().entry;
        let mut change = self.board.stores.executions.change();
        change.put_result(&entry);
        self.shelf.notes(&mut change);
        self.board.stores.executions.write(change).wait().unwrap();
        self.shelf.confirm(&entry);
        id
    }

    /// Lets time pass in steps, with the janitor at work; answers what went.
    fn pass(&self, time: Duration) -> Vec<ExecutionId> {
        let mut gone = Vec::new();
        for _ in 0..60 {
            self.board.times.pass(time / 60);
            gone.extend(self.shelf.expire().unwrap().into_iter().map(|deletion| deletion.execution_id));
        }
        gone
    }

    fn set(&self, wall: Timestamp) -> Vec<Deletion> {
        self.board.times.set(wall);
        let mut gone = self.shelf.gc(true).unwrap();
        gone.extend(self.shelf.expire().unwrap());
        gone
    }

    fn dating(&self, id: &ExecutionId) -> Dating {
        self.shelf.entry(id).unwrap().unwrap().dating
    }
}

#[test]
fn a_jump_ahead_by_years_costs_nothing_and_ages_go_on() {
    let board = Board::at(NOW);
    let run = board.start();
    let id = run.publish();
    assert_eq!(run.pass(HOUR / 2), []);
    assert_eq!(run.set(NOW.plus(10 * YEAR)), []);
    assert_eq!(run.shelf.df().doubt, Some(Doubt::Ahead));
    // A full shelf would not take it for an expired one either.
    board.times.synchronise(true);
    assert_eq!(run.pass(SYNC_FOR), [], "not believed yet");
    let run_on = run.pass(SYNC_FOR);
    assert_eq!((run_on, run.shelf.df().doubt), (vec![], None), "believed, and 50 minutes old");
    assert_eq!(run.pass(HOUR / 4), [id], "it was there for an hour and a little");
}

#[test]
fn a_clock_that_goes_back_does_not_keep_results_for_years() {
    let board = Board::at(NOW.plus(10 * YEAR));
    let run = board.start();
    let id = run.publish();
    assert_eq!(run.set(NOW), []);
    board.times.synchronise(true);
    assert_eq!(run.pass(HOUR * 9 / 10), []);
    assert_eq!(run.pass(HOUR / 4), [id]);
}

#[test]
fn a_board_that_starts_in_1970_keeps_results_until_their_hour_is_over() {
    let board = Board::at(Timestamp(60_000_000_000));
    let run = board.start();
    let id = run.publish();
    assert_eq!(run.dating(&id), Dating::Doubtful);
    assert_eq!(run.pass(3 * HOUR), [], "nobody knows what time it is");
    drop(run);
    // The next start is in 1970 again; then the clock is set.
    board.times.set(Timestamp(60_000_000_000));
    let run = board.start();
    assert_eq!(run.pass(HOUR), []);
    assert_eq!(run.set(NOW), []);
    board.times.synchronise(true);
    assert_eq!(run.pass(SYNC_FOR + Duration::from_secs(60)), []);
    assert_eq!(run.dating(&id), Dating::Sure);
    assert_eq!(run.pass(HOUR * 9 / 10), [], "its age began when the clock was believed");
    assert_eq!(run.pass(HOUR / 4), [id]);
}

#[test]
fn what_a_clock_without_a_witness_dated_is_dated_anew_when_it_turns_out_wrong() {
    // A board without a clock battery starts at the date on which its system was built: plausible, and wrong.
    let board = Board::at(NOW);
    let run = board.start();
    let id = run.publish();
    assert_eq!(run.dating(&id), Dating::Plausible);
    drop(run);
    board.times.pass(Duration::from_secs(5));
    board.times.set(NOW.plus(YEAR));
    let run = board.start();
    assert_eq!(run.shelf.df().doubt, Some(Doubt::Gap));
    assert_eq!(run.pass(HOUR), [], "held");
    board.times.synchronise(true);
    assert_eq!(run.pass(SYNC_FOR + Duration::from_secs(60)), []);
    assert_eq!(run.pass(2 * HOUR), [id]);
}

#[test]
fn what_a_synchronised_clock_dated_is_as_old_as_it_is() {
    let board = Board::at(NOW);
    board.times.synchronise(true);
    let run = board.start();
    let id = run.publish();
    assert_eq!(run.dating(&id), Dating::Sure);
    drop(run);
    // Off for three days. No reason to doubt the date, but the new time waits for its confirmation.
    board.times.set(NOW.plus(3 * DAY));
    let run = board.start();
    assert_eq!(run.set(NOW.plus(3 * DAY)), []);
    assert_eq!(run.pass(SYNC_FOR + Duration::from_secs(60)), [id]);
}

#[test]
fn a_start_earlier_than_the_last_known_time_deletes_nothing() {
    let board = Board::at(NOW);
    board.times.synchronise(true);
    let run = board.start();
    run.publish();
    run.pass(HOUR / 2);
    let mut change = board.stores.executions.change();
    run.shelf.notes(&mut change);
    board.stores.executions.write(change).wait().unwrap();
    drop(run);
    let note: ClockNote = board.stores.executions.clock_note().unwrap().unwrap();
    assert!(note.last >= NOW.plus(HOUR / 3));
    board.times.synchronise(false);
    board.times.set(Timestamp(NOW.0 - 86_400_000_000_000));
    let run = board.start();
    assert_eq!(run.shelf.df().doubt, Some(Doubt::Earlier));
    let late = run.publish();
    assert_eq!(run.dating(&late), Dating::Doubtful);
    assert_eq!(run.pass(HOUR * 3), []);
    assert!(!run.clock.is_trusted());
}
