//! The results server: issue item 9.

use std::io::{Read, Write};
use std::net::TcpStream;

use base64::Engine as _;

use crate::jobs;
use crate::node::{Dir, Node, PATIENCE, http, http_with, text};

fn published(node: &Node) -> String {
    let id = node.submit(&jobs::noise(2));
    node.wait_state(&id, &["Completed"]);
    let (_, results) = node.get(&format!("/api/v1/orchestrator/jobs/{id}/results"));
    assert_eq!(results["Items"][0]["Type"], "urlDownload");
    results["Items"][0]["Params"]["URL"].as_str().unwrap().to_owned()
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
}

#[test]
fn whole_head_ranges_and_validators() {
    let dir = Dir::new();
    let node = Node::start(&dir.join("data"), &[]);
    let url = published(&node);
    let (status, headers, whole) = http_with("GET", &url, &[], None);
    assert_eq!(status, 200);
    let digest = codling::model::Sha256::of(&whole);
    let etag = header(&headers, "etag").unwrap().to_owned();
    assert_eq!(etag, format!("\"{digest}\""), "a strong validator");
    assert_eq!(header(&headers, "accept-ranges"), Some("bytes"));
    assert_eq!(header(&headers, "content-type"), Some("application/gzip"));
    assert_eq!(header(&headers, "content-encoding"), None);
    assert_eq!(header(&headers, "content-length"), Some(whole.len().to_string().as_str()));
    let base64 = base64::engine::general_purpose::STANDARD.encode(digest.0);
    assert_eq!(header(&headers, "repr-digest"), Some(format!("sha-256=:{base64}:").as_str()));

    let (status, headers, body) = http_with("HEAD", &url, &[], None);
    assert_eq!((status, body.len()), (200, 0));
    assert_eq!(header(&headers, "content-length"), Some(whole.len().to_string().as_str()));

    let n = whole.len();
    let cases: [(&str, Option<std::ops::Range<usize>>); 7] = [
        ("bytes=0-0", Some(0..1)),
        ("bytes=100-199", Some(100..200)),
        ("bytes=1000000-", Some(1_000_000..n)),
        ("bytes=-5", Some(n - 5..n)),
        (&format!("bytes=0-{}", n * 2), Some(0..n)),
        (&format!("bytes={n}-"), None),
        ("bytes=-0", None),
    ];
    for (range, wanted) in cases {
        let (status, headers, part) = http_with("GET", &url, &[("Range", range)], None);
        match wanted {
            Some(wanted) => {
                assert_eq!(status, 206, "{range}");
                let shown = format!("bytes {}-{}/{n}", wanted.start, wanted.end - 1);
                assert_eq!(header(&headers, "content-range"), Some(shown.as_str()));
                assert!(part == whole[wanted], "{range}");
            }
            None => {
                assert_eq!(status, 416, "{range}");
                assert_eq!(header(&headers, "content-range"), Some(format!("bytes */{n}").as_str()));
            }
        }
    }
    for nonsense in ["bytes=5-1", "bytes=a-b", "lines=1-2", "bytes=0-1,5-6"] {
        assert_eq!(http_with("GET", &url, &[("Range", nonsense)], None).0, 200, "{nonsense}");
    }
    let resume =
        |validator: &str| http_with("GET", &url, &[("Range", "bytes=5-"), ("If-Range", validator)], None).0;
    assert_eq!(resume(&etag), 206);
    assert_eq!(resume("\"another\""), 200);
    assert_eq!(http_with("GET", &url, &[("If-None-Match", &etag)], None).0, 304);
    let tgz = url.replace(".tar.gz", ".tgz");
    assert!(http("GET", &tgz, None).1 == whole);
}

#[test]
fn nothing_else_is_there() {
    let dir = Dir::new();
    let node = Node::start(&dir.join("data"), &[]);
    let url = published(&node);
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        let (status, headers, _) = http_with(method, &url, &[], Some("x"));
        assert_eq!(status, 405, "{method}");
        assert!(header(&headers, "allow").unwrap().contains("GET"));
    }
    let paths = [
        "/",
        "/index.html",
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/node.json",
        "/api/v1/agent/alive",
    ];
    for path in paths {
        let mut stream = TcpStream::connect(node.results.strip_prefix("http://").unwrap()).unwrap();
        stream.set_read_timeout(Some(*PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert!(text(&answer).starts_with("HTTP/1.1 404"), "{path}: {}", text(&answer));
    }
}

#[test]
fn hostile_requests_are_answered_or_cut_and_others_are_served() {
    let dir = Dir::new();
    let node = Node::start(&dir.join("data"), &[]);
    let url = published(&node);
    for base in [&node.api, &node.results] {
        let address = base.strip_prefix("http://").unwrap();
        for (request, wanted) in [
            ("GARBAGE\r\n\r\n".to_owned(), "400"),
            (format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n", "a".repeat(100_000)), "431"),
            (format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(100_000)), "4"),
            ("PUT /api/v1/orchestrator/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000000000\r\n\r\n".into(), "4"),
            (
                "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(),
                "400",
            ),
            ("GET / HTTP/1.1\r\n\r\n".into(), "400"),
        ] {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(*PATIENCE)).unwrap();
            // The node may answer and close before it has read everything.
            let _ = stream.write_all(request.as_bytes());
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            let line = text(&answer).lines().next().unwrap_or("").to_owned();
            assert!(line.starts_with(&format!("HTTP/1.1 {wanted}")), "{}: {line}", &request[..request.len().min(60)]);
        }
        // Connections that say nothing, and one that never reads, hold nobody up.
        let _idle: Vec<_> = (0..40).map(|_| TcpStream::connect(address).unwrap()).collect();
        let mut deaf = TcpStream::connect(node.results.strip_prefix("http://").unwrap()).unwrap();
        let path = url.rsplit_once('/').unwrap().1;
        write!(deaf, "GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        assert_eq!(node.get("/api/v1/agent/alive").0, 200);
        assert_eq!(http("HEAD", &url, None).0, 200);
    }
}
