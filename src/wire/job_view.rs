//! A job as the API shows it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::model::job::Params;
use crate::model::{Constraint, JobRecord, JobSpec, JobType, ResourceRequest, SpecConfig, Task};

use super::dialect::Dialect;

/// `Job`: always with all its fields, in the exact case that the Python client compares.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct JobView<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    name: &'a str,
    namespace: &'a str,
    #[serde(rename = "Type")]
    kind: &'static str,
    priority: i32,
    count: u32,
    constraints: Vec<Requirement<'a>>,
    meta: &'a BTreeMap<String, String>,
    labels: &'a BTreeMap<String, String>,
    tasks: [TaskView<'a>; 1],
    state: StateView<'a>,
    version: u64,
    revision: u64,
    create_time: i64,
    modify_time: i64,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Requirement<'a> {
    key: &'a str,
    operator: &'a str,
    values: &'a [String],
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
struct StateView<'a> {
    state_type: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
struct TaskView<'a> {
    name: &'a str,
    engine: ConfigView<'a>,
    publisher: ConfigView<'a>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    env: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    meta: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    input_sources: Vec<InputView<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    result_paths: Vec<PathView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<RequestView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<NetworkView<'a>>,
    timeouts: TimeoutsView,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ConfigView<'a> {
    #[serde(rename = "Type")]
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<&'a Params>,
}

impl<'a> ConfigView<'a> {
    fn of(config: &'a SpecConfig) -> Self {
        Self { kind: &config.kind, params: (!config.params.is_empty()).then_some(&config.params) }
    }
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
struct InputView<'a> {
    source: ConfigView<'a>,
    alias: &'a str,
    target: &'a str,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
struct PathView<'a> {
    name: &'a str,
    path: &'a str,
}

/// Amounts as canonical texts: thousandths of a core, bytes.
#[derive(Debug, Clone, Serialize)]
struct RequestView {
    #[serde(rename = "CPU", skip_serializing_if = "Option::is_none")]
    cpu: Option<String>,
    #[serde(rename = "Memory", skip_serializing_if = "Option::is_none")]
    memory: Option<String>,
    #[serde(rename = "Disk", skip_serializing_if = "Option::is_none")]
    disk: Option<String>,
    #[serde(rename = "GPU", skip_serializing_if = "Option::is_none")]
    gpu: Option<String>,
}

impl RequestView {
    fn of(request: &ResourceRequest) -> Option<Self> {
        (*request != ResourceRequest::default()).then(|| Self {
            cpu: request.cpu.map(|cpu| cpu.to_string()),
            memory: request.memory.map(|memory| memory.0.to_string()),
            disk: request.disk.map(|disk| disk.0.to_string()),
            gpu: request.gpu.map(|gpu| gpu.to_string()),
        })
    }
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkView<'a> {
    #[serde(rename = "Type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    domains: &'a [String],
}

/// Whole seconds; what is not set is left out.
#[derive(Debug, Clone, Serialize)]
struct TimeoutsView {
    #[serde(rename = "ExecutionTimeout", skip_serializing_if = "is_zero")]
    execution: u64,
    #[serde(rename = "QueueTimeout", skip_serializing_if = "is_zero")]
    queue: u64,
    #[serde(rename = "TotalTimeout", skip_serializing_if = "is_zero")]
    total: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
const fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl<'a> JobView<'a> {
    /// The job and its record, for clients of that generation.
    #[must_use]
    pub fn of(spec: &'a JobSpec, record: &'a JobRecord, dialect: Dialect) -> Self {
        // 1.9 wants 0 for jobs that run on every node, 1.4 wants 1.
        let everywhere = matches!(spec.job_type, JobType::Ops | JobType::Daemon);
        let count = if everywhere && dialect == Dialect::B { 0 } else { spec.count };
        Self {
            id: record.id.as_str(),
            name: &record.name,
            namespace: &spec.namespace,
            kind: spec.job_type.as_str(),
            priority: spec.priority,
            count,
            constraints: spec.constraints.iter().map(requirement).collect(),
            meta: &spec.meta,
            labels: &spec.labels,
            tasks: [task(&spec.task, dialect)],
            state: StateView { state_type: record.state.as_str(), message: &record.message },
            version: record.version,
            revision: record.revision,
            create_time: record.created.0,
            modify_time: record.modified.0,
        }
    }
}

fn requirement(constraint: &Constraint) -> Requirement<'_> {
    Requirement { key: &constraint.key, operator: &constraint.operator, values: &constraint.values }
}

fn task(task: &Task, dialect: Dialect) -> TaskView<'_> {
    let network = task.network.kind.and_then(|kind| dialect.network_word(kind));
    TaskView {
        name: &task.name,
        engine: ConfigView::of(&task.engine),
        publisher: task.publisher.as_ref().map_or(ConfigView { kind: "", params: None }, ConfigView::of),
        env: &task.env,
        meta: &task.meta,
        input_sources: task
            .inputs
            .iter()
            .map(|input| InputView {
                source: ConfigView::of(&input.source.0),
                alias: &input.alias,
                target: &input.target,
            })
            .collect(),
        result_paths: task.result_paths.iter().map(|p| PathView { name: &p.name, path: &p.path }).collect(),
        resources: RequestView::of(&task.resources),
        network: network.map(|kind| NetworkView { kind, domains: &task.network.domains }),
        timeouts: TimeoutsView {
            execution: task.timeouts.execution.as_secs(),
            queue: task.timeouts.queue.as_secs(),
            total: task.timeouts.total.as_secs(),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::model::{JobDigest, JobId, JobState, Timestamp};
    use crate::wire::{Reading, Tree, read_job, tree};

    use super::*;

    fn spec(text: &str) -> JobSpec {
        let tree: Tree = tree::parse(text.as_bytes(), &tree::Limits::default()).unwrap();
        read_job(&tree, Reading::file()).unwrap().spec
    }

    fn record(id: &JobId) -> JobRecord {
        JobRecord {
            head: None,
            id: id.clone(),
            digest: JobDigest::of(b""),
            name: "count".into(),
            state: JobState::Running,
            message: String::new(),
            version: 1,
            revision: 2,
            created: Timestamp(1_719_930_417_160_015_000),
            modified: Timestamp(1_719_930_418_160_015_000),
        }
    }

    const FULL: &str = "
Name: count
Type: ops
Priority: 5
Constraints: [{Key: zone, Operator: in, Values: [a, b]}, {Key: gpu, Operator: '!'}]
Labels: {team: field}
Tasks:
- Name: main
  Engine: {Type: wasm, Params: {EntryModule: /m.wasm, Parameters: [x]}}
  Publisher: {Type: local}
  Env: {A: b}
  InputSources: [{Source: {Type: inline, Params: {URL: 'data:,x'}}, Target: /m.wasm}]
  ResultPaths: [{Name: out, Path: /out}]
  Resources: {CPU: 500m, Memory: 512Mb}
  Network: {Type: Host}
  Timeouts: {ExecutionTimeout: 60}
";

    #[test]
    fn a_full_job_in_both_dialects() {
        let (spec, id) = (spec(FULL), JobId::random());
        let record = record(&id);
        let wanted = |count: u32, network: &str| {
            json!({
                "ID": id.as_str(), "Name": "count", "Namespace": "default", "Type": "ops", "Priority": 5,
                "Count": count,
                "Constraints": [{"Key": "zone", "Operator": "in", "Values": ["a", "b"]},
                                {"Key": "gpu", "Operator": "!", "Values": []}],
                "Meta": {}, "Labels": {"team": "field"},
                "Tasks": [{
                    "Name": "main",
                    "Engine": {"Type": "wasm", "Params": {"EntryModule": "/m.wasm", "Parameters": ["x"]}},
                    "Publisher": {"Type": "local"},
                    "Env": {"A": "b"},
                    "InputSources": [{"Source": {"Type": "inline", "Params": {"URL": "data:,x"}},
                                      "Alias": "", "Target": "/m.wasm"}],
                    "ResultPaths": [{"Name": "out", "Path": "/out"}],
                    "Resources": {"CPU": "500m", "Memory": "512000000"},
                    "Network": {"Type": network},
                    "Timeouts": {"ExecutionTimeout": 60}
                }],
                "State": {"StateType": "Running"}, "Version": 1, "Revision": 2,
                "CreateTime": 1_719_930_417_160_015_000_i64, "ModifyTime": 1_719_930_418_160_015_000_i64
            })
        };
        let show = |dialect| serde_json::to_value(JobView::of(&spec, &record, dialect)).unwrap();
        assert_eq!(show(Dialect::A), wanted(1, "Full"));
        assert_eq!(show(Dialect::B), wanted(0, "Host"));
    }

    #[test]
    fn a_small_job_has_what_clients_look_at() {
        let text = "{Type: batch, Tasks: [{Name: m, Engine: {Type: docker}, Network: {Type: Default}}]}";
        let (spec, id) = (spec(text), JobId::random());
        let record = JobRecord { message: "no room".into(), ..record(&id) };
        let show = |dialect| serde_json::to_value(JobView::of(&spec, &record, dialect)).unwrap();
        let old = show(Dialect::A);
        assert_eq!(old["Tasks"][0]["Publisher"], json!({"Type": ""}));
        assert_eq!(old["Tasks"][0]["Engine"], json!({"Type": "docker"}));
        assert_eq!(old["Tasks"][0]["Timeouts"], json!({}));
        assert_eq!(old["Tasks"][0].get("Network"), None);
        assert_eq!(show(Dialect::B)["Tasks"][0]["Network"], json!({"Type": "Default"}));
        assert_eq!(old["State"], json!({"StateType": "Running", "Message": "no room"}));
        assert_eq!(old["Constraints"], Value::Array(vec![]));
    }

    #[test]
    fn what_is_shown_can_be_submitted_again() {
        let (job, id) = (spec(FULL), JobId::random());
        let record = record(&id);
        for dialect in [Dialect::A, Dialect::B] {
            let text = serde_json::to_string(&JobView::of(&job, &record, dialect)).unwrap();
            let tree = tree::parse_json(text.as_bytes(), &tree::Limits::default()).unwrap();
            let mut again = read_job(&tree, Reading::body(dialect)).unwrap();
            assert_eq!(again.warnings.len(), 1, "server-side fields: {:?}", again.warnings);
            again.spec.task.network = job.task.network.clone();
            assert_eq!(again.spec, job);
        }
    }
}
