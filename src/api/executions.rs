//! A job's executions and their published results.

use std::collections::HashMap;

use crate::model::{ExecutionId, ExecutionRow, ExecutionState, JobRecord, JobSpec};
use crate::wire::{ApiError, Code, Dialect, ExecutionParts, ExecutionView, ResultView};

use super::ask::{Ask, Reply};
use super::jobs::find;
use super::page::{PAGE_MAX, PageText, Place};
use super::versions::Asked;
use super::{App, versions};

const CREATED: [&str; 2] = ["create_time", "created_at"];
const MODIFIED: [&str; 2] = ["modify_time", "modified_at"];
const OTHER: [&str; 2] = ["id", "state"];

/// `GET jobs/{id}/executions`.
pub fn get(app: &App, ask: &Ask, id: &str) -> Result<Reply, ApiError> {
    let place = place(ask)?;
    let (record, spec) = find(app, ask, id)?;
    let (page, token) = fill(app, ask, &record, &spec, &place)?;
    Ok(page.reply(&token))
}

/// As many as fit into an answer, for `include=executions`.
pub fn all(app: &App, ask: &Ask, record: &JobRecord, spec: &JobSpec) -> Result<Vec<u8>, ApiError> {
    let order = CREATED[0].to_owned();
    let place = Place { order, reverse: false, limit: PAGE_MAX, offset: 0 };
    let (page, token) = fill(app, ask, record, spec, &place)?;
    Ok(page.finish(&token))
}

/// Each generation has its own default order; both words for each are taken from both.
fn place(ask: &Ask) -> Result<Place, ApiError> {
    let (first, second) = match ask.dialect() {
        Dialect::A => (MODIFIED, CREATED),
        Dialect::B => (CREATED, MODIFIED),
    };
    Place::of(ask, &[first, second, OTHER].concat())
}

fn fill(
    app: &App,
    ask: &Ask,
    record: &JobRecord,
    spec: &JobSpec,
    place: &Place,
) -> Result<(PageText, String), ApiError> {
    let versions = Asked::of(ask, record)?;
    let mut rows = app.jobs.executions(&record.id)?;
    rows.retain(|row| versions.has(row.job_version));
    let replaced: HashMap<ExecutionId, ExecutionId> =
        rows.iter().filter_map(|row| Some((row.previous.clone()?, row.id.clone()))).collect();
    sort(&mut rows, place);
    let from = usize::try_from(place.offset).unwrap_or(usize::MAX);
    let mut page = PageText::new("Items");
    for row in rows.iter().skip(from).take(place.count()) {
        if !page.has_room() {
            break;
        }
        let kept = app.executions.get(&row.id)?;
        let parts = ExecutionParts {
            row,
            record: kept.as_ref(),
            namespace: &spec.namespace,
            task: &spec.task.name,
            node: &app.facts.id,
            next: replaced.get(&row.id).map(ExecutionId::as_str),
        };
        let result = result(app, ask, row)?.unwrap_or_default();
        page.push(&ExecutionView::of(&parts, result, ask.dialect()))?;
    }
    let shown = from.saturating_add(page.items());
    let token = if shown < rows.len() { place.token(shown as u64) } else { String::new() };
    Ok((page, token))
}

fn sort(rows: &mut [ExecutionRow], place: &Place) {
    let order = place.order.as_str();
    if MODIFIED.contains(&order) {
        rows.sort_by(|a, b| (a.modified, &a.id).cmp(&(b.modified, &b.id)));
    } else if order == "id" {
        rows.sort_by(|a, b| a.id.cmp(&b.id));
    } else if order == "state" {
        rows.sort_by_key(|row| Dialect::B.execution_code(row.state));
    }
    // Otherwise they are in the order in which they were made, as stored.
    if place.reverse {
        rows.reverse();
    }
}

/// Where the result of an execution can be fetched, if it can be.
fn result(app: &App, ask: &Ask, row: &ExecutionRow) -> Result<Option<ResultView>, ApiError> {
    if row.state != ExecutionState::Completed && !row.published {
        return Ok(None);
    }
    let entry = app.executions.result(&row.id)?.filter(crate::model::ResultEntry::is_stored);
    Ok(entry.map(|entry| {
        let url = app.urls.of(&entry.execution_id, ask.field("Host"));
        ResultView::download(url, &entry.sha256, entry.size)
    }))
}

/// `GET jobs/{id}/results`: one item for each result that is still there. What runs for ever has none, as upstream has
/// it: what one of its executions published is shown with the execution.
pub fn results(app: &App, ask: &Ask, id: &str) -> Result<Reply, ApiError> {
    let (record, spec) = versions::asked(app, ask, find(app, ask, id)?)?;
    if !spec.job_type.runs_to_completion() {
        let message = format!("a {} job runs for ever and has no results", spec.job_type.as_str());
        return Err(ApiError::new(Code::BadRequest, message)
            .component("Orchestrator")
            .hint("'codling job executions' shows what its executions left"));
    }
    let versions = Asked::of(ask, &record)?;
    let mut page = PageText::new("Items");
    for row in app.jobs.executions(&record.id)?.iter().filter(|row| versions.has(row.job_version)) {
        if let Some(result) = result(app, ask, row)? {
            page.push(&result)?;
        }
    }
    Ok(page.reply(""))
}
