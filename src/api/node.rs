//! What the node says of itself.

use serde_json::json;

use crate::wire::{AgentNode, ApiError, BuildVersion, NodeFacts, NodeState};

use super::App;
use super::ask::{Ask, Reply, bad};
use crate::wire::selector::Selector;

/// `GET agent/version`.
pub fn version() -> Reply {
    Reply::json(&BuildVersion::default())
}

/// `POST /api/v1/version`, as 1.4 asks.
pub fn old_version() -> Reply {
    Reply::json(&json!({"build_version_info": BuildVersion::default()}))
}

/// `GET agent/config`: clients want an object, and take one with nothing in it.
pub fn config() -> Reply {
    Reply::json(&json!({"config": {}}))
}

/// `GET agent/node`.
pub fn agent(app: &App, ask: &Ask) -> Result<Reply, ApiError> {
    let (facts, started, now) = facts(app, ask)?;
    Ok(Reply::json(&AgentNode::of(&facts, &started, &now)))
}

/// `GET orchestrator/nodes`: one node, unless it is filtered out.
pub fn list(app: &App, ask: &Ask) -> Result<Reply, ApiError> {
    const ORDERS: [&str; 8] = [
        "id",
        "type",
        "available_cpu",
        "available_memory",
        "available_disk",
        "available_gpu",
        "approval",
        "status",
    ];
    if let Some(order) = ask.query.get("order_by").filter(|order| !ORDERS.contains(order)) {
        return Err(bad("order_by", order, &format!("one of {}", ORDERS.join(", "))));
    }
    let approval = filter(ask, "filter-approval", &["approved", "pending", "rejected"])?;
    let status = filter(ask, "filter-status", &["connected", "disconnected"])?;
    let labels = Selector::parse(ask.query.all("labels"))?;
    let (facts, started, now) = facts(app, ask)?;
    let shown = approval && status && labels.matches(&facts.labels);
    let nodes: Vec<_> = shown.then(|| NodeState::of(&facts, &started, &now)).into_iter().collect();
    Ok(Reply::json(&json!({"NextToken": "", "Nodes": nodes})))
}

/// Whether a filter lets this node through: it is approved and connected, the first word of each.
fn filter(ask: &Ask, name: &str, words: &[&str]) -> Result<bool, ApiError> {
    let Some(value) = ask.query.get(name) else { return Ok(true) };
    match words.iter().position(|word| word.eq_ignore_ascii_case(value)) {
        Some(at) => Ok(at == 0),
        None => Err(bad(name, value, &format!("one of {}", words.join(", ")))),
    }
}

/// `GET orchestrator/nodes/{id}`.
pub fn get(app: &App, ask: &Ask, id: &str) -> Result<Reply, ApiError> {
    if id.is_empty() || !app.facts.id.starts_with(id) {
        return Err(super::not_found("node", id));
    }
    let (facts, started, now) = facts(app, ask)?;
    Ok(Reply::json(&json!({"Node": NodeState::of(&facts, &started, &now)})))
}

/// `PUT orchestrator/nodes/{id}`: there is nobody to approve.
pub fn update() -> Reply {
    Reply::json(&json!({"Success": false, "Error": "this node is its own orchestrator and always approved"}))
}

/// `GET codling/addresses`: where results are fetched from, and what else there would be.
pub fn addresses(app: &App, ask: &Ask) -> Reply {
    Reply::json(&app.urls.describe(ask.field("Host")))
}

fn facts(app: &App, ask: &Ask) -> Result<(NodeFacts, String, String), ApiError> {
    let load = app.node.load()?;
    let facts = NodeFacts {
        available: load.available,
        running: load.running,
        queued: load.queued,
        results: Some(app.urls.describe(ask.field("Host"))),
        disk: app.shelf.look_at_disk().message(),
        ..app.facts.clone()
    };
    Ok((facts, app.started.rfc3339(), app.clock.now().rfc3339()))
}
