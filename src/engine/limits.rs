//! Bounds on what a guest allocates on the host, and memory of what it was refused.

use crate::model::Bytes;

/// Elements of all tables of one guest. Large programs have some ten thousand; each costs eight bytes or more outside
/// the memory limit.
pub const TABLE_ELEMENTS_MAX: usize = 200_000;
/// Tables of one guest.
pub const TABLES_MAX: usize = 64;
/// Memories of one guest.
pub const MEMORIES_MAX: usize = 16;
/// Instances of one guest: its program and the modules that it imports from.
pub const INSTANCES_MAX: usize = 64;
/// What 32-bit pointers reach.
pub const MEMORY_MAX: Bytes = Bytes::gib(4);
/// A page of linear memory.
const PAGE: u64 = 64 << 10;

/// Kept by each engine's limiter; all decisions are made here.
#[derive(Debug)]
pub struct Limits {
    memory: u64,
    used: u64,
    last_grown: u64,
    elements: usize,
    last_elements: usize,
    refused_memory: Option<Bytes>,
    refused_elements: Option<usize>,
}

impl Limits {
    /// `memory` is rounded up to whole pages.
    #[must_use]
    pub const fn new(memory: Bytes) -> Self {
        Self {
            memory: memory.0.saturating_add(PAGE - 1) / PAGE * PAGE,
            used: 0,
            last_grown: 0,
            elements: 0,
            last_elements: 0,
            refused_memory: None,
            refused_elements: None,
        }
    }

    /// Whether one memory may go from `current` to `desired` bytes. All memories of a guest count together.
    pub fn memory_growing(&mut self, current: usize, desired: usize) -> bool {
        let grown = (desired as u64).saturating_sub(current as u64);
        let total = self.used.saturating_add(grown);
        if total > self.memory {
            self.refused_memory = Some(Bytes(total));
            return false;
        }
        self.used = total;
        self.last_grown = grown;
        true
    }

    /// What was just allowed did not come about.
    pub fn memory_grow_failed(&mut self) {
        self.used = self.used.saturating_sub(std::mem::take(&mut self.last_grown));
    }

    /// Whether one table may go from `current` to `desired` elements.
    pub fn table_growing(&mut self, current: usize, desired: usize) -> bool {
        let grown = desired.saturating_sub(current);
        let total = self.elements.saturating_add(grown);
        if total > TABLE_ELEMENTS_MAX {
            self.refused_elements = Some(total);
            return false;
        }
        self.elements = total;
        self.last_elements = grown;
        true
    }

    /// What was just allowed did not come about.
    pub fn table_grow_failed(&mut self) {
        self.elements = self.elements.saturating_sub(std::mem::take(&mut self.last_elements));
    }

    /// The memory limit.
    #[must_use]
    pub const fn memory(&self) -> Bytes {
        Bytes(self.memory)
    }

    /// What the guest would have had in all, when it was last refused memory.
    #[must_use]
    pub const fn refused_memory(&self) -> Option<Bytes> {
        self.refused_memory
    }

    /// What the guest's tables would have held in all, when one was last refused.
    #[must_use]
    pub const fn refused_elements(&self) -> Option<usize> {
        self.refused_elements
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_count_together_and_failures_are_given_back() {
        let mut limits = Limits::new(Bytes(3 * PAGE - 1));
        assert!(limits.memory_growing(0, 1 << 16));
        assert!(limits.memory_growing(0, 1 << 16));
        assert!(!limits.memory_growing(1 << 16, 3 << 16));
        assert_eq!(limits.refused_memory(), Some(Bytes(4 * PAGE)));
        assert!(limits.memory_growing(1 << 16, 2 << 16));
        limits.memory_grow_failed();
        assert!(limits.memory_growing(1 << 16, 2 << 16));
        assert!(!limits.memory_growing(0, usize::MAX));
        assert!(limits.table_growing(0, TABLE_ELEMENTS_MAX));
        assert!(!limits.table_growing(0, 1));
        assert_eq!(limits.refused_elements(), Some(TABLE_ELEMENTS_MAX + 1));
    }
}
