//! Published results: one directory, one quota, one ledger.

mod dates;
mod disk;
mod error;
mod lease;
pub mod policy;
mod publish;
mod room;
mod shelf;
mod state;
mod sweep;

#[cfg(test)]
mod tests;

pub use disk::Surroundings;
pub use error::{Missing, NoRoom, PublishError, Refusal, ShelfError};
pub use lease::{ReadLease, ScratchLease};
pub use publish::{Published, STEP};
pub use room::ROOM_LEAST;
pub use shelf::{
    Df, NEXT_SHOWN, OpenResult, PARTIAL_SUFFIX, SUFFIX, Shelf, ShelfSettings, TOMBSTONES_MAX, Went,
};
pub use state::Gone;
pub use sweep::{Rows, SweepReport};
