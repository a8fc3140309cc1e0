//! `/livez` and `/readyz`: whether the node lives, and whether it can take work.

use serde_json::json;

use crate::model::with_causes;
use crate::sys::Condition;
use crate::wire::{ApiError, Code};

use super::ask::{Ask, Reply};
use super::{App, NodeError};

/// `GET agent/alive`.
pub fn alive() -> Reply {
    Reply::json(&json!({"Status": "OK"}))
}

/// `GET /livez`: the core thread answers. A node that stops lives until it has stopped.
pub fn live(app: &App) -> Result<Reply, ApiError> {
    app.node.load()?;
    Ok(alive())
}

/// `GET /readyz`: nothing keeps the node from taking work. With `?verbose` every check by name, as Kubernetes does.
pub fn ready(app: &App, ask: &Ask) -> Reply {
    let checks = checks(app);
    let failed: Vec<_> = checks.iter().filter_map(|(name, why)| Some((name, why.as_ref()?))).collect();
    if ask.query.has("verbose") {
        return verbose(&checks, failed.is_empty());
    }
    if failed.is_empty() {
        return alive();
    }
    let told: Vec<String> = failed.iter().map(|(name, why)| format!("{name}: {why}")).collect();
    let mut error = ApiError::new(Code::ServiceUnavailable, format!("not ready: {}", told.join("; ")));
    let report = app.shelf.disk_report();
    if !report.state.takes_work() {
        error = error.hint(report.hint()).detail("DiskState", report.state.as_str());
    }
    failed.iter().fold(error, |error, (name, why)| error.detail(name, why.as_str())).into()
}

/// Each check with the reason why it fails, if it does.
fn checks(app: &App) -> Vec<(&'static str, Option<String>)> {
    let core = app.node.check().err();
    Condition::ALL
        .into_iter()
        .map(|condition| {
            // What is looked at now, beside what others have noticed.
            let seen = match condition {
                Condition::Core => core.as_ref().filter(|error| !is_store(error)).map(ToString::to_string),
                Condition::Store => {
                    let failed = || app.executions.failure().map(|error| with_causes(&error));
                    core.as_ref().filter(|error| is_store(error)).map(ToString::to_string).or_else(failed)
                }
                Condition::Disk => Some(app.shelf.look_at_disk().message()).filter(|why| !why.is_empty()),
                Condition::Quota => app.shelf.no_room_left().map(|error| with_causes(&error)),
                _ => None,
            };
            (condition.as_str(), app.health.why(condition).or(seen))
        })
        .collect()
}

const fn is_store(error: &NodeError) -> bool {
    matches!(error, NodeError::Store(_))
}

fn verbose(checks: &[(&'static str, Option<String>)], ready: bool) -> Reply {
    let mut text = String::new();
    for (name, why) in checks {
        match why {
            None => text.push_str(&format!("[+]{name} ok\n")),
            Some(why) => text.push_str(&format!("[-]{name} failed: {}\n", why.replace('\n', " "))),
        }
    }
    text.push_str(if ready { "readyz check passed\n" } else { "readyz check failed\n" });
    let status = if ready { 200 } else { Code::ServiceUnavailable.status() };
    let fields = vec![("Content-Type", "text/plain; charset=utf-8".to_owned())];
    Reply { status, fields, body: text.into_bytes(), send: None }
}
