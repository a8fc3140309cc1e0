//! Links to results that end: `?expires=<Unix seconds>&signature=<HMAC-SHA256>`.
//!
//! The signature covers the result's name and the end, not the method and not the address: the same link serves
//! `GET`, `HEAD` and every range, and survives a move of the node.
//!
//! A board without a battery for its clock starts in 1970. While the clock is not to be believed, links are made for
//! this run of the node only: their end is counted in seconds since its start, and their signature is of a key that
//! dies with it. Links of earlier runs can then be neither believed nor refuted, and are refused; whoever asks for a
//! new one gets it. So a board that never learns the time goes on serving, and no link holds for ever.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use log::Level;

use crate::model::{ExecutionId, Sha256, Timestamp};
use crate::sys::fs::write_atomic;
use crate::sys::hmac::{equal, hmac_sha256};
use crate::sys::{Clock, Files};

/// Bytes of the key.
const KEY: usize = 32;

/// How far a clock may have been set back since a link was made, in seconds.
const SLACK: u64 = 300;

/// Makes and checks links.
pub struct Links {
    lifetime: Duration,
    file: PathBuf,
    files: Arc<dyn Files>,
    clock: Arc<dyn Clock>,
    /// The key of this run.
    run_key: [u8; KEY],
    started: Instant,
    /// Held while the key is made: by one thread only.
    making: Mutex<()>,
    /// Whether it was said that the key cannot be kept.
    warned: AtomicBool,
}

/// Why a link does not open a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadLink {
    /// There is no signature, or it is of another result, end or key.
    #[error("this link is not signed by this node")]
    Unsigned,
    /// Its time is over.
    #[error("this link has expired")]
    Expired,
    /// It is of an earlier run, and the node does not know the time.
    #[error("the node does not know the time yet, and cannot tell whether this link has expired")]
    NoClock,
}

impl Links {
    /// Links that can be used for `lifetime`; `file` holds their key, and is made when the first is signed.
    #[must_use]
    pub fn new(lifetime: Duration, file: PathBuf, files: Arc<dyn Files>, clock: Arc<dyn Clock>) -> Self {
        let started = Instant::now();
        let (making, warned) = (Mutex::new(()), AtomicBool::new(false));
        Self { lifetime, file, files, clock, run_key: random_key(), started, making, warned }
    }

    /// How long a link can be used.
    #[must_use]
    pub const fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// The query of a new link to a result, with its question mark.
    #[must_use]
    pub fn query(&self, id: &ExecutionId) -> String {
        self.query_at(id, self.started.elapsed())
    }

    /// The same, so long after the start.
    fn query_at(&self, id: &ExecutionId, up: Duration) -> String {
        let (key, now) = match self.key_for_signing() {
            Ok(key) if self.clock.is_trusted() => (key, seconds(self.clock.now())),
            Ok(_) => (self.run_key, up.as_secs()),
            // A disk that cannot be written: better a link that ends with this run than none.
            Err(error) => {
                let level =
                    if self.warned.swap(true, Ordering::Relaxed) { Level::Debug } else { Level::Warn };
                log::log!(
                    level,
                    "links end with this run of the node: cannot keep {}: {error}",
                    self.file.display()
                );
                (self.run_key, up.as_secs())
            }
        };
        let expires = now.saturating_add(self.lifetime_seconds());
        format!("?expires={expires}&signature={}", Sha256(tag(&key, id, expires)).hex())
    }

    /// Whether the parameters of a link open that result now.
    ///
    /// # Errors
    /// They do not.
    pub fn check(
        &self,
        id: &ExecutionId,
        expires: Option<&str>,
        signature: Option<&str>,
    ) -> Result<(), BadLink> {
        self.check_at(id, expires, signature, self.started.elapsed())
    }

    fn check_at(
        &self,
        id: &ExecutionId,
        expires: Option<&str>,
        signature: Option<&str>,
        up: Duration,
    ) -> Result<(), BadLink> {
        let expires = expires.and_then(|text| text.parse::<u64>().ok()).ok_or(BadLink::Unsigned)?;
        let given = signature.and_then(|text| text.parse::<Sha256>().ok()).ok_or(BadLink::Unsigned)?;
        if equal(&tag(&self.run_key, id, expires), &given.0) {
            return if up.as_secs() < expires { Ok(()) } else { Err(BadLink::Expired) };
        }
        let key = self.stored_key().map_err(|_| BadLink::Unsigned)?;
        if !equal(&tag(&key, id, expires), &given.0) {
            return Err(BadLink::Unsigned);
        }
        if !self.clock.is_trusted() {
            return Err(BadLink::NoClock);
        }
        let now = seconds(self.clock.now());
        // Further ahead than any link made now: the clock was set back, or the lifetime was shortened.
        let last = now.saturating_add(self.lifetime_seconds()).saturating_add(SLACK);
        if (now..=last).contains(&expires) && now < expires { Ok(()) } else { Err(BadLink::Expired) }
    }

    fn lifetime_seconds(&self) -> u64 {
        self.lifetime.as_secs().max(1)
    }

    /// The key as it is in its file. Read each time: who removes the file ends all links at once.
    fn stored_key(&self) -> io::Result<[u8; KEY]> {
        let mut key = [0; KEY];
        std::fs::File::open(&self.file)?.read_exact(&mut key)?;
        Ok(key)
    }

    /// The stored key; a new one if there is none. One that is cut short is as good as none.
    fn key_for_signing(&self) -> io::Result<[u8; KEY]> {
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        match self.stored_key() {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) => {}
            other => return other,
        }
        let key = random_key();
        write_atomic(&*self.files, &self.file, &key, 0o600)?;
        Ok(key)
    }
}

fn tag(key: &[u8; KEY], id: &ExecutionId, expires: u64) -> [u8; 32] {
    hmac_sha256(key, format!("/{id}.tar.gz\n{expires}").as_bytes())
}

fn seconds(time: Timestamp) -> u64 {
    u64::try_from(time.0).unwrap_or(0) / 1_000_000_000
}

/// 32 bytes of the system's random numbers: three identifiers of 122 random bits each, mixed.
fn random_key() -> [u8; KEY] {
    let seed: Vec<u8> = (0..3).flat_map(|_| *uuid::Uuid::new_v4().as_bytes()).collect();
    Sha256::of(&seed).0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{EARLIEST_BELIEVABLE, FakeClock, RealFiles};

    struct Bench {
        links: Links,
        clock: Arc<FakeClock>,
        id: ExecutionId,
        /// Takes the key's file with it.
        owner: bool,
    }

    const NOW: Timestamp = EARLIEST_BELIEVABLE;
    const HOUR: Duration = Duration::from_secs(3600);

    impl Bench {
        fn new() -> Self {
            let clock = Arc::new(FakeClock::at(NOW));
            let file = std::env::temp_dir().join(format!("codling-{}.key", uuid::Uuid::new_v4()));
            Self {
                links: Links::new(HOUR, file, Arc::new(RealFiles), clock.clone()),
                clock,
                id: ExecutionId::random(),
                owner: true,
            }
        }

        /// The same node, started again.
        fn restarted(&self) -> Self {
            let links = Links::new(HOUR, self.links.file.clone(), Arc::new(RealFiles), self.clock.clone());
            Self { links, clock: Arc::clone(&self.clock), id: self.id.clone(), owner: false }
        }

        fn check(&self, query: &str, up: Duration) -> Result<(), BadLink> {
            let (expires, signature) = parts(query);
            self.links.check_at(&self.id, Some(expires), Some(signature), up)
        }
    }

    impl Drop for Bench {
        fn drop(&mut self) {
            if self.owner {
                let _ = std::fs::remove_file(&self.links.file);
            }
        }
    }

    fn parts(query: &str) -> (&str, &str) {
        query.strip_prefix("?expires=").unwrap().split_once("&signature=").unwrap()
    }

    #[test]
    fn a_link_opens_its_result_until_its_end() {
        let bench = Bench::new();
        let query = bench.links.query(&bench.id);
        assert_eq!(bench.check(&query, Duration::ZERO), Ok(()));
        assert_eq!(bench.restarted().check(&query, Duration::ZERO), Ok(()));
        bench.clock.set(NOW.plus(HOUR - Duration::from_secs(1)));
        assert_eq!(bench.check(&query, Duration::ZERO), Ok(()));
        bench.clock.set(NOW.plus(HOUR));
        assert_eq!(bench.check(&query, Duration::ZERO), Err(BadLink::Expired));
        let mode = std::fs::metadata(&bench.links.file).map(|m| (m.len(), m.permissions())).unwrap();
        assert_eq!((mode.0, std::os::unix::fs::PermissionsExt::mode(&mode.1) & 0o777), (32, 0o600));
    }

    #[test]
    fn nothing_about_a_link_can_be_changed() {
        let bench = Bench::new();
        let query = bench.links.query(&bench.id);
        let (expires, signature) = parts(&query);
        let check = |id: &ExecutionId, expires: Option<&str>, signature: Option<&str>| {
            bench.links.check_at(id, expires, signature, Duration::ZERO)
        };
        assert_eq!(check(&bench.id, Some(expires), Some(signature)), Ok(()));
        let later = (expires.parse::<u64>().unwrap() + 1).to_string();
        let mut forged = signature.to_owned();
        forged.replace_range(0..1, if signature.starts_with('0') { "1" } else { "0" });
        let other = ExecutionId::random();
        for (id, expires, signature) in [
            (&other, Some(expires), Some(signature)),
            (&bench.id, Some(later.as_str()), Some(signature)),
            (&bench.id, Some(expires), Some(forged.as_str())),
            (&bench.id, Some(expires), Some(&signature[..63])),
            (&bench.id, Some(expires), Some("")),
            (&bench.id, Some("-1"), Some(signature)),
            (&bench.id, Some("soon"), Some(signature)),
            (&bench.id, None, Some(signature)),
            (&bench.id, Some(expires), None),
            (&bench.id, None, None),
        ] {
            assert_eq!(check(id, expires, signature), Err(BadLink::Unsigned), "{expires:?} {signature:?}");
        }
    }

    #[test]
    fn without_its_key_a_link_is_worth_nothing() {
        let bench = Bench::new();
        let old = bench.links.query(&bench.id);
        std::fs::remove_file(&bench.links.file).unwrap();
        assert_eq!(bench.check(&old, Duration::ZERO), Err(BadLink::Unsigned));
        let new = bench.links.query(&bench.id);
        assert_eq!(bench.check(&new, Duration::ZERO), Ok(()));
        assert_eq!(bench.check(&old, Duration::ZERO), Err(BadLink::Unsigned));
        // Cut short by a power cut of another program's making.
        std::fs::write(&bench.links.file, [7; 5]).unwrap();
        assert_eq!(bench.check(&new, Duration::ZERO), Err(BadLink::Unsigned));
        assert_eq!(bench.check(&bench.links.query(&bench.id), Duration::ZERO), Ok(()));
        // Where it cannot be kept, links end with the run.
        let homeless =
            Links::new(HOUR, "/proc/nowhere/link.key".into(), Arc::new(RealFiles), bench.clock.clone());
        let query = homeless.query(&bench.id);
        let (expires, signature) = parts(&query);
        assert_eq!(homeless.check(&bench.id, Some(expires), Some(signature)), Ok(()));
    }

    #[test]
    fn a_board_without_a_clock_serves_new_links_and_refuses_old_ones() {
        let bench = Bench::new();
        let before = bench.links.query(&bench.id);
        // It starts in 1970.
        let board = bench.restarted();
        board.clock.trust(false);
        board.clock.set(Timestamp(5_000_000_000));
        assert_eq!(board.check(&before, Duration::ZERO), Err(BadLink::NoClock));
        let during = board.links.query_at(&board.id, Duration::from_secs(5));
        assert_eq!(board.check(&during, Duration::from_secs(6)), Ok(()));
        assert_eq!(board.check(&during, HOUR + Duration::from_secs(5)), Err(BadLink::Expired));
        // The time comes: links of before hold again, and those of this run go on to their end.
        board.clock.set(NOW.plus(Duration::from_secs(60)));
        board.clock.trust(true);
        assert_eq!(board.check(&before, Duration::ZERO), Ok(()));
        assert_eq!(board.check(&during, Duration::from_secs(60)), Ok(()));
        assert_eq!(board.check(&during, HOUR * 2), Err(BadLink::Expired));
        // They end with the run at the latest.
        assert_eq!(board.restarted().check(&during, Duration::ZERO), Err(BadLink::Unsigned));
    }

    #[test]
    fn a_clock_that_is_set_back_makes_no_link_longer() {
        let bench = Bench::new();
        bench.clock.set(NOW.plus(HOUR * 100));
        let query = bench.links.query(&bench.id);
        assert_eq!(bench.check(&query, Duration::ZERO), Ok(()));
        // A small correction is no reason to refuse, a year is.
        bench.clock.set(Timestamp(NOW.plus(HOUR * 100).0 - 60_000_000_000));
        assert_eq!(bench.check(&query, Duration::ZERO), Ok(()));
        bench.clock.set(NOW);
        assert_eq!(bench.check(&query, Duration::ZERO), Err(BadLink::Expired));
    }
}
