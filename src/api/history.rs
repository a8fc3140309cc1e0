//! What happened to a job.

use crate::model::{ExecutionId, HistoryEvent, JobRecord, Level, Timestamp};
use crate::wire::{ApiError, HistoryView};

use super::App;
use super::ask::{Ask, Reply, bad};
use super::page::{PAGE_MAX, PageText, Place};
use super::versions::Asked;

/// Events read from the store at a time.
const CHUNK: usize = 64;

/// Which events are wanted.
struct Filter {
    jobs: bool,
    executions: bool,
    since: Timestamp,
    execution: Option<String>,
    versions: Asked,
}

impl Filter {
    fn of(ask: &Ask, record: &JobRecord) -> Result<Self, ApiError> {
        let (jobs, executions) = match ask.query.get("event_type") {
            None | Some("all") => (true, true),
            Some("job") => (true, false),
            Some("execution") => (false, true),
            Some(other) => return Err(bad("event_type", other, "all, job or execution")),
        };
        let since = match ask.query.get("since") {
            None => 0,
            Some(text) => match text.parse::<u32>() {
                Ok(seconds) => i64::from(seconds) * 1_000_000_000,
                Err(_) => return Err(bad("since", text, "a time in Unix seconds")),
            },
        };
        let execution = ask.query.get("execution_id").map(str::to_owned);
        let versions = Asked::of(ask, record)?;
        Ok(Self { jobs, executions, since: Timestamp(since), execution, versions })
    }

    fn takes(&self, event: &HistoryEvent) -> bool {
        let level = match &event.level {
            Level::Job { .. } => self.jobs && self.execution.is_none(),
            Level::Execution { id, .. } => self.executions && self.of_execution(id),
        };
        level && event.time >= self.since && self.versions.has(event.version)
    }

    fn of_execution(&self, id: &ExecutionId) -> bool {
        self.execution.as_ref().is_none_or(|wanted| id.as_str().starts_with(wanted.as_str()))
    }
}

/// `GET jobs/{id}/history`. There is a next page until the job (or the execution asked for) has ended and all of its
/// events were given out: 1.9's `job run` stops asking when there is none.
pub fn get(app: &App, ask: &Ask, id: &str) -> Result<Reply, ApiError> {
    // The state first: if the job had ended by then, its last event was there, too.
    let (record, _) = super::jobs::find(app, ask, id)?;
    let filter = Filter::of(ask, &record)?;
    let place = Place::of(ask, &["history"]).or_else(|error| {
        // Orders are ignored here; everything else is not.
        if ask.query.get("order_by").is_some() { default_place(ask) } else { Err(error) }
    })?;
    let ended = ended(app, &record, &filter)?;
    let (page, last, more) = fill(app, ask, &record, &filter, place.offset, place.count())?;
    let token = if ended && !more { String::new() } else { place.token(last) };
    Ok(page.reply(&token))
}

fn default_place(ask: &Ask) -> Result<Place, ApiError> {
    let limit = ask.query.number("limit")?.unwrap_or(super::page::PAGE).min(PAGE_MAX);
    Ok(Place { order: "history".into(), reverse: false, limit, offset: 0 })
}

/// As much of the history as fits into an answer, for `include=history`.
pub fn all(app: &App, ask: &Ask, record: &JobRecord) -> Result<Vec<u8>, ApiError> {
    let versions = Asked::of(ask, record)?;
    let filter = Filter { jobs: true, executions: true, since: Timestamp(0), execution: None, versions };
    let limit = usize::try_from(PAGE_MAX).unwrap_or(usize::MAX);
    let (page, last, more) = fill(app, ask, record, &filter, 0, limit)?;
    let place = Place { order: "history".into(), reverse: false, limit: PAGE_MAX, offset: 0 };
    Ok(page.finish(&if more { place.token(last) } else { String::new() }))
}

/// A page of events after number `after`, the number of the last one looked at, and whether there are more.
fn fill(
    app: &App,
    ask: &Ask,
    record: &JobRecord,
    filter: &Filter,
    after: u64,
    limit: usize,
) -> Result<(PageText, u64, bool), ApiError> {
    let mut page = PageText::new("Items");
    let mut last = after;
    loop {
        let events = app.jobs.history(&record.id, last, CHUNK)?;
        for event in &events {
            if !filter.takes(event) {
                last = event.seq;
                continue;
            }
            if page.items() >= limit || !page.has_room() {
                return Ok((page, last, true));
            }
            let (job, node) = (record.id.as_str(), app.facts.id.as_str());
            page.push(&HistoryView::of(event, job, node, ask.dialect()))?;
            last = event.seq;
        }
        if events.len() < CHUNK {
            return Ok((page, last, false));
        }
    }
}

/// Whether nothing more will happen to what is asked for.
fn ended(app: &App, record: &JobRecord, filter: &Filter) -> Result<bool, ApiError> {
    // A version that another has taken the place of ends with its executions.
    let replaced = !filter.versions.has(record.version);
    if !replaced && (record.state.is_terminal() || filter.execution.is_none()) {
        return Ok(record.state.is_terminal());
    }
    let rows = app.jobs.executions(&record.id)?;
    let wanted =
        rows.iter().filter(|row| filter.versions.has(row.job_version) && filter.of_execution(&row.id));
    let mut wanted = wanted.peekable();
    Ok((replaced || wanted.peek().is_some()) && wanted.all(|row| row.state.is_terminal()))
}
