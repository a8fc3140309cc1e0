//! Who is connected: how many in all and from each peer, who is idle, and who goes when a newcomer needs the room.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;

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

struct Entry {
    id: u64,
    peer: Peer,
    idle_since: Option<Instant>,
    leave: Rc<Notify>,
    task: Option<AbortHandle>,
}

#[derive(Default)]
struct Table {
    last: u64,
    entries: Vec<Entry>,
    empty: Rc<Notify>,
}

/// All connections of the gate.
#[derive(Clone, Default)]
pub struct Slots(Rc<RefCell<Table>>);

/// Too many are connected, and none of them is idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crowded;

impl Slots {
    /// A slot for a new connection. If there is none, the connection that has been idle longest has to leave:
    /// one of the same peer if that has too many, any if all have.
    pub fn admit(&self, peer: Peer, all: usize, per_peer: usize) -> Result<Slot, Crowded> {
        let mut table = self.0.borrow_mut();
        if table.entries.iter().filter(|entry| entry.peer == peer).count() >= per_peer {
            table.evict(|entry| entry.peer == peer)?;
        }
        if table.entries.len() >= all {
            table.evict(|_| true)?;
        }
        table.last += 1;
        let (id, leave) = (table.last, Rc::new(Notify::new()));
        // It has not asked for anything yet: of a burst of newcomers, the first may have to leave for the last.
        let idle_since = Some(Instant::now());
        table.entries.push(Entry { id, peer, idle_since, leave: Rc::clone(&leave), task: None });
        Ok(Slot { id, leave, slots: self.clone() })
    }

    /// How many are connected.
    pub fn len(&self) -> usize {
        self.0.borrow().entries.len()
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
    fn evict(&mut self, who: impl Fn(&Entry) -> bool) -> Result<(), Crowded> {
        let idle = self.entries.iter().enumerate().filter(|(_, entry)| who(entry));
        let longest = idle.filter_map(|(i, entry)| entry.idle_since.map(|since| (since, i))).min();
        let (_, index) = longest.ok_or(Crowded)?;
        self.entries.swap_remove(index).leave.notify_one();
        Ok(())
    }
}

/// A connection's place; dropping it makes room for another.
pub struct Slot {
    id: u64,
    leave: Rc<Notify>,
    slots: Slots,
}

impl Slot {
    /// Says whether the connection waits for its peer to begin a request, the first or another.
    pub fn idle(&self, idle: bool) {
        let since = idle.then(Instant::now);
        self.entry(|entry| entry.idle_since = since);
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

    fn entry(&self, act: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.slots.0.borrow_mut().entries.iter_mut().find(|entry| entry.id == self.id) {
            act(entry);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut table = self.slots.0.borrow_mut();
        table.entries.retain(|entry| entry.id != self.id);
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

    #[test]
    fn the_longest_idle_leaves_first() {
        let slots = Slots::default();
        let (a, b, c) = (peer("10.0.0.1"), peer("10.0.0.2"), peer("10.0.0.3"));
        let busy = |peer| {
            let slot = slots.admit(peer, 3, 2).unwrap();
            slot.idle(false);
            slot
        };
        let (first, second) = (busy(a), busy(a));
        assert_eq!(slots.admit(a, 3, 2).err(), Some(Crowded));
        let third = busy(b);
        assert_eq!(slots.admit(c, 3, 2).err(), Some(Crowded));
        second.idle(true);
        first.idle(true);
        let left = |slot: &Slot| !slots.0.borrow().entries.iter().any(|entry| entry.id == slot.id);
        let fourth = busy(c);
        assert!(left(&second) && !left(&first) && !left(&third));
        // Of its own peer's connections only.
        third.idle(true);
        let fifth = slots.admit(a, 4, 1).unwrap();
        assert!(left(&first) && !left(&third));
        // Who has not said a word yet leaves like who has nothing more to say.
        let _sixth = slots.admit(a, 4, 1).unwrap();
        assert!(left(&fifth) && !left(&third));
        drop((first, second, third, fourth, fifth));
        assert_eq!(slots.len(), 1);
    }
}
