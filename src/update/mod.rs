//! Updates of the program itself on a board: signed bundles, two slots, a version on trial that goes back by itself.
//!
//! ```text
//! /opt/codling/
//!   slots/a/  slots/b/       a version each: its files, manifest.json and manifest.sig; whole if the manifest is there
//!   current -> slots/b       what the service starts
//!   good -> slots/a          what is known to work, and watches over the other one
//!   trial.json               [`State`], while it is anything but settled
//!   last.json                how the last update ended
//!   lock                     held while somebody changes any of it
//! /etc/codling/update-keys.d/*.pub   whose bundles are taken
//! /etc/codling/board                 what this board is, as `board-configs/` calls it
//! <DataDir>/before-update/           databases that a version on trial would write anew, as they were before
//! ```
//!
//! [`State`] is made durable first, then what it asks for is done: whoever comes next does what a power cut left undone.

mod bundle;
mod databases;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod judge;
pub mod keys;
mod manifest;
mod slots;
mod state;

pub use bundle::Bundle;
pub use databases::Databases;
pub use error::UpdateError;
pub use judge::{Board, judge};
pub use manifest::Manifest;
pub use slots::{Confirmed, Last, Slots};
pub use state::{Copy, Event, STARTS_MAX, Slot, State, next};

#[cfg(test)]
pub(crate) mod testing;
