//! Bodies are held whole, and all of them together in a bounded amount of memory.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

/// What a body may hold without asking: most do not need more.
const FREE: usize = 4 << 10;
/// The unit in which memory is asked for.
const BLOCK: usize = 4 << 10;
/// Memory is taken in steps of at least so many blocks.
const STEP: usize = 16;

/// The memory that all bodies share.
#[derive(Debug, Clone)]
pub struct Budget {
    free: Arc<Semaphore>,
    blocks: usize,
}

/// There is no memory for more now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl Budget {
    /// A budget of that many bytes, in whole blocks.
    pub fn new(bytes: usize) -> Self {
        let blocks = bytes / BLOCK;
        Self { free: Arc::new(Semaphore::new(blocks)), blocks }
    }

    /// An empty body.
    pub fn body(&self) -> Body {
        Body { bytes: Vec::new(), allowed: FREE, permit: None, budget: self.clone() }
    }
}

/// One body and its share of the memory.
#[derive(Debug)]
pub struct Body {
    bytes: Vec<u8>,
    allowed: usize,
    permit: Option<OwnedSemaphorePermit>,
    budget: Budget,
}

impl Body {
    /// What is in it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Makes room for `more` bytes if there is memory now.
    pub fn make_room(&mut self, more: usize) -> Result<(), Full> {
        let blocks = self.blocks(more);
        if blocks > 0 {
            match Arc::clone(&self.budget.free).try_acquire_many_owned(blocks) {
                Ok(permit) => self.take(permit, blocks),
                Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => return Err(Full),
            }
        }
        self.bytes.reserve_exact(more);
        Ok(())
    }

    /// Makes room for `more` bytes, waiting for memory.
    ///
    /// # Errors
    /// It is more than there is at all.
    pub async fn wait_for_room(&mut self, more: usize) -> Result<(), Full> {
        let blocks = self.blocks(more);
        if blocks as usize > self.budget.blocks {
            return Err(Full);
        }
        if blocks > 0 {
            let permit = Arc::clone(&self.budget.free).acquire_many_owned(blocks).await.map_err(|_| Full)?;
            self.take(permit, blocks);
        }
        self.bytes.reserve_exact(more);
        Ok(())
    }

    /// Appends; room has been made.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// For writers that append by themselves; room has been made.
    pub fn vec(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    fn blocks(&self, more: usize) -> u32 {
        let missing = self.bytes.len().saturating_add(more).saturating_sub(self.allowed);
        if missing == 0 {
            return 0;
        }
        u32::try_from(missing.div_ceil(BLOCK).max(STEP)).unwrap_or(u32::MAX)
    }

    fn take(&mut self, permit: OwnedSemaphorePermit, blocks: u32) {
        self.allowed = self.allowed.saturating_add(blocks as usize * BLOCK);
        match &mut self.permit {
            Some(held) => held.merge(permit),
            none => *none = Some(permit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bodies_together_stay_below_the_budget() {
        let budget = Budget::new(128 << 10);
        let mut small = budget.body();
        small.make_room(FREE).unwrap();
        small.push(&[1; FREE]);
        let mut large = budget.body();
        for _ in 0..16 {
            large.make_room(8 << 10).unwrap();
            large.push(&[2; 8 << 10]);
        }
        assert_eq!(large.bytes().len(), 128 << 10);
        assert_eq!(small.make_room(1), Err(Full));
        drop(large);
        small.make_room(1).unwrap();
        small.push(&[3]);
        assert_eq!(small.bytes().len(), FREE + 1);
        assert_eq!(budget.body().make_room(usize::MAX), Err(Full));
    }
}
