//! What the API's description gives as JSON, taken and shown again in each generation.

use serde_json::{Value, json};

use crate::model::{Bytes, JobDigest, JobId, JobRecord, JobState, MilliCpu, Resources, Timestamp};

use super::answers::{StopAnswer, SubmitAnswer};
use super::tree::{self, Limits};
use super::{AgentNode, Dialect, JobView, NodeFacts, NodeState, Reading, read_job};

/// Submits `job` as a client of that generation does, and shows it to one of `shown`.
fn there_and_back(job: &Value, dialect: Dialect, shown: Dialect) -> Value {
    let body = json!({ "Namespace": "", "Credential": null, "IdempotencyToken": "", "Job": job }).to_string();
    let tree = tree::parse_json(body.as_bytes(), &Limits::default()).unwrap();
    let read = read_job(&tree, Reading::body(dialect)).unwrap();
    assert_eq!(read.warnings, Vec::<String>::new());
    let id = JobId::random();
    let record = JobRecord {
        head: None,
        id,
        digest: JobDigest::of(b""),
        name: read.spec.name.clone(),
        state: JobState::Pending,
        message: String::new(),
        version: 1,
        revision: 1,
        created: Timestamp(1),
        modified: Timestamp(2),
    };
    let view = serde_json::to_value(JobView::of(&read.spec, &record, shown)).unwrap();
    // What is shown can be taken again, and is then shown alike.
    let mut again = view.clone();
    for field in ["ID", "State", "Version", "Revision", "CreateTime", "ModifyTime"] {
        again.as_object_mut().unwrap().remove(field);
    }
    let body = json!({ "Job": again }).to_string();
    let tree = tree::parse_json(body.as_bytes(), &Limits::default()).unwrap();
    let read = read_job(&tree, Reading::body(shown)).unwrap();
    assert_eq!(serde_json::to_value(JobView::of(&read.spec, &record, shown)).unwrap(), view);
    view
}

const BOTH: [Dialect; 2] = [Dialect::A, Dialect::B];

#[test]
fn every_engine_input_and_publisher_keeps_its_parameters() {
    let engines = [
        json!({"Type": "docker", "Params": {"Image": "busybox:1.36", "Entrypoint": ["/bin/sh", "-c"],
            "Parameters": ["echo", "hi"], "EnvironmentVariables": ["A=b"], "WorkingDirectory": "/w"}}),
        json!({"Type": "wasm", "Params": {"EntryModule": "main.wasm", "ImportModules": ["/lib.wasm"],
            "Entrypoint": "_start", "Parameters": ["x"]}}),
        json!({"Type": "wasm", "Params": {"EntryModule": {"Source": {"Type": "inline", "Params": {"URL": "data:,x"}},
            "Alias": "", "Target": ""}, "ImportModules": [], "Entrypoint": "_start",
            "EnvironmentVariables": {"A": "b"}}}),
    ];
    let sources = [
        json!({"Type": "urlDownload", "Params": {"URL": "https://example.org/a.csv"}}),
        json!({"Type": "inline", "Params": {"URL": "data:application/gzip;base64,H4sI"}}),
        json!({"Type": "ipfs", "Params": {"CID": "bafy"}}),
        json!({"Type": "s3", "Params": {"Bucket": "b", "Key": "k/*", "Filter": ".*", "Region": "eu", "Endpoint": "http://e",
            "VersionID": "v", "ChecksumSHA256": "c"}}),
        json!({"Type": "localDirectory", "Params": {"SourcePath": "/srv", "ReadWrite": "true"}}),
        json!({"Type": "local", "Params": {"SourcePath": "/srv", "ReadWrite": true, "CreateAs": "dir"}}),
    ];
    let publishers = [
        json!({"Type": "local"}),
        json!({"Type": "noop"}),
        json!({"Type": "ipfs"}),
        json!({"Type": "s3", "Params": {"bucket": "b", "key": "{jobID}/{executionID}", "region": "eu", "endpoint": "http://e"}}),
        json!({"Type": "s3managed"}),
    ];
    let inputs: Vec<Value> = sources
        .iter()
        .enumerate()
        .map(|(n, source)| json!({"Source": source, "Alias": format!("a{n}"), "Target": format!("/in{n}")}))
        .chain([json!({"Source": {"Type": "inline", "Params": {"URL": "data:,x"}}, "Alias": "", "Target": "main.wasm"})])
        .chain([json!({"Source": {"Type": "inline", "Params": {"URL": "data:,x"}}, "Alias": "", "Target": "/lib.wasm"})])
        .collect();
    for dialect in BOTH {
        for engine in &engines {
            for publisher in &publishers {
                let task = json!({"Name": "main", "Engine": engine, "Publisher": publisher, "InputSources": inputs,
                    "ResultPaths": [{"Name": "out", "Path": "/out"}]});
                let job = json!({"Name": "n", "Namespace": "default", "Type": "batch", "Priority": 3, "Count": 2,
                    "Meta": {"a": "b"}, "Labels": {"c": "d"}, "Tasks": [task]});
                let shown = there_and_back(&job, dialect, dialect);
                for (field, value) in task.as_object().unwrap() {
                    assert_eq!(shown["Tasks"][0][field], *value, "{field} in {dialect:?}");
                }
                for (field, value) in job.as_object().unwrap().iter().filter(|(field, _)| *field != "Tasks") {
                    assert_eq!(shown[field], *value, "{field} in {dialect:?}");
                }
            }
        }
    }
}

#[test]
fn every_word_for_a_network_is_one_that_the_other_generation_knows() {
    let words = [
        ("None", "None"),
        ("HTTP", "HTTP"),
        ("Full", "Full"),
        ("Host", "Full"),
        ("Bridge", "Full"),
        ("Default", ""),
    ];
    for (word, old) in words {
        let domains = if word == "HTTP" { json!(["example.org"]) } else { json!([]) };
        let job = json!({"Type": "batch", "Count": 1, "Tasks": [{"Name": "m", "Engine": {"Type": "wasm",
            "Params": {"EntryModule": {"Source": {"Type": "inline", "Params": {"URL": "data:,x"}}}}},
            "Network": {"Type": word, "Domains": domains}}]});
        let to_old = there_and_back(&job, Dialect::B, Dialect::A);
        assert_eq!(to_old["Tasks"][0]["Network"]["Type"].as_str().unwrap_or(""), old, "{word}");
        let to_new = there_and_back(&job, Dialect::B, Dialect::B);
        assert_eq!(to_new["Tasks"][0]["Network"]["Type"], word);
    }
}

#[test]
fn a_node_has_every_key_of_both_generations() {
    let some = Resources { cpu: MilliCpu(500), memory: Bytes(1024), disk: Bytes(2048), gpu: 0 };
    let facts = NodeFacts {
        id: "n-edge-01".into(),
        labels: [("zone".to_owned(), "a".to_owned())].into(),
        engines: vec!["wasm".into()],
        publishers: vec!["local".into(), "noop".into()],
        sources: vec!["inline".into()],
        capacity: some,
        max_job: some,
        available: some,
        running: 1,
        queued: 2,
        ..NodeFacts::default()
    };
    let (then, now) = ("2026-01-02T03:04:05Z", "2026-01-02T03:05:05Z");
    let mut state = serde_json::to_value(NodeState::of(&facts, then, now)).unwrap();
    let version = state["Info"].as_object_mut().unwrap().remove("BacalhauVersion").unwrap();
    assert_eq!((&version["Major"], &version["Minor"]), (&json!("1"), &json!("9")));
    let resources = json!({"CPU": 0.5, "Memory": 1024, "Disk": 2048, "GPU": 0});
    let wanted = json!({
        "Info": {
            "NodeID": "n-edge-01", "NodeType": "Compute", "Labels": {"zone": "a"},
            "ComputeNodeInfo": {
                "ExecutionEngines": ["wasm"], "Publishers": ["local", "noop"], "StorageSources": ["inline"],
                "MaxCapacity": resources, "QueueCapacity": {"CPU": 0.0, "Memory": 0, "Disk": 0, "GPU": 0},
                "AvailableCapacity": resources, "MaxJobRequirements": resources,
                "RunningExecutions": 1, "EnqueuedExecutions": 2, "address": ""
            },
            "SupportedProtocols": ["ncl/v1"]
        },
        "Membership": "APPROVED", "Connection": "CONNECTED",
        "ConnectionState": {"Status": "CONNECTED", "LastHeartbeat": now, "ConnectedSince": then,
                            "DisconnectedSince": "0001-01-01T00:00:00Z"}
    });
    assert_eq!(state, wanted);
    let union = serde_json::to_value(AgentNode::of(&facts, then, now)).unwrap();
    let keys: Vec<&str> = union.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "Info",
            "Membership",
            "Connection",
            "ConnectionState",
            "NodeID",
            "NodeType",
            "Labels",
            "BacalhauVersion",
            "ComputeNodeInfo",
            "SupportedProtocols"
        ]
    );
}

#[test]
fn answers_are_read_back_as_they_were_written() {
    let text = r#"{"JobID":"j-1","EvaluationID":"v-1","Warnings":["w"]}"#;
    let answer: SubmitAnswer = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&answer).unwrap(), text);
    let text = r#"{"EvaluationID":""}"#;
    let answer: StopAnswer = serde_json::from_str(text).unwrap();
    assert_eq!((serde_json::to_string(&answer).unwrap().as_str(), answer), (text, StopAnswer::default()));
}
