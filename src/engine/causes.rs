//! Failures that fetching inputs and running guests have in common.

use crate::model::{Failure, FailureCode};
use crate::sys::{Cause, OverLimit};

/// The execution wrote beyond its limit.
#[must_use]
pub fn over_limit(over: OverLimit) -> Failure {
    let OverLimit { asked, used, limit } = over;
    let text = format!("the execution may write {limit} to disk and wanted {asked} more after {used}");
    Failure::new(FailureCode::DiskQuota, text).hint("set Resources.Disk of the task higher")
}

/// The execution was stopped from outside.
#[must_use]
pub fn stopped(cause: Cause) -> Failure {
    match cause {
        Cause::Timeout => Failure::new(FailureCode::Timeout, "the execution took longer than its time limit")
            .hint("set Timeouts.ExecutionTimeout of the task higher"),
        Cause::Disk => Failure::new(FailureCode::DiskQuota, "the node needs the disk space"),
        Cause::DiskFull => Failure::disk_full("the node's disk has no room for what the execution writes"),
        Cause::Shutdown => Failure::new(FailureCode::NodeRestart, "the node stopped while the execution ran"),
        Cause::Cancelled => Failure::new(FailureCode::Cancelled, "the execution was stopped"),
    }
}
