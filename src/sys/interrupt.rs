//! One word that stops a guest, a download or a packing run, and says why.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Why something is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Somebody wants it stopped.
    Cancelled,
    /// It took too long.
    Timeout,
    /// It wrote too much.
    Disk,
    /// The file system is full, or about to be.
    DiskFull,
    /// The node stops.
    Shutdown,
}

type Callback = Box<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct Inner {
    cause: Option<Cause>,
    /// One entry for each guest or transfer that wants to be woken: as many as threads that wait.
    callbacks: Vec<(u64, Arc<Callback>)>,
}

/// Shared by whoever may stop a piece of work and whoever does it. The first cause stands.
#[derive(Clone, Default)]
pub struct Interrupt(Arc<Mutex<Inner>>);

impl Interrupt {
    /// Nothing raised.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The cause is one word: a thread that panicked cannot have left it half written.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops the work. Later calls change nothing.
    pub fn raise(&self, cause: Cause) {
        let callbacks = {
            let mut inner = self.lock();
            if inner.cause.is_some() {
                return;
            }
            inner.cause = Some(cause);
            std::mem::take(&mut inner.callbacks)
        };
        for (_, callback) in callbacks {
            callback();
        }
    }

    /// Why the work is to stop, if it is.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        self.lock().cause
    }

    /// Sleeps that long, or until the work is to stop: then says why.
    #[must_use]
    pub fn sleep(&self, duration: Duration) -> Option<Cause> {
        let bell = Arc::new((Mutex::new(false), Condvar::new()));
        let ring = Arc::clone(&bell);
        let registration = self.on_raise(move || {
            *ring.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
            ring.1.notify_all();
        });
        let begin = Instant::now();
        let mut rung = bell.0.lock().unwrap_or_else(PoisonError::into_inner);
        while !*rung {
            let left = duration.saturating_sub(begin.elapsed());
            if left.is_zero() {
                break;
            }
            rung = bell.1.wait_timeout(rung, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(rung);
        drop(registration);
        self.cause()
    }

    /// Runs `callback` once when the work is to stop, at once if that has been said already.
    /// Dropping the registration forgets it.
    #[must_use]
    pub fn on_raise(&self, callback: impl Fn() + Send + Sync + 'static) -> Registration {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut inner = self.lock();
        if inner.cause.is_some() {
            drop(inner);
            callback();
        } else {
            inner.callbacks.push((id, Arc::new(Box::new(callback))));
        }
        Registration { interrupt: self.clone(), id }
    }
}

impl std::fmt::Debug for Interrupt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Interrupt").field(&self.cause()).finish()
    }
}

/// Keeps a callback registered.
#[derive(Debug)]
pub struct Registration {
    interrupt: Interrupt,
    id: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.interrupt.lock().callbacks.retain(|(id, _)| *id != self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[test]
    fn the_first_cause_stands_and_each_callback_runs_once() {
        let calls = Arc::new(AtomicU32::new(0));
        let count = || {
            let calls = Arc::clone(&calls);
            move || {
                calls.fetch_add(1, Ordering::SeqCst);
            }
        };
        let interrupt = Interrupt::new();
        let _kept = interrupt.on_raise(count());
        drop(interrupt.on_raise(count()));
        assert_eq!(interrupt.cause(), None);
        interrupt.raise(Cause::Timeout);
        interrupt.raise(Cause::Cancelled);
        assert_eq!(interrupt.cause(), Some(Cause::Timeout));
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        let _late = interrupt.on_raise(count());
        assert_eq!(calls.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_sleep_ends_with_its_time_or_with_the_interrupt() {
        let interrupt = Interrupt::new();
        assert_eq!(interrupt.sleep(Duration::from_millis(1)), None);
        let other = interrupt.clone();
        let sleeper = std::thread::spawn(move || other.sleep(Duration::from_secs(3600)));
        interrupt.raise(Cause::Cancelled);
        assert_eq!(sleeper.join().unwrap(), Some(Cause::Cancelled));
        assert_eq!(interrupt.sleep(Duration::from_secs(3600)), Some(Cause::Cancelled));
    }
}
