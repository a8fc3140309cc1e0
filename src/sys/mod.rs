//! What the machine gives: clock, disk space, cores and memory, network addresses, interruption, metering, log lines,
//! files that survive a power cut, message authentication, the service manager; and what is wrong with any of it.

pub mod bell;
pub mod clock;
pub mod device_tree;
pub mod disk;
pub mod files;
pub mod fs;
pub mod health;
pub mod heap;
pub mod hmac;
pub mod interrupt;
pub mod judge;
pub mod kernel_time;
pub mod logger;
pub mod machine;
pub mod meter;
pub mod mounts;
pub mod net;
pub mod notify;
pub mod reserve;
pub mod survey;
pub mod tally;
#[cfg(test)]
mod testing;
pub mod text;
pub mod users;

pub use bell::{Bell, Ring, Rung};
pub use clock::{Clock, EARLIEST_BELIEVABLE, FakeClock, SystemClock};
pub use device_tree::DeviceTree;
pub use disk::{DiskProbe, FixedDisk, Space, StatVfs};
pub use files::{FileOut, Files, RealFiles};
pub use health::{Condition, Health};
pub use interrupt::{Cause, Interrupt, Registration};
pub use judge::{Doubt, JudgedClock, SystemTimes};
pub use machine::Machine;
pub use meter::{Meter, OverLimit};
pub use net::Network;
pub use notify::Notifier;
pub use reserve::Reserve;
