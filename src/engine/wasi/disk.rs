//! What a guest writes, counted where it writes it.
//!
//! Every byte by which a file grows and [`DISK_BLOCK`] for every entry created is charged before it is written, and
//! given back when it is cut off or removed. Sizes count, not blocks: a hole is charged like data, because it is
//! packed like data.

use std::sync::Arc;

use super::abi::{Fault, Stop};
use crate::model::Bytes;
use crate::model::units::DISK_BLOCK;
use crate::sys::{Cause, Interrupt, Meter, OverLimit};

/// The account of one execution.
#[derive(Debug)]
pub struct Disk {
    meter: Arc<Meter>,
    interrupt: Interrupt,
    over: Option<OverLimit>,
    /// What was charged for each volume: never more than this is given back for it, so that cutting a file which was
    /// there before (in a writable local directory) earns nothing.
    charged: Vec<u64>,
}

impl Disk {
    /// Nothing charged for that many volumes.
    pub fn new(meter: Arc<Meter>, interrupt: Interrupt, volumes: usize) -> Self {
        Self { meter, interrupt, over: None, charged: vec![0; volumes] }
    }

    /// Takes `n` bytes. Beyond the limit the execution ends: [`Cause::Disk`] is raised.
    pub fn charge(&mut self, volume: usize, n: u64) -> Result<(), Fault> {
        if let Err(over) = self.meter.charge(Bytes(n)) {
            self.over.get_or_insert(over);
            self.interrupt.raise(Cause::Disk);
            return Err(Stop::Interrupted.into());
        }
        if let Some(charged) = self.charged.get_mut(volume) {
            *charged = charged.saturating_add(n);
        }
        Ok(())
    }

    /// Gives `n` bytes back.
    pub fn release(&mut self, volume: usize, n: u64) {
        if let Some(charged) = self.charged.get_mut(volume) {
            let n = n.min(*charged);
            *charged -= n;
            self.meter.release(Bytes(n));
        }
    }

    /// Takes what one directory entry costs.
    pub fn charge_entry(&mut self, volume: usize) -> Result<(), Fault> {
        self.charge(volume, DISK_BLOCK)
    }

    /// Gives it back.
    pub fn release_entry(&mut self, volume: usize) {
        self.release(volume, DISK_BLOCK);
    }

    /// What went beyond the limit, if anything did.
    #[must_use]
    pub const fn over(&self) -> Option<OverLimit> {
        self.over
    }
}
