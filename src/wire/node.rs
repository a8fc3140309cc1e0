//! The node as the API shows it: who it is, what it can do, what it has.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::model::Resources;

use super::answers::ResultAddresses;
use super::dialect::BACALHAU_VERSION;
use super::execution_view::ResourcesView;

/// `BuildVersionInfo`. Clients want the version of Bacalhau that they talk to; ours stands beside it.
#[derive(Debug, Clone, Serialize)]
pub struct BuildVersion {
    #[serde(rename = "Major")]
    major: &'static str,
    #[serde(rename = "Minor")]
    minor: &'static str,
    #[serde(rename = "GitVersion")]
    git_version: &'static str,
    #[serde(rename = "GitCommit")]
    git_commit: &'static str,
    #[serde(rename = "BuildDate")]
    build_date: &'static str,
    #[serde(rename = "GOOS")]
    os: &'static str,
    #[serde(rename = "GOARCH")]
    arch: &'static str,
    #[serde(rename = "CodlingVersion")]
    codling: &'static str,
}

impl Default for BuildVersion {
    fn default() -> Self {
        Self {
            major: "1",
            minor: "9",
            git_version: BACALHAU_VERSION,
            git_commit: concat!("codling-", env!("CARGO_PKG_VERSION")),
            // Equal sources give equal programs: there is no date in them. This is Go's "no time".
            build_date: "0001-01-01T00:00:00Z",
            os: std::env::consts::OS,
            arch: go_arch(std::env::consts::ARCH),
            codling: env!("CARGO_PKG_VERSION"),
        }
    }
}

fn go_arch(arch: &'static str) -> &'static str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

/// What the agent knows of itself.
#[derive(Debug, Clone, Default)]
pub struct NodeFacts {
    /// Its id, which is also its name.
    pub id: String,
    /// Labels, for constraints.
    pub labels: BTreeMap<String, String>,
    /// Engines that are there.
    pub engines: Vec<String>,
    /// Publishers that are there.
    pub publishers: Vec<String>,
    /// Kinds of inputs that can be fetched.
    pub sources: Vec<String>,
    /// What all executions together may have.
    pub capacity: Resources,
    /// What one execution may have.
    pub max_job: Resources,
    /// What nobody has now.
    pub available: Resources,
    /// Executions that run.
    pub running: u32,
    /// Executions that wait for room.
    pub queued: u32,
    /// Where its results are fetched from.
    pub results: Option<ResultAddresses>,
    /// What is wrong with the disk; empty if nothing is.
    pub disk: String,
}

/// `NodeInfo`. A node with both roles calls itself `Compute`: otherwise 1.9 shows no capacity.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NodeInfo<'a> {
    #[serde(rename = "NodeID")]
    node_id: &'a str,
    node_type: &'static str,
    labels: &'a BTreeMap<String, String>,
    bacalhau_version: BuildVersion,
    compute_node_info: ComputeInfo<'a>,
    supported_protocols: [&'static str; 1],
    /// Our own: absent while the disk is fine.
    #[serde(skip_serializing_if = "str::is_empty")]
    disk_warning: &'a str,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ComputeInfo<'a> {
    execution_engines: &'a [String],
    publishers: &'a [String],
    storage_sources: &'a [String],
    max_capacity: ResourcesView,
    /// Despite its name, what the queue holds now; executions that wait have nothing yet.
    queue_capacity: ResourcesView,
    available_capacity: ResourcesView,
    max_job_requirements: ResourcesView,
    running_executions: u32,
    enqueued_executions: u32,
    #[serde(rename = "address")]
    address: &'static str,
}

/// `NodeState`, with the connection in the words of both generations.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NodeState<'a> {
    info: NodeInfo<'a>,
    membership: &'static str,
    connection: &'static str,
    connection_state: ConnectionState<'a>,
    /// Ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    codling_results: Option<&'a ResultAddresses>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ConnectionState<'a> {
    status: &'static str,
    last_heartbeat: &'a str,
    connected_since: &'a str,
    disconnected_since: &'static str,
}

/// Answer to `agent/node`: 1.4 wants a `NodeState` and 1.9 a `NodeInfo`; no key is in both.
#[derive(Debug, Clone, Serialize)]
pub struct AgentNode<'a> {
    #[serde(flatten)]
    state: NodeState<'a>,
    #[serde(flatten)]
    info: NodeInfo<'a>,
}

impl<'a> NodeInfo<'a> {
    /// The node.
    #[must_use]
    pub fn of(facts: &'a NodeFacts) -> Self {
        Self {
            node_id: &facts.id,
            node_type: "Compute",
            labels: &facts.labels,
            bacalhau_version: BuildVersion::default(),
            compute_node_info: ComputeInfo {
                execution_engines: &facts.engines,
                publishers: &facts.publishers,
                storage_sources: &facts.sources,
                max_capacity: (&facts.capacity).into(),
                queue_capacity: (&Resources::default()).into(),
                available_capacity: (&facts.available).into(),
                max_job_requirements: (&facts.max_job).into(),
                running_executions: facts.running,
                enqueued_executions: facts.queued,
                address: "",
            },
            supported_protocols: ["ncl/v1"],
            disk_warning: &facts.disk,
        }
    }
}

impl<'a> NodeState<'a> {
    /// The node; it is connected to itself since `started`. Both times are RFC 3339.
    #[must_use]
    pub fn of(facts: &'a NodeFacts, started: &'a str, now: &'a str) -> Self {
        Self {
            info: NodeInfo::of(facts),
            membership: "APPROVED",
            connection: "CONNECTED",
            connection_state: ConnectionState {
                status: "CONNECTED",
                last_heartbeat: now,
                connected_since: started,
                disconnected_since: "0001-01-01T00:00:00Z",
            },
            codling_results: facts.results.as_ref(),
        }
    }
}

impl<'a> AgentNode<'a> {
    /// The node, both ways at once.
    #[must_use]
    pub fn of(facts: &'a NodeFacts, started: &'a str, now: &'a str) -> Self {
        Self { state: NodeState::of(facts, started, now), info: NodeInfo::of(facts) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::model::{Bytes, MilliCpu};

    use super::*;

    #[test]
    fn version_has_texts_where_clients_want_texts() {
        let version = serde_json::to_value(BuildVersion::default()).unwrap();
        assert_eq!((version["Major"].as_str(), version["Minor"].as_str()), (Some("1"), Some("9")));
        for key in ["GitVersion", "GitCommit", "BuildDate", "GOOS", "GOARCH"] {
            assert!(version[key].as_str().is_some_and(|text| !text.is_empty()), "{key}");
        }
        assert_eq!(go_arch("aarch64"), "arm64");
    }

    #[test]
    fn agent_node_serves_both_generations() {
        let facts = NodeFacts {
            id: "n-edge-01".into(),
            engines: vec!["wasm".into()],
            capacity: Resources { cpu: MilliCpu(4000), memory: Bytes(1 << 30), ..Resources::default() },
            running: 1,
            ..NodeFacts::default()
        };
        let (then, now) = ("2026-01-02T03:04:05Z", "2026-01-02T03:05:05Z");
        let state = serde_json::to_value(NodeState::of(&facts, then, now)).unwrap();
        assert_eq!(state["Info"]["NodeType"], "Compute");
        assert_eq!(state["Info"]["ComputeNodeInfo"]["MaxCapacity"]["CPU"], json!(4.0));
        assert_eq!(state["Info"]["ComputeNodeInfo"]["RunningExecutions"], 1);
        assert_eq!(state["Info"]["ComputeNodeInfo"]["address"], "");
        assert_eq!((&state["Membership"], &state["Connection"]), (&json!("APPROVED"), &json!("CONNECTED")));
        assert_eq!(state["ConnectionState"]["Status"], "CONNECTED");
        let union = serde_json::to_value(AgentNode::of(&facts, then, now)).unwrap();
        let info = state["Info"].as_object().unwrap();
        for (key, value) in state.as_object().unwrap().iter().chain(info) {
            assert_eq!(union.get(key), Some(value), "{key}");
        }
        let Value::Object(union) = union else { panic!() };
        assert_eq!(union.len(), 4 + info.len());
        // What is ours stands beside it.
        let results = Some(ResultAddresses { url: "http://pi:6001".into(), ..ResultAddresses::default() });
        let facts = NodeFacts { results, ..facts };
        let union = serde_json::to_value(AgentNode::of(&facts, then, now)).unwrap();
        assert_eq!(union["CodlingResults"]["URL"], "http://pi:6001");
        assert_eq!(union.as_object().unwrap().len(), 5 + info.len());
    }
}
