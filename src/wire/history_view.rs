//! An entry of a job's history as the API shows it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::model::{ExecutionState, HistoryEvent, Level};

use super::dialect::Dialect;

/// `JobHistory`: the union of what both generations look for. 1.4 fails on an entry without the state of its level.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct HistoryView<'a> {
    #[serde(rename = "Type")]
    kind: &'static str,
    #[serde(rename = "JobID")]
    job_id: &'a str,
    #[serde(rename = "NodeID", skip_serializing_if = "Option::is_none")]
    node_id: Option<&'a str>,
    #[serde(rename = "ExecutionID", skip_serializing_if = "Option::is_none")]
    execution_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_state: Option<Change<&'static str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    execution_state: Option<Change<u8>>,
    new_revision: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    comment: &'a str,
    event: EventView<'a>,
    time: String,
    seq_num: u64,
    job_version: u64,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Change<T> {
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<T>,
    new: T,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
struct EventView<'a> {
    message: &'a str,
    topic: &'static str,
    timestamp: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    details: BTreeMap<&'static str, &'a str>,
}

impl<'a> HistoryView<'a> {
    /// The event of that job on that node, for clients of that generation.
    #[must_use]
    pub fn of(event: &'a HistoryEvent, job: &'a str, node: &'a str, dialect: Dialect) -> Self {
        let time = event.time.rfc3339();
        let code = |state: ExecutionState| dialect.execution_code(state);
        let mut view = Self {
            kind: "JobLevel",
            job_id: job,
            node_id: None,
            execution_id: None,
            job_state: None,
            execution_state: None,
            new_revision: event.seq,
            comment: &event.message,
            event: EventView {
                message: &event.message,
                topic: event.topic.as_str(),
                timestamp: time.clone(),
                details: details(event),
            },
            time,
            seq_num: event.seq,
            job_version: event.version,
        };
        match &event.level {
            Level::Job { previous, new } => {
                let previous = previous.map(crate::model::JobState::as_str);
                view.job_state = Some(Change { previous, new: new.as_str() });
            }
            Level::Execution { id, previous, new } => {
                view.kind = "ExecutionLevel";
                view.node_id = Some(node);
                view.execution_id = Some(id.as_str());
                view.execution_state = Some(Change { previous: previous.map(code), new: code(*new) });
            }
        }
        view
    }
}

/// The details with a meaning to clients, texts all.
fn details(event: &HistoryEvent) -> BTreeMap<&'static str, &str> {
    let mut details = BTreeMap::new();
    if let Level::Job { previous, new } = &event.level
        && *previous != Some(*new)
    {
        details.insert("NewState", new.as_str());
    }
    if let Some(failure) = &event.failure {
        details.insert("IsError", "true");
        details.insert("ErrorCode", failure.code.as_str());
        if matches!(event.level, Level::Execution { .. }) {
            details.insert("FailsExecution", "true");
        }
        if failure.code.retryable() {
            details.insert("Retryable", "true");
        }
        if !failure.hint.is_empty() {
            details.insert("Hint", &failure.hint);
        }
    }
    details
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::model::{ExecutionId, Failure, FailureCode, JobState, Timestamp, Topic};

    use super::*;

    fn show(event: &HistoryEvent, dialect: Dialect) -> Value {
        serde_json::to_value(HistoryView::of(event, "j-1", "n-edge-01", dialect)).unwrap()
    }

    #[test]
    fn a_change_of_the_job() {
        let event = HistoryEvent {
            seq: 3,
            version: 1,
            level: Level::Job { previous: Some(JobState::Pending), new: JobState::Running },
            topic: Topic::StateUpdate,
            message: "an execution was accepted".into(),
            failure: None,
            time: Timestamp(1_719_930_417_160_015_000),
        };
        let time = "2024-07-02T14:26:57.160015000Z";
        let wanted = json!({
            "Type": "JobLevel", "JobID": "j-1", "JobState": {"Previous": "Pending", "New": "Running"},
            "NewRevision": 3, "Comment": "an execution was accepted",
            "Event": {"Message": "an execution was accepted", "Topic": "State Update", "Timestamp": time,
                      "Details": {"NewState": "Running"}},
            "Time": time, "SeqNum": 3, "JobVersion": 1
        });
        assert_eq!(show(&event, Dialect::A), wanted);
        assert_eq!(show(&event, Dialect::B), wanted);
        let first = HistoryEvent { level: Level::Job { previous: None, new: JobState::Pending }, ..event };
        assert_eq!(show(&first, Dialect::A)["JobState"], json!({"New": "Pending"}));
    }

    #[test]
    fn the_end_of_an_execution() {
        let id = ExecutionId::random();
        let failure = Failure::new(FailureCode::InputFailed, "no such host").hint("check the URL");
        let event = HistoryEvent {
            seq: 9,
            version: 1,
            level: Level::Execution {
                id: id.clone(),
                previous: Some(ExecutionState::Running),
                new: ExecutionState::Failed,
            },
            topic: Topic::Execution,
            message: "no such host".into(),
            failure: Some(failure),
            time: Timestamp(0),
        };
        let old = show(&event, Dialect::A);
        assert_eq!(old["Type"], "ExecutionLevel");
        assert_eq!(old["ExecutionID"], id.as_str());
        assert_eq!(old["NodeID"], "n-edge-01");
        assert_eq!(old["ExecutionState"], json!({"Previous": 5, "New": 8}));
        assert_eq!(show(&event, Dialect::B)["ExecutionState"], json!({"Previous": 6, "New": 10}));
        assert_eq!(
            old["Event"]["Details"],
            json!({"IsError": "true", "FailsExecution": "true", "Retryable": "true",
                   "ErrorCode": "input_failed", "Hint": "check the URL"})
        );
        assert_eq!(old.get("JobState"), None);
    }
}
