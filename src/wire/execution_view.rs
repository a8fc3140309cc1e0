//! An execution as the API shows it.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::model::{ExecutionRecord, ExecutionRow, ExecutionState, Resources, RunOutput};

use super::dialect::{Dialect, desired_code};

/// `Execution`. Numbers for states, as Go's clients want them.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ExecutionView<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    namespace: &'a str,
    #[serde(rename = "EvalID")]
    eval_id: &'static str,
    name: &'a str,
    #[serde(rename = "NodeID")]
    node_id: &'a str,
    #[serde(rename = "JobID")]
    job_id: &'a str,
    job_version: u64,
    partition_index: u32,
    allocated_resources: Option<Allocated<'a>>,
    desired_state: Numbered<'a>,
    compute_state: Numbered<'a>,
    published_result: ResultView,
    run_output: Option<OutputView<'a>>,
    previous_execution: &'a str,
    next_execution: &'a str,
    #[serde(rename = "FollowupEvalID")]
    followup_eval_id: &'static str,
    revision: u64,
    create_time: i64,
    modify_time: i64,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Allocated<'a> {
    tasks: BTreeMap<&'a str, ResourcesView>,
}

/// `Resources` in numbers: cores, bytes, cards.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ResourcesView {
    #[serde(rename = "CPU")]
    cpu: f64,
    #[serde(rename = "Memory")]
    memory: u64,
    #[serde(rename = "Disk")]
    disk: u64,
    #[serde(rename = "GPU")]
    gpu: u32,
}

impl From<&Resources> for ResourcesView {
    fn from(resources: &Resources) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "a number of cores is far below 2^52 thousandths")]
        let cpu = resources.cpu.0 as f64 / 1000.0;
        Self { cpu, memory: resources.memory.0, disk: resources.disk.0, gpu: resources.gpu }
    }
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Numbered<'a> {
    state_type: u8,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
}

/// `{Type, Params}` of a published result; an empty type if there is none.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ResultView {
    /// `urlDownload`, or nothing.
    #[serde(rename = "Type")]
    pub kind: &'static str,
    /// `URL`, and beside it what Bacalhau does not tell: `SHA256`, `Size`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<&'static str, Value>,
}

impl ResultView {
    /// A result to be fetched from that URL.
    #[must_use]
    pub fn download(url: String, sha256: &crate::model::Sha256, size: crate::model::Bytes) -> Self {
        let params =
            [("URL", Value::from(url)), ("SHA256", sha256.hex().into()), ("Size", size.0.into())].into();
        Self { kind: "urlDownload", params }
    }
}

/// Mind the one key in lower case: that is how Bacalhau spells it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
struct OutputView<'a> {
    stdout: &'a str,
    stdout_truncated: bool,
    #[serde(rename = "stderr")]
    stderr: &'a str,
    stderr_truncated: bool,
    exit_code: i32,
    error_msg: &'a str,
}

/// Everything that one execution's answer is made of.
#[derive(Debug, Clone, Copy)]
pub struct ExecutionParts<'a> {
    /// What the orchestrator knows.
    pub row: &'a ExecutionRow,
    /// What the compute role has, if it is this node's and still stored.
    pub record: Option<&'a ExecutionRecord>,
    /// The job's namespace.
    pub namespace: &'a str,
    /// The task's name, under which its resources are listed.
    pub task: &'a str,
    /// This node.
    pub node: &'a str,
    /// The execution that took over, if one did.
    pub next: Option<&'a str>,
}

/// The state to show: the compute role is ahead by Publishing; the end is what the orchestrator says. That it runs the
/// compute role tells once a power cut cannot take that back.
#[must_use]
pub fn merged_state(row: &ExecutionRow, record: Option<&ExecutionRecord>) -> ExecutionState {
    match record {
        Some(record) if !row.state.is_terminal() && record.state == ExecutionState::Publishing => {
            record.state
        }
        _ => row.state,
    }
}

impl<'a> ExecutionView<'a> {
    /// The execution for clients of that generation.
    #[must_use]
    pub fn of(parts: &ExecutionParts<'a>, result: ResultView, dialect: Dialect) -> Self {
        let ExecutionParts { row, record, .. } = *parts;
        let state = merged_state(row, record);
        Self {
            id: row.id.as_str(),
            namespace: parts.namespace,
            eval_id: "",
            name: "",
            node_id: parts.node,
            job_id: row.job_id.as_str(),
            job_version: row.job_version,
            partition_index: row.partition,
            allocated_resources: record
                .map(|record| Allocated { tasks: [(parts.task, (&record.resources).into())].into() }),
            desired_state: Numbered { state_type: desired_code(row.desired), message: "" },
            compute_state: Numbered { state_type: dialect.execution_code(state), message: &row.message },
            published_result: result,
            run_output: output(row, record),
            previous_execution: row.previous.as_ref().map_or("", |id| id.as_str()),
            next_execution: parts.next.unwrap_or_default(),
            followup_eval_id: "",
            revision: row.revision,
            create_time: row.created.0,
            modify_time: row.modified.max(record.map_or(row.modified, |record| record.modified)).0,
        }
    }
}

/// What the run left, once it is over. The compute role has the texts; the orchestrator at least the exit code.
fn output<'a>(row: &'a ExecutionRow, record: Option<&'a ExecutionRecord>) -> Option<OutputView<'a>> {
    if !row.state.is_terminal() {
        return None;
    }
    let failure = record.and_then(|record| record.failure.as_ref()).map_or("", |f| f.message.as_str());
    let failed = row.state == ExecutionState::Failed;
    let error_msg = if failed && failure.is_empty() { &row.message } else { failure };
    let view = |output: &'a RunOutput| OutputView {
        stdout: &output.stdout,
        stdout_truncated: output.stdout_truncated,
        stderr: &output.stderr,
        stderr_truncated: output.stderr_truncated,
        exit_code: output.exit_code,
        error_msg,
    };
    let bare = |exit_code: i32| OutputView {
        stdout: "",
        stdout_truncated: false,
        stderr: "",
        stderr_truncated: false,
        exit_code,
        error_msg,
    };
    match record.and_then(|record| record.output.as_ref()) {
        Some(output) => Some(view(output)),
        None if row.exit_code.is_some() || failed => Some(bare(row.exit_code.unwrap_or(-1))),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::model::{
        Bytes, DesiredState, ExecutionId, Failure, FailureCode, JobDigest, JobId, MilliCpu, Sha256, Timestamp,
    };

    use super::*;

    fn row(state: ExecutionState) -> ExecutionRow {
        ExecutionRow {
            id: ExecutionId::random(),
            job_id: JobId::random(),
            job_version: 1,
            partition: 0,
            restarts: 0,
            previous: None,
            desired: DesiredState::Stopped,
            state,
            message: String::new(),
            exit_code: Some(0),
            published: true,
            revision: 6,
            created: Timestamp(1_719_930_417_160_015_000),
            modified: Timestamp(1_719_930_418_160_015_000),
        }
    }

    fn record(row: &ExecutionRow, state: ExecutionState) -> ExecutionRecord {
        ExecutionRecord {
            id: row.id.clone(),
            job_id: row.job_id.clone(),
            digest: JobDigest::of(b""),
            partition: 0,
            restarts: 0,
            state,
            revision: 4,
            resources: Resources { cpu: MilliCpu(500), memory: Bytes(512_000_000), ..Resources::default() },
            created: row.created,
            modified: row.modified,
            failure: None,
            output: Some(RunOutput { stdout: "hi\n".into(), ..RunOutput::default() }),
            reported: true,
        }
    }

    fn show(row: &ExecutionRow, record: Option<&ExecutionRecord>, dialect: Dialect) -> Value {
        let parts =
            ExecutionParts { row, record, namespace: "default", task: "main", node: "n-edge-01", next: None };
        let result = if row.published {
            ResultView::download("http://h:6001/e.tar.gz".into(), &Sha256::of(b""), Bytes(10))
        } else {
            ResultView::default()
        };
        serde_json::to_value(ExecutionView::of(&parts, result, dialect)).unwrap()
    }

    #[test]
    fn a_completed_execution_in_both_dialects() {
        let row = row(ExecutionState::Completed);
        let record = record(&row, ExecutionState::Completed);
        let wanted = |code: u8| {
            json!({
                "ID": row.id.as_str(), "Namespace": "default", "EvalID": "", "Name": "", "NodeID": "n-edge-01",
                "JobID": row.job_id.as_str(), "JobVersion": 1, "PartitionIndex": 0,
                "AllocatedResources":
                    {"Tasks": {"main": {"CPU": 0.5, "Memory": 512_000_000, "Disk": 0, "GPU": 0}}},
                "DesiredState": {"StateType": 2}, "ComputeState": {"StateType": code},
                "PublishedResult": {"Type": "urlDownload", "Params": {
                    "URL": "http://h:6001/e.tar.gz", "SHA256": Sha256::of(b"").hex(), "Size": 10}},
                "RunOutput": {"Stdout": "hi\n", "StdoutTruncated": false, "stderr": "",
                              "StderrTruncated": false, "ExitCode": 0, "ErrorMsg": ""},
                "PreviousExecution": "", "NextExecution": "", "FollowupEvalID": "", "Revision": 6,
                "CreateTime": 1_719_930_417_160_015_000_i64, "ModifyTime": 1_719_930_418_160_015_000_i64
            })
        };
        assert_eq!(show(&row, Some(&record), Dialect::A), wanted(7));
        assert_eq!(show(&row, Some(&record), Dialect::B), wanted(9));
    }

    #[test]
    fn the_compute_role_knows_more_while_it_runs() {
        let mut row = row(ExecutionState::BidAccepted);
        (row.published, row.exit_code) = (false, None);
        let record = record(&row, ExecutionState::Publishing);
        let old = show(&row, Some(&record), Dialect::A);
        assert_eq!(old["ComputeState"]["StateType"], 5);
        assert_eq!(show(&row, Some(&record), Dialect::B)["ComputeState"]["StateType"], 7);
        assert_eq!(old["RunOutput"], Value::Null);
        assert_eq!(old["PublishedResult"], json!({"Type": ""}));
        assert_eq!(show(&row, None, Dialect::B)["ComputeState"]["StateType"], 5);
    }

    #[test]
    fn a_failure_says_why() {
        let mut row = row(ExecutionState::Failed);
        (row.published, row.exit_code, row.message) = (false, None, "the program trapped".into());
        let shown = show(&row, None, Dialect::B);
        assert_eq!(shown["RunOutput"]["ErrorMsg"], "the program trapped");
        assert_eq!(shown["RunOutput"]["ExitCode"], -1);
        assert_eq!(shown["ComputeState"], json!({"StateType": 10, "Message": "the program trapped"}));
        assert_eq!(shown["AllocatedResources"], Value::Null);
        let mut record = record(&row, ExecutionState::Failed);
        record.failure = Some(Failure::new(FailureCode::Trap, "unreachable executed"));
        let shown = show(&row, Some(&record), Dialect::A);
        assert_eq!(shown["RunOutput"]["ErrorMsg"], "unreachable executed");
        assert_eq!(shown["RunOutput"]["Stdout"], "hi\n");
    }
}
