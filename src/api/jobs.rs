//! Submitting, listing, showing and stopping jobs.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{JobRecord, JobSpec, JobState};
use crate::store::{Found, ListOrder, ListQuery};
use crate::wire::answers::{StopAnswer, SubmitAnswer};
use crate::wire::{ApiError, Code, Dialect, JobView, Reading, Tree, read_job};

use super::ask::{Ask, Reply};
use super::page::{PageText, Place};
use super::{App, auth, executions, history, versions};
use crate::wire::selector::Selector;

/// Warnings in one answer.
const WARNINGS: usize = 50;

/// `PUT jobs`.
pub fn submit(app: &App, ask: &Ask) -> Result<Reply, ApiError> {
    let tree = ask.json()?;
    let read = read_job(&tree, Reading::body(ask.dialect())).map_err(|problems| {
        ApiError::new(Code::ValidationError, problems.to_string()).component("Orchestrator")
    })?;
    let force = matches!(auth::field(&tree, "Force"), Some(Tree::Bool(true)));
    drop(tree);
    // For clients before 1.5 names are not unique: each submission is a job of its own.
    let submitted = if ask.dialect() == Dialect::B && !read.spec.name.is_empty() {
        versions::submit(app, read.spec, force)?
    } else {
        app.node.submit(read.spec)?
    };
    Ok(Reply::json(&SubmitAnswer {
        job_id: submitted.job_id.to_string(),
        evaluation_id: submitted.evaluation_id.to_string(),
        warnings: warnings(read.warnings),
    }))
}

/// As many warnings as fit an answer.
pub fn warnings(mut all: Vec<String>) -> Vec<String> {
    all.truncate(WARNINGS);
    all
}

/// `GET jobs`.
pub fn list(app: &App, ask: &Ask) -> Result<Reply, ApiError> {
    // 1.4's command line offers `id`, which its server took for the time of submission.
    let place = Place::of(ask, &["created_at", "modified_at", "id"])?;
    let labels = Selector::parse(ask.query.all("labels"))?;
    let namespace = ask.query.get("namespace").filter(|name| *name != "*");
    let order = if place.order == "modified_at" { ListOrder::Modified } else { ListOrder::Created };
    // One more than the page has tells whether there is another page.
    let query = ListQuery { order, reverse: place.reverse, offset: place.offset, limit: place.count() + 1 };
    let mut failed = None;
    let records = app.jobs.list(&query, &mut |record| {
        if labels.is_empty() && namespace.is_none() {
            return true;
        }
        let fits = |of: &str, its: &BTreeMap<String, String>| {
            labels.matches(its) && namespace.is_none_or(|name| name == of)
        };
        match &record.head {
            Some(head) => fits(&head.namespace, &head.labels),
            None => body(app, record).map_or_else(
                |error| {
                    failed.get_or_insert(error);
                    false
                },
                |spec| fits(&spec.namespace, &spec.labels),
            ),
        }
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    let mut page = PageText::new("Items");
    for record in records.iter().take(place.count()) {
        if !page.has_room() {
            break;
        }
        page.push(&JobView::of(&*body(app, record)?, record, ask.dialect()))?;
    }
    let shown = page.items();
    let token = if shown < records.len() { place.token(place.offset + shown as u64) } else { String::new() };
    Ok(page.reply(&token))
}

/// `GET jobs/{id}`.
pub fn get(app: &App, ask: &Ask, id: &str) -> Result<Reply, ApiError> {
    let present = find(app, ask, id)?;
    let record = present.0.clone();
    let (shown, spec) = versions::asked(app, ask, present)?;
    let include = ask.query.get("include").unwrap_or_default();
    let wants = |word: &str| include.split(',').any(|w| w.trim().eq_ignore_ascii_case(word));
    let mut text = b"{\"Job\":".to_vec();
    serde_json::to_writer(&mut text, &JobView::of(&spec, &shown, ask.dialect()))
        .map_err(|error| ApiError::new(Code::InternalError, format!("the job cannot be encoded: {error}")))?;
    if wants("history") {
        text.extend_from_slice(b",\"History\":");
        text.extend_from_slice(&history::all(app, ask, &record)?);
    }
    if wants("executions") {
        text.extend_from_slice(b",\"Executions\":");
        text.extend_from_slice(&executions::all(app, ask, &record, &spec)?);
    }
    text.push(b'}');
    Ok(Reply::text(text))
}

/// `DELETE jobs/{id}`. The reason is in the body, or, from the Python client, in the query (`None` if it has none).
pub fn stop(app: &App, ask: &Ask, id: &str) -> Result<Reply, ApiError> {
    let (record, _) = find(app, ask, id)?;
    if record.state == JobState::Stopped {
        return Ok(Reply::json(&StopAnswer::default()));
    }
    let given = auth::text(&ask.json()?, "reason");
    let asked = ask.query.get("reason").filter(|reason| *reason != "None").map(str::to_owned);
    let reason = given.filter(|reason| !reason.is_empty()).or(asked);
    let reason: String = reason.unwrap_or_else(|| "stopped by a user".into()).chars().take(256).collect();
    let evaluation = app.node.stop(&record.id, &reason)?;
    Ok(Reply::json(&StopAnswer { evaluation_id: evaluation.to_string() }))
}

/// The job's body, which is stored as long as its record is.
pub fn body(app: &App, record: &JobRecord) -> Result<Arc<JobSpec>, ApiError> {
    let body = app.jobs.body(&record.digest)?;
    body.ok_or_else(|| {
        ApiError::new(Code::DatastoreFailure, format!("the body of job {} is missing", record.id))
    })
}

/// The job that a user means: by id, by name (the newest of that name), or by the beginning of its id; in the
/// namespace of the query, if it names one.
pub fn find(app: &App, ask: &Ask, text: &str) -> Result<(JobRecord, Arc<JobSpec>), ApiError> {
    let namespace = ask.query.get("namespace").filter(|name| *name != "*");
    let there = |record: JobRecord| -> Result<Option<(JobRecord, Arc<JobSpec>)>, ApiError> {
        let spec = body(app, &record)?;
        let fits = namespace.is_none_or(|name| name == spec.namespace);
        Ok(fits.then_some((record, spec)))
    };
    let mut found = Vec::new();
    match app.jobs.find(text)? {
        Found::None => {}
        Found::One(record) => found.extend(there(*record)?),
        Found::Many(ids) => {
            for id in &ids {
                if let Some(record) = app.jobs.get(id)? {
                    found.extend(there(record)?);
                }
            }
        }
    }
    let named = found.first().is_some_and(|(record, _)| record.name == text);
    if found.len() > 1 && !named {
        let ids: Vec<_> = found.iter().map(|(record, _)| record.id.short()).collect();
        return Err(ApiError::new(
            Code::MultipleJobsFound,
            format!("several jobs begin with that: {}", ids.join(", ")),
        )
        .component("JobStore")
        .hint("use the full job id"));
    }
    let first = found.into_iter().next();
    first.ok_or_else(|| {
        super::not_found("job", text).component("JobStore").hint(
            "'codling job list' shows the jobs there are; one that has ended leaves after a while \
                 (Store.JobRetention, Store.MaxJobs)",
        )
    })
}
