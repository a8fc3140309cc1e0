//! Who runs next: priority, then first in; a small job may pass a large one that does not fit yet, but not for ever.

use crate::model::{ExecutionId, Resources};

/// Executions that may wait. One waiting entry holds an id, its needs and a few counters: about 150 bytes.
pub const QUEUE_MAX: usize = 10_000;

/// How often an entry may be passed over (by later or smaller ones) before everybody else waits for it.
pub const PASSES_MAX: u32 = 16;

#[derive(Debug, Clone)]
struct Entry {
    id: ExecutionId,
    priority: i32,
    needs: Resources,
    sequence: u64,
    passes: u32,
}

impl Entry {
    /// Smaller comes first: those passed over too often in the order they came, then by priority, then first in.
    fn rank(&self) -> (bool, i64, u64) {
        let starved = self.passes >= PASSES_MAX;
        (!starved, if starved { 0 } else { -i64::from(self.priority) }, self.sequence)
    }
}

/// The queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the node's queue is full ({QUEUE_MAX} executions wait)")]
pub struct QueueFull;

/// Waiting executions, kept in the order in which they are to be tried.
#[derive(Debug, Default)]
pub struct Queue {
    entries: Vec<Entry>,
    next_sequence: u64,
}

impl Queue {
    /// Puts an execution in line.
    ///
    /// # Errors
    /// [`QUEUE_MAX`] wait already.
    pub fn push(&mut self, id: ExecutionId, priority: i32, needs: Resources) -> Result<(), QueueFull> {
        if self.entries.len() >= QUEUE_MAX {
            return Err(QueueFull);
        }
        let entry = Entry { id, priority, needs, sequence: self.next_sequence, passes: 0 };
        self.next_sequence += 1;
        let at = self.entries.partition_point(|other| other.rank() < entry.rank());
        self.entries.insert(at, entry);
        Ok(())
    }

    /// Takes out the next execution that fits into `room`, if one may start now.
    pub fn pop(&mut self, room: &Resources) -> Option<ExecutionId> {
        let mut chosen = None;
        for (i, entry) in self.entries.iter().enumerate() {
            if entry.needs.fits(room) {
                chosen = Some(i);
                break;
            }
            if entry.passes >= PASSES_MAX {
                return None;
            }
        }
        let chosen = self.entries.remove(chosen?);
        // Passed over: whoever came before the chosen one, be it for want of room or of priority.
        let mut grew_old = false;
        for entry in self.entries.iter_mut().filter(|e| e.sequence < chosen.sequence) {
            entry.passes = entry.passes.saturating_add(1);
            grew_old |= entry.passes == PASSES_MAX;
        }
        if grew_old {
            self.entries.sort_by_key(Entry::rank);
        }
        Some(chosen.id)
    }

    /// Takes an execution out of line; says whether it was there.
    pub fn remove(&mut self, id: &ExecutionId) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| entry.id != *id);
        self.entries.len() < before
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Bytes, MilliCpu};

    fn needs(cpu: u64) -> Resources {
        Resources { cpu: MilliCpu(cpu), memory: Bytes(0), disk: Bytes(0), gpu: 0 }
    }

    #[test]
    fn priority_then_first_in() {
        let mut queue = Queue::default();
        let ids: Vec<_> = (0..4).map(|_| ExecutionId::random()).collect();
        for (id, priority) in ids.iter().zip([0, 5, 0, 5]) {
            queue.push(id.clone(), priority, needs(1)).unwrap();
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.pop(&needs(1))).collect();
        assert_eq!(order, [1, 3, 0, 2].map(|i: usize| ids[i].clone()));
    }

    #[test]
    fn the_bound_holds() {
        let mut queue = Queue::default();
        for _ in 0..QUEUE_MAX {
            queue.push(ExecutionId::random(), 0, needs(1)).unwrap();
        }
        let id = ExecutionId::random();
        assert_eq!(queue.push(id.clone(), 9, needs(1)), Err(QueueFull));
        assert!(queue.pop(&needs(1)).is_some());
        assert_eq!(queue.push(id.clone(), 9, needs(1)), Ok(()));
        assert!(queue.remove(&id));
        assert!(!queue.remove(&id));
    }

    #[test]
    fn a_large_one_is_passed_only_so_often() {
        let mut queue = Queue::default();
        let large = ExecutionId::random();
        queue.push(large.clone(), 0, needs(100)).unwrap();
        let mut passed = 0;
        loop {
            queue.push(ExecutionId::random(), 0, needs(1)).unwrap();
            // Only 50 of 100 are ever free while small ones keep coming.
            if queue.pop(&needs(50)).is_none() {
                break;
            }
            passed += 1;
        }
        assert_eq!(passed, PASSES_MAX);
        assert_eq!(queue.pop(&needs(100)), Some(large), "everybody waited for it, now there is room");
    }

    proptest! {
        /// Whatever comes in later, whoever waits starts after a bounded number of starts.
        #[test]
        fn nothing_starves(priorities in prop::collection::vec(-3i32..3, 1..40), later in prop::collection::vec(0i32..100, 900)) {
            let mut queue = Queue::default();
            let mut waiting = std::collections::HashSet::new();
            for priority in &priorities {
                let id = ExecutionId::random();
                waiting.insert(id.clone());
                queue.push(id, *priority, needs(1)).unwrap();
            }
            let bound = priorities.len() + PASSES_MAX as usize + 1;
            let mut starts = 0;
            for priority in later {
                queue.push(ExecutionId::random(), priority, needs(1)).unwrap();
                let started = queue.pop(&needs(1)).unwrap();
                waiting.remove(&started);
                starts += 1;
                if waiting.is_empty() { break; }
            }
            prop_assert!(waiting.is_empty() && starts <= bound, "{} still wait after {} starts", waiting.len(), starts);
        }
    }
}
