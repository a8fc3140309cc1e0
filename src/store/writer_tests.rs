//! The writer: what shares a commit, in which order, and what becomes of it when things go wrong.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::backend::{Backend, Change, Durability, Visit};
use super::writer::{Mode, QUEUE_MAX, QUEUE_MAX_BYTES, Ticket, Writer};
use super::{MemoryBackend, StoreError};

/// A database in memory whose commits wait to be let through, and can be made to fail.
struct Gate {
    db: MemoryBackend,
    /// Says that a commit has begun.
    begun: Mutex<Sender<()>>,
    /// What is to become of it; let through if nobody is there to say.
    orders: Mutex<Receiver<Order>>,
    commits: Mutex<Vec<(usize, Durability)>>,
}

enum Order {
    Pass,
    Fail,
    Panic,
}

impl Backend for Gate {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.db.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], reverse: bool, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.db.scan(from, to, reverse, visit)
    }

    fn commit(&self, changes: &[Change], durability: Durability) -> Result<(), StoreError> {
        let _ = self.begun.lock().unwrap().send(());
        let order = self.orders.lock().unwrap().recv();
        match order.unwrap_or(Order::Pass) {
            Order::Pass => {}
            Order::Fail => return Err(StoreError::Corrupt { what: "the gate".into(), cause: None }),
            Order::Panic => panic!("the gate fell"),
        }
        self.commits.lock().unwrap().push((changes.len(), durability));
        self.db.commit(changes, durability)
    }

    fn close(&self) -> Result<(), StoreError> {
        self.db.close()
    }
}

/// A writer over two gates.
struct Rig {
    writer: Writer,
    thread: std::thread::JoinHandle<Result<(), StoreError>>,
    gates: [Arc<Gate>; 2],
    begun: [Receiver<()>; 2],
    orders: [Sender<Order>; 2],
}

fn rig(flush_after: Duration) -> Rig {
    let make = || {
        let (begun, has_begun) = channel();
        let (order, orders) = channel();
        let gate = Gate {
            db: MemoryBackend::new(),
            begun: Mutex::new(begun),
            orders: Mutex::new(orders),
            commits: Mutex::default(),
        };
        (Arc::new(gate), has_begun, order)
    };
    let ((a, begun_a, order_a), (b, begun_b, order_b)) = (make(), make());
    let gates = [a, b];
    let databases = gates.iter().map(|gate| Arc::clone(gate) as Arc<dyn Backend>).collect();
    let (writer, thread) = Writer::start(databases, flush_after).unwrap();
    Rig { writer, thread, gates, begun: [begun_a, begun_b], orders: [order_a, order_b] }
}

const HOUR: Duration = Duration::from_secs(3600);

fn put(key: &str, value: &str) -> Vec<Change> {
    vec![Change::Put(key.into(), value.into())]
}

impl Rig {
    fn submit(&self, database: usize, mode: Mode) -> Ticket {
        self.writer.submit(database, put("k", "v"), mode)
    }

    /// Has the writer busy with a commit of the first database.
    fn occupy(&self) -> Ticket {
        let ticket = self.submit(0, Mode::Inside);
        self.begun[0].recv().unwrap();
        ticket
    }

    /// Lets through this commit and all that follow.
    fn open(self) -> (Writer, std::thread::JoinHandle<Result<(), StoreError>>, [Arc<Gate>; 2]) {
        drop(self.orders);
        (self.writer, self.thread, self.gates)
    }
}

fn commits(gate: &Gate) -> Vec<(usize, Durability)> {
    gate.commits.lock().unwrap().clone()
}

#[test]
fn what_waits_shares_one_commit_for_each_database_and_keeps_its_order() {
    let rig = rig(HOUR);
    let first = rig.occupy();
    let mut tickets = vec![first];
    for n in 0..100 {
        let mode = if n == 50 { Mode::Outside } else { Mode::Lazy };
        tickets.push(rig.writer.submit(0, put("k", &n.to_string()), mode));
    }
    tickets.push(rig.submit(1, Mode::Lazy));
    let (writer, thread, gates) = rig.open();
    tickets.into_iter().for_each(|ticket| ticket.wait().unwrap());
    assert_eq!(commits(&gates[0]), [(1, Durability::Durable), (100, Durability::Durable)]);
    assert_eq!(commits(&gates[1]), [(1, Durability::Lazy)]);
    assert_eq!(gates[0].get(b"k").unwrap().unwrap(), b"99");
    let stats = writer.stats();
    assert_eq!((stats.commits, stats.lazy_commits, stats.waiting), (2, 1, 0));
    writer.close();
    thread.join().unwrap().unwrap();
    assert_eq!(commits(&gates[1]), [(1, Durability::Lazy), (0, Durability::Durable)]);
}

#[test]
fn a_full_queue_refuses_those_outside_and_nobody_else() {
    let rig = rig(HOUR);
    let mut tickets = vec![rig.occupy()];
    tickets.extend((0..QUEUE_MAX).map(|n| rig.submit(n % 2, Mode::Outside)));
    assert!(matches!(rig.submit(0, Mode::Outside).wait(), Err(StoreError::Busy)));
    assert!(matches!(rig.submit(1, Mode::Outside).wait(), Err(StoreError::Busy)));
    assert_eq!(rig.writer.stats().waiting, QUEUE_MAX as u64);
    tickets.extend([Mode::Inside, Mode::Lazy, Mode::Soon].map(|mode| rig.submit(0, mode)));
    let (writer, thread, gates) = rig.open();
    tickets.into_iter().for_each(|ticket| ticket.wait().unwrap());
    assert_eq!(commits(&gates[0])[1].0, QUEUE_MAX / 2 + 3);
    writer.submit(0, put("k", "v"), Mode::Outside).wait().unwrap();
    writer.close();
    thread.join().unwrap().unwrap();
}

#[test]
fn bytes_that_wait_are_bounded_too() {
    let rig = rig(HOUR);
    let mut tickets = vec![rig.occupy()];
    let half = "x".repeat(usize::try_from(QUEUE_MAX_BYTES / 2).unwrap());
    // One that is too large by itself gets its turn when nothing else waits.
    tickets.push(rig.writer.submit(0, put("huge", &half.repeat(3)), Mode::Outside));
    assert!(matches!(rig.writer.submit(0, put("k", "v"), Mode::Outside).wait(), Err(StoreError::Busy)));
    tickets.push(rig.writer.submit(0, put("k", &half), Mode::Inside));
    let (writer, thread, _) = rig.open();
    tickets.into_iter().for_each(|ticket| ticket.wait().unwrap());
    writer.submit(0, put("k", &half), Mode::Outside).wait().unwrap();
    writer.close();
    thread.join().unwrap().unwrap();
}

#[test]
fn a_commit_that_fails_answers_everybody_and_the_next_one_works() {
    let rig = rig(HOUR);
    for (order, panics) in [(Order::Fail, false), (Order::Panic, true)] {
        let first = rig.occupy();
        let others: Vec<Ticket> = [Mode::Outside, Mode::Inside].map(|mode| rig.submit(0, mode)).into();
        let elsewhere = rig.submit(1, Mode::Outside);
        rig.orders[0].send(Order::Pass).unwrap();
        first.wait().unwrap();
        rig.begun[0].recv().unwrap();
        rig.orders[0].send(order).unwrap();
        rig.orders[1].send(Order::Pass).unwrap();
        for ticket in others {
            let error = ticket.wait().unwrap_err();
            assert_eq!(matches!(&error, StoreError::Panicked { what } if what == "the gate fell"), panics);
            assert_eq!(matches!(error, StoreError::Corrupt { .. }), !panics);
        }
        elsewhere.wait().unwrap();
    }
    let (writer, thread, _) = rig.open();
    writer.submit(0, put("k", "v"), Mode::Outside).wait().unwrap();
    writer.close();
    thread.join().unwrap().unwrap();
}

#[test]
fn lazy_commits_become_durable_by_themselves() {
    let rig = rig(Duration::from_millis(1));
    let (writer, thread, gates) = rig.open();
    writer.submit(0, put("a", "1"), Mode::Lazy).wait().unwrap();
    assert_eq!(gates[0].get(b"a").unwrap().unwrap(), b"1");
    // Answered only when it, and so all before it, is durable; nothing durable is ever asked for here.
    writer.submit(0, put("a", "2"), Mode::Soon).wait().unwrap();
    let made = commits(&gates[0]);
    assert_eq!(made.last(), Some(&(0, Durability::Durable)));
    assert!(made.iter().filter(|(changes, _)| *changes > 0).all(|(_, how)| *how == Durability::Lazy));
    // Nothing is lazy any more: the close has nothing to do.
    writer.close();
    thread.join().unwrap().unwrap();
    assert_eq!(commits(&gates[0]).len(), made.len());
    assert_eq!(commits(&gates[1]), []);
}

#[test]
fn the_next_durable_commit_answers_those_that_waited_for_it() {
    let rig = rig(HOUR);
    let (writer, thread, gates) = rig.open();
    let soon = writer.submit(0, put("a", "1"), Mode::Soon);
    writer.submit(0, put("b", "1"), Mode::Lazy).wait().unwrap();
    writer.submit(0, put("c", "1"), Mode::Inside).wait().unwrap();
    soon.wait().unwrap();
    let late = writer.submit(0, put("d", "1"), Mode::Soon);
    writer.close();
    thread.join().unwrap().unwrap();
    late.wait().unwrap();
    let durable = |made: &[(usize, Durability)]| {
        made.iter().filter(|(_, durability)| *durability == Durability::Durable).count()
    };
    assert_eq!(durable(&commits(&gates[0])), 2);
}

#[test]
fn a_flush_that_fails_is_told_to_those_who_wait_for_it() {
    let rig = rig(Duration::ZERO);
    let soon = rig.submit(0, Mode::Soon);
    rig.begun[0].recv().unwrap();
    rig.orders[0].send(Order::Pass).unwrap();
    rig.begun[0].recv().unwrap();
    rig.orders[0].send(Order::Fail).unwrap();
    assert!(matches!(soon.wait(), Err(StoreError::Corrupt { .. })));
    let (writer, thread, _) = rig.open();
    writer.submit(0, put("k", "v"), Mode::Outside).wait().unwrap();
    writer.close();
    thread.join().unwrap().unwrap();
}

#[test]
fn a_closed_writer_commits_what_waits_and_refuses_more() {
    let rig = rig(HOUR);
    let mut tickets = vec![rig.occupy()];
    tickets.extend((0..10).map(|_| rig.submit(1, Mode::Outside)));
    rig.writer.close();
    assert!(matches!(rig.submit(0, Mode::Inside).wait(), Err(StoreError::Closed)));
    let (_, thread, gates) = rig.open();
    thread.join().unwrap().unwrap();
    tickets.into_iter().for_each(|ticket| ticket.wait().unwrap());
    assert_eq!(commits(&gates[1]), [(10, Durability::Durable)]);
}

#[test]
fn tickets_can_be_awaited() {
    let rig = rig(HOUR);
    let (writer, thread, _) = rig.open();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        writer.submit(0, put("k", "v"), Mode::Outside).await.unwrap();
        writer.close();
        assert!(matches!(writer.submit(0, put("k", "v"), Mode::Outside).await, Err(StoreError::Closed)));
    });
    thread.join().unwrap().unwrap();
}

#[test]
fn a_ping_is_answered_by_a_thread_that_lives_and_costs_no_commit() {
    let rig = rig(HOUR);
    rig.writer.ping().wait().unwrap();
    assert!(commits(&rig.gates[0]).is_empty() && commits(&rig.gates[1]).is_empty());
    // A disk that hangs in a commit leaves the question open.
    let stuck = rig.occupy();
    let mut ping = rig.writer.ping();
    let waker = std::task::Waker::noop();
    let mut context = std::task::Context::from_waker(waker);
    assert!(std::future::Future::poll(std::pin::Pin::new(&mut ping), &mut context).is_pending());
    rig.orders[0].send(Order::Pass).unwrap();
    stuck.wait().unwrap();
    ping.wait().unwrap();
    assert_eq!(commits(&rig.gates[0]).len(), 1);
    let (writer, thread, _) = rig.open();
    writer.close();
    thread.join().unwrap().unwrap();
    assert!(matches!(writer.ping().wait(), Err(StoreError::Closed)));
}

#[test]
fn a_failed_commit_is_remembered_until_that_database_commits_again() {
    let rig = rig(HOUR);
    assert!(rig.writer.failure().is_none());
    let failing = rig.occupy();
    rig.orders[0].send(Order::Fail).unwrap();
    failing.wait().unwrap_err();
    assert!(matches!(rig.writer.failure(), Some(StoreError::Corrupt { .. })));
    rig.orders[1].send(Order::Pass).unwrap();
    rig.submit(1, Mode::Inside).wait().unwrap();
    assert!(rig.writer.failure().is_some(), "the other database says nothing of this one");
    rig.orders[0].send(Order::Pass).unwrap();
    rig.submit(0, Mode::Inside).wait().unwrap();
    assert!(rig.writer.failure().is_none());
}

#[test]
fn what_need_not_be_durable_yet_outlives_a_neighbour_that_is_refused() {
    let rig = rig(HOUR);
    let occupied = rig.occupy();
    let put = |key, mode| rig.writer.submit(0, put(key, "v"), mode);
    let (lazy, refused, soon) = (put("a", Mode::Lazy), put("b", Mode::Inside), put("c", Mode::Soon));
    for order in [Order::Pass, Order::Fail, Order::Pass] {
        rig.orders[0].send(order).unwrap();
    }
    occupied.wait().unwrap();
    assert!(refused.wait().is_err());
    lazy.wait().unwrap();
    assert!(rig.writer.failure().is_some(), "a lazy commit does not say that the disk is well");
    let last = rig.submit(0, Mode::Inside);
    let (writer, thread, gates) = rig.open();
    last.wait().unwrap();
    soon.wait().unwrap();
    assert!(writer.failure().is_none());
    let stored: Vec<_> = ["a", "b", "c"].map(|key| gates[0].get(key.as_bytes()).unwrap().is_some()).into();
    assert_eq!(stored, [true, false, true]);
    writer.close();
    thread.join().unwrap().unwrap();
}

#[test]
fn in_a_crowd_commits_are_shared_also_by_those_who_come_a_little_later() {
    const ROUNDS: usize = 50;
    let rig = rig(HOUR);
    let first = rig.occupy();
    let crowd = [rig.submit(0, Mode::Inside), rig.submit(0, Mode::Outside)];
    let (writer, thread, gates) = rig.open();
    first.wait().unwrap();
    crowd.into_iter().for_each(|ticket| ticket.wait().unwrap());
    for _ in 0..ROUNDS {
        let pair = [0, 1].map(|_| writer.submit(0, put("k", "v"), Mode::Inside));
        pair.into_iter().for_each(|ticket| ticket.wait().unwrap());
    }
    let shared = commits(&gates[0]).iter().filter(|(changes, _)| *changes == 2).count();
    assert_eq!(shared, ROUNDS + 1, "{:?}", commits(&gates[0]));
    // One that comes alone ends that.
    writer.submit(0, put("k", "v"), Mode::Inside).wait().unwrap();
    writer.close();
    thread.join().unwrap().unwrap();
}
