//! Blocks encoded side by side, taken back in the order in which they were given.
//!
//! Blocks stand alone (see [`super::deflate`]), so who encodes them, and when, changes no byte of the archive. The
//! thread that packs reads, digests and writes; these only encode. They live as long as one archive is made.

use std::collections::VecDeque;
use std::num::NonZeroU8;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Most threads that compress one archive.
pub const THREADS_MAX: u8 = 8;
/// Threads that compress if nobody says how many: a board's other cores belong to its jobs.
const THREADS_BY_DEFAULT: u8 = 2;
/// Blocks that are given and not yet taken back, for each thread: one that it encodes, and one more, so that it goes
/// on while the packer writes. With its encoded form each takes at most 256 KiB.
pub(super) const BLOCKS_PER_THREAD: usize = 2;
/// A thread's stack: the compressor's tables live on the heap.
const STACK: usize = 128 << 10;

/// How many threads compress, 1 to [`THREADS_MAX`]. The archive is the same, whatever their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threads(NonZeroU8);

impl Threads {
    /// The thread that packs compresses, too.
    pub const ONE: Self = Self(NonZeroU8::MIN);

    /// As many as `wanted`, at most [`THREADS_MAX`]; 0 is as many as there are `cores`, at most two.
    #[must_use]
    pub fn of(wanted: u8, cores: u64) -> Self {
        let cores = u8::try_from(cores).unwrap_or(u8::MAX).min(THREADS_BY_DEFAULT);
        let count = if wanted == 0 { cores } else { wanted.min(THREADS_MAX) };
        NonZeroU8::new(count).map_or(Self::ONE, Self)
    }

    /// Their number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0.get()
    }
}

/// A thread ended in the middle of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a thread that was compressing panicked")]
pub(super) struct Panicked;

/// The threads, and the blocks of type `B` under way.
pub(super) struct Workers<B: Send + 'static> {
    shared: Arc<Shared<B>>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared<B> {
    line: Mutex<Line<B>>,
    /// There is a block to encode, or nothing more to do.
    given: Condvar,
    /// A block is done, or will never be.
    done: Condvar,
}

/// What is under way, in order.
struct Line<B> {
    slots: VecDeque<Slot<B>>,
    /// Number of the first one.
    first: u64,
    closed: bool,
    panicked: bool,
}

enum Slot<B> {
    Waiting(B),
    Taken,
    Done(B),
}

impl<B: Send + 'static> Workers<B> {
    /// Starts `count` threads, each with an encoder of its own, or as many as the system gives; None if that is none.
    /// They have the caller's priority: on Linux a thread inherits it.
    pub(super) fn start<E>(count: Threads, mut encoder: impl FnMut() -> E) -> Option<Self>
    where
        E: FnMut(&mut B) + Send + 'static,
    {
        let line = Line { slots: VecDeque::new(), first: 0, closed: false, panicked: false };
        let shared = Arc::new(Shared { line: Mutex::new(line), given: Condvar::new(), done: Condvar::new() });
        let mut threads = Vec::new();
        for n in 1..=count.get() {
            // Made here: what a thread allocates may stay with it in the allocator's hands.
            let (shared, encode) = (Arc::clone(&shared), encoder());
            let builder = std::thread::Builder::new().name(format!("packer-{n}")).stack_size(STACK);
            match builder.spawn(move || work(&shared, encode)) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    log::warn!("packing with {} thread(s): there are no more: {error}", n - 1);
                    break;
                }
            }
        }
        (!threads.is_empty()).then_some(Self { shared, threads })
    }

    /// Whether as many blocks are under way as may be: then one has to be taken before the next is given.
    pub(super) fn is_full(&self) -> bool {
        self.shared.lock().slots.len() >= self.threads.len() * BLOCKS_PER_THREAD
    }

    /// Gives a block to whoever is free next.
    pub(super) fn give(&self, block: B) {
        self.shared.lock().slots.push_back(Slot::Waiting(block));
        self.shared.given.notify_one();
    }

    /// Waits for the block that was given first, and takes it; None if none is under way.
    ///
    /// # Errors
    /// A thread has panicked: its block will never come.
    pub(super) fn take(&self) -> Result<Option<B>, Panicked> {
        let mut line = self.shared.lock();
        loop {
            if line.panicked {
                return Err(Panicked);
            }
            match line.slots.pop_front() {
                None => return Ok(None),
                Some(Slot::Done(block)) => {
                    line.first += 1;
                    return Ok(Some(block));
                }
                Some(unfinished) => line.slots.push_front(unfinished),
            }
            line = self.shared.done.wait(line).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Whatever is still under way is given up. The threads end with the blocks that they have in hand.
impl<B: Send + 'static> Drop for Workers<B> {
    fn drop(&mut self) {
        let mut line = self.shared.lock();
        line.closed = true;
        line.slots.clear();
        drop(line);
        self.shared.given.notify_all();
        for thread in self.threads.drain(..) {
            // One that panicked was found out by `take`, or its block is no longer wanted.
            let _ = thread.join();
        }
    }
}

impl<B> Shared<B> {
    /// Each change of the line is whole: a panic elsewhere cannot have left it half done.
    fn lock(&self) -> MutexGuard<'_, Line<B>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a block to encode: its number, and the block. None at the end.
    fn next(&self) -> Option<(u64, B)> {
        let mut line = self.lock();
        loop {
            if line.closed {
                return None;
            }
            let first = line.first;
            for (number, slot) in (first..).zip(line.slots.iter_mut()) {
                match std::mem::replace(slot, Slot::Taken) {
                    Slot::Waiting(block) => return Some((number, block)),
                    other => *slot = other,
                }
            }
            line = self.given.wait(line).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Puts an encoded block back into its place.
    fn finish(&self, number: u64, block: B) {
        let mut line = self.lock();
        let place = usize::try_from(number.saturating_sub(line.first)).unwrap_or(usize::MAX);
        // There is none once all was given up.
        if let Some(slot) = line.slots.get_mut(place) {
            *slot = Slot::Done(block);
        }
        drop(line);
        self.done.notify_one();
    }
}

fn work<B>(shared: &Shared<B>, mut encode: impl FnMut(&mut B)) {
    let _watch = Watch(shared);
    while let Some((number, mut block)) = shared.next() {
        encode(&mut block);
        shared.finish(number, block);
    }
}

/// Says so when its thread panics: nobody must wait for the block that was lost with it.
struct Watch<'a, B>(&'a Shared<B>);

impl<B> Drop for Watch<'_, B> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().panicked = true;
            self.0.done.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};

    use super::*;

    fn threads(count: u8) -> Threads {
        Threads::of(count, 1)
    }

    #[test]
    fn as_many_threads_as_asked_for_and_two_by_default() {
        let number = |wanted, cores| Threads::of(wanted, cores).get();
        assert_eq!([number(0, 0), number(0, 1), number(0, 2), number(0, 64)], [1, 1, 2, 2]);
        assert_eq!([number(1, 8), number(4, 1), number(8, 1), number(200, 1)], [1, 4, 8, THREADS_MAX]);
        assert_eq!(number(0, u64::MAX), 2);
    }

    #[test]
    fn blocks_come_back_in_order_whoever_is_done_first() {
        // The second thread to be asked waits for the first to have done all the rest.
        let (go, wait) = sync_channel::<()>(0);
        let wait = Arc::new(Mutex::new(wait));
        let workers = Workers::start(threads(2), || {
            let wait = Arc::clone(&wait);
            move |block: &mut (u32, bool)| {
                if block.0 == 0 {
                    wait.lock().unwrap().recv().unwrap();
                }
                block.1 = true;
            }
        })
        .unwrap();
        (0..4).for_each(|n| workers.give((n, false)));
        assert!(workers.is_full());
        go.send(()).unwrap();
        for n in 0..4 {
            assert_eq!(workers.take(), Ok(Some((n, true))));
        }
        assert_eq!(workers.take(), Ok(None));
        assert!(!workers.is_full());
    }

    /// Workers that encode nothing before they are let.
    fn held(count: u8) -> (Workers<u32>, SyncSender<()>, Receiver<u32>) {
        let (go, wait) = sync_channel::<()>(64);
        let (begun, seen) = channel();
        let wait = Arc::new(Mutex::new(wait));
        let workers = Workers::start(threads(count), || {
            let (wait, begun) = (Arc::clone(&wait), begun.clone());
            move |block: &mut u32| {
                let _ = begun.send(*block);
                // An error is as good: the test is over.
                let _ = wait.lock().unwrap().recv();
            }
        });
        (workers.unwrap(), go, seen)
    }

    #[test]
    fn what_is_given_up_is_not_encoded_and_all_threads_end() {
        for count in 1..=4 {
            let (workers, go, begun) = held(count);
            let all = u32::from(count) * u32::try_from(BLOCKS_PER_THREAD).unwrap();
            for n in 0..all {
                assert!(!workers.is_full());
                workers.give(n);
            }
            assert!(workers.is_full());
            // Each has one in hand.
            assert_eq!(begun.iter().take(usize::from(count)).count(), usize::from(count));
            let shared = Arc::clone(&workers.shared);
            let given_up = std::thread::spawn(move || drop(workers));
            let mut line = shared.lock();
            while !line.closed {
                line = shared.given.wait(line).unwrap();
            }
            drop(line);
            drop(go);
            given_up.join().unwrap();
            // The channel has no senders any more: every thread is gone with its encoder.
            assert_eq!(begun.iter().count(), 0);
        }
    }

    #[test]
    fn a_panic_is_an_error_and_no_wait_for_ever() {
        for count in 1..=3 {
            let workers = Workers::start(threads(count), || {
                |block: &mut u32| assert!(*block != 2, "this panic is wanted")
            })
            .unwrap();
            let mut given = 0;
            let outcome = loop {
                while !workers.is_full() {
                    workers.give(given);
                    given += 1;
                }
                if let Err(panicked) = workers.take() {
                    break panicked;
                }
            };
            assert_eq!(outcome, Panicked);
            // Later, too.
            assert_eq!(workers.take(), Err(Panicked));
        }
    }

    #[test]
    fn threads_have_the_priority_of_who_started_them() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let before = nice();
        // In a thread of its own: nobody gets a priority back.
        std::thread::spawn(move || {
            crate::sys::fs::lower_priority();
            let lowered = nice();
            assert!(lowered > before || before > 14, "{lowered}");
            let workers = Workers::start(threads(2), || {
                move |block: &mut i32| *block = rustix::process::getpriority_process(None).unwrap()
            })
            .unwrap();
            for _ in 0..4 {
                workers.give(0);
            }
            while let Some(seen) = workers.take().unwrap() {
                assert_eq!(seen, lowered);
            }
        })
        .join()
        .unwrap();
        assert_eq!(nice(), before);
    }
}
