//! Which records come to lie beside each other.
//!
//! Databases are ordered by id, and ids are random but for their first three digits, the generation, which jobs share
//! that came one after the other, and their executions. So what leaves together, the oldest jobs and results, leaves whole pages
//! of the file and not one row on each of as many pages. Within a generation the order is random: its pages fill up as
//! evenly as if all of the id were, where ids that count up leave them half empty.

use std::cell::Cell;

use crate::model::{Generation, JobId};

/// Jobs of a generation: some pages of records. With 4096 generations it takes 65,536 jobs until they come round.
const JOBS: u32 = 16;

/// Counts jobs into generations.
#[derive(Default)]
pub(super) struct Generations(Cell<(Generation, u32)>);

impl Generations {
    /// Begins the one after that of the newest job there is.
    pub(super) fn follow(&self, newest: &JobId) {
        self.0.set((newest.generation().next(), 0));
    }

    /// An id for the next job.
    pub(super) fn job(&self) -> JobId {
        let (mut generation, mut jobs) = self.0.get();
        if jobs == JOBS {
            (generation, jobs) = (generation.next(), 0);
        }
        self.0.set((generation, jobs + 1));
        JobId::of_generation(generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_share_their_generation_and_all_of_them_come_round() {
        let generations = Generations::default();
        let mut seen: Vec<Generation> =
            (0..JOBS * Generation::COUNT).map(|_| generations.job().generation()).collect();
        assert!(seen.is_sorted());
        seen.dedup();
        assert_eq!(seen.len(), Generation::COUNT as usize);
        assert_eq!(generations.job().generation(), Generation::default());
        // Whoever starts again begins with the next.
        generations.follow(&JobId::of_generation(seen[7]));
        assert_eq!(generations.job().generation(), seen[8]);
    }
}
