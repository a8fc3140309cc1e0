//! Which records come to lie beside each other.
//!
//! Databases are ordered by id, and ids are random but for their first three digits, the generation, which jobs share
//! that came one after the other, and their executions. So what leaves together, the oldest jobs and results, leaves whole pages
//! of the file and not one row on each of as many pages. Within a generation the order is random: its pages fill up as
//! evenly as if all of the id were, where ids that count up leave them half empty.

use crate::model::{Generation, JobId};

/// Jobs of a generation: some pages of records. With 4096 generations it takes 65,536 jobs until they come round.
const JOBS: u32 = 16;

/// Counts jobs into generations.
#[derive(Default)]
pub(super) struct Generations {
    generation: Generation,
    /// Jobs that have it.
    jobs: u32,
}

impl Generations {
    /// Begins the one after that of the newest job there is.
    pub(super) fn follow(&mut self, newest: &JobId) {
        *self = Self { generation: newest.generation().next(), jobs: 0 };
    }

    /// An id for the next job.
    pub(super) fn job(&mut self) -> JobId {
        if self.jobs == JOBS {
            *self = Self { generation: self.generation.next(), jobs: 0 };
        }
        self.jobs += 1;
        JobId::of_generation(self.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_share_their_generation_and_all_of_them_come_round() {
        let mut generations = Generations::default();
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
