//! Tokens, the node's own account of itself, and everything that is not there.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;

#[test]
fn an_open_node_lets_everybody_through_the_handshake() {
    let world = World::start();
    let methods = world.get("/api/v1/auth");
    let challenge = &methods["Methods"]["clientkey"];
    assert_eq!((methods["Methods"].as_object().unwrap().len(), &challenge["type"]), (1, &json!("challenge")));
    let phrase = STANDARD.decode(challenge["params"]["InputPhrase"].as_str().unwrap()).unwrap();
    assert_eq!(phrase, b"n-edge-01");
    let data = STANDARD.encode(r#"{"PhraseSignature":"eA==","PublicKey":"eA=="}"#);
    let body = format!(r#"{{"Namespace":"","Credential":null,"Name":"clientkey","MethodData":"{data}"}}"#);
    let (answer, value) = world.say("v1.4.0", "POST", "/api/v1/auth/clientkey", &body);
    assert_eq!((answer.status, &value["Authentication"]["success"]), (200, &json!(true)));
    assert!(!value["Authentication"]["token"].as_str().unwrap().is_empty());
    assert_eq!(world.get("/api/v1/auth/clientkey"), *challenge);
    assert_eq!(world.status("POST", "/api/v1/auth/other", "{}"), 404);
    assert_eq!(world.get("/api/v1/agent/authconfig"), json!({"Version": "1.0.0", "Config": {}}));
}

#[test]
fn a_node_with_a_token_asks_for_it() {
    let world = World::with(Some("0123456789abcdef"));
    assert_eq!(world.status("GET", "/api/v1/orchestrator/jobs", ""), 401);
    assert_eq!(world.status("GET", "/api/v1/codling/df", ""), 401);
    for open in ["/livez", "/readyz", "/api/v1/agent/alive", "/api/v1/agent/version", "/api/v1/auth"] {
        assert_eq!(world.status("GET", open, ""), 200, "{open}");
    }
    let methods = world.get("/api/v1/auth");
    assert_eq!(methods["Methods"]["token"]["params"]["required"], json!(["token"]));
    let post = |token: &str| {
        let data = STANDARD.encode(format!(r#"{{"token":"{token}"}}"#));
        world.say("v1.4.0", "POST", "/api/v1/auth/token", &format!(r#"{{"MethodData":"{data}"}}"#))
    };
    let (answer, value) = post("wrong");
    assert_eq!(answer.status, 401);
    assert!(!value.to_string().contains("0123456789abcdef"));
    let (answer, value) = post("0123456789abcdef");
    assert_eq!((answer.status, &value["Authentication"]["token"]), (200, &json!("0123456789abcdef")));
    assert_eq!(world.status("POST", "/api/v1/auth/token", r#"{"MethodData":"!"}"#), 401);
    let with =
        "GET /api/v1/orchestrator/jobs HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer 0123456789abcdef\r\n\r\n";
    assert_eq!(Client::connect(world.api).ask(with).status, 200);
}

#[test]
fn the_node_tells_who_it_is() {
    let world = World::start();
    assert_eq!(world.get("/api/v1/agent/alive"), json!({"Status": "OK"}));
    assert_eq!(world.get("/livez"), json!({"Status": "OK"}));
    assert_eq!(world.get("/readyz"), json!({"Status": "OK"}));
    assert_eq!(world.get("/api/v1/agent/version")["Major"], "1");
    let (_, old) = world.say("", "POST", "/api/v1/version", r#"{"client_id":"00"}"#);
    assert_eq!(old["build_version_info"]["GitVersion"], "v1.9.3");
    assert_eq!(world.get("/api/v1/agent/config"), json!({"config": {}}));
    let node = world.get("/api/v1/agent/node");
    assert_eq!((&node["NodeID"], &node["Info"]["NodeID"]), (&json!("n-edge-01"), &json!("n-edge-01")));
    assert_eq!(node["ComputeNodeInfo"]["EnqueuedExecutions"], 2);
    assert_eq!(node["ComputeNodeInfo"]["AvailableCapacity"]["CPU"], 1.5);
    assert_eq!(node["ConnectionState"]["ConnectedSince"], "2026-02-03T04:05:06.000000000Z");
    let nodes = |query: &str| {
        world.get(&format!("/api/v1/orchestrator/nodes{query}"))["Nodes"].as_array().unwrap().len()
    };
    for (query, wanted) in [
        ("", 1),
        ("?limit=10&order_by=available_cpu&reverse=true", 1),
        ("?filter-approval=approved&filter-status=CONNECTED", 1),
        ("?filter-status=disconnected", 0),
        ("?labels=zone%3Da", 1),
        ("?labels=zone%3Db", 0),
    ] {
        assert_eq!(nodes(query), wanted, "{query}");
    }
    assert_eq!(world.status("GET", "/api/v1/orchestrator/nodes?filter-status=x", ""), 400);
    assert_eq!(world.status("GET", "/api/v1/orchestrator/nodes?order_by=x", ""), 400);
    assert_eq!(world.get("/api/v1/orchestrator/nodes/n-edge")["Node"]["Membership"], "APPROVED");
    assert_eq!(world.status("GET", "/api/v1/orchestrator/nodes/n-other", ""), 404);
    let (_, update) = world.say("", "PUT", "/api/v1/orchestrator/nodes/n-edge-01", r#"{"Action":"reject"}"#);
    assert_eq!(update["Success"], false);
}

#[test]
fn what_is_not_there_says_so() {
    let world = World::start();
    for path in [
        "/",
        "/api",
        "/api/v1",
        "/api/v1/agent",
        "/api/v1/agent/x",
        "/api/v1/orchestrator/jobs/a/b",
        "//livez",
    ] {
        assert_eq!(world.status("GET", path, ""), 404, "{path}");
    }
    for (method, path, allow) in [
        ("DELETE", "/api/v1/orchestrator/jobs", "GET, HEAD, PUT, POST"),
        ("POST", "/api/v1/orchestrator/jobs/x", "GET, HEAD, DELETE"),
        ("PUT", "/api/v1/agent/alive", "GET, HEAD"),
        ("GET", "/api/v1/codling/gc", "POST"),
        ("OPTIONS", "/livez", "GET, HEAD"),
        ("TRACE", "/livez", "GET, HEAD"),
    ] {
        let (answer, value) = world.say("", method, path, "");
        assert_eq!((answer.status, answer.field("Allow")), (405, Some(allow)), "{method} {path}: {value}");
    }
    for (method, path, status) in [
        // Without a websocket's handshake; what comes of one is tested where the gate has logs.
        ("GET", "/api/v1/orchestrator/jobs/x/logs?follow=true", 426),
        ("GET", "/api/v1/orchestrator/jobs/x/logs?follow=x", 400),
    ] {
        assert_eq!(world.status(method, path, "{}"), status, "{path}");
    }
    let mut client = Client::connect(world.api);
    client.send("HEAD /api/v1/agent/alive HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.answer(true);
    assert_eq!((head.status, head.field("Content-Length")), (200, Some("15")));
    assert_eq!(client.ask("GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").text(), r#"{"Status":"OK"}"#);
    let request = "GET /nothing HTTP/1.1\r\nHost: a\r\nX-Request-ID: r-7\r\n\r\n";
    let error: ApiError = serde_json::from_slice(&client.ask(request).body).unwrap();
    assert_eq!(&*error.request_id, "r-7");
}

#[test]
fn a_page_that_rebinds_its_name_reaches_nothing() {
    let ask = |world: &World, host: &str, line: &str, fields: &str| {
        let request = format!("{line} HTTP/1.1\r\nHost: {host}\r\n{fields}Content-Length: 0\r\n\r\n");
        Client::connect(world.api).ask(request)
    };
    let open = World::start();
    let jobs = "/api/v1/orchestrator/jobs";
    for line in [
        format!("GET {jobs}"),
        format!("PUT {jobs}"),
        format!("DELETE {jobs}/x"),
        "POST /api/v1/codling/gc".into(),
        "DELETE /api/v1/codling/results/x".into(),
        "GET /api/v1/agent/node".into(),
    ] {
        let refused = ask(&open, "evil.example:1234", &line, "");
        let error: ApiError = serde_json::from_slice(&refused.body).unwrap();
        assert_eq!((refused.status, &*error.code), (421, "MisdirectedRequest"), "{line}");
        assert!(
            error.message.contains("'evil.example'") && error.hint.contains("API.AllowedHosts"),
            "{error:?}"
        );
        // A browser says which page asks, which changes nothing.
        assert_eq!(ask(&open, "evil.example", &line, "Origin: http://evil.example\r\n").status, 421);
        for own in ["127.0.0.1:1234", "[::1]:1234", "localhost:1234", "board:1234", "board.local"] {
            assert_ne!(ask(&open, own, &line, "").status, 421, "{own} {line}");
        }
    }
    // What everybody may know.
    for line in ["GET /livez", "GET /api/v1/agent/alive", "GET /api/v1/agent/version"] {
        assert_eq!(ask(&open, "evil.example", line, "").status, 200, "{line}");
    }
    // With a token, any name will do: a page does not have the token.
    let closed = World::with(Some("0123456789abcdef"));
    let token = "Authorization: Bearer 0123456789abcdef\r\n";
    assert_eq!(ask(&closed, "board.example.org", &format!("GET {jobs}"), token).status, 200);
    assert_eq!(ask(&closed, "board.example.org", &format!("GET {jobs}"), "").status, 401);
}

#[test]
fn a_node_says_where_its_results_are() {
    let world = World::start();
    let own = world.get("/api/v1/codling/addresses");
    assert_eq!(own["URL"], format!("http://board.local:{}", world.results.port()));
    assert_eq!(own["Bind"], world.results.to_string());
    assert_eq!(own["Reason"], "the host that the client used");
    assert!(own["Alternatives"].as_array().unwrap().iter().any(|a| a["Address"] == "127.0.0.1"), "{own}");
    assert_eq!(world.get("/api/v1/agent/node")["CodlingResults"], own);
    let id = world.app.facts.id.clone();
    let node = world.get(&format!("/api/v1/orchestrator/nodes/{id}"));
    assert_eq!(node["Node"]["CodlingResults"], own);
}
