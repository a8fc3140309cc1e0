//! Packing a directory into a `.tar.gz` and back, as a stream, in constant memory.

mod deflate;
mod entries;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod gzip;
mod header;
mod links;
pub mod member;
mod names;
pub mod pack;
mod probe;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod tree;
pub mod unpack;
mod walk;
pub mod warning;
mod workers;

pub use deflate::{Level, LevelError};
pub use member::{Member, Step};
pub use pack::{PackError, PackOptions, Packed, pack};
pub use unpack::{UnpackError, UnpackLimits, Unpacked, unpack};
pub use warning::{Oddity, Warning, Warnings};
pub use workers::{THREADS_MAX, Threads};
