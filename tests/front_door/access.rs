//! Who may use a node, and how fast results leave it.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Output;

use base64::Engine as _;
use serde_json::json;

use crate::jobs;
use crate::node::{CODLING, Dir, Node, PATIENCE, codling, http, http_with, refused, signal, text};

const TOKEN: &str = "the-right-token-0123456789";
const OTHER: &str = "the-next-token-9876543210";
const WRONG: &str = "a-wrong-token-5555555555";

/// Every kind of route that the API has, those of codling's own among them.
const CLOSED: [(&str, &str); 20] = [
    ("PUT", "/api/v1/orchestrator/jobs"),
    ("POST", "/api/v1/orchestrator/jobs"),
    ("GET", "/api/v1/orchestrator/jobs"),
    ("PUT", "/api/v1/orchestrator/jobs/diff"),
    ("GET", "/api/v1/orchestrator/jobs/j-1"),
    ("DELETE", "/api/v1/orchestrator/jobs/j-1"),
    ("GET", "/api/v1/orchestrator/jobs/j-1/history"),
    ("GET", "/api/v1/orchestrator/jobs/j-1/executions"),
    ("GET", "/api/v1/orchestrator/jobs/j-1/results"),
    ("GET", "/api/v1/orchestrator/nodes"),
    ("GET", "/api/v1/agent/node"),
    ("GET", "/api/v1/agent/config"),
    ("GET", "/api/v1/codling/results"),
    ("DELETE", "/api/v1/codling/results/e-1"),
    ("PUT", "/api/v1/codling/results/e-1/pin"),
    ("GET", "/api/v1/codling/df"),
    ("GET", "/api/v1/codling/stats"),
    ("POST", "/api/v1/codling/gc"),
    ("GET", "/metrics"),
    ("GET", "/api/v1/openapi.json"),
];

const OPEN: [(&str, &str); 7] = [
    ("GET", "/livez"),
    ("GET", "/readyz"),
    ("POST", "/api/v1/version"),
    ("GET", "/api/v1/auth"),
    ("GET", "/api/v1/agent/alive"),
    ("GET", "/api/v1/agent/version"),
    ("GET", "/api/v1/agent/authconfig"),
];

fn secret_file(dir: &Dir, name: &str, token: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, format!("{token}\n")).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    path
}

fn with_token(node: &Node, method: &str, path: &str, token: &str) -> u16 {
    let authorization = format!("Bearer {token}");
    let body = (method != "GET").then_some("{}");
    http_with(method, &format!("{}{path}", node.api), &[("Authorization", &authorization)], body).0
}

fn without(node: &Node, method: &str, path: &str) -> u16 {
    http(method, &format!("{}{path}", node.api), (method != "GET").then_some("{}")).0
}

/// The answer to the handshake of Bacalhau's command line, with that token.
fn handshake(node: &Node, token: &str) -> (u16, serde_json::Value) {
    let inner = json!({ "token": token }).to_string();
    let data = base64::engine::general_purpose::STANDARD.encode(inner);
    node.call("POST", "/api/v1/auth/token", Some(&json!({ "Name": "token", "MethodData": data }).to_string()))
}

#[test]
fn the_token_opens_every_route_and_is_told_to_nobody() {
    let dir = Dir::new();
    let file = secret_file(&dir, "token", TOKEN);
    let key = format!("API.Auth.TokenFile={}", file.display());
    let settings = ["-c", key.as_str(), "--log-level", "trace"];
    let mut node = Node::start(&dir.join("data"), &settings);
    for (method, path) in CLOSED {
        assert_eq!(without(&node, method, path), 401, "{method} {path}");
        assert_ne!(with_token(&node, method, path, TOKEN), 401, "{method} {path}");
    }
    for (method, path) in OPEN {
        assert_eq!(without(&node, method, path), 200, "{method} {path}");
        // Somebody else's token, left over from another node, closes nothing.
        assert_eq!(with_token(&node, method, path, WRONG), 200, "{method} {path}");
    }
    for near in [&TOKEN[..TOKEN.len() - 1], &format!("{TOKEN}x"), &TOKEN.to_uppercase(), ""] {
        assert_eq!(with_token(&node, "GET", "/api/v1/agent/node", near), 401, "{near}");
    }
    assert_eq!(with_token(&node, "GET", "/api/v1/agent/node", WRONG), 401);
    let (status, answer) = handshake(&node, WRONG);
    assert_eq!(status, 401, "{answer}");
    let (status, answer) = handshake(&node, TOKEN);
    assert_eq!((status, &answer["Authentication"]["token"]), (200, &json!(TOKEN)));

    let authorization = format!("Bearer {TOKEN}");
    for path in ["/api/v1/agent/config", "/api/v1/agent/node", "/api/v1/codling/stats"] {
        let (status, _, body) =
            http_with("GET", &format!("{}{path}", node.api), &[("Authorization", &authorization)], None);
        assert!(status == 200 && !text(&body).contains(TOKEN), "{path}");
    }
    node.wait_log("a wrong API token");
    let listed = codling(&["config", "list", "--origin", "-c", &key]);
    let by_value = std::process::Command::new(&*CODLING)
        .args(["config", "list", "--origin"])
        .env("BACALHAU_API_AUTH_TOKEN", TOKEN)
        .output()
        .unwrap();
    for output in [&listed, &by_value] {
        assert!(output.status.success());
        assert!(!(text(&output.stdout) + &text(&output.stderr)).contains(TOKEN));
    }
    assert!(text(&by_value.stdout).contains("(set)"));
    let (broken, log) =
        refused(&dir.join("other"), &[], &[("BACALHAU_API_AUTH_TOKEN", &format!("{TOKEN} {TOKEN}"))]);
    assert!(broken.code() == Some(78) && log.contains("blanks") && !log.contains(TOKEN), "{log}");
    let log = node.log_so_far();
    assert!(log.contains("GET /api/v1/agent/node: a wrong API token"), "{log}");
    assert!(!log.contains(TOKEN) && !log.contains(WRONG), "{log}");
}

#[test]
fn a_token_on_the_command_line_or_in_a_public_file_is_warned_about() {
    let dir = Dir::new();
    let mut node = Node::start(&dir.join("data"), &["-c", &format!("API.Auth.Token={TOKEN}")]);
    assert!(node.log_so_far().contains("sees it in the list of processes"));
    drop(node);
    let file = secret_file(&dir, "token", TOKEN);
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    let key = format!("API.Auth.TokenFile={}", file.display());
    let mut node = Node::start(&dir.join("data"), &["-c", &key]);
    let log = node.log_so_far();
    assert!(log.contains("others can read") && !log.contains(TOKEN), "{log}");
}

#[test]
fn the_token_file_is_read_again_at_sighup() {
    let dir = Dir::new();
    let file = secret_file(&dir, "token", TOKEN);
    let key = format!("API.Auth.TokenFile={}", file.display());
    let mut node = Node::start(&dir.join("data"), &["-c", &key]);
    let asks = |node: &Node, token: &str| with_token(node, "GET", "/api/v1/agent/node", token);
    assert_eq!(asks(&node, TOKEN), 200);
    secret_file(&dir, "token", OTHER);
    signal(node.pid(), "HUP");
    node.wait_log("what it holds counts now");
    assert_eq!((asks(&node, OTHER), asks(&node, TOKEN)), (200, 401));
    assert_eq!((handshake(&node, OTHER).0, handshake(&node, TOKEN).0), (200, 401));
    // What is no token changes nothing.
    std::fs::write(&file, "\n").unwrap();
    signal(node.pid(), "HUP");
    let line = node.wait_log("the token of before still counts");
    assert!(line.contains("the token is empty"), "{line}");
    assert_eq!(asks(&node, OTHER), 200);
    assert!(!node.log_so_far().contains(OTHER));
}

#[test]
fn the_command_line_shows_its_token_or_says_how() {
    let dir = Dir::new();
    let file = secret_file(&dir, "token", TOKEN);
    let key = format!("API.Auth.TokenFile={}", file.display());
    let node = Node::start(&dir.join("data"), &["-c", &key]);
    let list = |token: Option<&str>, args: &[&str]| -> Output {
        let mut command = node.command(&[&["job", "list"], args].concat());
        command.env_remove("BACALHAU_API_KEY");
        if let Some(token) = token {
            command.env("BACALHAU_API_KEY", token);
        }
        command.output().unwrap()
    };
    let path = file.to_str().unwrap();
    assert!(list(Some(TOKEN), &[]).status.success());
    assert!(list(None, &["--token-file", path]).status.success());
    assert!(list(Some(WRONG), &["--token-file", path]).status.success(), "the flag counts");
    for token in [None, Some(WRONG)] {
        let output = list(token, &[]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(77), "{said}");
        assert!(said.contains("API token") && said.contains("BACALHAU_API_KEY"), "{said}");
        assert!(said.contains("--token-file") && !said.contains(WRONG), "{said}");
    }
    let missing = list(None, &["--token-file", "/nonexistent/token"]);
    assert_eq!(missing.status.code(), Some(78));
    assert!(text(&missing.stderr).contains("/nonexistent/token"));
}

/// A result of about 2 MiB; its URL.
fn published(node: &Node) -> String {
    let id = node.submit(&jobs::noise(2));
    node.wait_state(&id, &["Completed"]);
    let (_, results) = node.get(&format!("/api/v1/orchestrator/jobs/{id}/results"));
    results["Items"][0]["Params"]["URL"].as_str().unwrap().to_owned()
}

#[test]
fn downloads_keep_to_the_rate_and_requests_do_not_wait_for_them() {
    for key in ["Results.DownloadRate=1MiB", "Results.DownloadRatePerClient=1MiB"] {
        let dir = Dir::new();
        let node = Node::start(&dir.join("data"), &["-c", key]);
        let url = published(&node);
        let begun = std::time::Instant::now();
        let downloads: Vec<_> = (0..2)
            .map(|_| {
                let url = url.clone();
                std::thread::spawn(move || http("GET", &url, None))
            })
            .collect();
        // Answers of the API are no downloads.
        assert_eq!(node.get("/api/v1/agent/node").0, 200);
        let bodies: Vec<_> = downloads.into_iter().map(|thread| thread.join().unwrap()).collect();
        // Two of 2 MiB at 1 MiB a second: four seconds, less what may pass at once.
        assert!(begun.elapsed() > std::time::Duration::from_secs(3), "{key}: {:?}", begun.elapsed());
        assert!(begun.elapsed() < *PATIENCE);
        assert!(bodies.iter().all(|(status, body)| *status == 200 && *body == bodies[0].1));
        assert!(bodies[0].1.len() >= 2 << 20);
    }
}
