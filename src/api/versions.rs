//! Versions of a job: which of them is asked for, what they are, what a new one would change, and how one is made.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::{JobRecord, JobSpec};
use crate::wire::answers::{DiffAnswer, RerunAnswer};
use crate::wire::{ApiError, Code, JobView, Reading, Tree, diff, read_job};

use super::ask::{Ask, Reply, bad};
use super::jobs::{body, find, warnings};
use super::page::PageText;
use super::{App, NodeError, Submitted, auth};

/// Locks for names; a submission by name takes the one that its name falls to.
const LOCKS: usize = 16;

/// Characters of a reason.
const REASON_MAX: usize = 256;

/// Keeps two submissions under one name from both being the first.
#[derive(Default)]
pub struct Names([Mutex<()>; LOCKS]);

impl Names {
    fn turn(&self, name: &str) -> MutexGuard<'_, ()> {
        let sum = name.bytes().fold(0usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        // In range, whatever the name.
        self.0[sum % LOCKS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which versions of a job are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// This one.
    One(u64),
    /// Every one.
    All,
}

impl Asked {
    /// What a request asks for: the present version if it does not say.
    ///
    /// # Errors
    /// There is no such version, or a parameter is malformed.
    pub fn of(ask: &Ask, record: &JobRecord) -> Result<Self, ApiError> {
        if ask.query.flag("all_job_versions")? {
            return Ok(Self::All);
        }
        let number = number(ask)?.unwrap_or(record.version);
        if number > record.version {
            return Err(unknown(record, number));
        }
        Ok(Self::One(number))
    }

    /// Whether that version is among them.
    pub fn has(self, version: u64) -> bool {
        match self {
            Self::One(one) => one == version,
            Self::All => true,
        }
    }
}

/// The number of a version in the query; 0 is none.
fn number(ask: &Ask) -> Result<Option<u64>, ApiError> {
    match ask.query.get("job_version") {
        None => Ok(None),
        Some(text) => match text.parse::<u64>() {
            Ok(0) => Ok(None),
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(bad("job_version", text, "the number of a version")),
        },
    }
}

fn unknown(record: &JobRecord, version: u64) -> ApiError {
    let message = format!("job {} has no version {version}", record.id);
    ApiError::new(Code::NotFound, message)
        .component("JobStore")
        .hint("'codling job versions' shows those that are known; the oldest leave when there are many")
}

/// A job as it was in that version (the present one if none is named).
pub fn version(
    app: &App,
    present: (JobRecord, Arc<JobSpec>),
    number: Option<u64>,
) -> Result<(JobRecord, Arc<JobSpec>), ApiError> {
    let Some(number) = number.filter(|number| *number != present.0.version) else { return Ok(present) };
    let earlier = app.jobs.versions(&present.0.id)?;
    let record = earlier.into_iter().find(|record| record.version == number);
    let record = record.ok_or_else(|| unknown(&present.0, number))?;
    let spec = body(app, &record)?;
    Ok((record, spec))
}

/// The version of a job that a request asks for.
pub fn asked(
    app: &App,
    ask: &Ask,
    present: (JobRecord, Arc<JobSpec>),
) -> Result<(JobRecord, Arc<JobSpec>), ApiError> {
    version(app, present, number(ask)?)
}

/// `GET jobs/{id}/versions`: all that are known, oldest first.
pub fn list(app: &App, ask: &Ask, id: &str) -> Result<Reply, ApiError> {
    let (record, _) = find(app, ask, id)?;
    let mut page = PageText::new("Items");
    let mut all = app.jobs.versions(&record.id)?;
    all.push(record);
    for record in &all {
        page.push(&JobView::of(&*body(app, record)?, record, ask.dialect()))?;
    }
    Ok(page.reply(""))
}

/// Takes a job under its name: as the next version of the one that has it, if there is one.
pub fn submit(app: &App, spec: JobSpec, force: bool) -> Result<Submitted, ApiError> {
    let _turn = app.names.turn(&spec.name);
    let Some(record) = named(app, &spec)? else { return Ok(app.node.submit(spec)?) };
    app.node.update(&record.id, spec, force).map_err(|error| match error {
        NodeError::NotFound(_) => {
            let message = format!("job '{}' left while it was being updated", record.name);
            ApiError::new(Code::ServiceUnavailable, message).hint("submit it again")
        }
        other => other.into(),
    })
}

/// The job that has this one's name, in its namespace; the newest, should older clients have made several.
fn named(app: &App, spec: &JobSpec) -> Result<Option<JobRecord>, ApiError> {
    app.jobs.newest_named(&spec.name, |record| Ok(body(app, record)?.namespace == spec.namespace))
}

/// `PUT jobs/diff`: what an update by this job would change.
pub fn compare(app: &App, ask: &Ask) -> Result<Reply, ApiError> {
    let tree = ask.json()?;
    let read = read_job(&tree, Reading::body(ask.dialect())).map_err(|problems| {
        ApiError::new(Code::ValidationError, problems.to_string()).component("Orchestrator")
    })?;
    drop(tree);
    if read.spec.name.is_empty() {
        return Err(ApiError::new(
            Code::ValidationError,
            "Name is required: jobs are compared by their names",
        )
        .component("Orchestrator"));
    }
    let Some(record) = named(app, &read.spec)? else {
        return Err(super::not_found("job", &read.spec.name).component("JobStore"));
    };
    let after = app.node.complete(read.spec)?;
    let before = body(app, &record)?;
    let diff = diff::diff(&before, &after, &record, ask.dialect())
        .map_err(|error| ApiError::new(Code::InternalError, format!("a job cannot be encoded: {error}")))?;
    Ok(Reply::json(&DiffAnswer { diff, warnings: warnings(read.warnings) }))
}

/// `PUT jobs/{id}/rerun`: the body names the version to run again; 0 is the present one.
pub fn rerun(app: &App, ask: &Ask, id: &str) -> Result<Reply, ApiError> {
    let tree = ask.json()?;
    let wanted = match auth::field(&tree, "JobVersion") {
        None | Some(Tree::Null | Tree::Int(0)) => None,
        Some(Tree::Int(number)) => match u64::try_from(*number) {
            Ok(number) => Some(number),
            Err(_) => return Err(bad("JobVersion", &number.to_string(), "the number of a version")),
        },
        Some(_) => return Err(ApiError::new(Code::BadRequest, "JobVersion: not a number")),
    };
    let reason: String = auth::text(&tree, "Reason").unwrap_or_default().chars().take(REASON_MAX).collect();
    let present = find(app, ask, id)?;
    let id = present.0.id.clone();
    let (_, spec) = version(app, present, wanted)?;
    let taken = app.node.rerun(&id, Arc::unwrap_or_clone(spec), &reason)?;
    Ok(Reply::json(&RerunAnswer {
        job_id: taken.job_id.to_string(),
        job_version: taken.version,
        evaluation_id: taken.evaluation_id.to_string(),
        warnings: Vec::new(),
    }))
}
