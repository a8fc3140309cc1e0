//! The API's token, and those who guess at it.
//!
//! Each answer to a wrong token waits its turn, by peer, so that guessing is slow however many connections guess.
//! The right token never waits, whatever others of the same address do.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use heapless::Vec;

use crate::config::Secret;

use super::bucket::Bucket;
use super::slots::Peer;

/// Wrong tokens of a peer that are answered at once: somebody who mistyped is not punished.
const FREE: u64 = 8;
/// Wrong tokens of a peer that are answered each second after that.
const RATE: u64 = 2;
/// Peers that are remembered. The one that has been quiet longest is forgotten for another; by then it has
/// nothing to wait for, unless more than this many addresses guess at the same time.
const PEERS: usize = 64;

/// What callers of the API must show. All copies change together when the file that holds it is read again.
#[derive(Debug, Clone)]
pub struct Token(Arc<RwLock<Secret>>);

impl Token {
    /// That one, until it is replaced.
    #[must_use]
    pub fn new(secret: Secret) -> Self {
        Self(Arc::new(RwLock::new(secret)))
    }

    /// Whether `given` is it; see [`Secret::matches`].
    #[must_use]
    pub fn matches(&self, given: &str) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).matches(given)
    }

    /// Puts another in its place; says whether it is another.
    pub fn replace(&self, secret: Secret) -> bool {
        let mut own = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let changed = *own != secret;
        *own = secret;
        changed
    }
}

/// Who has shown a wrong one, and how often.
#[derive(Default)]
pub struct Attempts(Vec<(Peer, Bucket), PEERS>);

impl Attempts {
    /// A wrong token of `peer`: how long its answer waits. `now` counts from any moment that stays the same.
    pub fn wrong(&mut self, peer: Peer, now: Duration) -> Duration {
        if let Some((_, bucket)) = self.0.iter_mut().find(|(known, _)| *known == peer) {
            return bucket.book(1, now);
        }
        let mut bucket = Bucket::full(RATE, FREE, now);
        let wait = bucket.book(1, now);
        if self.0.is_full() {
            let quiet = self.0.iter().enumerate().min_by_key(|(_, (_, bucket))| bucket.settled());
            if let Some(index) = quiet.map(|(index, _)| index) {
                self.0.swap_remove(index);
            }
        }
        // There is room now.
        let _ = self.0.push((peer, bucket));
        wait
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    const START: Duration = Duration::from_secs(1000);

    fn peer(n: u32) -> Peer {
        IpAddr::V4(Ipv4Addr::from(n)).into()
    }

    #[test]
    fn guessing_is_slow_and_others_do_not_wait() {
        let mut attempts = Attempts::default();
        assert!((0..FREE).all(|_| attempts.wrong(peer(1), START).is_zero()));
        assert!(!attempts.wrong(peer(1), START).is_zero());
        assert!(attempts.wrong(peer(2), START).is_zero());
        // Many at once wait for each other.
        let waits: std::vec::Vec<_> = (0..16).map(|_| attempts.wrong(peer(1), START)).collect();
        assert!(waits.is_sorted() && waits[15] >= Duration::from_secs(8), "{waits:?}");
        assert!(attempts.wrong(peer(1), START + Duration::from_secs(60)).is_zero());
    }

    #[test]
    fn no_more_peers_are_remembered_than_there_is_room_for() {
        let mut attempts = Attempts::default();
        for _ in 0..2 * FREE {
            attempts.wrong(peer(0), START);
        }
        for n in 1..1000 {
            attempts.wrong(peer(n), START);
        }
        assert_eq!(attempts.0.len(), PEERS);
        // Whoever owes most is not the one that is forgotten.
        assert!(!attempts.wrong(peer(0), START).is_zero());
    }

    #[test]
    fn all_copies_change_together() {
        let token = Token::new(Secret::parse("first-token").unwrap());
        let copy = token.clone();
        assert!(!token.replace(Secret::parse("first-token").unwrap()));
        assert!(token.replace(Secret::parse("second-token").unwrap()));
        assert!(copy.matches("second-token") && !copy.matches("first-token"));
        assert_eq!(format!("{token:?}").find("token"), None);
    }
}
