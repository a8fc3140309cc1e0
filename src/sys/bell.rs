//! A bell between threads: rung often and cheaply, heard by one who only sometimes listens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use tokio::sync::Notify;

/// What a ring is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Ring {
    /// An execution has written something.
    Output = 1,
    /// An execution or a job has changed.
    State = 2,
}

/// What has rung since somebody listened last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rung(u8);

impl Rung {
    /// Whether it rang for that.
    #[must_use]
    pub const fn has(self, ring: Ring) -> bool {
        self.0 & ring as u8 != 0
    }
}

/// The bell. All copies are one.
#[derive(Debug, Clone, Default)]
pub struct Bell(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    rung: AtomicU8,
    awaited: AtomicBool,
    used: AtomicBool,
    wake: Notify,
}

impl Bell {
    /// Rings. Wakes nobody who does not listen, and who listens once.
    pub fn ring(&self, ring: Ring) {
        self.0.rung.fetch_or(ring as u8, Ordering::SeqCst);
        if self.0.awaited.load(Ordering::SeqCst) && self.0.awaited.swap(false, Ordering::SeqCst) {
            self.0.wake.notify_one();
        }
    }

    /// Says whether somebody wants to hear it from now on.
    pub fn set_used(&self, used: bool) {
        self.0.used.store(used, Ordering::SeqCst);
    }

    /// Whether somebody wants to hear it: else nobody need go out of their way to ring.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.0.used.load(Ordering::SeqCst)
    }

    /// Waits until it has rung since the last time. For one listener.
    pub async fn heard(&self) -> Rung {
        loop {
            self.0.awaited.store(true, Ordering::SeqCst);
            // Whoever rings from here on sees that it is awaited; whoever rang before is seen.
            let rung = self.0.rung.swap(0, Ordering::SeqCst);
            if rung != 0 {
                self.0.awaited.store(false, Ordering::SeqCst);
                return Rung(rung);
            }
            self.0.wake.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_ring_is_lost_and_none_wakes_twice() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let bell = Bell::default();
        bell.ring(Ring::Output);
        bell.ring(Ring::Output);
        let rung = runtime.block_on(bell.heard());
        assert!(rung.has(Ring::Output) && !rung.has(Ring::State));
        // Rung from another thread, over and over, each time after it was heard.
        let (heard, next) = std::sync::mpsc::channel();
        let ringer = bell.clone();
        let thread = std::thread::spawn(move || {
            for ring in [Ring::Output, Ring::State].into_iter().cycle().take(2000) {
                ringer.ring(ring);
                next.recv().unwrap();
            }
        });
        for ring in [Ring::Output, Ring::State].into_iter().cycle().take(2000) {
            assert!(runtime.block_on(bell.heard()).has(ring));
            heard.send(()).unwrap();
        }
        thread.join().unwrap();
    }
}
