//! What the machine gives: clock, disk space, interruption, metering, files that survive a power cut.

pub mod clock;
pub mod disk;
pub mod fs;
pub mod interrupt;
pub mod meter;

pub use clock::{Clock, FakeClock, SystemClock};
pub use disk::{DiskProbe, FixedDisk, Space, StatVfs};
pub use interrupt::{Cause, Interrupt, Registration};
pub use meter::{Meter, OverLimit};
