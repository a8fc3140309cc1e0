//! What the API answers, as far as people are shown it (http-api.md section 4). JSON and YAML output pass on the
//! node's own objects instead, unknown fields and all.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::client::{Client, ClientError};
use crate::model::{ExecutionState, Timestamp};
use crate::wire::Dialect;
use crate::wire::answers::ResultAddresses;

/// Go writes `null` for an empty list or map.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(input: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(input)?.unwrap_or_default())
}

/// Reads one answer.
///
/// # Errors
/// It does not have the shape that the API gives it.
pub fn read<'a, T: Deserialize<'a>>(client: &Client, value: &'a Value) -> Result<T, ClientError> {
    T::deserialize(value)
        .map_err(|source| ClientError::Malformed { address: client.target().address.clone(), source })
}

/// A page of a list.
#[derive(Debug, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Page<T> {
    /// The items.
    #[serde(deserialize_with = "or_default", bound(deserialize = "T: Deserialize<'de>"))]
    pub items: Vec<T>,
    /// Where the next page begins; empty if there is none.
    pub next_token: String,
}

impl<T> Default for Page<T> {
    fn default() -> Self {
        Self { items: Vec::new(), next_token: String::new() }
    }
}

/// `{Type, Params}`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Spec {
    /// The kind.
    #[serde(rename = "Type")]
    pub kind: String,
    /// Its parameters.
    #[serde(deserialize_with = "or_default")]
    pub params: serde_json::Map<String, Value>,
}

impl Spec {
    /// The text parameter of that name, compared without case.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(k, _)| k.eq_ignore_ascii_case(name)).and_then(|(_, v)| v.as_str())
    }
}

/// A job's only task.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Task {
    /// What runs it.
    #[serde(deserialize_with = "or_default")]
    pub engine: Spec,
    /// What publishes its result.
    #[serde(deserialize_with = "or_default")]
    pub publisher: Spec,
}

/// A state word and why.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct JobState {
    /// `Pending`, `Running`, ...
    pub state_type: String,
    /// Why.
    pub message: String,
}

/// A job.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Job {
    /// Its id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// `batch`, `ops`, `service` or `daemon`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// Larger first.
    pub priority: i64,
    /// Executions wanted.
    pub count: i64,
    /// For filters.
    #[serde(deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    /// One.
    #[serde(deserialize_with = "or_default")]
    pub tasks: Vec<Task>,
    /// Its state.
    pub state: JobState,
    /// Version of its body.
    pub version: u64,
    /// Unix nanoseconds.
    pub create_time: i64,
    /// Unix nanoseconds.
    pub modify_time: i64,
}

impl Job {
    /// Completed, Failed or Stopped.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        ["Completed", "Failed", "Stopped"].iter().any(|s| self.is(s))
    }

    /// Whether it is in that state.
    #[must_use]
    pub fn is(&self, state: &str) -> bool {
        self.state.state_type.eq_ignore_ascii_case(state)
    }

    /// Whether it never ends by itself.
    #[must_use]
    pub fn runs_for_ever(&self) -> bool {
        self.kind.eq_ignore_ascii_case("service") || self.kind.eq_ignore_ascii_case("daemon")
    }
}

/// `GET jobs/{id}`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct JobAnswer {
    /// The job.
    pub job: Job,
    /// If asked for.
    #[serde(default, deserialize_with = "or_default")]
    pub executions: Page<Execution>,
    /// If asked for.
    #[serde(default, deserialize_with = "or_default")]
    pub history: Page<Event>,
}

/// An integer state and why.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CodedState {
    /// A code of [`execution_state`].
    pub state_type: i64,
    /// Why.
    pub message: String,
}

/// What a finished run left.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RunOutput {
    /// Its beginning.
    pub stdout: String,
    /// Whether there was more.
    pub stdout_truncated: bool,
    /// Its beginning. The key is in lower case on the wire.
    #[serde(rename = "stderr")]
    pub stderr: String,
    /// Whether there was more.
    pub stderr_truncated: bool,
    /// What the program returned; -1 if it never ran.
    pub exit_code: i64,
    /// Why it could not run.
    pub error_msg: String,
}

/// One run of a job.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Execution {
    /// Its id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Where it runs.
    #[serde(rename = "NodeID")]
    pub node_id: String,
    /// Which of the job's `Count` it is.
    pub partition_index: u64,
    /// What it does.
    pub compute_state: CodedState,
    /// What it left, once it ended.
    pub run_output: Option<RunOutput>,
    /// Unix nanoseconds.
    pub create_time: i64,
    /// Unix nanoseconds.
    pub modify_time: i64,
}

impl Execution {
    /// The name of its state.
    #[must_use]
    pub fn state(&self) -> String {
        execution_state(self.compute_state.state_type)
    }

    /// Whether nothing follows.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        known_state(self.compute_state.state_type).is_some_and(ExecutionState::is_terminal)
    }

    /// Whether it did all it should.
    #[must_use]
    pub fn is_completed(&self) -> bool {
        known_state(self.compute_state.state_type) == Some(ExecutionState::Completed)
    }

    /// Its exit code, if its program ended with one: Bacalhau says -1 of a WASM program that returned without.
    #[must_use]
    pub fn exit_code(&self) -> Option<i64> {
        let code = self.run_output.as_ref().filter(|_| self.is_terminal()).map(|o| o.exit_code);
        code.filter(|code| *code != -1 || !self.is_completed())
    }
}

/// The state that has this code in the dialect that this client asks for.
fn known_state(code: i64) -> Option<ExecutionState> {
    ExecutionState::ALL.iter().copied().find(|state| i64::from(Dialect::B.execution_code(*state)) == code)
}

/// The name of an execution's state in the dialect that this client asks for.
#[must_use]
pub fn execution_state(code: i64) -> String {
    match known_state(code) {
        Some(state) => state.to_string(),
        None if code == 0 => "Undefined".into(),
        None => format!("State({code})"),
    }
}

/// What happened, in words.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct EventBody {
    /// What.
    pub message: String,
    /// Where it comes from.
    pub topic: String,
    /// When, RFC 3339.
    pub timestamp: String,
    /// `IsError`, `FailsExecution`, `Retryable`, `Hint`, `ErrorCode`, ...
    #[serde(deserialize_with = "or_default")]
    pub details: BTreeMap<String, String>,
}

/// One item of a job's history.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Event {
    /// `JobLevel` or `ExecutionLevel`.
    #[serde(rename = "Type")]
    pub level: String,
    /// Empty at the level of the job.
    #[serde(rename = "ExecutionID")]
    pub execution_id: String,
    /// What happened.
    pub event: EventBody,
    /// What became of the job; of 1.4 and codling.
    pub job_state: Option<Became<String>>,
    /// What became of the execution; of 1.4 and codling.
    pub execution_state: Option<Became<i64>>,
    /// When, RFC 3339.
    pub time: String,
}

/// A change of state.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Became<T> {
    /// What it is now.
    pub new: T,
}

impl Event {
    /// What happened, in words; the state that it led to where there are none: 1.4 has few words.
    #[must_use]
    pub fn text(&self) -> String {
        let of_execution = || self.execution_state.as_ref().map(|state| execution_state(state.new));
        let of_job = || self.job_state.as_ref().map(|state| state.new.clone());
        match self.event.message.as_str() {
            "" if self.level == "ExecutionLevel" => of_execution().unwrap_or_default(),
            "" => of_job().unwrap_or_default(),
            said => said.to_owned(),
        }
    }

    /// The displayed time: the event's own, unless it is Go's zero.
    #[must_use]
    pub fn when(&self) -> &str {
        match self.event.timestamp.as_str() {
            "" => &self.time,
            zero if zero.starts_with("0001-") => &self.time,
            own => own,
        }
    }
}

/// Build of a program.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Version {
    /// `v1.2.3`.
    #[serde(rename = "GitVersion")]
    pub git_version: String,
    /// Commit.
    #[serde(rename = "GitCommit")]
    pub git_commit: String,
    /// RFC 3339.
    #[serde(rename = "BuildDate")]
    pub build_date: String,
    /// Operating system.
    #[serde(rename = "GOOS")]
    pub os: String,
    /// Architecture.
    #[serde(rename = "GOARCH")]
    pub arch: String,
}

/// An amount of each resource.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Amounts {
    /// Cores.
    #[serde(rename = "CPU")]
    pub cpu: f64,
    /// Bytes.
    #[serde(rename = "Memory")]
    pub memory: u64,
    /// Bytes.
    #[serde(rename = "Disk")]
    pub disk: u64,
    /// Count.
    #[serde(rename = "GPU")]
    pub gpu: u64,
}

/// What a node can do.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ComputeInfo {
    /// Engines.
    #[serde(deserialize_with = "or_default")]
    pub execution_engines: Vec<String>,
    /// Publishers.
    #[serde(deserialize_with = "or_default")]
    pub publishers: Vec<String>,
    /// Sources of inputs.
    #[serde(deserialize_with = "or_default")]
    pub storage_sources: Vec<String>,
    /// All there is.
    pub max_capacity: Amounts,
    /// What is free.
    pub available_capacity: Amounts,
    /// Running now.
    pub running_executions: u64,
    /// Waiting.
    pub enqueued_executions: u64,
}

/// A node.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeInfo {
    /// Its id.
    #[serde(rename = "NodeID")]
    pub id: String,
    /// `Compute` or `Requester`.
    #[serde(rename = "NodeType")]
    pub kind: String,
    /// Its labels.
    #[serde(rename = "Labels", deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    /// Its version.
    #[serde(rename = "BacalhauVersion", deserialize_with = "or_default")]
    pub version: Version,
    /// Absent if it runs nothing.
    #[serde(rename = "ComputeNodeInfo")]
    pub compute: Option<ComputeInfo>,
    /// What is wrong with its disk, if something is: a codling's own.
    #[serde(rename = "DiskWarning")]
    pub disk_warning: String,
}

/// A node as the orchestrator sees it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NodeState {
    /// The node.
    pub info: NodeInfo,
    /// `APPROVED`, ...
    pub membership: String,
    /// `CONNECTED`, ...
    pub connection: String,
    /// Bacalhau 1.9's place for the same.
    #[serde(deserialize_with = "or_default")]
    pub connection_state: ConnectionState,
    /// Where its results are fetched from, if it is a codling node.
    pub codling_results: Option<ResultAddresses>,
}

/// Bacalhau 1.9's state of a node's connection.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ConnectionState {
    /// `CONNECTED` or `DISCONNECTED`.
    pub status: String,
}

/// Unix nanoseconds as RFC 3339 in whole seconds; nothing for zero.
#[must_use]
pub fn time(nanoseconds: i64) -> String {
    if nanoseconds == 0 { String::new() } else { Timestamp(nanoseconds).to_string() }
}

/// RFC 3339 without the fraction of a second; other text as it is.
#[must_use]
pub fn short_time(text: &str) -> String {
    match text.split_once('.') {
        Some((whole, fraction)) => {
            let zone = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
            format!("{whole}{zone}")
        }
        None => text.to_owned(),
    }
}

/// `j-`, `e-` or `n-` and eight hexadecimal digits of an id of that form; other ids whole.
#[must_use]
pub fn short_id(id: &str) -> &str {
    let bytes = id.as_bytes();
    let shaped = bytes.len() == 38 && bytes.get(1) == Some(&b'-') && bytes.get(10) == Some(&b'-');
    id.get(..10).filter(|_| shaped).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_bacalhau_1_9() {
        let names: Vec<String> = (0..=12).map(execution_state).collect();
        assert_eq!(names[..4], ["Undefined", "New", "AskForBid", "AskForBidAccepted"]);
        assert_eq!(names[5..8], ["BidAccepted", "Running", "Publishing"]);
        assert_eq!(names[8..], ["BidRejected", "Completed", "Failed", "Cancelled", "State(12)"]);
    }

    #[test]
    fn go_nulls_are_empty() {
        let page: Page<Job> = serde_json::from_str(r#"{"NextToken":"","Items":null}"#).unwrap();
        assert!(page.items.is_empty());
        let job: JobAnswer = serde_json::from_str(
            r#"{"Job":{"ID":"j","Labels":null,"Tasks":[{"Engine":{"Type":"wasm","Params":null},"Publisher":null}],
                "State":{"StateType":"Running"}},"Executions":null}"#,
        )
        .unwrap();
        assert_eq!(job.job.tasks[0].engine.kind, "wasm");
        assert!(!job.job.is_terminal());
    }

    #[test]
    fn what_bacalhau_does_not_say_is_not_made_up() {
        let execution = |state: i64, code: i64| {
            let text =
                format!(r#"{{"ComputeState":{{"StateType":{state}}},"RunOutput":{{"ExitCode":{code}}}}}"#);
            serde_json::from_str::<Execution>(&text).unwrap().exit_code()
        };
        assert_eq!([execution(9, -1), execution(9, 0), execution(9, 3)], [None, Some(0), Some(3)]);
        assert_eq!([execution(10, -1), execution(6, 0)], [Some(-1), None]);
        let event = |text: &str| serde_json::from_str::<Event>(text).unwrap().text();
        let silent =
            r#"{"Type":"ExecutionLevel","JobState":null,"ExecutionState":{"New":2},"Event":{"Message":""}}"#;
        assert_eq!(event(silent), "AskForBid");
        assert_eq!(event(r#"{"Type":"JobLevel","JobState":{"New":"Running"}}"#), "Running");
        assert_eq!(event(r#"{"Type":"JobLevel","JobState":{"New":"Running"},"Event":{"Message":"x"}}"#), "x");
        assert_eq!(event(r#"{"Type":"ExecutionLevel"}"#), "");
    }

    #[test]
    fn times_and_ids_are_cut() {
        assert_eq!(short_time("2024-07-02T14:26:57.160015Z"), "2024-07-02T14:26:57Z");
        assert_eq!(short_time("2024-07-02T14:26:57.1+02:00"), "2024-07-02T14:26:57+02:00");
        assert_eq!(short_time("soon"), "soon");
        assert_eq!(short_id("j-11111111-2222-3333-4444-555555555555"), "j-11111111");
        assert_eq!(short_id("my-job"), "my-job");
    }
}
