//! Every path of the API, and who answers there. `openapi.json` has the same, as a test says.

use crate::wire::{ApiError, Code};

use super::ask::{Ask, Reply};
use super::{App, auth, executions, health, history, jobs, logs, metrics, node, openapi, results, versions};

/// Answers a request; the text is the variable part of the path, if it has one.
pub type Answer = fn(&App, &Ask, &str) -> Result<Reply, ApiError>;

/// A path, with at most one variable part, and what can be done there. HEAD is GET without the body.
pub struct Route {
    /// As OpenAPI writes it: `/api/v1/orchestrator/jobs/{id}`.
    pub path: &'static str,
    /// Methods, and who answers.
    pub methods: &'static [(&'static str, Answer)],
}

/// What stands before what: of two routes that fit, the first that has the method.
pub const ROUTES: &[Route] = &[
    Route { path: "/livez", methods: &[("GET", |app, _, _| health::live(app))] },
    Route { path: "/readyz", methods: &[("GET", |app, ask, _| Ok(health::ready(app, ask)))] },
    Route { path: "/metrics", methods: &[("GET", |app, _, _| metrics::get(app))] },
    Route { path: "/api/v1/openapi.json", methods: &[("GET", |_, _, _| openapi::get())] },
    Route {
        path: "/api/v1/version",
        methods: &[
            ("GET", |_, _, _| Ok(node::old_version())),
            ("POST", |_, ask, _| ask.json().map(|_| node::old_version())),
        ],
    },
    Route { path: "/api/v1/auth", methods: &[("GET", |app, _, _| Ok(auth::methods(app)))] },
    Route {
        path: "/api/v1/auth/{name}",
        methods: &[
            ("GET", |app, ask, name| auth::method(app, ask, name, false)),
            ("POST", |app, ask, name| auth::method(app, ask, name, true)),
        ],
    },
    Route { path: "/api/v1/agent/alive", methods: &[("GET", |_, _, _| Ok(health::alive()))] },
    Route { path: "/api/v1/agent/version", methods: &[("GET", |_, _, _| Ok(node::version()))] },
    Route { path: "/api/v1/agent/node", methods: &[("GET", |app, ask, _| node::agent(app, ask))] },
    Route { path: "/api/v1/agent/config", methods: &[("GET", |_, _, _| Ok(node::config()))] },
    Route { path: "/api/v1/agent/authconfig", methods: &[("GET", |_, _, _| Ok(auth::config()))] },
    Route {
        path: "/api/v1/orchestrator/jobs",
        methods: &[
            ("GET", |app, ask, _| jobs::list(app, ask)),
            ("PUT", |app, ask, _| jobs::submit(app, ask)),
            ("POST", |app, ask, _| jobs::submit(app, ask)),
        ],
    },
    // A job may be called `diff`: only PUT means the other thing.
    Route {
        path: "/api/v1/orchestrator/jobs/diff",
        methods: &[("PUT", |app, ask, _| versions::compare(app, ask))],
    },
    Route { path: "/api/v1/orchestrator/jobs/{id}", methods: &[("GET", jobs::get), ("DELETE", jobs::stop)] },
    Route { path: "/api/v1/orchestrator/jobs/{id}/history", methods: &[("GET", history::get)] },
    Route { path: "/api/v1/orchestrator/jobs/{id}/executions", methods: &[("GET", executions::get)] },
    Route { path: "/api/v1/orchestrator/jobs/{id}/results", methods: &[("GET", executions::results)] },
    Route { path: "/api/v1/orchestrator/jobs/{id}/versions", methods: &[("GET", versions::list)] },
    Route { path: "/api/v1/orchestrator/jobs/{id}/rerun", methods: &[("PUT", versions::rerun)] },
    Route { path: "/api/v1/orchestrator/jobs/{id}/logs", methods: &[("GET", logs::follow)] },
    Route { path: "/api/v1/orchestrator/nodes", methods: &[("GET", |app, ask, _| node::list(app, ask))] },
    Route {
        path: "/api/v1/orchestrator/nodes/{id}",
        methods: &[("GET", node::get), ("PUT", |_, ask, _| ask.json().map(|_| node::update()))],
    },
    Route { path: "/api/v1/codling/results", methods: &[("GET", |app, ask, _| results::list(app, ask))] },
    Route {
        path: "/api/v1/codling/results/{id}",
        methods: &[("GET", results::get), ("DELETE", |app, _, id| results::remove(app, id))],
    },
    Route {
        path: "/api/v1/codling/results/{id}/pin",
        methods: &[("PUT", results::pin), ("DELETE", results::unpin)],
    },
    Route {
        path: "/api/v1/codling/addresses",
        methods: &[("GET", |app, ask, _| Ok(node::addresses(app, ask)))],
    },
    Route { path: "/api/v1/codling/df", methods: &[("GET", |app, _, _| results::df(app))] },
    Route { path: "/api/v1/codling/stats", methods: &[("GET", |app, _, _| Ok(results::stats(app)))] },
    Route { path: "/api/v1/codling/gc", methods: &[("POST", |app, ask, _| results::gc(app, ask))] },
];

/// A route that was found for a request.
pub struct Found<'a> {
    /// Its path, as the table has it.
    #[cfg_attr(not(any(test, fuzzing)), expect(dead_code, reason = "for those who check where requests go"))]
    pub path: &'static str,
    /// Who answers.
    pub answer: Answer,
    /// The variable part; empty if there is none.
    pub variable: &'a str,
}

/// Who answers a request with this method for a path with these parts.
///
/// # Errors
/// There is no such path (404), or not for that method (405).
pub fn find<'a>(method: &str, parts: &'a [String], path: &str) -> Result<Found<'a>, ApiError> {
    let mut allowed: Vec<&str> = Vec::new();
    for route in ROUTES {
        let Some(variable) = fits(route.path, parts) else { continue };
        if let Some((_, answer)) = route.methods.iter().find(|(name, _)| *name == method) {
            return Ok(Found { path: route.path, answer: *answer, variable });
        }
        for (name, _) in route.methods {
            allowed.push(name);
            allowed.extend((*name == "GET").then_some("HEAD"));
        }
    }
    if allowed.is_empty() {
        let path: String = path.chars().take(200).collect();
        return Err(ApiError::new(Code::NotFound, format!("there is nothing at {path}")));
    }
    Err(super::routes::not_allowed(&allowed.join(", ")))
}

/// The variable part, or nothing for a path without one, if these are the parts of that path.
fn fits<'a>(path: &str, parts: &'a [String]) -> Option<&'a str> {
    let mut variable = "";
    let mut rest = parts.iter();
    for wanted in path.split('/').skip(1) {
        let part = rest.next()?;
        if wanted.starts_with('{') {
            variable = part;
        } else if wanted != part {
            return None;
        }
    }
    rest.next().is_none().then_some(variable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(method: &str, path: &str) -> Result<(&'static str, String), ApiError> {
        let ask = Ask::new(method, path).unwrap();
        let parts = ask.segments().unwrap();
        find(&ask.method, &parts, path).map(|found| (found.path, found.variable.to_owned()))
    }

    #[test]
    fn the_first_route_that_has_the_method_is_taken() {
        let job = "/api/v1/orchestrator/jobs/{id}";
        assert_eq!(at("GET", "/api/v1/orchestrator/jobs/diff").unwrap(), (job, "diff".into()));
        assert_eq!(at("DELETE", "/api/v1/orchestrator/jobs/diff").unwrap(), (job, "diff".into()));
        assert_eq!(at("PUT", "/api/v1/orchestrator/jobs/diff").unwrap().0, "/api/v1/orchestrator/jobs/diff");
        assert_eq!(at("HEAD", "/api/v1/orchestrator/jobs/a%2Fb").unwrap(), (job, "a/b".into()));
        assert_eq!(at("HEAD", "/livez").unwrap(), ("/livez", String::new()));
    }

    #[test]
    fn what_is_not_there_and_what_is_not_allowed_are_told_apart() {
        for path in
            ["/", "//livez", "/livez/", "/LIVEZ", "/api/v1", "/api/v1/orchestrator/jobs/a/b", "/api/v2/auth"]
        {
            assert_eq!(at("GET", path).unwrap_err().status, 404, "{path}");
        }
        for (method, path, allowed) in [
            ("POST", "/livez", "GET, HEAD"),
            ("PATCH", "/api/v1/orchestrator/jobs", "GET, HEAD, PUT, POST"),
            ("POST", "/api/v1/orchestrator/jobs/x", "GET, HEAD, DELETE"),
            ("GET", "/api/v1/orchestrator/jobs/x/rerun", "PUT"),
            ("HEAD", "/api/v1/codling/results/x/pin", "PUT, DELETE"),
        ] {
            let error = at(method, path).unwrap_err();
            assert_eq!((error.status, error.details["Allow"].as_str()), (405, allowed), "{method} {path}");
        }
    }
}
