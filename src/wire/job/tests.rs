use proptest::prelude::*;

use crate::model::Bytes;
use crate::model::job::NetworkKind;
use crate::wire::tree::{self, Limits};

use super::*;

fn read_text(text: &str, reading: Reading) -> Result<ReadJob, Vec<String>> {
    let tree = tree::parse(text.as_bytes(), &Limits::default()).unwrap();
    read_job(&tree, reading).map_err(|Problems(lines)| lines)
}

fn body(text: &str, dialect: Dialect) -> Result<ReadJob, Vec<String>> {
    read_text(text, Reading::body(dialect))
}

/// What the 1.4 command line sends for `docker run`: everything normalised.
const FROM_1_4: &str = r#"{"Namespace":"","Credential":{"Scheme":"Bearer","Value":"tok-123","Params":null},"IdempotencyToken":"",
 "Job":{"ID":"","Name":"","Namespace":"default","Type":"batch","Priority":0,"Count":1,"Constraints":[],
  "Meta":{},"Labels":{},
  "Tasks":[{"Name":"main",
    "Engine":{"Type":"docker","Params":{"Image":"busybox:1.36","Entrypoint":null,"Parameters":["echo","hi"],
              "EnvironmentVariables":null,"WorkingDirectory":""}},
    "Publisher":{"Type":""},"Resources":{"CPU":"500m"},"Network":{"Type":"None"},"Timeouts":{}}],
  "State":{"StateType":"Undefined"},"Version":0,"Revision":0,"CreateTime":0,"ModifyTime":0}}"#;

/// What the 1.9 command line sends: nulls and missing fields.
const FROM_1_9: &str = r#"{"Namespace":"field","Credential":null,"IdempotencyToken":"","Force":false,
 "Job":{"Name":"count","Type":"batch","Constraints":null,"Meta":null,"Labels":null,
  "Tasks":[{"Name":"main","Publisher":null,
    "Engine":{"Type":"wasm","Params":{"EntryModule":"main.wasm","Entrypoint":"_start","Parameters":null}},
    "InputSources":[{"Source":{"Type":"inline","Params":{"URL":"data:,x"}},"Alias":"","Target":"main.wasm"}]}]}}"#;

#[test]
fn both_generations_bodies_are_read() {
    let old = body(FROM_1_4, Dialect::A).unwrap();
    assert_eq!(old.warnings, Vec::<String>::new());
    let job = &old.spec;
    assert_eq!((job.name.as_str(), job.namespace.as_str(), job.count), ("", "default", 1));
    assert_eq!(job.task.publisher, None);
    assert_eq!(job.task.network.kind, Some(NetworkKind::None));
    assert_eq!(job.task.resources.cpu.unwrap().0, 500);
    assert_eq!(job.task.engine.text("image"), Some("busybox:1.36"));

    let new = body(FROM_1_9, Dialect::B).unwrap();
    assert_eq!(new.warnings, Vec::<String>::new());
    let job = &new.spec;
    assert_eq!((job.name.as_str(), job.namespace.as_str(), job.count), ("count", "field", 1));
    assert_eq!((job.task.network.kind, &job.task.resources), (None, &Default::default()));
}

#[test]
fn a_job_file_is_read() {
    let file = "
Name: thumbnail-run
Type: batch
Labels: {team: field, run: 7}
Tasks:
  - Name: main
    Engine:
      Type: docker
      Params:
        Image: ghcr.io/example/thumbs:1.2
        Entrypoint: [/bin/sh, -c]
    Publisher: {Type: local}
    InputSources:
      - Target: /in
        Source: {Type: localDirectory, Params: {SourcePath: /srv/pictures}}
    ResultPaths:
      - {Name: out, Path: /out}
    Resources: {CPU: 0.25, Memory: 128Mi, GPU: 0}
    Timeouts: {ExecutionTimeout: 600}
";
    let read = read_text(file, Reading::file()).unwrap();
    let task = &read.spec.task;
    assert_eq!(read.spec.labels["run"], "7");
    assert_eq!(task.resources.cpu.unwrap().0, 250);
    assert_eq!((task.resources.memory, task.resources.gpu), (Some(Bytes::mib(128)), Some(0)));
    assert_eq!(task.timeouts.execution.as_secs(), 600);
    assert_eq!(task.result_paths[0].path, "/out");
    // Keys are compared without case.
    let lower = file.replace("Tasks", "tasks").replace("Engine", "ENGINE").replace("Memory", "memory");
    assert_eq!(read_text(&lower, Reading::file()).unwrap(), read);
}

#[test]
fn all_problems_come_at_once_with_their_paths() {
    let text = "
Type: cron
Count: -1
Colour: blue
Constraints: [{Key: a, Operator: in}]
Tasks:
  - Name: ''
    Engine: {Params: {A: 1, a: 2}}
    Resources: {CPU: lots, Memory: 512x, Disk: [1], GPU: 0.5}
    Network: {Type: wifi, Ports: [{Name: http}]}
    Timeouts: {ExecutionTimeout: 10m, QueueTimeout: -1}
    ResultPaths: [{Name: out, Path: out}]
    Spoon: 1
";
    let lines = read_text(text, Reading::file()).unwrap_err();
    for wanted in [
        "Type: 'cron' is not one of batch, ops, service or daemon",
        "Count: -1 must not be negative",
        "Colour: no such key",
        "Tasks[0].Spoon: no such key",
        "Tasks[0].Engine.Params.a: given twice (keys are compared without case)",
        "Tasks[0].Network.Type: 'wifi' is not one of None, Full, HTTP, Default, Host, Bridge",
        "Tasks[0].Network.Ports: this node maps no ports",
        "Tasks[0].Timeouts.ExecutionTimeout: '10m' is not a whole number",
        "Tasks[0].Timeouts.QueueTimeout: -1 is not a number of seconds from 0 to 9223372036",
        "Tasks[0].Resources.Disk: a list where an amount is needed",
    ] {
        assert!(lines.iter().any(|line| line == wanted), "{wanted} in {lines:#?}");
    }
    for start in [
        "Tasks[0].Resources.CPU: 'lots' is not a CPU amount",
        "Tasks[0].Resources.Memory: '512x' is not a size",
        "Tasks[0].Resources.GPU: '0.5' is not",
    ] {
        assert!(lines.iter().any(|line| line.starts_with(start)), "{start} in {lines:#?}");
    }
    // With a type, the content is checked in the same answer.
    let lines = read_text(&text.replace("cron", "batch"), Reading::file()).unwrap_err();
    for wanted in [
        "Constraints[0]: operator 'in' needs at least one value",
        "Tasks[0].Name is required",
        "Tasks[0].Engine.Type is required",
        "Tasks[0].Publisher is required with ResultPaths (e.g. {Type: local})",
        "Tasks[0].ResultPaths[0].Path must be absolute",
        "Count: -1 must not be negative",
    ] {
        assert!(lines.iter().any(|line| line == wanted), "{wanted} in {lines:#?}");
    }
}

#[test]
fn what_is_no_job_is_told_so() {
    for (text, wanted) in [
        ("{}", "Tasks: one task is needed"),
        ("null", "there is no job: {\"Job\": {...}} or the job itself is needed"),
        (r#"{"Job":null}"#, "there is no job: {\"Job\": {...}} or the job itself is needed"),
        ("[1]", "the job: a list where a map is needed"),
        (r#"{"Type":"batch","Tasks":[null]}"#, "Tasks[0]: a task is needed, not null"),
        (r#"{"Type":"batch","Tasks":["x"]}"#, "Tasks[0]: a text where a map is needed"),
        (r#"{"Type":"batch","Tasks":{}}"#, "Tasks: a map where a list is needed"),
        (r#"{"Type":7,"Tasks":[]}"#, "Type: '7' is not one of batch, ops, service or daemon"),
    ] {
        let lines = body(text, Dialect::B).unwrap_err();
        assert!(lines.iter().any(|line| line == wanted), "{text}: {lines:?}");
    }
    // A bounded answer to an unbounded number of faults.
    let many: Vec<String> = (0..1000).map(|i| format!("\"k{i}\":[]")).collect();
    let lines = body(&format!("{{\"Labels\":{{{}}}}}", many.join(",")), Dialect::B).unwrap_err();
    assert_eq!((lines.len(), lines.last().unwrap().as_str()), (51, "and 952 more"));
}

fn counted(kind: &str, count: &str, reading: Reading) -> Result<u32, Vec<String>> {
    let text = format!(r#"{{"Type":"{kind}",{count}"Tasks":[{{"Name":"m","Engine":{{"Type":"docker"}}}}]}}"#);
    read_text(&text, reading).map(|read| read.spec.count)
}

#[test]
fn counts_mean_what_each_generation_means() {
    let (a, b) = (Reading::body(Dialect::A), Reading::body(Dialect::B));
    for kind in ["batch", "service"] {
        assert_eq!(counted(kind, "", a), Ok(1));
        assert_eq!(counted(kind, "", b), Ok(1));
        assert_eq!(counted(kind, "\"Count\":0,", a), Ok(1));
        assert_eq!(counted(kind, "\"Count\":0,", Reading::file()), Ok(1));
        assert_eq!(counted(kind, "\"Count\":0,", b), Ok(0));
        assert_eq!(counted(kind, "\"Count\":\"3\",", a), Ok(3));
    }
    for kind in ["ops", "daemon"] {
        assert_eq!(counted(kind, "\"Count\":0,", b), Ok(1));
        assert_eq!(counted(kind, "\"Count\":1,", a), Ok(1));
        assert!(counted(kind, "\"Count\":2,", b).unwrap_err()[0].starts_with("Count: 2 for a job of type"));
    }
    assert!(counted("batch", "\"Count\":99999999999,", b).unwrap_err()[0].contains("far too many"));
}

#[test]
fn warnings_tell_what_was_ignored() {
    let text = r#"{"ID":"j-1","Name":"x","Type":"ops","State":{"StateType":"Running"},"Version":3,"Revision":1,
        "CreateTime":5,"ModifyTime":0,"Meta":{"bacalhau.org/requester.id":"n","mine":"1"},"Colour":"blue",
        "Tasks":[{"Name":"a","Engine":{"Type":"docker","Later":1}},{"Name":"b"}]}"#;
    let read = body(text, Dialect::B).unwrap();
    assert_eq!(read.spec.meta.keys().collect::<Vec<_>>(), ["mine"]);
    assert_eq!(
        read.warnings,
        [
            "Meta: keys that begin with bacalhau.org/ are reserved and were dropped",
            "ID, State, Version, Revision, CreateTime: set by the node, ignored",
            "Tasks: only the first of 2 tasks is run",
            "Colour: unknown key, ignored",
        ]
    );
}

fn tree() -> impl Strategy<Value = Tree> {
    let key = prop_oneof![
        prop::sample::select(vec![
            "Job",
            "job",
            "Tasks",
            "Type",
            "Engine",
            "Params",
            "Count",
            "Name",
            "Resources",
            "CPU",
            "Labels",
            "Network",
            "Timeouts",
            "InputSources",
            "Source",
            "Constraints",
            "State",
        ])
        .prop_map(str::to_owned),
        "[a-z]{1,3}",
    ];
    let leaf = prop_oneof![
        Just(Tree::Null),
        any::<bool>().prop_map(Tree::Bool),
        any::<i128>().prop_map(Tree::Int),
        any::<f64>().prop_map(Tree::Float),
        "(batch|wasm|[a-z0-9]{0,6})".prop_map(Tree::Str),
    ];
    leaf.prop_recursive(6, 64, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Tree::List),
            prop::collection::vec((key.clone(), inner), 0..8).prop_map(Tree::Map),
        ]
    })
}

proptest! {
    #[test]
    fn any_tree_is_read_or_refused_with_words(tree in tree(), strict: bool, zero_is_one: bool) {
        match read_job(&tree, Reading { zero_is_one, strict }) {
            Ok(read) => prop_assert!(validate(&read.spec).is_ok()),
            Err(Problems(lines)) => prop_assert!(!lines.is_empty() && lines.len() <= 51),
        }
    }
}
