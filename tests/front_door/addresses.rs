//! Where results are, who may be asked for them by which name, and for how long a link holds: issue 2 items 5 and 6.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use serde_json::{Value, json};

use crate::jobs;
use crate::node::{Dir, Node, PATIENCE, eventually, http, http_with, text};

/// Runs a job that prints; returns its id and its result's URL.
fn published(node: &Node) -> (String, String) {
    let id = node.submit(&jobs::hello("hello\n"));
    node.wait_state(&id, &["Completed"]);
    let url = url_of(node, &id);
    (id, url)
}

fn url_of(node: &Node, id: &str) -> String {
    let (_, results) = node.get(&format!("/api/v1/orchestrator/jobs/{id}/results"));
    results["Items"][0]["Params"]["URL"].as_str().unwrap().to_owned()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_node_that_moved_serves_what_it_had_and_tells_the_new_links() {
    let dir = Dir::new();
    let all = ["-c", "Publishers.Types.Local.Bind=0.0.0.0"];
    let node = Node::start(&dir.join("data"), &all);
    let (id, old) = published(&node);
    let (status, bytes) = http("GET", &old, None);
    assert_eq!(status, 200);
    let unchanged = node.cli(&["results", "republish", "--all"]);
    assert!(text(&unchanged.stderr).contains("still lead to their results"), "{}", text(&unchanged.stderr));
    assert!(node.stop().success());

    let port = free_port();
    let word = ["-c", "Publishers.Types.Local.Address=any", "--local-publisher-port"];
    let node = Node::start(&dir.join("data"), &[&all[..], &word, &[&port.to_string()]].concat());
    // The result is where the node is now, and nobody had to do anything for it.
    let new = url_of(&node, &id);
    assert!(new.contains(&format!(":{port}/")) && new != old && !new.contains("any"), "{old} {new}");
    assert!(http("GET", &new, None) == (200, bytes.clone()));
    let out = dir.join("got");
    node.ok(&["job", "get", &id, "-o", out.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(out.join("stdout")).unwrap(), "hello\n");
    // Links that were handed out are told with those in their place.
    let csv = node.ok(&["results", "republish", "--all", "--output", "csv"]);
    let line = csv.lines().find(|line| line.contains(&old)).unwrap_or_else(|| panic!("{csv}"));
    assert!(line.ends_with(&new), "{csv}");
    let execution = line.split(',').next().unwrap();
    let json = node.ok(&["results", "republish", execution, "--output", "json"]);
    let links: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (links[0]["Old"].as_str(), links[0]["New"].as_str()),
        (Some(old.as_str()), Some(new.as_str()))
    );
    assert!(http("GET", links[0]["New"].as_str().unwrap(), None) == (200, bytes));
    // The choice and what else there was.
    let shown = node.ok(&["node"]);
    assert!(shown.contains(&format!("formerly   {}", old.rsplit_once('/').unwrap().0)), "{shown}");
    let (_, info) = node.get("/api/v1/agent/node");
    let results = &info["CodlingResults"];
    assert_eq!(results["URL"].as_str().unwrap(), new.rsplit_once('/').unwrap().0);
    assert!(results["Alternatives"].as_array().unwrap().iter().all(|a| a["Reason"] != ""), "{results}");
    let json: Value = serde_json::from_str(&node.ok(&["node", "--output", "json"])).unwrap();
    assert_eq!(&json["CodlingResults"], results);
}

#[test]
fn an_address_that_nobody_can_reach_is_warned_of() {
    let dir = Dir::new();
    let mut node = Node::start(&dir.join("data"), &["-c", "Publishers.Types.Local.Address=public"]);
    assert!(node.log_so_far().contains("results are served on 127.0.0.1 only"), "{}", node.log_so_far());
    let shown = node.ok(&["node"]);
    assert!(shown.contains("  warning"), "{shown}");
    // A proxy's address is taken as it is.
    drop(node);
    let proxy = ["-c", "Publishers.Types.Local.Address=https://results.example.org/board7/"];
    let node = Node::start(&dir.join("data"), &proxy);
    let (_, url) = published(&node);
    assert!(url.starts_with("https://results.example.org/board7/e-") && url.ends_with(".tar.gz"), "{url}");
    assert!(!node.ok(&["node"]).contains("  warning"));
}

#[test]
fn links_are_signed_and_end() {
    let dir = Dir::new();
    let data = dir.join("data");
    let hour = ["-c", "Publishers.Types.Local.LinkLifetime=1h"];
    let node = Node::start(&data, &hour);
    let (id, url) = published(&node);
    let (plain, query) = url.split_once('?').unwrap();
    assert!(query.starts_with("expires=") && query.contains("&signature="), "{url}");
    let (status, whole) = http("GET", &url, None);
    assert_eq!(status, 200);
    let (status, _, part) = http_with("GET", &url, &[("Range", "bytes=5-")], None);
    assert!(status == 206 && part == whole[5..]);
    assert_eq!(http("HEAD", &url, None).0, 200);
    let (status, refused) = http("GET", plain, None);
    assert!(status == 403 && text(&refused).contains("not signed by this node"), "{}", text(&refused));
    assert_eq!(
        http("GET", &format!("{}?{query}", swap_id(plain)), None).0,
        403,
        "nobody learns what there is"
    );
    let out = dir.join("got");
    node.ok(&["job", "get", &id, "-o", out.to_str().unwrap()]);
    // It holds after a restart on the same port, until its key is removed.
    let port = plain.rsplit_once(':').unwrap().1.split('/').next().unwrap().to_owned();
    assert!(node.stop().success());
    let again = [&hour[..], &["--local-publisher-port", &port]].concat();
    let node = Node::start(&data, &again);
    assert_eq!(http("GET", &url, None).0, 200);
    std::fs::remove_file(data.join("link.key")).unwrap();
    assert_eq!(http("GET", &url, None).0, 403);
    let renewed = url_of(&node, &id);
    assert_eq!((http("GET", &renewed, None).0, http("GET", &url, None).0), (200, 403));
    drop(node);
    // Without a lifetime a link is for ever, with whatever stands behind it.
    let node = Node::start(&data, &["--local-publisher-port", &port]);
    assert_eq!((http("GET", plain, None).0, http("GET", &url, None).0), (200, 200));
    drop(node);
    let node = Node::start(&data, &["-c", "Publishers.Types.Local.LinkLifetime=1s"]);
    let url = url_of(&node, &id);
    let expired =
        eventually("a link to end", || Some(http("GET", &url, None)).filter(|(status, _)| *status != 200));
    assert!(expired.0 == 403 && text(&expired.1).contains("has expired"), "{}", text(&expired.1));
}

/// The same URL with another result's id in it.
fn swap_id(url: &str) -> String {
    let (base, _) = url.rsplit_once('/').unwrap();
    format!("{base}/e-{}.tar.gz", uuid::Uuid::new_v4())
}

/// The status line of the answer to a request that names `host`.
fn asked_as(node: &Node, host: &str, line: &str) -> String {
    let mut stream = TcpStream::connect(node.api.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(*PATIENCE)).unwrap();
    write!(stream, "{line} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    text(&answer).lines().next().unwrap_or_default().to_owned()
}

#[test]
fn a_web_page_that_rebinds_its_name_reaches_nothing() {
    let dir = Dir::new();
    let node = Node::start(&dir.join("data"), &[]);
    for line in
        ["POST /api/v1/codling/gc", "GET /api/v1/orchestrator/jobs", "DELETE /api/v1/orchestrator/jobs/x"]
    {
        let status = asked_as(&node, "evil.example:1234", line);
        assert!(status.starts_with("HTTP/1.1 421 "), "{line}: {status}");
        assert!(!asked_as(&node, "localhost:1234", line).contains(" 421 "), "{line}");
    }
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert!(asked_as(&node, hostname.trim(), "GET /api/v1/orchestrator/jobs").contains(" 200 "));
    assert!(asked_as(&node, "evil.example", "GET /livez").contains(" 200 "));
    drop(node);
    let node = Node::start(&dir.join("data"), &["-c", "API.AllowedHosts=node.example.org"]);
    assert!(asked_as(&node, "Node.example.org", "GET /api/v1/orchestrator/jobs").contains(" 200 "));
    assert!(asked_as(&node, "evil.example", "GET /api/v1/orchestrator/jobs").contains(" 421 "));
}

#[test]
fn a_job_cannot_have_the_node_fetch_from_itself() {
    let dir = Dir::new();
    let reads = |url: String| {
        let mut job = jobs::wasm(jobs::NOOP);
        let source = json!({ "Type": "urlDownload", "Params": { "URL": url } });
        job["Tasks"][0]["InputSources"] = json!([{ "Target": "/in", "Source": source }]);
        job
    };
    let node = Node::start(&dir.join("data"), &[]);
    let port = node.api.rsplit_once(':').unwrap().1.to_owned();
    for host in ["127.0.0.1", "localhost", "0.0.0.0"] {
        let id = node.submit(&reads(format!("http://{host}:{port}/api/v1/agent/node")));
        assert_eq!(node.wait_state(&id, &["Completed", "Failed"]), "Failed", "{host}");
        let history = node.history(&id).join("\n");
        assert!(history.contains("this machine itself, and inputs are not fetched from there"), "{history}");
    }
    let metadata = node.submit(&reads("http://169.254.169.254/latest/meta-data/".into()));
    node.wait_state(&metadata, &["Failed"]);
    assert!(node.history(&metadata).join("\n").contains("link-local"));
    drop(node);
    let node = Node::start(&dir.join("data"), &["-c", "InputSources.AllowLocalAddresses=true"]);
    let id = node.submit(&reads(format!("{}/api/v1/agent/node", node.api)));
    assert_eq!(node.wait_state(&id, &["Completed", "Failed"]), "Completed");
}
