//! What goes over a log's websocket: one JSON object for each message, alike in both generations.

use serde::{Deserialize, Serialize};

/// Where a line comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl LogStream {
    /// Both, in the order in which what is stored is told.
    pub const ALL: [Self; 2] = [Self::Stdout, Self::Stderr];

    /// Its number on the wire.
    #[must_use]
    pub const fn code(self) -> i64 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
        }
    }

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// `{"value": {"Type": 1, "Line": "hello\n"}}`, or `{"error": "...", "value": {"Type": 0, "Line": ""}}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogMessage {
    /// Why there is nothing (more); empty if there is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// What was written.
    pub value: LogLine,
}

/// A piece of a log: whole lines with their ends, or a part of a long one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct LogLine {
    /// 1 standard output, 2 standard error.
    #[serde(rename = "Type")]
    pub kind: i64,
    /// The text, to be shown as it is.
    pub line: String,
}

impl LogMessage {
    /// A piece of a stream. What is no UTF-8 is replaced.
    #[must_use]
    pub fn piece(stream: LogStream, bytes: &[u8]) -> Self {
        let line = String::from_utf8_lossy(bytes).into_owned();
        Self { error: String::new(), value: LogLine { kind: stream.code(), line } }
    }

    /// The word that something is wrong.
    #[must_use]
    pub fn error(text: impl Into<String>) -> Self {
        Self { error: text.into(), value: LogLine::default() }
    }

    /// Its JSON.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Two texts and a number: nothing that could fail.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_look_as_clients_know_them() {
        let text = |message: LogMessage| String::from_utf8(message.encode()).unwrap();
        assert_eq!(
            text(LogMessage::piece(LogStream::Stdout, b"hello\n")),
            r#"{"value":{"Type":1,"Line":"hello\n"}}"#
        );
        assert_eq!(
            text(LogMessage::piece(LogStream::Stderr, b"\xff\0\"")),
            "{\"value\":{\"Type\":2,\"Line\":\"\u{fffd}\\u0000\\\"\"}}"
        );
        assert_eq!(
            text(LogMessage::error("no executions found for job j-1")),
            r#"{"error":"no executions found for job j-1","value":{"Type":0,"Line":""}}"#
        );
        let read: LogMessage = serde_json::from_str(r#"{"value":{"Type":2,"Line":"x"},"new":1}"#).unwrap();
        assert_eq!(read, LogMessage::piece(LogStream::Stderr, b"x"));
    }
}
