//! Following logs: http-api.md section 3.8, and what followers may cost.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use codling::gate::limits::FOLLOWERS;
use codling::wire::websocket::{Event, Opcode, close, frame};
use serde_json::{Value, json};

use crate::hostile::{from, raise_limit, with_small_window};
use crate::jobs;
use crate::node::{Dir, Node, eventually, http_with, signal, text};
use crate::socket::{MASK, Socket, handshake, path};

const HERE: [u8; 4] = [127, 0, 0, 1];

fn node(extra: &[&str]) -> (Dir, Node) {
    raise_limit();
    let dir = Dir::new();
    let node = Node::start(&dir.join("data"), extra);
    (dir, node)
}

/// A job that has ended.
fn ended(node: &Node, job: &Value) -> String {
    let id = node.submit(job);
    node.wait_state(&id, &["Completed"]);
    id
}

fn file(dir: &Dir, job: &Value) -> String {
    let path = dir.join("job.json");
    std::fs::write(&path, job.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn lines_come_while_the_job_runs_and_it_ends_in_order() {
    let (_dir, node) = node(&[]);
    let id = node.submit(&jobs::talks_on("one\ntwo\n", 1));
    let mut socket = Socket::open(&node, HERE, &id, "follow=true");
    let first = socket.message();
    assert_eq!((first.value.kind, first.value.line.as_str()), (1, "one\ntwo\n"));
    node.wait_state(&id, &["Running"]);
    // What is there, and no more: it ends at once.
    let so_far = Socket::open(&node, HERE, &id, "").all();
    assert!(so_far.is_whole() && so_far.stdout == "one\ntwo\n", "{so_far:?}");
    // By a part of its id, and of its execution's; as clients spell it.
    let execution = node.executions(&id)[0]["ID"].as_str().unwrap().to_owned();
    let query = format!("follow=false&tail=False&execution_id={}&namespace=&job_version=", &execution[..10]);
    let named = Socket::open(&node, HERE, &id[..10], &query).all();
    assert!(named.is_whole() && named.stdout == so_far.stdout, "{named:?}");
    // Nothing that was there before.
    let mut late = Socket::open(&node, HERE, &id, "follow=true&tail=true");
    late.send(Opcode::Ping, b"there?");
    assert_eq!(late.event(), Some(Event::Pong));
    node.ok(&["job", "stop", &id]);
    for (socket, wanted) in [(&mut socket, ""), (&mut late, "")] {
        let rest = socket.all();
        assert!(rest.is_whole() && rest.stdout == wanted, "{rest:?}");
    }
}

#[test]
fn both_streams_and_characters_come_whole() {
    let (_dir, node) = node(&[]);
    // A character in three writes, half a line for a while, and bytes that are no text.
    let guest = jobs::writes(&[
        (1, b"caf\xc3", 300),
        (1, b"\xa9 ", 0),
        (2, b"warning\n", 300),
        (1, b"\xf0\x9f\x98", 300),
        (1, b"\x80\nbad \xff\n", 0),
        (1, b"no end", 0),
    ]);
    let id = node.submit(&guest);
    let told = Socket::open(&node, HERE, &id, "follow=true").all();
    assert!(told.is_whole(), "{told:?}");
    assert_eq!(told.stdout, "caf\u{e9} \u{1f600}\nbad \u{fffd}\nno end");
    assert_eq!(told.stderr, "warning\n");
    // The same again from what is kept; standard output first.
    let mut socket = Socket::open(&node, HERE, &id, "");
    let kinds = [socket.message().value.kind, socket.message().value.kind];
    assert_eq!(kinds, [1, 1]);
    let again = Socket::open(&node, HERE, &id, "follow=1").all();
    assert!(again.is_whole() && again.stdout == told.stdout && again.stderr == told.stderr, "{again:?}");
    assert_eq!(Socket::open(&node, HERE, &id, "follow=true&tail=true").all().stdout, "");
}

#[test]
fn all_that_was_printed_is_told_again_from_the_result() {
    let (_dir, node) = node(&[]);
    let lines = 60_000_u32;
    let id = ended(&node, &jobs::counts(lines));
    let wanted: String = (1..=lines).map(|n| format!("{n:08}\n")).collect();
    let told = Socket::open(&node, HERE, &id, "").all();
    assert!(told.is_whole(), "{:?} {:?}", told.error, told.close);
    assert!(told.stdout == wanted, "{} bytes", told.stdout.len());
    // Without its result, there is what the record has, and it says so.
    let execution = node.executions(&id)[0]["ID"].as_str().unwrap().to_owned();
    node.ok(&["results", "rm", &execution]);
    let told = Socket::open(&node, HERE, &id, "").all();
    assert!(told.is_whole() && wanted.starts_with(&told.stdout) && told.stdout.len() > 2000, "{told:?}");
    assert!(told.stderr.contains("only the beginning of stdout is kept"), "{}", told.stderr);
}

#[test]
fn a_job_without_a_publisher_is_followed_to_its_last_line() {
    let (_dir, node) = node(&[]);
    let lines = 60_000_u32;
    let wanted: String = (1..=lines).map(|n| format!("{n:08}\n")).collect();
    for _ in 0..5 {
        let mut job = jobs::counts_after(1, lines);
        job["Tasks"][0].as_object_mut().unwrap().remove("Publisher");
        let id = node.submit(&job);
        // It is waited for, and nothing goes before it was read.
        let told = Socket::open(&node, HERE, &id, "follow=true").all();
        assert!(told.is_whole(), "{:?} {:?} {}", told.error, told.close, told.stderr);
        assert!(told.stdout == wanted, "{} bytes of {}", told.stdout.len(), wanted.len());
        node.wait_state(&id, &["Completed"]);
        eventually("its directory to go", || {
            std::fs::read_dir(node.data.join("scratch")).unwrap().next().is_none().then_some(())
        });
    }
}

#[test]
fn what_a_follower_still_reads_is_not_given_back_before() {
    let (_dir, node) = node(&[]);
    let scratch = node.data.join("scratch");
    let lines = 600_000_u32;
    let mut job = jobs::counts_after(1, lines);
    job["Tasks"][0].as_object_mut().unwrap().remove("Publisher");
    let id = node.submit(&job);
    let slow = with_small_window(HERE, &node.api).unwrap();
    let mut slow = Socket::begin(slow, &path(&id, "follow=true"), "").ok().unwrap();
    // It reads the beginning, and then no more until the job has ended.
    assert!(slow.message().value.line.starts_with("00000001\n"));
    node.wait_state(&id, &["Completed"]);
    let left = std::fs::read_dir(&scratch).unwrap().count();
    assert_eq!(
        left, 1,
        "its files are gone, and their room given to others, while they are still on the disk"
    );
    let told = slow.all();
    assert!(told.is_whole() && told.stdout.ends_with(&format!("{lines:08}\n")), "{:?}", told.close);
    eventually("its directory to go", || std::fs::read_dir(&scratch).unwrap().next().is_none().then_some(()));
}

#[test]
fn what_cannot_be_followed_is_told_over_the_socket() {
    let (_dir, node) = node(&[]);
    let id = ended(&node, &jobs::hello("done\n"));
    for (job, query, wanted) in [
        ("j-00000000-0000-4000-8000-000000000000", "follow=true", "job not found"),
        ("nobody", "", "job not found"),
        (id.as_str(), "execution_id=e-00000000", "execution not found"),
        (id.as_str(), "job_version=7&follow=true", "no executions found"),
        (id.as_str(), "namespace=other", "job not found"),
    ] {
        let told = Socket::open(&node, HERE, job, query).all();
        assert_eq!(told.close, Some((1000, String::new())), "{job} {query}");
        assert!(told.error.as_ref().is_some_and(|error| error.contains(wanted)), "{told:?}");
    }
    let told = Socket::open(&node, HERE, &id, "job_version=7&all_job_versions=true").all();
    assert!(told.is_whole() && told.stdout == "done\n", "{told:?}");
    // A job that never ran.
    let never = node.submit(&jobs::with_memory("64GiB"));
    node.wait_state(&never, &["Failed"]);
    let told = Socket::open(&node, HERE, &never, "follow=true").all();
    assert!(told.error.is_some() && told.close == Some((1000, String::new())), "{told:?}");
}

#[test]
fn a_follower_waits_for_a_job_that_waits() {
    let (_dir, node) = node(&["-c", "Compute.MaxExecutions=1"]);
    let first = node.submit(&jobs::talks_on("first\n", 1));
    node.wait_state(&first, &["Running"]);
    let second = node.submit(&jobs::hello("second\n"));
    let third = node.submit(&jobs::hello("third\n"));
    let mut waits = Socket::open(&node, HERE, &second, "follow=true");
    let mut in_vain = Socket::open(&node, HERE, &third, "follow=true");
    let now = Socket::open(&node, HERE, &second, "").all();
    assert!(now.is_whole() && now.stdout.is_empty(), "{now:?}");
    node.ok(&["job", "stop", &third]);
    let told = in_vain.all();
    assert!(told.error.is_some() && told.close == Some((1000, String::new())), "{told:?}");
    node.ok(&["job", "stop", &first]);
    let told = waits.all();
    assert!(told.is_whole() && told.stdout == "second\n", "{told:?}");
}

#[test]
fn requests_that_are_no_handshake_are_refused() {
    let (_dir, node) = node(&[]);
    let id = ended(&node, &jobs::hello("done\n"));
    let url = format!("{}{}", node.api, path(&id, ""));
    let (status, fields, body) = http_with("GET", &url, &[], None);
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, &body["Code"]), (426, &json!("UpgradeRequired")));
    assert!(fields.iter().any(|(name, value)| name == "upgrade" && value == "websocket"), "{fields:?}");
    let ask = |request: &str| {
        let mut stream = from(HERE, &node.api).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = [0; 2000];
        let n = stream.read(&mut answer).unwrap();
        text(&answer[..n])
    };
    let good = handshake(&path(&id, ""), "");
    for (from, to, status) in [
        ("Version: 13", "Version: 8", 426),
        ("Key: dGhl", "Key: ", 400),
        ("Key: ", "Other: ", 400),
        ("Upgrade: websocket", "Upgrade: h2c", 426),
        ("Connection: Upgrade", "Connection: close", 426),
        ("GET ", "POST ", 405),
        ("logs?", "logs?follow=perhaps", 400),
        ("logs?", "logs?job_version=x", 400),
        ("Host: 127.0.0.1", "Host: evil.example", 421),
        // What a browser does for a page of somebody else.
        ("Host: 127.0.0.1", "Origin: http://evil.example\r\nHost: 127.0.0.1", 403),
        ("Host: 127.0.0.1", "Origin: null\r\nHost: 127.0.0.1", 403),
        ("Host: 127.0.0.1", "Origin: http://127.0.0.1\r\nHost: 127.0.0.1", 101),
    ] {
        let answer = ask(&good.replacen(from, to, 1));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{to}: {answer}");
        assert!(status == 101 || answer.contains("\"Message\":"), "{answer}");
    }
    // The results server has no logs, and websockets are nothing to the other routes.
    let mut stream = from(HERE, &node.results).unwrap();
    stream.write_all(good.as_bytes()).unwrap();
    let mut answer = [0; 100];
    let n = stream.read(&mut answer).unwrap();
    assert!(text(&answer[..n]).starts_with("HTTP/1.1 404 "));
    let alive = ask(&handshake("/api/v1/agent/alive", ""));
    assert!(alive.starts_with("HTTP/1.1 200 "), "{alive}");
}

#[test]
fn frames_that_break_the_protocol_end_it() {
    let (_dir, node) = node(&[]);
    let id = node.submit(&jobs::talks_on("on\n", 1));
    let masked = |opcode, payload: &[u8]| frame(opcode, payload, Some(MASK));
    let odd = |first: u8, payload: &[u8]| {
        let mut bytes = masked(Opcode::Text, payload);
        bytes[0] = first;
        bytes
    };
    for (sent, code) in [
        (frame(Opcode::Text, b"not masked", None), 1002),
        (odd(0xc1, b"compressed"), 1002),
        (odd(0x83, b"unknown"), 1002),
        (odd(0x09, b"half a ping"), 1002),
        (odd(0x89, &[0; 126]), 1002),
        (odd(0x80, b"more of nothing"), 1002),
        (masked(Opcode::Close, b"\x03"), 1002),
        (masked(Opcode::Binary, &[0; 5000]), 1009),
        (b"\x81\xff\x00\x00\x01\x00\x00\x00\x00\x00".to_vec(), 1009),
        ([odd(0x01, &[0; 3000]), odd(0x80, &[0; 3000])].concat(), 1009),
        (masked(Opcode::Text, &[b'a'; 4000]).repeat(20), 1008),
        (close(1000, "enough", Some(MASK)), 1000),
        (close(4000, "", Some(MASK)), 4000),
    ] {
        let mut socket = Socket::open(&node, HERE, &id, "follow=true");
        assert_eq!(socket.message().value.line, "on\n");
        socket.stream.write_all(&sent).unwrap();
        let told = socket.all();
        let got = told.close.as_ref().map(|(code, _)| *code);
        assert_eq!(got, Some(code), "{:?}", &sent[..10.min(sent.len())]);
    }
    // What is allowed, and of no interest, changes nothing: also in pieces, and with the handshake.
    let mut socket = Socket::open(&node, HERE, &id, "follow=true");
    let sent =
        [odd(0x01, b"to"), masked(Opcode::Ping, b"!"), odd(0x80, b"gether"), masked(Opcode::Pong, b"")];
    for byte in sent.concat() {
        socket.stream.write_all(&[byte]).unwrap();
    }
    loop {
        match socket.event() {
            Some(Event::Pong) => break,
            Some(Event::Message(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    let mut stream = from(HERE, &node.api).unwrap();
    let both = [handshake(&path(&id, "follow=true"), "").into_bytes(), masked(Opcode::Close, b"")].concat();
    stream.write_all(&both).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.ends_with(&close(1000, "", None)), "{}", text(&answer));
}

#[test]
fn the_token_is_asked_of_followers_too() {
    let token = "the-right-token-0123456789";
    let dir = Dir::new();
    let secret = dir.join("token");
    std::fs::write(&secret, token).unwrap();
    std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
    let key = format!("API.Auth.TokenFile={}", secret.display());
    let node = Node::start(&dir.join("data"), &["-c", &key]);
    let file = file(&dir, &jobs::hello("for friends\n"));
    let mut run = node.command(&["job", "run", "--wait", "--id-only", &file]);
    let ran = run.env("BACALHAU_API_KEY", token).output().unwrap();
    let id = text(&ran.stdout).trim().to_owned();
    for (fields, wanted) in
        [(String::new(), "401"), ("Authorization: Bearer wrong-token-0123456789\r\n".into(), "401")]
    {
        let stream = from(HERE, &node.api).unwrap();
        let refused = Socket::begin(stream, &path(&id, ""), &fields).err().unwrap();
        assert!(refused.starts_with(&format!("HTTP/1.1 {wanted} ")), "{refused}");
    }
    let stream = from(HERE, &node.api).unwrap();
    let fields = format!("Authorization: Bearer {token}\r\n");
    let told = Socket::begin(stream, &path(&id, ""), &fields).ok().unwrap().all();
    assert!(told.is_whole() && told.stdout == "for friends\n", "{told:?}");
    let denied = node.cli(&["job", "logs", &id]);
    assert_eq!(denied.status.code(), Some(77), "{}", text(&denied.stderr));
    let shown = node.command(&["job", "logs", &id]).env("BACALHAU_API_KEY", token).output().unwrap();
    assert_eq!(text(&shown.stdout), "for friends\n", "{}", text(&shown.stderr));
}

#[test]
fn a_hundred_follow_one_log() {
    let (_dir, mut node) = node(&[]);
    let id = node.submit(&jobs::talks_on("begin\n", 40));
    // The job has begun, and the first follower is there: what is made once is made.
    let mut first = Socket::open(&node, HERE, &id, "follow=true");
    assert!(first.message().value.line.starts_with("begin\n"));
    let idle = cost(&node);
    let mut sockets: Vec<Socket> =
        (0..100).map(|n| Socket::open(&node, [127, 0, 0, 10 + n % 4], &id, "follow=true")).collect();
    for socket in &mut sockets {
        let mut lines = 0;
        while lines < 40 {
            lines += socket.message().value.line.matches("begin\n").count();
        }
    }
    let busy = cost(&node);
    let grown = busy.memory.saturating_sub(idle.memory);
    eprintln!("100 followers: {grown} KiB more, {} descriptors more", busy.descriptors - idle.descriptors);
    assert_eq!(busy.threads, 1, "one thread serves them all");
    assert!(grown < 4 << 10, "{grown} KiB more");
    // One for each, two for the log.
    assert!(busy.descriptors <= idle.descriptors + 100 + 8, "{}", busy.descriptors);
    drop(sockets);
    eventually("all to be given back", || (cost(&node).descriptors <= idle.descriptors + 2).then_some(()));
    assert!(node.is_alive());
}

struct Cost {
    /// KiB of its own: the share of the program's pages changes as other tests' nodes come and go.
    memory: u64,
    /// That serve followers.
    threads: usize,
    descriptors: usize,
}

fn cost(node: &Node) -> Cost {
    let proc = |name: &str| std::fs::read_to_string(format!("/proc/{}/{name}", node.pid())).unwrap();
    let number = |text: &str, field: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    let tasks = std::fs::read_dir(format!("/proc/{}/task", node.pid())).unwrap();
    let threads = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    Cost {
        memory: number(&proc("smaps_rollup"), "Pss_Anon:"),
        threads: threads.filter(|thread| thread.trim() == "followers").count(),
        descriptors: std::fs::read_dir(format!("/proc/{}/fd", node.pid())).unwrap().count(),
    }
}

#[test]
fn there_are_so_many_places_and_they_are_shared() {
    let (_dir, node) = node(&[]);
    let id = node.submit(&jobs::talks_on("on\n", 1));
    let mut crowd: Vec<Socket> =
        (0..FOLLOWERS).map(|_| Socket::open(&node, [127, 0, 0, 3], &id, "follow=true")).collect();
    // No more for that peer; its own are not sent away for it.
    let stream = from([127, 0, 0, 3], &node.api).unwrap();
    let refused = Socket::begin(stream, &path(&id, "follow=true"), "").err().unwrap();
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("Retry-After: "), "{refused}");
    // Connections are others: all of them are still to be had.
    node.wait_state(&id, &["Running"]);
    // Somebody else gets in, in place of the last of the many, who is told why.
    let mut other = Socket::open(&node, [127, 0, 0, 4], &id, "follow=true");
    assert_eq!(other.message().value.line, "on\n");
    let told = crowd.pop().unwrap().all();
    assert!(
        told.close.as_ref().is_some_and(|(code, why)| *code == 1013 && why.contains("needed")),
        "{told:?}"
    );
    // And the place of one that leaves can be had again.
    drop(crowd.pop());
    eventually("a place", || {
        Socket::begin(from([127, 0, 0, 3], &node.api).unwrap(), &path(&id, "follow=true"), "").ok()
    });
}

/// Waits for the gate's thirty seconds.
#[test]
fn who_does_not_read_is_dropped_and_told_why() {
    let (_dir, mut node) = node(&["-c", "Compute.MaxLogSize=64Mi"]);
    let id = node.submit(&jobs::counts_and_stays(600_000));
    let wanted = 600_000 * 9;
    let deaf = with_small_window([127, 0, 0, 3], &node.api).unwrap();
    let mut deaf = Socket::begin(deaf, &path(&id, "follow=true"), "").ok().unwrap();
    // The others have all of it meanwhile.
    let mut good = Socket::open(&node, HERE, &id, "follow=true");
    let mut seen = 0;
    while seen < wanted {
        seen += good.message().value.line.len();
    }
    node.wait_log("is too slow");
    let told = deaf.all();
    assert!(told.stdout.len() < wanted && told.stdout.starts_with("00000001\n"), "{}", told.stdout.len());
    let slow = |(code, why): &(u16, String)| *code == 1013 && why.contains("slow");
    assert!(told.close.as_ref().is_some_and(slow), "{:?}", told.close);
    good.send(Opcode::Ping, b"");
    assert_eq!(good.event(), Some(Event::Pong));
}

#[test]
fn a_node_that_stops_says_so() {
    let (_dir, node) = node(&["-c", "Compute.StopTimeout=100ms"]);
    let id = node.submit(&jobs::talks_on("on\n", 1));
    let mut socket = Socket::open(&node, HERE, &id, "follow=true");
    assert_eq!(socket.message().value.line, "on\n");
    node.signal("TERM");
    let told = socket.all();
    assert_eq!(told.error.as_deref(), Some("the node is stopping"));
    assert_eq!(told.close, Some((1000, String::new())));
    drop(socket);
    assert!(node.wait().success());
}

/// Bacalhau's command lines are written in another language, with another library. So is this client: Python's own
/// sockets, and nothing of ours.
const PYTHON: &str = r#"
import base64, hashlib, json, os, socket, struct, sys
host, port, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
s = socket.create_connection((host, port), timeout=120)
key = base64.b64encode(os.urandom(16)).decode()
s.sendall(("GET %s HTTP/1.1\r\nHost: %s:%d\r\nUser-Agent: Go-http-client/1.1\r\nConnection: Upgrade\r\n"
           "Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n"
           "X-Bacalhau-Git-Version: v1.4.0\r\n\r\n" % (path, host, port, key)).encode())
f = s.makefile("rb")
assert b" 101 " in f.readline()
fields = {}
while (line := f.readline().strip()):
    name, value = line.decode().split(":", 1)
    fields[name.strip().lower()] = value.strip()
digest = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
assert fields["sec-websocket-accept"] == base64.b64encode(digest).decode(), fields
assert "sec-websocket-extensions" not in fields and "sec-websocket-protocol" not in fields
while True:
    first, second = f.read(2)
    assert first & 0x70 == 0 and first & 0x80 and second & 0x80 == 0, (first, second)
    length = second
    if length == 126: length = struct.unpack(">H", f.read(2))[0]
    elif length == 127: length = struct.unpack(">Q", f.read(8))[0]
    payload = f.read(length)
    if first & 15 == 8:
        code = struct.unpack(">H", payload[:2])[0]
        mask = os.urandom(4)
        s.sendall(bytes([0x88, 0x80 | len(payload)]) + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload)))
        assert f.read(1) == b""
        print("closed with", code)
        break
    if first & 15 == 1:
        message = json.loads(payload)
        assert set(message) == {"value"} and set(message["value"]) == {"Type", "Line"}, message
        sys.stdout.write(message["value"]["Line"])
"#;

#[test]
fn another_languages_client_is_content() {
    let (_dir, node) = node(&[]);
    let id = node.submit(&jobs::counts_after(1, 3000));
    let (host, port) = node.api.split_once("://").unwrap().1.rsplit_once(':').unwrap();
    let python = |query: &str| {
        let output =
            Command::new("python3").args(["-c", PYTHON, host, port, &path(&id, query)]).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let wanted: String = (1..=3000).map(|n| format!("{n:08}\n")).collect::<String>() + "closed with 1000\n";
    assert!(python("follow=true") == wanted);
    assert!(python("") == wanted);
}

#[test]
fn the_command_line_shows_logs_and_follows_them() {
    let (dir, node) = node(&[]);
    let guest = jobs::writes(&[(1, b"out\n", 0), (2, b"err\n", 0), (1, b"\x1b[1mverbatim", 0)]);
    let id = ended(&node, &guest);
    let shown = node.cli(&["job", "logs", &id[..10]]);
    assert!(shown.status.success(), "{}", text(&shown.stderr));
    assert_eq!(
        (text(&shown.stdout).as_str(), text(&shown.stderr).as_str()),
        ("out\n\x1b[1mverbatim", "err\n")
    );
    assert_eq!(node.ok(&["job", "logs", &id, "--tail"]), "");
    let json = node.ok(&["--output", "json", "job", "logs", &id]);
    let first: Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!(first, json!({ "value": { "Type": 1, "Line": "out\n" } }));
    let missing = node.cli(&["job", "logs", "nobody"]);
    assert_eq!(missing.status.code(), Some(66));
    assert!(text(&missing.stderr).contains("job not found"), "{}", text(&missing.stderr));

    // What comes is shown as it comes; Ctrl-C ends that without a word, and gives the place back.
    let stays = node.submit(&jobs::talks_on("on and on\n", 1));
    let mut command = node.command(&["job", "logs", "-f", &stays]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = [0; 10];
    child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    assert_eq!(&line, b"on and on\n");
    signal(child.id(), "INT");
    let over = child.wait_with_output().unwrap();
    assert_eq!((text(&over.stdout), text(&over.stderr)), (String::new(), String::new()));
    node.ok(&["job", "stop", &stays]);

    // A run that is followed shows all of it, and not only its first 2 KiB.
    let file = file(&dir, &jobs::counts_after(1, 3000));
    let run = node.cli(&["job", "run", "--follow", &file]);
    assert!(run.status.success(), "{}", text(&run.stderr));
    let wanted: String = (1..=3000).map(|n| format!("{n:08}\n")).collect();
    assert!(text(&run.stdout) == wanted, "{}", text(&run.stderr));
    assert!(!text(&run.stderr).contains("only the beginning"), "{}", text(&run.stderr));
}

#[test]
fn every_execution_of_a_followed_run_is_shown() {
    let (dir, node) = node(&[]);
    let mut job = jobs::counts_after(1, 500);
    job["Count"] = json!(3);
    let run = node.cli(&["job", "run", "--follow", &file(&dir, &job)]);
    assert!(run.status.success(), "{}", text(&run.stderr));
    assert_eq!(text(&run.stdout).matches("00000500\n").count(), 3);
    assert_eq!(run.stdout.len(), 3 * 500 * 9);
}
