//! The task of a job, field by field.

use std::time::Duration;

use serde_json::Value;

use crate::model::job::{NetworkKind, Params};
use crate::model::units::{UnitError, parse_bytes, parse_cpu, parse_gpu};
use crate::model::{InputSource, Network, ResourceRequest, ResultPath, Source, SpecConfig, Task, Timeouts};

use super::fields::{Fields, Findings, cut, scalar};
use super::tree::Tree;

/// Go counts nanoseconds in 63 bits.
const SECONDS: i128 = i64::MAX as i128 / 1_000_000_000;

/// Reads `Tasks[0]`; `None` if it is not even a map.
pub(super) fn read(tree: &Tree, findings: &mut Findings) -> Option<Task> {
    let mut task = Fields::of(tree, "Tasks[0]", findings);
    if !matches!(tree, Tree::Map(_)) {
        if matches!(tree, Tree::Null) {
            findings.problems.add("Tasks[0]: a task is needed, not null");
        }
        return None;
    }
    let name = task.text("Name", findings).unwrap_or_default();
    let engine = config(&mut task, "Engine", findings)
        .unwrap_or_else(|| SpecConfig { kind: String::new(), params: Params::new() });
    let publisher = config(&mut task, "Publisher", findings).filter(|p| !p.kind.trim().is_empty());
    let read = Task {
        name,
        engine,
        publisher,
        env: task.texts("Env", findings),
        meta: task.texts("Meta", findings),
        inputs: inputs(&mut task, findings),
        result_paths: result_paths(&mut task, findings),
        resources: resources(&mut task, findings),
        network: network(&mut task, findings),
        timeouts: timeouts(&mut task, findings),
    };
    task.finish(findings);
    Some(read)
}

/// `{Type, Params}`.
fn config(fields: &mut Fields<'_>, name: &str, findings: &mut Findings) -> Option<SpecConfig> {
    let tree = fields.take(name)?;
    let mut config = Fields::of(tree, &fields.at(name), findings);
    let kind = config.text("Type", findings).unwrap_or_default().trim().to_owned();
    let at = config.at("Params");
    let mut params = Params::new();
    if let Some(tree) = config.take("Params") {
        // The fields are only looked through: the parameters keep the user's own keys.
        drop(Fields::of(tree, &at, findings));
        match value(tree) {
            Some(Value::Object(map)) => params = map,
            Some(_) => {}
            None => findings.problems.add(format!("{at}: a number in it is not finite or too large")),
        }
    }
    config.finish(findings);
    Some(SpecConfig { kind, params })
}

/// The same in the form that parameters are kept in.
fn value(tree: &Tree) -> Option<Value> {
    Some(match tree {
        Tree::Null => Value::Null,
        Tree::Bool(flag) => Value::Bool(*flag),
        Tree::Int(number) => match (i64::try_from(*number), u64::try_from(*number)) {
            (Ok(number), _) => number.into(),
            (_, Ok(number)) => number.into(),
            _ => return None,
        },
        Tree::Float(number) => Value::Number(serde_json::Number::from_f64(*number)?),
        Tree::Str(text) => Value::String(text.clone()),
        Tree::List(items) => Value::Array(items.iter().map(value).collect::<Option<_>>()?),
        Tree::Map(map) => Value::Object(
            map.iter().map(|(key, item)| Some((key.clone(), value(item)?))).collect::<Option<_>>()?,
        ),
    })
}

fn inputs(task: &mut Fields<'_>, findings: &mut Findings) -> Vec<InputSource> {
    let at = task.at("InputSources");
    let items = task.list("InputSources", findings).iter().enumerate();
    items
        .map(|(i, item)| {
            let mut fields = Fields::of(item, &format!("{at}[{i}]"), findings);
            let source = config(&mut fields, "Source", findings);
            let source = source.unwrap_or_else(|| SpecConfig { kind: String::new(), params: Params::new() });
            let input = InputSource {
                source: Source(source),
                alias: fields.text("Alias", findings).unwrap_or_default(),
                target: fields.text("Target", findings).unwrap_or_default(),
            };
            fields.finish(findings);
            input
        })
        .collect()
}

fn result_paths(task: &mut Fields<'_>, findings: &mut Findings) -> Vec<ResultPath> {
    let at = task.at("ResultPaths");
    let items = task.list("ResultPaths", findings).iter().enumerate();
    items
        .map(|(i, item)| {
            let mut fields = Fields::of(item, &format!("{at}[{i}]"), findings);
            let path = ResultPath {
                name: fields.text("Name", findings).unwrap_or_default(),
                path: fields.text("Path", findings).unwrap_or_default(),
            };
            fields.finish(findings);
            path
        })
        .collect()
}

fn resources(task: &mut Fields<'_>, findings: &mut Findings) -> ResourceRequest {
    let at = task.at("Resources");
    let Some(tree) = task.take("Resources") else { return ResourceRequest::default() };
    let mut fields = Fields::of(tree, &at, findings);
    let request = ResourceRequest {
        cpu: amount(&mut fields, "CPU", parse_cpu, findings),
        memory: amount(&mut fields, "Memory", parse_bytes, findings),
        disk: amount(&mut fields, "Disk", parse_bytes, findings),
        gpu: amount(&mut fields, "GPU", parse_gpu, findings),
    };
    fields.finish(findings);
    request
}

/// One resource: a text, or a plain number as YAML writes it. Nothing between the quotes is nothing asked.
fn amount<T>(
    fields: &mut Fields<'_>,
    name: &str,
    parse: fn(&str) -> Result<T, UnitError>,
    findings: &mut Findings,
) -> Option<T> {
    let at = fields.at(name);
    let tree = fields.take(name)?;
    let text = match scalar(tree) {
        Some(text) if !matches!(tree, Tree::Bool(_)) => text,
        _ => {
            findings.problems.add(format!("{at}: {} where an amount is needed", tree.kind()));
            return None;
        }
    };
    if text.trim().is_empty() {
        return None;
    }
    parse(&text).map_err(|error| findings.problems.add(format!("{at}: {error}"))).ok()
}

fn network(task: &mut Fields<'_>, findings: &mut Findings) -> Network {
    let at = task.at("Network");
    let Some(tree) = task.take("Network") else { return Network::default() };
    let mut fields = Fields::of(tree, &at, findings);
    let word = fields.text("Type", findings).unwrap_or_default();
    let kind = match word.trim().to_ascii_lowercase().as_str() {
        "" => None,
        "none" => Some(NetworkKind::None),
        "full" => Some(NetworkKind::Full),
        "http" => Some(NetworkKind::HTTP),
        "default" => Some(NetworkKind::Default),
        "host" => Some(NetworkKind::Host),
        "bridge" => Some(NetworkKind::Bridge),
        _ => {
            findings.problems.add(format!(
                "{at}.Type: '{}' is not one of None, Full, HTTP, Default, Host, Bridge",
                cut(&word)
            ));
            None
        }
    };
    let domains = fields.text_list("Domains", findings);
    if !fields.list("Ports", findings).is_empty() {
        findings.problems.add(format!("{at}.Ports: this node maps no ports"));
    }
    fields.finish(findings);
    Network { kind, domains }
}

fn timeouts(task: &mut Fields<'_>, findings: &mut Findings) -> Timeouts {
    let at = task.at("Timeouts");
    let Some(tree) = task.take("Timeouts") else { return Timeouts::default() };
    let mut fields = Fields::of(tree, &at, findings);
    let mut seconds = |name: &str| {
        let number = fields.int(name, findings).unwrap_or(0);
        if !(0..=SECONDS).contains(&number) {
            let at = fields.at(name);
            findings.problems.add(format!("{at}: {number} is not a number of seconds from 0 to {SECONDS}"));
            return Duration::ZERO;
        }
        Duration::from_secs(u64::try_from(number).unwrap_or(0))
    };
    let timeouts = Timeouts {
        execution: seconds("ExecutionTimeout"),
        queue: seconds("QueueTimeout"),
        total: seconds("TotalTimeout"),
    };
    fields.finish(findings);
    timeouts
}
