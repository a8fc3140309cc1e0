//! Who is connected: how many in all and from each peer, and who goes when a newcomer needs the room.
//!
//! Whoever waits between two requests goes first: that costs nobody anything. Otherwise peers share what there is: the
//! one with the most connections gives one up, down to as many as the newcomer has. So a crowd from a few addresses,
//! however slowly it sends or reads, keeps nobody else out.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// What counts as one peer: an IPv4 address, or an IPv6 network of 64 bits, which is what one subscriber gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(u64, bool);

impl From<IpAddr> for Peer {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self(u32::from(v4).into(), false),
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                let network = [a, b, c, d].into_iter().fold(0, |n, part| n << 16 | u64::from(part));
                Self(network, true)
            }
        }
    }
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It has not said a word yet.
    New,
    /// It waits between two requests.
    Idle,
    /// A request or an answer is under way.
    Moving,
    /// A handler is at work for it, who is not to be left alone.
    Handled,
}

struct Entry {
    id: u64,
    peer: Peer,
    phase: Phase,
    since: Instant,
    leave: Rc<Notify>,
    task: Option<AbortHandle>,
}

#[derive(Default)]
struct Table {
    last: u64,
    entries: Vec<Entry>,
    freed: Rc<Notify>,
    empty: Rc<Notify>,
}

/// All connections of the gate.
#[derive(Clone, Default)]
pub struct Slots(Rc<RefCell<Table>>);

/// Too many are connected, and none of them can be asked to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crowded;

impl Slots {
    /// A slot for a new connection. If there is none, another connection has to leave: one of the same peer if that
    /// has too many, one of whoever has the most if there are too many in all. Of a peer's own connections one that has
    /// come or been answered within `fresh` does not have to: its request may be on its way, and would be lost.
    pub fn admit(&self, peer: Peer, all: usize, per_peer: usize, fresh: Duration) -> Result<Slot, Crowded> {
        let mut table = self.0.borrow_mut();
        if table.count(peer) >= per_peer {
            let waits = |entry: &Entry| {
                matches!(entry.phase, Phase::New | Phase::Idle) && entry.since.elapsed() >= fresh
            };
            let victim = table.longest(|entry| entry.peer == peer && waits(entry)).ok_or(Crowded)?;
            table.evict(victim);
        }
        if table.entries.len() >= all {
            let idle = table.longest(|entry| entry.phase == Phase::Idle);
            let victim = idle.or_else(|| table.share(peer)).ok_or(Crowded)?;
            table.evict(victim);
        }
        table.last += 1;
        let (id, leave) = (table.last, Rc::new(Notify::new()));
        let (phase, since) = (Phase::New, Instant::now());
        table.entries.push(Entry { id, peer, phase, since, leave: Rc::clone(&leave), task: None });
        Ok(Slot { id, leave, slots: self.clone() })
    }

    /// How many are connected.
    pub fn len(&self) -> usize {
        self.0.borrow().entries.len()
    }

    /// Waits until a connection has left.
    pub async fn freed(&self) {
        let freed = Rc::clone(&self.0.borrow().freed);
        freed.notified().await;
    }

    /// Waits until nobody is connected.
    pub async fn emptied(&self) {
        loop {
            let empty = Rc::clone(&self.0.borrow().empty);
            if self.len() == 0 {
                return;
            }
            empty.notified().await;
        }
    }

    /// Ends all connections, whatever they are doing.
    pub fn abort_all(&self) {
        let tasks: Vec<_> = self.0.borrow_mut().entries.iter_mut().filter_map(|e| e.task.take()).collect();
        tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Table {
    fn count(&self, peer: Peer) -> usize {
        self.entries.iter().filter(|entry| entry.peer == peer).count()
    }

    /// Who has been waiting longest of those.
    fn longest(&self, who: impl Fn(&Entry) -> bool) -> Option<usize> {
        let found = self.entries.iter().enumerate().filter(|(_, entry)| who(entry));
        found.min_by_key(|(_, entry)| entry.since).map(|(i, _)| i)
    }

    /// Who has to leave for a newcomer of that peer if nobody is idle. Of the peer with the most connections, one
    /// that has said nothing yet, the first of them; or the last that began, which has the least to lose.
    fn share(&self, newcomer: Peer) -> Option<usize> {
        let own = self.count(newcomer);
        let ranked = self.entries.iter().enumerate().filter_map(|(i, entry)| {
            let count = self.count(entry.peer);
            match entry.phase {
                Phase::New if count > own || entry.peer == newcomer => {
                    Some((count, 1, u64::MAX - entry.id, i))
                }
                Phase::Moving if count >= own + 2 => Some((count, 0, entry.id, i)),
                _ => None,
            }
        });
        ranked.max().map(|(.., i)| i)
    }

    fn evict(&mut self, index: usize) {
        let entry = self.entries.swap_remove(index);
        match entry.phase {
            Phase::New | Phase::Idle => entry.leave.notify_one(),
            Phase::Moving | Phase::Handled => {
                entry.task.iter().for_each(AbortHandle::abort);
            }
        }
    }
}

/// A connection's place; dropping it makes room for another.
pub struct Slot {
    id: u64,
    leave: Rc<Notify>,
    slots: Slots,
}

impl Slot {
    /// Says what the connection is doing from now on.
    pub fn phase(&self, phase: Phase) {
        let mut table = self.slots.0.borrow_mut();
        if let Some(entry) = table.entries.iter_mut().find(|entry| entry.id == self.id) {
            (entry.phase, entry.since) = (phase, Instant::now());
        }
    }

    /// Says which task serves the connection.
    pub fn task(slots: &Slots, id: u64, task: AbortHandle) {
        if let Some(entry) = slots.0.borrow_mut().entries.iter_mut().find(|entry| entry.id == id) {
            entry.task = Some(task);
        }
    }

    /// Its number.
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Waits until the connection has to leave. To be waited for only while it is idle.
    pub async fn must_leave(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut table = self.slots.0.borrow_mut();
        table.entries.retain(|entry| entry.id != self.id);
        table.freed.notify_one();
        if table.entries.is_empty() {
            table.empty.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> Peer {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn peers_are_addresses_or_networks() {
        assert_eq!(peer("10.0.0.1"), peer("::ffff:10.0.0.1"));
        assert_ne!(peer("10.0.0.1"), peer("10.0.0.2"));
        assert_eq!(peer("2001:db8:1:2::1"), peer("2001:db8:1:2:ffff::9"));
        assert_ne!(peer("2001:db8:1:2::1"), peer("2001:db8:1:3::1"));
        assert_ne!(peer("::a00:1"), peer("10.0.0.1"));
    }

    fn busy(slots: &Slots, peer: Peer, all: usize) -> Slot {
        let slot = slots.admit(peer, all, 9, Duration::ZERO).unwrap();
        slot.phase(Phase::Moving);
        slot
    }

    fn left(slots: &Slots, slot: &Slot) -> bool {
        !slots.0.borrow().entries.iter().any(|entry| entry.id == slot.id)
    }

    #[test]
    fn the_longest_idle_leaves_first() {
        let slots = Slots::default();
        let (a, b, c) = (peer("10.0.0.1"), peer("10.0.0.2"), peer("10.0.0.3"));
        let (first, second, third) = (busy(&slots, a, 3), busy(&slots, a, 3), busy(&slots, b, 3));
        assert_eq!(slots.admit(a, 9, 2, Duration::ZERO).err(), Some(Crowded));
        second.phase(Phase::Idle);
        first.phase(Phase::Idle);
        let fourth = busy(&slots, c, 3);
        assert!(left(&slots, &second) && !left(&slots, &first) && !left(&slots, &third));
        // Of its own peer's connections only.
        third.phase(Phase::Idle);
        let fifth = slots.admit(a, 4, 1, Duration::ZERO).unwrap();
        assert!(left(&slots, &first) && !left(&slots, &third));
        // Who has not said a word yet leaves like who has nothing more to say.
        let _sixth = slots.admit(a, 4, 1, Duration::ZERO).unwrap();
        assert!(left(&slots, &fifth) && !left(&slots, &third));
        drop((first, second, third, fourth, fifth));
        assert_eq!(slots.len(), 1);
    }

    #[test]
    fn who_has_just_come_or_been_served_keeps_its_place_before_its_own_peer() {
        let slots = Slots::default();
        let (hour, a, b) = (Duration::from_secs(3600), peer("10.0.0.1"), peer("10.0.0.2"));
        let first = busy(&slots, a, 9);
        first.phase(Phase::Idle);
        assert_eq!(slots.admit(a, 9, 1, hour).err(), Some(Crowded));
        // Not before others, if there is no room for anybody.
        let second = slots.admit(b, 1, 1, hour).unwrap();
        assert!(left(&slots, &first));
        // Nor who has only just come.
        assert_eq!(slots.admit(b, 9, 1, hour).err(), Some(Crowded));
        let _third = slots.admit(b, 9, 1, Duration::ZERO).unwrap();
        assert!(left(&slots, &second));
    }

    #[test]
    fn who_has_the_most_makes_room_for_who_has_less() {
        let slots = Slots::default();
        let (a, b, c) = (peer("10.0.0.1"), peer("10.0.0.2"), peer("10.0.0.3"));
        let crowd: Vec<Slot> = (0..5).map(|_| busy(&slots, a, 6)).collect();
        let other = slots.admit(b, 6, 9, Duration::ZERO).unwrap();
        // The last that began: it has the least to lose. Not the one that has only just come.
        let newcomer = busy(&slots, c, 6);
        assert!(left(&slots, &crowd[4]) && !left(&slots, &other) && !left(&slots, &newcomer));
        // The crowd does not get its room back, and not at the cost of who has less.
        assert_eq!(slots.admit(a, 6, 9, Duration::ZERO).err(), Some(Crowded));
        // A handler at work is left alone.
        crowd.iter().for_each(|slot| slot.phase(Phase::Handled));
        assert_eq!(slots.admit(c, 6, 9, Duration::ZERO).err(), Some(Crowded));
        crowd[0].phase(Phase::Moving);
        let second = busy(&slots, c, 6);
        assert!(left(&slots, &crowd[0]));
        // Equal shares are equal: now there is room for nobody.
        crowd.iter().for_each(|slot| slot.phase(Phase::Moving));
        assert_eq!(slots.admit(c, 6, 9, Duration::ZERO).err(), Some(Crowded));
        drop((second, newcomer));
    }
}
