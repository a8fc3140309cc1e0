//! A job as clients of both generations and job files write it, read into the model.
//!
//! All faults come in one answer, each with the path of its field.

use crate::model::validate::{Problems, validate};
use crate::model::{Constraint, JobSpec, JobType};

use super::dialect::Dialect;
use super::fields::{Fields, Findings, cut};
use super::task;
use super::tree::Tree;

/// Where a job comes from: what its silences mean, and how strictly it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// `Count: 0` of a batch or service job means 1, as in everything but 1.9's programs: the 1.4 command line
    /// sends it for a file that names no count. From 1.9 an explicit 0 is kept (run nothing).
    pub zero_is_one: bool,
    /// Keys that nobody knows are errors, not warnings or silence.
    pub strict: bool,
}

impl Reading {
    /// A request body.
    #[must_use]
    pub const fn body(dialect: Dialect) -> Self {
        Self { zero_is_one: matches!(dialect, Dialect::A), strict: false }
    }

    /// A job file on the command line. Bacalhau's own refuses unknown keys, too.
    #[must_use]
    pub const fn file() -> Self {
        Self { zero_is_one: true, strict: true }
    }
}

/// A job that can be run, and what the submitter should hear about it.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadJob {
    /// The job, defaults applied.
    pub spec: JobSpec,
    /// What was ignored or changed, one line each.
    pub warnings: Vec<String>,
}

/// Reads a job: `{"Job": {...}}`, as clients send it, or the job itself.
///
/// # Errors
/// Every problem of its form and of its content.
pub fn read_job(tree: &Tree, reading: Reading) -> Result<ReadJob, Problems> {
    let mut findings = Findings::default();
    let mut warnings = Vec::new();
    let mut namespace = None;
    let job = match tree {
        Tree::Map(map) if map.iter().any(|(key, _)| key.eq_ignore_ascii_case("job")) => {
            let mut outer = Fields::of(tree, "", &mut findings);
            namespace = outer.text("Namespace", &mut findings);
            outer.take("Job")
        }
        Tree::Null => None,
        bare => Some(bare),
    };
    let Some(job) = job else {
        return Err(Problems(vec!["there is no job: {\"Job\": {...}} or the job itself is needed".into()]));
    };
    let read = read(job, namespace, reading, &mut findings, &mut warnings);
    let Findings { mut problems, unknown } = findings;
    if reading.strict {
        unknown.into_lines().into_iter().for_each(|key| problems.add(format!("{key}: no such key")));
    } else {
        // Only those of the top level are worth a warning: clients of later versions send more below.
        let own = unknown.into_lines().into_iter().filter(|key| !key.contains('.'));
        warnings.extend(own.map(|key| format!("{key}: unknown key, ignored")));
    }
    match read {
        Some(spec) => {
            if let Err(Problems(found)) = validate(&spec) {
                found.into_iter().for_each(|line| problems.add(line));
            }
            if problems.is_empty() {
                return Ok(ReadJob { spec, warnings });
            }
        }
        None if problems.is_empty() => problems.add("the job cannot be read"),
        None => {}
    }
    Err(Problems(problems.into_lines()))
}

/// The job, if there is enough of it to be checked further.
fn read(
    tree: &Tree,
    namespace: Option<String>,
    reading: Reading,
    findings: &mut Findings,
    warnings: &mut Vec<String>,
) -> Option<JobSpec> {
    let mut job = Fields::of(tree, "", findings);
    let name = job.text("Name", findings).unwrap_or_default();
    let own = job.text("Namespace", findings).filter(|text| !text.is_empty());
    let namespace = own.or(namespace.filter(|text| !text.is_empty())).unwrap_or_else(|| "default".into());
    // One that is wrong is a finding; the rest is read all the same, so that everything comes in one answer.
    let job_type = job_type(&mut job, findings).unwrap_or(JobType::Batch);
    let priority = small(&mut job, "Priority", findings).unwrap_or(0);
    let count = count(&mut job, job_type, reading, findings);
    let constraints = constraints(&mut job, findings);
    let mut meta = job.texts("Meta", findings);
    let before = meta.len();
    meta.retain(|key, _| !key.starts_with("bacalhau.org/"));
    if meta.len() < before {
        warnings.push("Meta: keys that begin with bacalhau.org/ are reserved and were dropped".into());
    }
    let labels = job.texts("Labels", findings);
    server_side(&mut job, findings, warnings);
    let tasks = job.list("Tasks", findings);
    job.finish(findings);
    if tasks.len() > 1 {
        warnings.push(format!("Tasks: only the first of {} tasks is run", tasks.len()));
    }
    let Some(first) = tasks.first() else {
        findings.problems.add("Tasks: one task is needed");
        return None;
    };
    let task = task::read(first, findings)?;
    Some(JobSpec { name, namespace, job_type, priority, count, constraints, meta, labels, task })
}

fn job_type(job: &mut Fields<'_>, findings: &mut Findings) -> Option<JobType> {
    const WANTED: &str = "batch, ops, service or daemon";
    let text = job.text("Type", findings).unwrap_or_default();
    let all = [JobType::Batch, JobType::Ops, JobType::Service, JobType::Daemon];
    let found = all.into_iter().find(|kind| text.trim().eq_ignore_ascii_case(kind.as_str()));
    if found.is_none() {
        findings.problems.add(if text.trim().is_empty() {
            format!("Type is required: {WANTED}")
        } else {
            format!("Type: '{}' is not one of {WANTED}", cut(&text))
        });
    }
    found
}

fn small(job: &mut Fields<'_>, name: &str, findings: &mut Findings) -> Option<i32> {
    let number = job.int(name, findings)?;
    let small = i32::try_from(number).ok();
    if small.is_none() {
        findings.problems.add(format!("{}: {number} is out of range", job.at(name)));
    }
    small
}

/// Executions wanted. Jobs that run on every node have 1 inside, whatever their clients call it.
fn count(job: &mut Fields<'_>, job_type: JobType, reading: Reading, findings: &mut Findings) -> u32 {
    let counted = matches!(job_type, JobType::Batch | JobType::Service);
    match job.int("Count", findings) {
        None => 1,
        Some(0) if counted && !reading.zero_is_one => 0,
        Some(0) => 1,
        Some(number) => u32::try_from(number).unwrap_or_else(|_| {
            let fault = if number < 0 { "must not be negative" } else { "is far too many" };
            findings.problems.add(format!("Count: {number} {fault}"));
            1
        }),
    }
}

fn constraints(job: &mut Fields<'_>, findings: &mut Findings) -> Vec<Constraint> {
    let items = job.list("Constraints", findings).iter().enumerate();
    items
        .map(|(i, item)| {
            let mut fields = Fields::of(item, &format!("Constraints[{i}]"), findings);
            let constraint = Constraint {
                key: fields.text("Key", findings).unwrap_or_default(),
                operator: fields.text("Operator", findings).unwrap_or_default().trim().to_owned(),
                values: fields.text_list("Values", findings),
            };
            fields.finish(findings);
            constraint
        })
        .collect()
}

/// What only the node sets. Old clients send it with nothing in it: no word about that.
fn server_side(job: &mut Fields<'_>, findings: &mut Findings, warnings: &mut Vec<String>) {
    let mut given = Vec::new();
    if job.text("ID", findings).is_some_and(|id| !id.is_empty()) {
        given.push("ID");
    }
    let state = job.take("State");
    let stated = match state {
        Some(Tree::Map(map)) => map.iter().any(|(key, value)| {
            key.eq_ignore_ascii_case("StateType")
                && !matches!(value, Tree::Null | Tree::Int(0))
                && !matches!(value, Tree::Str(s) if s.is_empty() || s.eq_ignore_ascii_case("Undefined"))
        }),
        Some(Tree::Str(text)) => !text.is_empty(),
        _ => false,
    };
    if stated {
        given.push("State");
    }
    for name in ["Version", "Revision", "CreateTime", "ModifyTime"] {
        if job.take(name).is_some_and(|value| !matches!(value, Tree::Int(0))) {
            given.push(name);
        }
    }
    if !given.is_empty() {
        warnings.push(format!("{}: set by the node, ignored", given.join(", ")));
    }
}

#[cfg(test)]
mod tests;
