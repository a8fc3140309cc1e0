//! What a task asks for and what a node has.

use serde::{Deserialize, Serialize};

use super::units::{Bytes, MilliCpu};

/// An amount of each resource.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Thousandths of a core.
    pub cpu: MilliCpu,
    /// Bytes of memory.
    pub memory: Bytes,
    /// Bytes of disk for inputs, outputs and logs while it runs.
    pub disk: Bytes,
    /// Whole GPUs.
    pub gpu: u32,
}

impl Resources {
    /// Whether every amount is at most that of `room`.
    #[must_use]
    pub fn fits(&self, room: &Self) -> bool {
        self.excess(room).is_none()
    }

    /// The first resource of which more is asked than `room` has: its name, the amount asked, the amount there.
    #[must_use]
    pub fn excess(&self, room: &Self) -> Option<(&'static str, String, String)> {
        if self.cpu > room.cpu {
            return Some(("CPU", self.cpu.to_string(), room.cpu.to_string()));
        }
        if self.memory > room.memory {
            return Some(("memory", self.memory.to_string(), room.memory.to_string()));
        }
        if self.disk > room.disk {
            return Some(("disk", self.disk.to_string(), room.disk.to_string()));
        }
        (self.gpu > room.gpu).then(|| ("GPU", self.gpu.to_string(), room.gpu.to_string()))
    }

    /// Sum, stopping at the largest numbers.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            cpu: MilliCpu(self.cpu.0.saturating_add(other.cpu.0)),
            memory: self.memory.plus(other.memory),
            disk: self.disk.plus(other.disk),
            gpu: self.gpu.saturating_add(other.gpu),
        }
    }

    /// Difference, stopping at zero.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        Self {
            cpu: MilliCpu(self.cpu.0.saturating_sub(other.cpu.0)),
            memory: self.memory.minus(other.memory),
            disk: self.disk.minus(other.disk),
            gpu: self.gpu.saturating_sub(other.gpu),
        }
    }
}

/// What a task's `Resources` says; what it leaves out is filled from the node's defaults.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceRequest {
    /// `CPU`, if given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<MilliCpu>,
    /// `Memory`, if given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Bytes>,
    /// `Disk`, if given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Bytes>,
    /// `GPU`, if given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<u32>,
}

impl ResourceRequest {
    /// The amounts to reserve, with `defaults` where nothing (or zero, as old clients send it) was asked.
    #[must_use]
    pub fn or(&self, defaults: &Resources) -> Resources {
        Resources {
            cpu: self.cpu.filter(|c| c.0 > 0).unwrap_or(defaults.cpu),
            memory: self.memory.filter(|m| m.0 > 0).unwrap_or(defaults.memory),
            disk: self.disk.filter(|d| d.0 > 0).unwrap_or(defaults.disk),
            gpu: self.gpu.unwrap_or(defaults.gpu),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_does_not_fit() {
        let room = Resources { cpu: MilliCpu(1000), memory: Bytes::mib(256), disk: Bytes::mib(10), gpu: 0 };
        assert!(room.fits(&room));
        let large = Resources { memory: Bytes::mib(300), ..room };
        assert_eq!(large.excess(&room), Some(("memory", "300.0 MiB".into(), "256.0 MiB".into())));
        assert_eq!(room.minus(&large).memory, Bytes::ZERO);
        assert_eq!(room.plus(&room).cpu, MilliCpu(2000));
    }

    #[test]
    fn zero_means_default() {
        let defaults = Resources { cpu: MilliCpu(100), memory: Bytes::mib(64), disk: Bytes::mib(64), gpu: 0 };
        let ask = ResourceRequest {
            cpu: Some(MilliCpu(0)),
            memory: Some(Bytes::mib(8)),
            ..ResourceRequest::default()
        };
        assert_eq!(ask.or(&defaults), Resources { memory: Bytes::mib(8), ..defaults });
    }
}
