//! Why an execution failed: a code that programs match on, a message for people, what to do next.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::disk::Trouble;

/// The kinds of failure. Names are what history, API and store hold; unknown names read as `internal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// The job asks for something that this node does not have (engine, publisher, source, capacity).
    Unsupported,
    /// The job itself is wrong: bad parameters, not a WASM module, no such entry function.
    InvalidJob,
    /// An input could not be had.
    InputFailed,
    /// The guest asked for more memory than it may have.
    OutOfMemory,
    /// The execution took longer than it may.
    Timeout,
    /// The guest wrote more than it may, or the node has no room.
    DiskQuota,
    /// The node's disk is full: others took the room that the execution was promised.
    DiskFull,
    /// The guest trapped.
    Trap,
    /// The program ended although it is to run for ever.
    Exited,
    /// Somebody stopped it.
    Cancelled,
    /// The node restarted while it ran.
    NodeRestart,
    /// The result does not fit the quota.
    ResultTooLarge,
    /// The result could not be packed or published.
    PublishFailed,
    /// The node itself failed.
    #[serde(other)]
    Internal,
}

impl FailureCode {
    /// The stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unsupported => "unsupported",
            Self::InvalidJob => "invalid_job",
            Self::InputFailed => "input_failed",
            Self::OutOfMemory => "out_of_memory",
            Self::Timeout => "timeout",
            Self::DiskQuota => "disk_quota",
            Self::DiskFull => "disk_full",
            Self::Trap => "trap",
            Self::Exited => "exited",
            Self::Cancelled => "cancelled",
            Self::NodeRestart => "node_restart",
            Self::ResultTooLarge => "result_too_large",
            Self::PublishFailed => "publish_failed",
            Self::Internal => "internal",
        }
    }

    /// Whether the same job may succeed if it is simply run again.
    #[must_use]
    pub const fn retryable(self) -> bool {
        matches!(
            self,
            Self::NodeRestart
                | Self::Exited
                | Self::DiskFull
                | Self::PublishFailed
                | Self::InputFailed
                | Self::Internal
        )
    }
}

impl fmt::Display for FailureCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why an execution failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Its kind.
    pub code: FailureCode,
    /// What happened, to what: a sentence without a full stop.
    pub message: String,
    /// What to do next; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
}

impl Failure {
    /// A failure without a hint.
    #[must_use]
    pub fn new(code: FailureCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: String::new() }
    }

    /// A step that the operating system refused: `code`, unless it did so for want of room.
    #[must_use]
    pub fn of_io(code: FailureCode, what: &str, error: &std::io::Error) -> Self {
        let text = format!("{what}: {error}");
        match Trouble::of(error) {
            Trouble::Full => Self::disk_full(text),
            Trouble::ReadOnly | Trouble::Failing => Self::new(code, text),
        }
    }

    /// The disk is full, with what to do about it.
    #[must_use]
    pub fn disk_full(message: impl Into<String>) -> Self {
        Self::new(FailureCode::DiskFull, message)
            .hint("free disk space on the node, then submit the job again; `codling results df` shows what results take")
    }

    /// The same with what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}

/// An error and what caused it, in one line: `what: cause: its cause`.
#[must_use]
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_store_and_text_agree() {
        use FailureCode as C;
        for code in [
            C::Unsupported,
            C::InvalidJob,
            C::InputFailed,
            C::OutOfMemory,
            C::Timeout,
            C::DiskQuota,
            C::DiskFull,
            C::Trap,
            C::Exited,
            C::Cancelled,
            C::NodeRestart,
            C::ResultTooLarge,
            C::PublishFailed,
            C::Internal,
        ] {
            assert_eq!(serde_json::to_string(&code).unwrap(), format!("\"{code}\""));
        }
        assert_eq!(serde_json::from_str::<C>("\"from_the_future\"").unwrap(), C::Internal);
    }
}
