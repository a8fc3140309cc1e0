//! Packing a directory into a `.tar.gz` and back, as a stream, in constant memory.

mod deflate;
mod gzip;
mod probe;

pub use deflate::{Level, LevelError};
