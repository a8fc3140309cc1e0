//! The node's own endpoints: what it keeps, what takes room, what goes next.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::json;

use crate::model::{Bytes, ExecutionId, Pin, ResultEntry, with_causes};
use crate::results::{NoRoom, Refusal};
use crate::sys::Space;
use crate::wire::answers::{
    DeletedCount, DeletionRow, DfAnswer, GcAnswer, GcRequest, JobsKept, PinRequest, ResultRow,
};
use crate::wire::{ApiError, Code};

use super::App;
use super::archives::why_missing;
use super::ask::{Ask, Reply};
use super::page::{PageText, Place};

/// Longest time that a pin with an end may hold: what is longer is for ever.
const PIN_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);

/// `GET codling/results`: newest first, those that were deleted, too. Unlike elsewhere, no limit means all of them.
pub fn list(app: &App, ask: &Ask) -> Result<Reply, ApiError> {
    let paged = ask.query.get("limit").is_some() || ask.query.get("next_token").is_some();
    let place = Place::of(ask, &["created_at"])?;
    let entries = app.shelf.list()?;
    let from = usize::try_from(place.offset).unwrap_or(usize::MAX);
    let count = if paged { place.count() } else { usize::MAX };
    let mut page = PageText::new("Items");
    for entry in entries.iter().skip(from).take(count) {
        page.push(&row(app, ask, entry))?;
    }
    let shown = from.saturating_add(page.items());
    let token = if shown < entries.len() { place.token(shown as u64) } else { String::new() };
    Ok(page.reply(&token))
}

/// `GET codling/results/{id}`.
pub fn get(app: &App, ask: &Ask, id: &str) -> Result<Reply, ApiError> {
    let id = app.execution(id)?;
    let entry = app.shelf.entry(&id)?;
    let entry = entry.ok_or_else(|| why_missing(&crate::results::Missing::Never, &id))?;
    Ok(Reply::json(&row(app, ask, &entry)))
}

fn row(app: &App, ask: &Ask, entry: &ResultEntry) -> ResultRow {
    let url =
        if entry.is_stored() { app.urls.of(&entry.execution_id, ask.field("Host")) } else { String::new() };
    ResultRow::of(entry, url, app.clock.now())
}

/// `DELETE codling/results/{id}`.
pub fn remove(app: &App, id: &str) -> Result<Reply, ApiError> {
    let id = app.execution(id)?;
    let deletion = app.shelf.remove(&id).map_err(|refusal| refused(&refusal, &id))?;
    Ok(Reply::json(&DeletionRow::from(&deletion)))
}

/// `PUT codling/results/{id}/pin`, for `Seconds` or for ever.
pub fn pin(app: &App, ask: &Ask, id: &str) -> Result<Reply, ApiError> {
    let id = app.execution(id)?;
    let request: PinRequest = body(ask)?;
    let until = match request.seconds {
        None => None,
        Some(seconds) if Duration::from_secs(seconds) > PIN_MAX => None,
        // Without a clock nobody knows when that is.
        Some(_) if !app.clock.is_trusted() => {
            return Err(ApiError::new(Code::ServiceUnavailable, "the node does not know the time yet")
                .component("Results")
                .hint("pin the result without an end, or wait until its clock is set"));
        }
        Some(seconds) => Some(app.clock.now().plus(Duration::from_secs(seconds))),
    };
    let entry = app.shelf.pin(&id, Pin { until }).map_err(|refusal| refused(&refusal, &id))?;
    Ok(Reply::json(&row(app, ask, &entry)))
}

/// `DELETE codling/results/{id}/pin`.
pub fn unpin(app: &App, ask: &Ask, id: &str) -> Result<Reply, ApiError> {
    let id = app.execution(id)?;
    let entry = app.shelf.unpin(&id).map_err(|refusal| refused(&refusal, &id))?;
    Ok(Reply::json(&row(app, ask, &entry)))
}

/// `GET codling/df`.
pub fn df(app: &App) -> Result<Reply, ApiError> {
    let report = app.shelf.look_at_disk();
    let df = app.shelf.df();
    let deleted = df.gone.iter().map(|(reason, gone)| DeletedCount {
        reason: *reason,
        message: reason.to_string(),
        count: gone.count,
        bytes: gone.bytes,
    });
    let space = df.space.unwrap_or(Space { total: Bytes::ZERO, free: Bytes::ZERO });
    Ok(Reply::json(&DfAnswer {
        quota: df.quota,
        results: df.results,
        scratch: df.scratch,
        cache: df.cache,
        databases: df.beside,
        reserved: df.reserved,
        free: df.free,
        min_free: df.min_free,
        disk_total: space.total,
        disk_free: space.free,
        max_size: df.max_size,
        clock_doubt: df.doubt.map(|doubt| doubt.to_string()).unwrap_or_default(),
        deleted: deleted.collect(),
        jobs: Some(jobs_kept(app)?),
        disk_state: report.state,
        disk_message: report.message(),
        next: df.next.iter().map(DeletionRow::from).collect(),
    }))
}

fn jobs_kept(app: &App) -> Result<JobsKept, ApiError> {
    let left = app.keeper.left();
    Ok(JobsKept {
        ended: app.keeper.ended()?,
        max: app.keeper.policy().max_jobs.into(),
        left_by_age: left.by_age,
        left_by_count: left.by_count,
        left_executions: left.executions,
    })
}

/// `GET codling/stats`: what the store has cost the flash since the node started.
pub fn stats(app: &App) -> Reply {
    let stats = app.executions.stats();
    let left = app.keeper.left();
    Reply::json(&json!({
        "DurableCommits": stats.commits,
        "LazyCommits": stats.lazy_commits,
        "WaitingBatches": stats.waiting,
        "LeftJobs": left.jobs(),
        "LeftExecutions": left.executions,
    }))
}

/// `POST codling/gc`: deletes what is due, or says what is.
pub fn gc(app: &App, ask: &Ask) -> Result<Reply, ApiError> {
    let request: GcRequest = body(ask)?;
    let gone = app.shelf.gc(request.dry_run).map_err(|error| no_room(&error))?;
    let jobs = if request.dry_run {
        app.keeper.due(&gone.iter().map(|deletion| deletion.execution_id.clone()).collect())?
    } else {
        app.keeper.sweep()?
    };
    Ok(Reply::json(&GcAnswer {
        deleted: gone.iter().map(DeletionRow::from).collect(),
        jobs: jobs.iter().map(ToString::to_string).collect(),
    }))
}

/// A small body; none at all is one with nothing in it.
fn body<T: DeserializeOwned + Default>(ask: &Ask) -> Result<T, ApiError> {
    if ask.body.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&ask.body).map_err(|error| {
        ApiError::new(Code::BadRequest, format!("the request's body cannot be read: {error}"))
    })
}

fn refused(refusal: &Refusal, id: &ExecutionId) -> ApiError {
    match refusal {
        Refusal::Missing(missing) => why_missing(missing, id),
        Refusal::Failed(error) => no_room(error),
        _ => ApiError::new(Code::Conflict, refusal.to_string()).component("Results"),
    }
}

fn no_room(error: &NoRoom) -> ApiError {
    match error {
        NoRoom::Ledger(error) => super::store_error(error),
        NoRoom::Quota { .. } | NoRoom::Disk { .. } | NoRoom::Size { .. } | NoRoom::Count { .. } => {
            ApiError::new(Code::InsufficientStorage, error.to_string()).component("Results")
        }
        _ => {
            log::error!("results: {}", with_causes(error));
            ApiError::new(Code::InternalError, with_causes(error)).component("Results")
        }
    }
}
