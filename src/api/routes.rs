//! Which path means what, and what the gate has to know of it.

use crate::gate::{Rule, SITE_FIELD};
use crate::wire::{ApiError, Code};

use super::ask::{Ask, Reply};
use super::{App, archives, table};

/// The API's site.
pub const API: &str = "api";
/// The results server's site.
pub const RESULTS: &str = "results";

/// Bytes of a submission.
const SUBMISSION: u64 = 10 << 20;
/// Bytes of any other body.
const BODY: u64 = 64 << 10;

/// What the gate takes on the API's paths. Paths are compared as they come, so another spelling of one that is open
/// is not open, and another spelling of a submission may not be large.
#[must_use]
pub fn rules_of_api(method: &str, path: &str) -> Rule {
    let submits = matches!(path, "/api/v1/orchestrator/jobs" | "/api/v1/orchestrator/jobs/diff")
        && matches!(method, "PUT" | "POST");
    let open = matches!(
        path,
        "/livez"
            | "/readyz"
            | "/api/v1/version"
            | "/api/v1/auth"
            | "/api/v1/agent/alive"
            | "/api/v1/agent/version"
            | "/api/v1/agent/authconfig"
    ) || path.strip_prefix("/api/v1/auth/").is_some_and(|name| !name.contains(['/', '.', '%']));
    Rule { body: if submits { SUBMISSION } else { BODY }, open }
}

/// What the gate takes on the results server: nothing, and from everybody. Clients of all generations fetch results
/// without any credentials.
#[must_use]
pub fn rules_of_results(_method: &str, _path: &str) -> Rule {
    Rule { body: BODY, open: true }
}

/// Answers a request of either site.
#[must_use]
pub fn handle(app: &App, ask: &Ask) -> Reply {
    let answered = if ask.field(SITE_FIELD) == RESULTS { archives::get(app, ask) } else { api(app, ask) };
    answered.unwrap_or_else(|mut error| {
        error.request_id = ask.field("X-Request-ID").into();
        let allow = error.details.get(ALLOW).cloned();
        let reply = Reply::from(error);
        match allow {
            Some(methods) => reply.field("Allow", methods),
            None => reply,
        }
    })
}

/// The detail of a 405 that becomes a header field.
const ALLOW: &str = "Allow";

/// There is such a path, but not for that method.
pub fn not_allowed(allowed: &str) -> ApiError {
    ApiError::new(Code::MethodNotAllowed, format!("only {allowed} can be used here")).detail(ALLOW, allowed)
}

fn api(app: &App, ask: &Ask) -> Result<Reply, ApiError> {
    let parts = ask.segments()?;
    meant_for_us(app, ask)?;
    let found = table::find(&ask.method, &parts, &ask.path)?;
    (found.answer)(app, ask, found.variable)
}

/// Without a token, the name by which a request was sent is what tells it from one that a web page sends. What
/// everybody may know is told by any name.
fn meant_for_us(app: &App, ask: &Ask) -> Result<(), ApiError> {
    let host = ask.field("Host");
    if app.token.is_some() || app.hosts.has(host) || rules_of_api(&ask.method, &ask.path).open {
        return Ok(());
    }
    let name = super::cut(super::urls::split_host(host).0);
    Err(ApiError::new(Code::Misdirected, format!("this node does not answer to the name '{name}'")).hint(
        "use its address, localhost or the machine's own name, or have its owner add the name to API.AllowedHosts",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_spelled_out_is_open() {
        for path in
            ["/livez", "/api/v1/agent/alive", "/api/v1/auth", "/api/v1/auth/clientkey", "/api/v1/version"]
        {
            assert!(rules_of_api("GET", path).open, "{path}");
        }
        for path in [
            "/",
            "/api/v1/agent/node",
            "/api/v1/orchestrator/jobs",
            "//livez",
            "/livez/",
            "/LIVEZ",
            "/api/v1/auth/",
            "/api/v1/auth/..",
            "/api/v1/auth/../orchestrator/jobs",
            "/api/v1/auth/..%2forchestrator",
            "/api/v1/agent/alive/x",
        ] {
            assert_eq!(rules_of_api("GET", path).open, path == "/api/v1/auth/", "{path}");
        }
        assert_eq!(rules_of_api("PUT", "/api/v1/orchestrator/jobs").body, SUBMISSION);
        assert_eq!(rules_of_api("GET", "/api/v1/orchestrator/jobs").body, BODY);
        assert_eq!(rules_of_api("PUT", "/api/v1/orchestrator/jobs/x").body, BODY);
    }
}
