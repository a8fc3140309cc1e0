//! What makes a job unacceptable, all of it in one answer (job-spec.md section 2).

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use super::engine::WasmSpec;
use super::job::{Constraint, JobSpec, JobType, NetworkKind, Task, keeping};

/// Bounds on what one job may hold: a job is read into memory whole.
pub mod limits {
    /// Environment variables, labels, meta entries, inputs, outputs, parameters: each at most this many.
    pub const ENTRIES: usize = 256;
    /// Bytes of a name.
    pub const NAME: usize = 256;
    /// Executions of one job on one board.
    pub const COUNT: u32 = 1000;
}

/// Everything that is wrong with a job, one line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

/// Checks a job whose defaults have been applied.
///
/// # Errors
/// Every problem found.
pub fn validate(job: &JobSpec) -> Result<(), Problems> {
    let mut found = Vec::new();
    name("Name", &job.name, &mut found);
    name("Namespace", &job.namespace, &mut found);
    if matches!(job.job_type, JobType::Ops | JobType::Daemon) && job.count > 1 {
        found.push(format!(
            "Count: {} for a job of type {}; these run once on every node",
            job.count,
            job.job_type.as_str()
        ));
    }
    if job.count > limits::COUNT {
        found.push(format!(
            "Count: {} is more than the {} executions that one job may have",
            job.count,
            limits::COUNT
        ));
    }
    for (what, n) in
        [("Labels", job.labels.len()), ("Meta", job.meta.len()), ("Constraints", job.constraints.len())]
    {
        entries(what, n, &mut found);
    }
    for (i, c) in job.constraints.iter().enumerate() {
        constraint(i, c, &mut found);
    }
    task(&job.task, &mut found);
    keep(job, &mut found);
    if found.is_empty() { Ok(()) } else { Err(Problems(found)) }
}

/// What the job says about how long its result is kept.
fn keep(job: &JobSpec, found: &mut Vec<String>) {
    let faults = [
        (job.result_word(&keeping::RETENTION), keeping::retention as fn(&str) -> Result<_, _>),
        (job.result_word(&keeping::PIN), |word| keeping::pin(word).map(|_| Duration::ZERO)),
    ];
    for (said, read) in faults {
        if let Some((field, word)) = said
            && let Err(fault) = read(&word)
        {
            found.push(format!("{field}: {fault}"));
        }
    }
}

fn name(what: &str, text: &str, found: &mut Vec<String>) {
    if text.contains('\0') {
        found.push(format!("{what} must not contain NUL"));
    }
    if text.len() > limits::NAME {
        found.push(format!("{what} is longer than {} bytes", limits::NAME));
    }
}

fn entries(what: &str, n: usize, found: &mut Vec<String>) {
    if n > limits::ENTRIES {
        found.push(format!("{what} has {n} entries; at most {} are taken", limits::ENTRIES));
    }
}

fn constraint(i: usize, c: &Constraint, found: &mut Vec<String>) {
    let n = c.values.len();
    let fault = match c.operator.as_str() {
        "in" | "notin" if n == 0 => Some("needs at least one value"),
        "exists" | "!" if n > 0 => Some("takes no value"),
        "=" | "==" | "!=" | "gt" | "lt" if n != 1 => Some("takes exactly one value"),
        "in" | "notin" | "exists" | "!" | "=" | "==" | "!=" | "gt" | "lt" => None,
        _ => Some("is not one of = == != in notin exists ! gt lt"),
    };
    if let Some(fault) = fault {
        found.push(format!("Constraints[{i}]: operator '{}' {fault}", c.operator));
    }
    if c.key.trim().is_empty() {
        found.push(format!("Constraints[{i}].Key is required"));
    }
}

fn task(task: &Task, found: &mut Vec<String>) {
    if task.name.trim().is_empty() {
        found.push("Tasks[0].Name is required".into());
    }
    name("Tasks[0].Name", &task.name, found);
    for (what, n) in [
        ("Tasks[0].Env", task.env.len()),
        ("Tasks[0].Meta", task.meta.len()),
        ("Tasks[0].InputSources", task.inputs.len()),
        ("Tasks[0].ResultPaths", task.result_paths.len()),
    ] {
        entries(what, n, found);
    }
    if task.engine.kind.trim().is_empty() {
        found.push("Tasks[0].Engine.Type is required".into());
    }
    if task.engine.is("wasm")
        && let Err(problems) = WasmSpec::parse(task)
    {
        found.extend(problems.into_iter().map(|p| format!("Tasks[0].{p}")));
    }
    inputs(task, found);
    result_paths(task, found);
    environment(task, found);
    network(task, found);
    let t = &task.timeouts;
    if !t.total.is_zero() && t.execution.checked_add(t.queue).unwrap_or(Duration::MAX) > t.total {
        found.push("Tasks[0].Timeouts: ExecutionTimeout plus QueueTimeout is more than TotalTimeout".into());
    }
}

fn inputs(task: &Task, found: &mut Vec<String>) {
    let (mut aliases, mut targets) = (HashSet::new(), HashSet::new());
    for (i, input) in task.inputs.iter().enumerate() {
        if input.source.0.kind.trim().is_empty() {
            found.push(format!("Tasks[0].InputSources[{i}].Source.Type is required"));
        }
        if input.target.trim().is_empty() {
            found.push(format!("Tasks[0].InputSources[{i}].Target is required"));
        } else if !targets.insert(input.target.as_str()) {
            found.push(format!("Tasks[0].InputSources[{i}].Target '{}' is used twice", input.target));
        }
        if input.target.contains('\0') || input.target.split('/').any(|part| part == "..") {
            found.push(format!("Tasks[0].InputSources[{i}].Target must not contain NUL or '..'"));
        }
        if !input.alias.is_empty() && !aliases.insert(input.alias.as_str()) {
            found.push(format!("Tasks[0].InputSources[{i}].Alias '{}' is used twice", input.alias));
        }
    }
}

fn result_paths(task: &Task, found: &mut Vec<String>) {
    if !task.result_paths.is_empty() && task.publisher.as_ref().is_none_or(|p| p.kind.trim().is_empty()) {
        found.push("Tasks[0].Publisher is required with ResultPaths (e.g. {Type: local})".into());
    }
    let (mut names, mut paths) = (HashSet::new(), HashSet::new());
    for (i, result) in task.result_paths.iter().enumerate() {
        let at = format!("Tasks[0].ResultPaths[{i}]");
        let plain = |text: &str| !matches!(text, "" | "." | "..") && !text.contains(['/', '\0']);
        if !plain(&result.name) || result.name.len() > limits::NAME {
            found.push(format!("{at}.Name must be a plain file name: it becomes a directory of the result"));
        } else if matches!(result.name.as_str(), "stdout" | "stderr" | "exitCode") {
            found.push(format!("{at}.Name '{}' is the name of a file of every result", result.name));
        } else if !names.insert(result.name.as_str()) {
            found.push(format!("{at}.Name '{}' is used twice", result.name));
        }
        if !result.path.starts_with('/') {
            found.push(format!("{at}.Path must be absolute"));
        } else if result.path.contains('\0') || result.path.split('/').any(|part| part == "..") {
            found.push(format!("{at}.Path must not contain NUL or '..'"));
        } else if !paths.insert(result.path.as_str()) {
            found.push(format!("{at}.Path '{}' is used twice", result.path));
        }
    }
}

fn environment(task: &Task, found: &mut Vec<String>) {
    for (key, value) in &task.env {
        let mut chars = key.chars();
        let named = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && chars.all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !named {
            found.push(format!("Tasks[0].Env: '{key}' is not a variable name (letters, digits, underscore)"));
        } else if key.to_ascii_uppercase().starts_with("BACALHAU_") {
            found.push(format!("Tasks[0].Env: '{key}': names that begin with BACALHAU_ are the node's"));
        }
        if value.contains('\0') {
            found.push(format!("Tasks[0].Env: the value of '{key}' must not contain NUL"));
        }
    }
}

fn network(task: &Task, found: &mut Vec<String>) {
    if !task.network.domains.is_empty() && task.network.kind != Some(NetworkKind::HTTP) {
        found.push("Tasks[0].Network.Domains needs Type HTTP".into());
    }
    for domain in &task.network.domains {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':');
        if domain.trim_start_matches('.').is_empty() || !domain.chars().all(plain) {
            found.push(format!("Tasks[0].Network.Domains: '{domain}' is not a domain"));
        }
    }
}
