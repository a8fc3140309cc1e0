//! The handshake that Bacalhau's command line insists on before its first call.
//!
//! An open node lets everybody pass: any signature will do. A node with a token asks for it, and hands it back as the
//! token to use from then on.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::wire::{ApiError, Code, Tree};

use super::App;
use super::ask::{Ask, Reply};

/// The one method of an open node; its name is what clients expect.
const CHALLENGE: &str = "clientkey";
/// The one method of a node with a token.
const ASK: &str = "token";
/// What an open node's clients keep as their token. Nobody looks at it.
const OPEN_TOKEN: &str = "open";

/// `GET auth`: exactly one method, so that clients use it without a question.
pub fn methods(app: &App) -> Reply {
    let (name, requirement) = requirement(app);
    Reply::json(&json!({"NextToken": "", "Methods": {name: requirement}}))
}

fn requirement(app: &App) -> (&'static str, Value) {
    match app.token {
        None => {
            let phrase = STANDARD.encode(&app.facts.id);
            (CHALLENGE, json!({"type": "challenge", "params": {"InputPhrase": phrase}}))
        }
        Some(_) => (
            ASK,
            json!({"type": "ask", "params": {
                "type": "object",
                "properties": {"token": {"type": "string", "title": "API token", "writeOnly": true}},
                "required": ["token"]
            }}),
        ),
    }
}

/// `GET auth/{name}`, `POST auth/{name}`.
pub fn method(app: &App, ask: &Ask, name: &str, answers: bool) -> Result<Reply, ApiError> {
    let (known, requirement) = requirement(app);
    if name != known {
        return Err(super::not_found("authentication method", name));
    }
    if !answers {
        return Ok(Reply::json(&requirement));
    }
    let token = match &app.token {
        None => OPEN_TOKEN.to_owned(),
        Some(token) => {
            let given = given_token(ask)?.filter(|given| token.matches(given));
            given.ok_or_else(|| ApiError::new(Code::Unauthorized, "this is not the node's API token"))?
        }
    };
    Ok(Reply::json(&json!({"Authentication": {"success": true, "token": token}})))
}

/// The token in `{"MethodData": "<base64 of {"token": "..."}>"}`.
fn given_token(ask: &Ask) -> Result<Option<String>, ApiError> {
    let data = text(&ask.json()?, "MethodData").and_then(|data| STANDARD.decode(data).ok());
    let Some(data) = data else { return Ok(None) };
    let inner = Ask { body: data, ..Ask::default() }.json()?;
    Ok(text(&inner, "token"))
}

/// The text field of that name, compared without case.
pub fn text(tree: &Tree, name: &str) -> Option<String> {
    match field(tree, name) {
        Some(Tree::Str(text)) => Some(text.clone()),
        _ => None,
    }
}

/// The field of that name, compared without case.
pub fn field<'a>(tree: &'a Tree, name: &str) -> Option<&'a Tree> {
    let Tree::Map(map) = tree else { return None };
    map.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// `GET agent/authconfig`: no single sign-on.
pub fn config() -> Reply {
    Reply::json(&json!({"Version": "1.0.0", "Config": {}}))
}
