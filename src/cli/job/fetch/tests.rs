//! Fetching from a server that breaks off, forgets, lies or changes its mind.

use std::sync::atomic::{AtomicUsize, Ordering};

use std::fs;

use base64::Engine;

use super::*;
use crate::cli::testing::{Reply, Request, Scratch, Server, with_context};

const TAG: &str = "\"tag-1\"";

fn content() -> Vec<u8> {
    (0..200_000u32).flat_map(|n| n.to_be_bytes()).collect()
}

fn archive(server: &Server) -> Archive {
    let sha256 = Some(Sha256::of(&content()));
    Archive {
        url: server.url("/e-1.tar.gz"),
        name: "e-1.tar.gz".into(),
        sha256,
        size: Some(content().len() as u64),
    }
}

fn fetch(archive: &Archive, scratch: &Scratch) -> Result<Fetched, FetchError> {
    with_context(|context| Fetcher::new(context, &Trust::Public).fetch(archive, &scratch.0))
}

/// A server whose script also knows how many requests came before.
fn server(script: impl Fn(&Request, usize) -> Reply + Send + 'static) -> Server {
    let count = AtomicUsize::new(0);
    Server::start(move |request| script(request, count.fetch_add(1, Ordering::SeqCst)))
}

fn whole(scratch: &Scratch) -> bool {
    fs::read(scratch.0.join("e-1.tar.gz.partial")).is_ok_and(|bytes| bytes == content())
}

#[test]
fn goes_on_where_the_link_broke() {
    let server = server(|request, n| match n {
        0 => Reply::file(request, &content(), TAG).cut_after(300_000),
        1 => Reply::new(503, "busy"),
        2 => Reply::file(request, &content(), TAG).cut_after(1),
        _ => Reply::file(request, &content(), TAG),
    });
    let scratch = Scratch::new();
    let fetched = fetch(&archive(&server), &scratch).unwrap();
    assert!(fetched.verified && whole(&scratch));
    assert_eq!(fetched.sha256, Sha256::of(&content()));
    let requests = server.requests();
    assert_eq!(requests[0].header("range"), None);
    assert_eq!(requests[1].header("range"), Some("bytes=300000-"));
    assert_eq!(requests[2].header("if-range"), Some(TAG));
    assert_eq!(requests[3].header("range"), Some("bytes=300001-"));
    assert!(requests.iter().all(|r| r.header("authorization").is_none()));
}

#[test]
fn goes_on_where_an_earlier_run_stopped() {
    let server = server(|request, _| Reply::file(request, &content(), TAG));
    let scratch = Scratch::new();
    fs::write(scratch.0.join("e-1.tar.gz.partial"), &content()[..1000]).unwrap();
    fs::write(scratch.0.join("e-1.tar.gz.partial.etag"), TAG).unwrap();
    assert!(fetch(&archive(&server), &scratch).unwrap().verified);
    assert!(whole(&scratch));
    // All of it is there: the server has nothing to add (416).
    assert!(fetch(&archive(&server), &scratch).unwrap().verified);
    let ranges: Vec<String> =
        server.requests().iter().map(|r| r.header("range").unwrap().to_owned()).collect();
    assert_eq!(ranges, ["bytes=1000-".to_owned(), format!("bytes={}-", content().len())]);
}

#[test]
fn content_that_changed_is_fetched_anew() {
    let server = server(|request, _| Reply::file(request, &content(), "\"tag-2\""));
    let scratch = Scratch::new();
    fs::write(scratch.0.join("e-1.tar.gz.partial"), b"of an older archive").unwrap();
    fs::write(scratch.0.join("e-1.tar.gz.partial.etag"), TAG).unwrap();
    assert!(fetch(&archive(&server), &scratch).unwrap().verified);
    assert!(whole(&scratch));
    assert_eq!(fs::read_to_string(scratch.0.join("e-1.tar.gz.partial.etag")).unwrap(), "\"tag-2\"");
}

#[test]
fn damage_on_this_side_costs_one_more_fetch() {
    let server = server(|request, _| Reply::file(request, &content(), TAG));
    let scratch = Scratch::new();
    let mut damaged = content()[..5000].to_vec();
    damaged[7] ^= 1;
    fs::write(scratch.0.join("e-1.tar.gz.partial"), damaged).unwrap();
    fs::write(scratch.0.join("e-1.tar.gz.partial.etag"), TAG).unwrap();
    assert!(fetch(&archive(&server), &scratch).unwrap().verified);
    assert!(whole(&scratch));
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn a_part_that_nothing_vouches_for_is_not_added_to() {
    let server = server(|_, n| {
        let reply = Reply::new(200, content());
        if n == 0 { reply.cut_after(50_000) } else { reply }
    });
    let scratch = Scratch::new();
    fs::write(scratch.0.join("e-1.tar.gz.partial"), b"unknown").unwrap();
    let plain = Archive { sha256: None, size: None, ..archive(&server) };
    let fetched = fetch(&plain, &scratch).unwrap();
    assert!(!fetched.verified && whole(&scratch));
    assert!(server.requests().iter().all(|r| r.header("range").is_none()));
}

#[test]
fn digests_that_the_server_names_count() {
    let encoded = base64::engine::general_purpose::STANDARD.encode(Sha256::of(&content()).0);
    let named = [
        ("ETag", format!("\"{}\"", Sha256::of(&content()))),
        ("ETag", format!("\"sha256-{}\"", Sha256::of(&content()))),
        ("Repr-Digest", format!("md5=:AAAA:, sha-256=:{encoded}:")),
        ("Digest", format!("SHA-256={encoded}").replace("SHA", "sha")),
    ];
    for (name, value) in named {
        for (body, good) in [(content(), true), (b"something else".to_vec(), false)] {
            let (header, text) = (name.to_owned(), value.clone());
            let server = server(move |_, _| Reply::new(200, body.clone()).header(&header, &text));
            let scratch = Scratch::new();
            let plain = Archive { sha256: None, size: None, ..archive(&server) };
            match fetch(&plain, &scratch) {
                Ok(fetched) => assert!(good && fetched.verified, "{name}"),
                Err(error) => {
                    assert!(!good && matches!(error, FetchError::WrongDigest { .. }), "{name}: {error}")
                }
            }
        }
    }
}

#[test]
fn a_wrong_digest_or_size_leaves_nothing() {
    let mut other = content();
    other[0] ^= 1;
    let wrong = server(move |request, _| Reply::file(request, &other, TAG));
    let scratch = Scratch::new();
    assert!(matches!(fetch(&archive(&wrong), &scratch), Err(FetchError::WrongDigest { .. })));
    assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 0);
    let short = server(|request, _| Reply::file(request, b"short", TAG));
    assert!(matches!(fetch(&archive(&short), &scratch), Err(FetchError::WrongSize { actual: 5, .. })));
}

#[test]
fn gone_missing_and_forbidden() {
    for (status, body) in
        [(410, r#"{"Message":"evicted to keep the quota at 2026-01-01T00:00:00Z"}"#), (404, ""), (403, "no")]
    {
        let server = server(move |_, _| Reply::new(status, body));
        let error = fetch(&archive(&server), &Scratch::new()).unwrap_err();
        match status {
            410 => {
                assert_eq!(
                    error.to_string(),
                    "the result is gone: evicted to keep the quota at 2026-01-01T00:00:00Z"
                );
            }
            404 => assert!(matches!(error, FetchError::NotFound(_))),
            _ => assert!(matches!(error, FetchError::Refused { status: 403, .. })),
        }
        assert_eq!(server.requests().len(), 1);
    }
}

#[test]
fn gives_up_when_nothing_comes_and_keeps_what_came() {
    let server = server(|request, n| {
        let reply = Reply::file(request, &content(), TAG);
        if n == 0 { reply.cut_after(4096) } else { reply.cut_after(0) }
    });
    let scratch = Scratch::new();
    let error = fetch(&archive(&server), &scratch).unwrap_err();
    assert!(matches!(error, FetchError::Link { kept: Bytes(4096), .. }), "{error}");
    assert_eq!(server.requests().len(), 6);
    assert_eq!(fs::read(scratch.0.join("e-1.tar.gz.partial")).unwrap(), &content()[..4096]);
}

#[test]
fn a_server_that_answers_other_ranges_is_given_up() {
    let server = server(|request, _| match request.header("range") {
        Some(_) => Reply::new(206, "xx").header("Content-Range", "bytes 7-8/9").header("ETag", TAG),
        None => Reply::new(200, content()).header("ETag", TAG).cut_after(10),
    });
    let error = fetch(&archive(&server), &Scratch::new()).unwrap_err();
    assert!(matches!(error, FetchError::Incoherent(_) | FetchError::Link { .. }), "{error}");
    assert!(server.requests().len() <= 12);
}

#[test]
fn more_than_there_is_room_for_is_not_begun() {
    let server = server(|_, _| Reply::new(200, "x").announce(1 << 60));
    let plain = Archive { size: None, ..archive(&server) };
    let error = fetch(&plain, &Scratch::new()).unwrap_err();
    assert!(matches!(error, FetchError::NoRoom { need: Bytes(need), .. } if need == 1 << 60), "{error}");
}

#[test]
fn nobody_listens_and_bad_addresses() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = server(|_, _| Reply::new(200, ""));
    let gone = Archive { url: format!("http://{address}/e-1.tar.gz"), ..archive(&server) };
    assert!(matches!(fetch(&gone, &Scratch::new()), Err(FetchError::Unreachable { .. })));
    for url in ["ftp://x/e.tar.gz", "file:///etc/passwd", "no url", "http://[/x"] {
        let bad = Archive { url: url.into(), ..archive(&server) };
        assert!(matches!(fetch(&bad, &Scratch::new()), Err(FetchError::BadUrl(_))), "{url}");
    }
}
