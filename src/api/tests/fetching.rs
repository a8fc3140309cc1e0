//! The results server, byte for byte.

use super::*;

struct Archive {
    world: World,
    job: JobId,
    id: ExecutionId,
    entry: ResultEntry,
    bytes: Vec<u8>,
}

fn archive() -> Archive {
    let world = World::start();
    let job = world.submit("");
    let id = world.execution(&job, ExecutionState::Completed);
    let entry = world.publish(&job, &id, 300_000);
    let path = world.directory.join("results").join(format!("{id}.tar.gz"));
    let bytes = std::fs::read(path).unwrap();
    assert_eq!((Sha256::of(&bytes), bytes.len() as u64), (entry.sha256, entry.size.0));
    Archive { world, job, id, entry, bytes }
}

impl Archive {
    fn ask(&self, method: &str, suffix: &str, fields: &str) -> Answered {
        let mut client = Client::connect(self.world.results);
        client.send(format!("{method} /{}{suffix} HTTP/1.1\r\nHost: a\r\n{fields}\r\n", self.id));
        client.answer(method == "HEAD")
    }
}

#[test]
fn results_lead_to_an_archive_that_is_what_they_say() {
    let archive = archive();
    let world = &archive.world;
    let results = world.get(&format!("/api/v1/orchestrator/jobs/{}/results", archive.job));
    let url = format!("http://board.local:{}/{}.tar.gz", world.results.port(), archive.id);
    let wanted = json!({"Type": "urlDownload",
        "Params": {"URL": url, "SHA256": archive.entry.sha256.hex(), "Size": archive.bytes.len()}});
    assert_eq!(results, json!({"NextToken": "", "Items": [wanted]}));
    let executions = world.get(&format!("/api/v1/orchestrator/jobs/{}/executions", archive.job));
    assert_eq!(executions["Items"][0]["PublishedResult"], wanted);
    for suffix in [".tar.gz", ".tgz"] {
        let answer = archive.ask("GET", suffix, "");
        assert!(answer.status == 200 && answer.body == archive.bytes);
    }
    let unpacked = world.directory.join("unpacked");
    std::fs::create_dir(&unpacked).unwrap();
    let limits = crate::archive::unpack::UnpackLimits::default();
    crate::archive::unpack::unpack(archive.ask("GET", ".tar.gz", "").body.as_slice(), &unpacked, &limits)
        .unwrap();
    assert_eq!(std::fs::metadata(unpacked.join("stdout")).unwrap().len(), 300_000);
}

#[test]
fn an_archive_is_described() {
    let archive = archive();
    let head = archive.ask("HEAD", ".tar.gz", "");
    let get = archive.ask("GET", ".tar.gz", "");
    let digest = {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.encode(archive.entry.sha256.0)
    };
    for answer in [head, get] {
        let field = |name: &str| answer.field(name).unwrap_or_default().to_owned();
        assert_eq!(answer.status, 200);
        assert_eq!(field("Content-Length"), archive.bytes.len().to_string());
        assert_eq!(field("Content-Type"), "application/gzip");
        assert_eq!(field("Accept-Ranges"), "bytes");
        assert_eq!(field("ETag"), format!("\"{}\"", archive.entry.sha256));
        assert_eq!(field("Repr-Digest"), format!("sha-256=:{digest}:"));
        assert_eq!(field("Digest"), format!("sha-256={digest}"));
        assert_eq!(field("Content-Disposition"), format!("attachment; filename=\"{}.tar.gz\"", archive.id));
        assert!(
            field("Last-Modified").ends_with(" 2026 04:05:07 GMT") || field("Last-Modified").contains("2026")
        );
        for absent in ["Content-Encoding", "Transfer-Encoding", "X-Codling-Send", "Content-Range"] {
            assert_eq!(answer.field(absent), None, "{absent}");
        }
    }
}

#[test]
fn parts_are_those_asked_for() {
    let archive = archive();
    let size = archive.bytes.len();
    for (range, first, end) in [
        ("0-0", 0, 1),
        ("0-", 0, size),
        ("1-1000", 1, 1001),
        ("100000-", 100_000, size),
        ("-1", size - 1, size),
        ("-70000", size - 70_000, size),
        ("-99999999", 0, size),
        ("5-99999999", 5, size),
    ] {
        let answer = archive.ask("GET", ".tar.gz", &format!("Range: bytes={range}\r\n"));
        assert_eq!(answer.status, 206, "{range}");
        assert!(answer.body == archive.bytes[first..end], "{range}");
        let wanted = format!("bytes {first}-{}/{size}", end - 1);
        assert_eq!(answer.field("Content-Range"), Some(wanted.as_str()));
    }
    for range in [format!("{size}-"), format!("{size}-{}", size + 1), "-0".into()] {
        let answer = archive.ask("GET", ".tar.gz", &format!("Range: bytes={range}\r\n"));
        let wanted = format!("bytes */{size}");
        assert_eq!((answer.status, answer.field("Content-Range")), (416, Some(wanted.as_str())), "{range}");
    }
    for range in ["bytes=0-1,5-6", "bytes=5-1", "lines=0-1", "bytes=x-"] {
        let answer = archive.ask("GET", ".tar.gz", &format!("Range: {range}\r\n"));
        assert!(answer.status == 200 && answer.body == archive.bytes, "{range}");
    }
    // Put together from parts: the same archive.
    let parts = (0..size).step_by(65_536).flat_map(|at| {
        let range = format!("Range: bytes={at}-{}\r\n", at + 65_535);
        archive.ask("GET", ".tar.gz", &range).body
    });
    assert_eq!(Sha256::of(&parts.collect::<Vec<_>>()), archive.entry.sha256);
}

#[test]
fn conditions_are_kept() {
    let archive = archive();
    let etag = format!("\"{}\"", archive.entry.sha256);
    let date = archive.ask("HEAD", ".tar.gz", "").field("Last-Modified").unwrap().to_owned();
    let range = "Range: bytes=0-9\r\n";
    for (fields, wanted) in [
        (format!("If-None-Match: {etag}\r\n"), 304),
        (format!("If-None-Match: \"x\", {etag}\r\n{range}"), 304),
        ("If-None-Match: \"x\"\r\n".into(), 200),
        (format!("If-Modified-Since: {date}\r\n"), 304),
        (format!("If-Match: {etag}\r\n{range}"), 206),
        (format!("If-Match: \"x\"\r\n{range}"), 412),
        (format!("If-Range: {etag}\r\n{range}"), 206),
        (format!("If-Range: {date}\r\n{range}"), 206),
        (format!("If-Range: \"x\"\r\n{range}"), 200),
    ] {
        let mut client = Client::connect(archive.world.results);
        let answer = client.ask(format!("GET /{}.tgz HTTP/1.1\r\nHost: a\r\n{fields}\r\n", archive.id));
        assert_eq!(answer.status, wanted, "{fields}");
        // Whatever it was, the connection is in step.
        assert_eq!(client.ask("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").status, 404, "{fields}");
    }
}

#[test]
fn nothing_else_is_served() {
    let archive = archive();
    let world = &archive.world;
    let ask =
        |request: &str| Client::connect(world.results).ask(format!("{request} HTTP/1.1\r\nHost: a\r\n\r\n"));
    let id = &archive.id;
    let other = ExecutionId::random();
    for path in [
        "/".to_owned(),
        "/index.html".into(),
        format!("/{id}"),
        format!("/{id}.tar"),
        format!("/{id}.tar.gz.partial"),
        format!("/./{id}.tar.gz"),
        format!("/../results/{id}.tar.gz"),
        format!("/%2e/{id}.tar.gz"),
        format!("/{other}.tar.gz"),
        format!("/{id}.tar.gz/"),
        "/api/v1/agent/alive".into(),
        "/livez".into(),
    ] {
        assert_eq!(ask(&format!("GET {path}")).status, 404, "{path}");
    }
    for method in ["PUT", "POST", "DELETE", "OPTIONS", "PATCH"] {
        let answer = ask(&format!("{method} /{id}.tar.gz"));
        assert_eq!((answer.status, answer.field("Allow")), (405, Some("GET, HEAD")), "{method}");
    }
    // The API does not serve files either.
    assert_eq!(world.status("GET", &format!("/{id}.tar.gz"), ""), 404);
}

#[test]
fn what_was_deleted_is_gone_and_says_why() {
    let archive = archive();
    let world = &archive.world;
    assert_eq!(world.status("DELETE", &format!("/api/v1/codling/results/{}", archive.id), "{}"), 200);
    let answer = archive.ask("GET", ".tar.gz", "");
    let error: ApiError = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((answer.status, &*error.code), (410, "Gone"));
    assert_eq!(error.details["Reason"], "removed");
    assert!(error.details["At"].starts_with("2026-02-03T"), "{error:?}");
    assert!(error.message.contains("removed by a user"), "{}", error.message);
    assert_eq!(archive.ask("HEAD", ".tgz", "").status, 410);
    let results = world.get(&format!("/api/v1/orchestrator/jobs/{}/results", archive.job));
    assert_eq!(results["Items"], json!([]));
}

#[test]
fn a_result_that_is_being_read_stays() {
    let world = World::start();
    let job = world.submit("");
    let id = world.execution(&job, ExecutionState::Completed);
    let entry = world.publish(&job, &id, 20 << 20);
    let mut client = Client::connect(world.results);
    client.send(format!("GET /{id}.tar.gz HTTP/1.1\r\nHost: a\r\n\r\n"));
    while client.received.len() < 1000 {
        client.more();
    }
    let (answer, value) = world.say("", "DELETE", &format!("/api/v1/codling/results/{id}"), "{}");
    assert_eq!(answer.status, 409, "{value}");
    assert_eq!(Sha256::of(&client.answer(false).body), entry.sha256);
    // The lease ends with the download, on the courier's thread.
    while world.status("DELETE", &format!("/api/v1/codling/results/{id}"), "{}") == 409 {}
    assert_eq!(client.ask(format!("GET /{id}.tar.gz HTTP/1.1\r\nHost: a\r\n\r\n")).status, 410);
}

#[test]
fn with_a_lifetime_only_signed_links_open_a_result() {
    let world = World::of(None, Some(Duration::from_secs(3600)));
    let job = world.submit("");
    let id = world.execution(&job, ExecutionState::Completed);
    world.publish(&job, &id, 1000);
    let results = world.get(&format!("/api/v1/orchestrator/jobs/{job}/results"));
    let url = results["Items"][0]["Params"]["URL"].as_str().unwrap();
    let (_, target) = url.split_once(&format!(":{}", world.results.port())).unwrap();
    let row = world.get(&format!("/api/v1/codling/results/{id}"));
    assert!(row["URL"].as_str().unwrap().contains("?expires="), "{row}");
    let ask = |method: &str, target: &str, fields: &str| {
        let mut client = Client::connect(world.results);
        client.send(format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        client.answer(method == "HEAD")
    };
    let whole = ask("GET", target, "");
    assert_eq!(
        (whole.status, Sha256::of(&whole.body)),
        (200, world.app.executions.result(&id).unwrap().unwrap().sha256)
    );
    assert_eq!(ask("HEAD", target, "").status, 200);
    let etag = whole.field("ETag").unwrap().to_owned();
    assert_eq!(ask("GET", target, &format!("Range: bytes=1-\r\nIf-Range: {etag}\r\n")).body, whole.body[1..]);
    assert_eq!(ask("GET", target, &format!("If-None-Match: {etag}\r\n")).status, 304);
    assert_eq!(ask("GET", &target.replace(".tar.gz", ".tgz"), "").status, 200);
    // Without its signature, or with one of something else, it is refused; and so, in the same words, is what was
    // deleted and what never was.
    let (path, query) = target.split_once('?').unwrap();
    let other = ExecutionId::random();
    let forged = format!("{path}?{}", query.replace("expires=", "expires=9"));
    let foreign = format!("/{other}.tar.gz?{query}");
    let refused = |target: &str| {
        let answer = ask("GET", target, "");
        assert_eq!(answer.status, 403, "{target}");
        answer.text().to_owned()
    };
    let words = refused(path);
    assert!(words.contains("not signed by this node") && !words.contains(id.as_str()), "{words}");
    assert_eq!((refused(&forged), refused(&foreign)), (words.clone(), words.clone()));
    assert_eq!(ask("HEAD", path, "").status, 403);
    // The client may have all of a download before the server is done with it.
    while let Err(error) = world.app.shelf.remove(&id) {
        assert!(matches!(error, crate::results::Refusal::InUse), "{error}");
        std::thread::yield_now();
    }
    assert_eq!((refused(path), refused(&foreign)), (words.clone(), words));
    assert_eq!(ask("GET", target, "").status, 410);
    // Its time is over: not even that it was deleted is told.
    world.clock.set(world.clock.now().plus(Duration::from_secs(3600)));
    assert!(refused(target).contains("expired"));
}
