//! `codling job get` from a scripted node that also serves the archives.

use std::io::Write as _;
use std::sync::{Arc, OnceLock};

use super::*;
use crate::cli::testing::{Captured, Reply, Request, Scratch, Server};

const JOB: &str = "j-11111111-2222-3333-4444-555555555555";

/// A `.tar.gz` as Bacalhau packs it.
fn packed(files: &[(&str, &str)]) -> Vec<u8> {
    let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(gzip);
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        let kind = if path.ends_with('/') { tar::EntryType::Directory } else { tar::EntryType::Regular };
        header.set_entry_type(kind);
        header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
        header.set_size(content.len() as u64);
        // Names as a hostile packer writes them: the checks of the library are for honest ones.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        tar.append(&header, content.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

fn result(stdout: &str, file: &str) -> Vec<u8> {
    packed(&[("exitCode", "0"), ("out/", ""), (file, stdout), ("stderr", ""), ("stdout", stdout)])
}

/// A finished job whose executions left these results; the archive's address is filled in when it is known.
struct Node {
    state: &'static str,
    publisher: &'static str,
    /// Name, partition, archive.
    results: Vec<(&'static str, u64, Vec<u8>)>,
    base: Arc<OnceLock<String>>,
    digest: bool,
}

impl Node {
    fn new(results: Vec<(&'static str, u64, Vec<u8>)>) -> Self {
        Self { state: "Completed", publisher: "local", results, base: Arc::default(), digest: true }
    }

    fn start(self) -> Server {
        self.start_with(|_| None)
    }

    /// With answers that come before the node's own.
    fn start_with(self, first: impl Fn(&Request) -> Option<Reply> + Send + 'static) -> Server {
        let base = Arc::clone(&self.base);
        let server = Server::start(move |request| first(request).unwrap_or_else(|| self.answer(request)));
        base.set(server.url("")).unwrap();
        server
    }

    fn answer(&self, request: &Request) -> Reply {
        let path = request.path();
        if path.ends_with("/results") {
            let items: Vec<serde_json::Value> = self.results.iter().map(|r| self.item(r)).collect();
            return Reply::json(serde_json::json!({"NextToken": "", "Items": items}).to_string());
        }
        if let Some(name) = path.strip_prefix("/files/") {
            let (_, _, bytes) = self.results.iter().find(|(n, _, _)| name == *n).unwrap();
            return Reply::file(request, bytes, &format!("\"{name}\""));
        }
        let executions: Vec<serde_json::Value> = self
            .results
            .iter()
            .map(|(name, partition, _)| {
                let id = name.trim_end_matches(".tar.gz");
                serde_json::json!({"ID": id, "PartitionIndex": partition, "ComputeState": {"StateType": 9}})
            })
            .collect();
        let job = serde_json::json!({"ID": JOB, "State": {"StateType": self.state, "Message": "why"},
            "Tasks": [{"Publisher": {"Type": self.publisher}}]});
        Reply::json(serde_json::json!({"Job": job, "Executions": {"Items": executions}}).to_string())
    }

    fn item(&self, (name, _, bytes): &(&'static str, u64, Vec<u8>)) -> serde_json::Value {
        let mut params = serde_json::json!({"URL": format!("{}/files/{name}", self.base.get().unwrap())});
        if self.digest {
            params["SHA256"] = Sha256::of(bytes).hex().into();
            params["Size"] = bytes.len().into();
        }
        serde_json::json!({"Type": "urlDownload", "Params": params})
    }
}

fn get(server: &Server, scratch: &Scratch, more: &[&str]) -> Captured {
    let out = scratch.path("out");
    let args: Vec<&str> = ["job", "get", "demo", "-o", &out].iter().chain(more).copied().collect();
    server.run(&args)
}

fn text(scratch: &Scratch, path: &str) -> String {
    fs::read_to_string(scratch.0.join(path)).unwrap()
}

/// Names in a directory, sorted.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn fetches_verifies_and_unpacks() {
    let server = Node::new(vec![("e-1.tar.gz", 0, result("hello\n", "out/a"))]).start();
    let scratch = Scratch::new();
    let got = get(&server, &scratch, &[]).expect(0);
    assert_eq!(got.stdout(), format!("{}\n", scratch.path("out")));
    assert!(
        got.stderr().starts_with("e-1: ") && got.stderr().ends_with(", SHA-256 verified\n"),
        "{}",
        got.stderr()
    );
    assert_eq!(names(&scratch.0.join("out")), ["exitCode", "out", "stderr", "stdout"]);
    assert_eq!(
        (text(&scratch, "out/stdout"), text(&scratch, "out/out/a")),
        ("hello\n".into(), "hello\n".into())
    );
    // Again: nothing is fetched, nothing is overwritten.
    let before = server.requests().len();
    let again = get(&server, &scratch, &[]).expect(73);
    assert!(
        again.stderr().contains("out/stdout exists already\nhint: nothing was overwritten"),
        "{}",
        again.stderr()
    );
    assert_eq!(server.requests()[before..].iter().filter(|r| r.path().starts_with("/files/")).count(), 0);
}

#[test]
fn tells_programs_what_it_got() {
    let bytes = result("x", "out/a");
    let server = Node { digest: false, ..Node::new(vec![("e-1.tar.gz", 0, bytes.clone())]) }.start();
    let scratch = Scratch::new();
    let got = get(&server, &scratch, &["--output", "json"]).expect(0);
    assert!(
        got.stderr().contains("warning: e-1: ") && got.stderr().contains("not verified"),
        "{}",
        got.stderr()
    );
    let report: serde_json::Value = serde_json::from_str(&got.stdout()).unwrap();
    assert_eq!(report["JobID"], JOB);
    assert_eq!(report["Results"][0]["SHA256"], Sha256::of(&bytes).hex());
    assert_eq!(report["Results"][0]["Verified"], false);
}

#[test]
fn several_results_are_put_together_in_the_order_of_partitions() {
    let results = || {
        vec![
            ("e-2.tar.gz", 1, result("second\n", "out/b")),
            ("e-1.tar.gz", 0, result("first\n", "out/a")),
            ("e-3.tar.gz", 2, result("third\n", "out/c")),
        ]
    };
    let server = Node::new(results()).start();
    let scratch = Scratch::new();
    get(&server, &scratch, &[]).expect(0);
    assert_eq!(text(&scratch, "out/stdout"), "first\nsecond\nthird\n");
    assert_eq!(text(&scratch, "out/exitCode"), "000");
    assert_eq!(names(&scratch.0.join("out/out")), ["a", "b", "c"]);
    let raw = Scratch::new();
    get(&server, &raw, &["--raw"]).expect(0);
    assert_eq!(names(&raw.0.join("out")), ["e-1", "e-2", "e-3"]);
    assert_eq!(text(&raw, "out/e-2/stdout"), "second\n");
    get(&server, &raw, &["--raw"]).expect(73);
}

#[test]
fn results_that_collide_are_refused_with_a_way_out() {
    let results = vec![("e-1.tar.gz", 0, result("1", "out/a")), ("e-2.tar.gz", 1, result("2", "out/a"))];
    let server = Node::new(results).start();
    let scratch = Scratch::new();
    let got = get(&server, &scratch, &[]).expect(73);
    assert!(
        got.stderr().contains("out/a is in the results of more than one execution\nhint: use --raw"),
        "{}",
        got.stderr()
    );
    assert_eq!(names(&scratch.0.join("out")), [STAGING]);
    // What was fetched is not fetched again.
    let before = server.requests().len();
    get(&server, &scratch, &["--raw"]).expect(0);
    let ranges = server.requests()[before..].iter().filter(|r| r.header("range").is_some()).count();
    assert_eq!(ranges, 2);
    assert_eq!(names(&scratch.0.join("out")), ["e-1", "e-2"]);
}

#[test]
fn a_later_run_goes_on_where_the_link_broke() {
    let mut noise = String::new();
    for n in 0..40_000u32 {
        noise.push_str(&Sha256::of(&n.to_be_bytes()).hex()[..8]);
    }
    let bytes = result(&noise, "out/a");
    let broken = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let (is_broken, content) = (Arc::clone(&broken), bytes.clone());
    let server = Node::new(vec![("e-1.tar.gz", 0, bytes.clone())]).start_with(move |request| {
        let cut = if request.header("range").is_some() { 0 } else { 50_000 };
        (request.path().starts_with("/files/") && is_broken.load(std::sync::atomic::Ordering::SeqCst))
            .then(|| Reply::file(request, &content, "\"e-1.tar.gz\"").cut_after(cut))
    });
    let scratch = Scratch::new();
    let cut = get(&server, &scratch, &[]).expect(75);
    assert!(cut.stderr().contains("48.8 KiB are kept"), "{}", cut.stderr());
    assert!(cut.stderr().contains("hint: run the same command again: it goes on where it broke off"));
    broken.store(false, std::sync::atomic::Ordering::SeqCst);
    get(&server, &scratch, &[]).expect(0);
    assert_eq!(server.requests().last().unwrap().header("range"), Some("bytes=50000-"));
    assert_eq!(text(&scratch, "out/stdout"), noise);
}

#[test]
fn what_was_evicted_is_told_with_reason_and_time() {
    let results = vec![("e-1.tar.gz", 0, result("1", "out/a")), ("e-2.tar.gz", 1, result("2", "out/b"))];
    let gone = |request: &Request, name: &str| {
        request.path().ends_with(name).then(|| {
            Reply::new(410, r#"{"Status":410,"Message":"evicted to keep the quota at 2026-01-01T00:00:00Z"}"#)
        })
    };
    let server = Node::new(results.clone()).start_with(move |r| gone(r, "e-1.tar.gz"));
    let scratch = Scratch::new();
    // The other one is had all the same.
    let got = get(&server, &scratch, &[]).expect(66);
    assert!(
        got.stderr().contains(
            "error: 1 of 2 results could not be fetched\n  cannot fetch the result of e-1: the result is gone: \
             evicted to keep the quota at 2026-01-01T00:00:00Z\nhint: run the job again"
        ),
        "{}",
        got.stderr()
    );
    assert_eq!(text(&scratch, "out/stdout"), "2");
    let server = Node::new(results).start_with(move |r| gone(r, ".tar.gz"));
    let scratch = Scratch::new();
    get(&server, &scratch, &[]).expect(66);
    assert!(!scratch.0.join("out").exists());
}

#[test]
fn a_wrong_digest_is_not_unpacked() {
    let good = result("good", "out/a");
    let server = Node::new(vec![("e-1.tar.gz", 0, good.clone())]).start_with(move |request| {
        let mut bad = good.clone();
        *bad.last_mut().unwrap() ^= 1;
        request.path().starts_with("/files/").then(|| Reply::file(request, &bad, "\"x\""))
    });
    let scratch = Scratch::new();
    let got = get(&server, &scratch, &[]).expect(65);
    assert!(got.stderr().contains("its SHA-256 is "), "{}", got.stderr());
    assert!(!scratch.0.join("out").exists());
}

#[test]
fn hostile_archives_stay_inside_or_are_refused() {
    let bomb = {
        let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        let mut tar = tar::Builder::new(gzip);
        let mut header = tar::Header::new_gnu();
        // More than any archive may hold, in a header alone.
        header.set_path("bomb").unwrap();
        header.set_mode(0o644);
        header.set_size(1 << 50);
        header.set_cksum();
        tar.append(&header, std::io::empty()).unwrap();
        tar.into_inner().unwrap().finish().unwrap()
    };
    for (name, bytes) in [
        ("parent", packed(&[("../evil", "x"), ("stdout", "")])),
        ("deep parent", packed(&[("out/", ""), ("out/../../evil", "x")])),
        ("below a link", {
            let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            let mut tar = tar::Builder::new(gzip);
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            tar.append_link(&mut header, "out", ".").unwrap();
            header.set_entry_type(tar::EntryType::Regular);
            tar.append_data(&mut header, "out/evil", std::io::empty()).unwrap();
            tar.into_inner().unwrap().finish().unwrap()
        }),
        ("bomb", bomb),
        ("cut", result("x", "out/a")[..60].to_vec()),
        ("no archive", b"<html>not found</html>".to_vec()),
    ] {
        let server = Node::new(vec![("e-1.tar.gz", 0, bytes)]).start();
        let scratch = Scratch::new();
        let got = get(&server, &scratch, &[]).expect(65);
        assert!(got.stderr().contains("cannot unpack the result of e-1"), "{name}: {}", got.stderr());
        assert_eq!(names(&scratch.0), ["out"], "{name}");
        assert_eq!(names(&scratch.0.join("out")), [STAGING], "{name}");
        assert!(!scratch.0.join("out").join(STAGING).join("evil").exists());
    }
}

#[test]
fn a_staging_directory_that_is_a_link_is_not_used() {
    let server = Node::new(vec![("e-1.tar.gz", 0, result("x", "out/a"))]).start();
    let scratch = Scratch::new();
    fs::create_dir_all(scratch.0.join("out")).unwrap();
    fs::create_dir_all(scratch.0.join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(scratch.0.join("elsewhere"), scratch.0.join("out").join(STAGING)).unwrap();
    get(&server, &scratch, &[]).expect(73);
    assert!(names(&scratch.0.join("elsewhere")).is_empty());
}

#[test]
fn why_there_is_nothing() {
    for (state, publisher, exit, said) in [
        ("Running", "local", 75, "has no results yet: it is running"),
        ("Completed", "", 66, "its task has no publisher\nhint: add 'Publisher: {Type: local}'"),
        ("Failed", "local", 66, "has no results: it is failed: why"),
    ] {
        let server = Node { state, publisher, ..Node::new(Vec::new()) }.start();
        let scratch = Scratch::new();
        let got = get(&server, &scratch, &[]).expect(exit);
        assert!(got.stderr().contains(said), "{}", got.stderr());
        assert!(names(&scratch.0).is_empty());
    }
}

#[test]
fn kinds_of_results_and_their_names() {
    let items = |json: serde_json::Value| -> Vec<Spec> { serde_json::from_value(json).unwrap() };
    let view: JobAnswer = serde_json::from_value(serde_json::json!({"Job": {}})).unwrap();
    let good = items(serde_json::json!([
        {"Type": " URLDownload ", "Params": {"url": "http://h/a/e-1.tgz?token=x", "sha256": "AB"}},
        {"Type": "s3PreSigned", "Params": {"PreSignedURL": "https://s3/b/../%2e%2e/.tar.gz?sig=1"}},
        {"Type": "local", "Params": {"URL": "http://h/.hidden/..%2Fpasswd"}},
    ]));
    let wanted = wanted(&good, &view).map_err(|e| panic!("{e}")).unwrap();
    let names: Vec<(&str, bool)> = wanted.iter().map(|w| (w.archive.name.as_str(), w.is_archive)).collect();
    assert_eq!(names, [("e-1.tgz", true), ("result-1.tar.gz", true), ("_2Fpasswd", false)]);
    for bad in [
        serde_json::json!([{"Type": "ipfs", "Params": {"CID": "x"}}]),
        serde_json::json!([{"Type": "urlDownload", "Params": null}]),
        serde_json::json!([{"Type": "local", "Params": {"URL": "http://a/e"}}, {"Type": "local", "Params": {"URL": "http://b/e"}}]),
    ] {
        assert!(super::wanted(&items(bad), &view).is_err());
    }
}

#[test]
fn what_is_no_archive_is_kept_as_it_is() {
    let mut table = Vec::new();
    table.write_all(b"a,b\n").unwrap();
    let server = Node::new(vec![("table.csv", 0, table)]).start();
    let scratch = Scratch::new();
    get(&server, &scratch, &[]).expect(0);
    assert_eq!(text(&scratch, "out/table.csv"), "a,b\n");
}

#[test]
fn what_the_packer_packs_comes_back() {
    let scratch = Scratch::new();
    let made = scratch.0.join("made");
    fs::create_dir_all(made.join("out/deep")).unwrap();
    fs::write(made.join("stdout"), "hi\n").unwrap();
    fs::write(made.join("out/deep/data"), [0; 100_000]).unwrap();
    std::os::unix::fs::symlink("deep/data", made.join("out/inside")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", made.join("out/outside")).unwrap();
    let mut bytes = Vec::new();
    let packed = crate::archive::pack(
        &made,
        &mut bytes,
        &crate::archive::PackOptions::default(),
        &crate::sys::Interrupt::new(),
    )
    .unwrap();
    assert_eq!(packed.sha256, Sha256::of(&bytes));
    let server = Node::new(vec![("e-1.tar.gz", 0, bytes)]).start();
    let got = get(&server, &scratch, &[]).expect(0);
    assert!(got.stderr().contains("out/outside"), "{}", got.stderr());
    assert!(got.stderr().contains("is a link that leads outside: left out"), "{}", got.stderr());
    assert_eq!(fs::read(scratch.0.join("out/out/inside")).unwrap(), [0; 100_000]);
    assert_eq!(names(&scratch.0.join("out/out")), ["deep", "inside"]);
}

#[test]
fn a_link_that_ends_on_the_way_is_asked_for_again() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let bytes = result(&"hello ".repeat(100), "out/a");
    let served = bytes.clone();
    let (links, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let server = Server::start(move |request| {
        let path = request.path();
        if path.contains("/results") {
            let link = links.fetch_add(1, Ordering::SeqCst);
            let host = request.header("host").unwrap();
            let url = format!("http://{host}/files/e-1.tar.gz?expires={link}&signature=ab");
            let params = serde_json::json!({"URL": url, "SHA256": Sha256::of(&served).hex()});
            let item = serde_json::json!({"Type": "urlDownload", "Params": params});
            return Reply::json(serde_json::json!({"NextToken": "", "Items": [item]}).to_string());
        }
        let Some((_, query)) = path.split_once("/files/e-1.tar.gz?expires=") else {
            return Reply::json(r#"{"Job":{"ID":"j-1","State":{"StateType":"Completed"}}}"#);
        };
        // The first link breaks off and has ended then, and so has the second before it is used.
        let link: usize = query.split('&').next().unwrap().parse().unwrap();
        match (link, request.header("range")) {
            (0, None) => Reply::file(request, &served, "\"t\"").cut_after(40),
            (0 | 1, _) => {
                ended.fetch_add(1, Ordering::SeqCst);
                Reply::new(403, r#"{"Message":"this link has expired"}"#)
            }
            (_, Some("bytes=40-")) => Reply::file(request, &served, "\"t\""),
            other => panic!("{other:?}"),
        }
    });
    let scratch = Scratch::new();
    get(&server, &scratch, &[]).expect(0);
    assert_eq!(text(&scratch, "out/stdout"), "hello ".repeat(100));
    let asked = server.requests().iter().filter(|r| r.path().contains("/results")).count();
    assert_eq!(asked, 3, "once for each link");
}

#[test]
fn links_that_bring_nothing_are_given_up() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let links = AtomicUsize::new(0);
    let server = Server::start(move |request| {
        let path = request.path();
        if path.contains("/results") {
            let link = links.fetch_add(1, Ordering::SeqCst);
            let host = request.header("host").unwrap();
            let url = format!("http://{host}/files/e-1.tar.gz?expires={link}&signature=ab");
            let item = serde_json::json!({"Type": "urlDownload", "Params": {"URL": url}});
            return Reply::json(serde_json::json!({"NextToken": "", "Items": [item]}).to_string());
        }
        if path.contains("/files/") {
            return Reply::new(403, r#"{"Message":"this link has expired"}"#);
        }
        Reply::json(r#"{"Job":{"ID":"j-1","State":{"StateType":"Completed"}}}"#)
    });
    let scratch = Scratch::new();
    let failed = get(&server, &scratch, &[]);
    assert!(failed.stderr().contains("this link has expired"), "{}", failed.stderr());
    let asked = server.requests().iter().filter(|r| r.path().contains("/files/")).count();
    assert_eq!(asked, 3);
}
