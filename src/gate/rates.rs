//! How fast downloads may go: all of them together, and those of one client.
//!
//! A download books a step, waits for it, and sends it: those that are under way take turns, whatever their
//! connections could bear. While it waits it is no stalled reader; its deadline begins when it may send.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::bucket::Bucket;
use super::limits::{Limits, SEND_STEP};
use super::slots::Peer;

/// Steps in a second, where the rate allows steps of [`STEP_MIN`]: what a client waits for the next bytes.
const STEPS: u64 = 8;
/// Smallest step: less is not worth a packet.
const STEP_MIN: u64 = 1 << 10;

/// The rates, and who has had how much.
pub struct Rates {
    started: Instant,
    all: Option<Rc<Rate>>,
    per_client: u64,
    /// As many as there are downloads, at most.
    clients: RefCell<Vec<(Peer, Weak<Rate>)>>,
}

/// A rate that several downloads share.
struct Rate {
    bucket: RefCell<Bucket>,
    step: u64,
}

impl Rate {
    fn new(rate: u64, now: Duration) -> Option<Rc<Self>> {
        let step = (rate / STEPS).clamp(STEP_MIN, SEND_STEP as u64);
        let bucket = RefCell::new(Bucket::empty(rate, step, now));
        (rate > 0).then(|| Rc::new(Self { bucket, step }))
    }
}

impl Rates {
    /// As the limits say.
    pub fn new(limits: &Limits) -> Self {
        let all = Rate::new(limits.download_rate, Duration::ZERO);
        Self { started: Instant::now(), all, per_client: limits.client_rate, clients: RefCell::default() }
    }

    /// For one download of that peer.
    pub fn allowance(&self, peer: Peer) -> Allowance {
        let rates = [self.client(peer), self.all.clone()];
        let step = rates.iter().flatten().map(|rate| rate.step).min();
        Allowance { started: self.started, rates, step, left: 0 }
    }

    fn client(&self, peer: Peer) -> Option<Rc<Rate>> {
        let mut clients = self.clients.borrow_mut();
        clients.retain(|(_, rate)| rate.strong_count() > 0);
        let known = clients.iter().find(|(known, _)| *known == peer).and_then(|(_, rate)| rate.upgrade());
        if known.is_some() {
            return known;
        }
        let new = Rate::new(self.per_client, self.started.elapsed())?;
        clients.push((peer, Rc::downgrade(&new)));
        Some(new)
    }
}

/// What a download may send.
pub struct Allowance {
    started: Instant,
    /// The client's first: what all share is not booked by somebody who has to wait for his own.
    rates: [Option<Rc<Rate>>; 2],
    /// `None`: there is no limit.
    step: Option<u64>,
    left: u64,
}

impl Allowance {
    /// Waits until some of `want` bytes may be sent; says how many.
    pub async fn some(&mut self, want: u64) -> u64 {
        let Some(step) = self.step else { return want };
        if self.left == 0 {
            let step = step.min(want);
            for rate in self.rates.iter().flatten() {
                let wait = rate.bucket.borrow_mut().book(step, self.started.elapsed());
                sleep(wait).await;
            }
            self.left = step;
        }
        self.left.min(want)
    }

    /// So many have been sent.
    pub fn sent(&mut self, bytes: u64) {
        self.left = self.left.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u32) -> Peer {
        std::net::IpAddr::V4(n.into()).into()
    }

    #[test]
    fn a_client_is_remembered_as_long_as_it_downloads() {
        let rates = Rates::new(&Limits { client_rate: 1 << 20, ..Limits::default() });
        let (first, second, other) =
            (rates.allowance(peer(1)), rates.allowance(peer(1)), rates.allowance(peer(2)));
        let same = |a: &Allowance, b: &Allowance| match (&a.rates[0], &b.rates[0]) {
            (Some(a), Some(b)) => Rc::ptr_eq(a, b),
            _ => false,
        };
        assert!(same(&first, &second) && !same(&first, &other));
        assert_eq!(rates.clients.borrow().len(), 2);
        drop((first, second, other));
        for n in 0..1000 {
            drop(rates.allowance(peer(n)));
        }
        assert_eq!(rates.clients.borrow().len(), 1, "only those under way are kept");
    }

    #[test]
    fn without_a_rate_everything_may_go_and_with_one_a_step() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(steps());
    }

    async fn steps() {
        let mut free = Rates::new(&Limits::default()).allowance(peer(1));
        assert_eq!(free.some(u64::MAX).await, u64::MAX);
        let mut slow =
            Rates::new(&Limits { download_rate: 800 << 10, ..Limits::default() }).allowance(peer(1));
        assert_eq!(slow.some(u64::MAX).await, 100 << 10);
        slow.sent(99 << 10);
        assert_eq!(slow.some(u64::MAX).await, 1 << 10, "what was not sent is not lost");
        slow.sent(1 << 10);
        assert_eq!(slow.some(7).await, 7);
    }
}
