//! The gate under attack: issue 3, item 6. Every row is tried on both ports, from several addresses of 127/8.
//!
//! While a row lasts, a well-behaved client from 127.0.0.2 is served, the node's memory grows by less than 8 MiB
//! (its peak, as the kernel keeps it) and its threads by none. Afterwards its file descriptors are back.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use codling::gate::limits::FOLLOWERS;
use codling::wire::websocket::{Opcode, frame};
use rustix::process::Resource;
use serde_json::json;

use crate::hostile::{Siege, ended, from, get, raise_limit, request, status_of, with_small_window};
use crate::jobs;
use crate::node::{Dir, Node, PATIENCE, text};
use crate::socket::{self, MASK, Socket, handshake};

/// Addresses that the attackers have: more than it takes to fill all places if each fills its own.
const CROWD: u8 = 8;
const JOBS: &str = "/api/v1/orchestrator/jobs";

/// A node with a large result, and the path to that.
fn node() -> (Dir, Node, String) {
    raise_limit();
    let dir = Dir::new();
    let node = Node::start(&dir.join("data"), &[]);
    let id = node.submit(&jobs::noise(8));
    node.wait_state(&id, &["Completed"]);
    let (_, results) = node.get(&format!("/api/v1/orchestrator/jobs/{id}/results"));
    let url = results["Items"][0]["Params"]["URL"].as_str().unwrap().to_owned();
    let path = format!("/{}", url.rsplit_once('/').unwrap().1);
    (dir, node, path)
}

/// What an attacker's n-th connection comes from.
fn address(n: usize) -> [u8; 4] {
    [127, 0, 0, 10 + u8::try_from(n % usize::from(CROWD)).unwrap()]
}

/// Opens `n` connections, each of which says that much and then no more.
fn crowd(n: usize, port: &str, say: impl Fn(usize) -> Vec<u8>) -> Vec<TcpStream> {
    (0..n)
        .filter_map(|i| {
            let mut stream = from(address(i), port).ok()?;
            // Who was turned away may find that out here.
            let _ = stream.write_all(&say(i));
            Some(stream)
        })
        .collect()
}

#[test]
fn a_thousand_half_open_connections() {
    let (_dir, node, path) = node();
    for port in [&node.api, &node.results] {
        let siege = Siege::begin(&node, &path);
        // Half of them say nothing, half of them begin a request.
        let held = crowd(1000, port, |i| if i % 2 == 0 { vec![] } else { b"GET / HTTP/1.1\r\nHo".to_vec() });
        siege.served(20);
        drop(held);
        siege.lifted("half-open connections");
    }
}

#[test]
fn heads_without_end() {
    let (_dir, node, path) = node();
    let line = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(20 << 20));
    let fields = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(100_000));
    let target = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(20 << 20));
    let empty = "\r\n".repeat(1 << 20);
    for port in [&node.api, &node.results] {
        let siege = Siege::begin(&node, &path);
        for (n, (sent, wanted)) in
            [(&line, 431), (&fields, 431), (&target, 414), (&empty, 400)].iter().enumerate()
        {
            let mut stream = from(address(n), port).unwrap();
            // It is answered, and closed on, long before it is over.
            let _ = stream.write_all(sent.as_bytes());
            let status = status_of(stream);
            // Sending into a closed connection may cost the answer: its kernel throws it away.
            assert!(status == *wanted || status == 0, "{status}, not {wanted}");
        }
        siege.served(1);
        siege.lifted("heads without end");
    }
}

#[test]
fn two_hundred_thousand_pipelined_requests() {
    let (_dir, node, path) = node();
    for port in [&node.api, &node.results] {
        let siege = Siege::begin(&node, &path);
        let flood = |mut stream: TcpStream| {
            let many = get("/api/v1/agent/alive").repeat(1000);
            (0..200).all(|_| stream.write_all(&many).is_ok())
        };
        let reading = from(address(0), port).unwrap();
        let deaf = with_small_window(address(1), port).unwrap();
        let senders = [reading.try_clone().unwrap(), deaf.try_clone().unwrap()]
            .map(|stream| std::thread::spawn(move || flood(stream)));
        let mut answers = Vec::new();
        // The limit of one connection is 1000 requests. The rest of the flood may end it with a reset.
        let _ = (&reading).take(4 << 20).read_to_end(&mut answers);
        assert!(text(&answers).matches("HTTP/1.1 ").count() <= 1000, "more than one connection's share");
        siege.served(5);
        deaf.shutdown(Shutdown::Both).unwrap();
        drop((reading, deaf));
        for sender in senders {
            sender.join().unwrap();
        }
        siege.lifted("pipelined requests");
    }
}

#[test]
fn bodies_that_are_announced_and_never_sent() {
    let (_dir, node, path) = node();
    for port in [&node.api, &node.results] {
        let siege = Siege::begin(&node, &path);
        for method in ["PUT", "POST", "GET", "DELETE"] {
            let mut stream = from(address(0), port).unwrap();
            stream.write_all(&request(method, JOBS, "Content-Length: 10000000000000\r\n")).unwrap();
            assert_eq!(status_of(stream), 413, "{method}");
        }
        let held = crowd(300, port, |i| match i % 3 {
            0 => request("PUT", JOBS, "Content-Length: 1000000\r\n"),
            1 => request("PUT", JOBS, "Content-Length: 1000000\r\nExpect: 100-continue\r\n"),
            _ => request("PUT", JOBS, "Transfer-Encoding: chunked\r\n"),
        });
        siege.served(20);
        drop(held);
        siege.lifted("bodies that never come");
    }
}

#[test]
fn readers_that_never_read() {
    let (_dir, node, path) = node();
    for port in [&node.api, &node.results] {
        let siege = Siege::begin(&node, &path);
        let held: Vec<TcpStream> = (0..300)
            .filter_map(|i| {
                let mut stream = with_small_window(address(i), port).ok()?;
                let _ = stream.write_all(&get(&path));
                let _ = stream.write_all(&get(JOBS).repeat(10));
                Some(stream)
            })
            .collect();
        siege.served(20);
        drop(held);
        siege.lifted("readers that never read");
    }
}

#[test]
fn idlers() {
    let (_dir, node, path) = node();
    for port in [&node.api, &node.results] {
        let siege = Siege::begin(&node, &path);
        let held = crowd(600, port, |_| get("/api/v1/agent/alive"));
        siege.served(20);
        drop(held);
        siege.lifted("idle connections");
    }
}

/// More than there are places, and each does what a follower may think of; none of them leaves.
#[test]
fn followers_that_hold_their_connection() {
    let (_dir, node, path) = node();
    let runs = node.submit(&jobs::counts_and_stays(200_000));
    let over = node.submit(&jobs::counts(200_000));
    node.wait_state(&over, &["Completed"]);
    // One look at each, so that what is made for the first is there.
    let whole = |query: &str| Socket::open(&node, address(0), &runs, query).all().is_whole();
    assert!(whole("tail=true"));
    let masked = |opcode, payload: &[u8]| frame(opcode, payload, Some(MASK));
    for port in [&node.api, &node.results] {
        let siege = Siege::begin(&node, &path);
        let follow = |job: &str| handshake(&socket::path(job, "follow=true"), "").into_bytes();
        let mut held = Vec::new();
        for n in 0..400 {
            // Some read nothing of a long log, some of one that is read from an archive, some talk.
            let (job, more) = match n % 5 {
                0 => (&over, vec![]),
                1 => (&runs, masked(Opcode::Ping, &[0; 125]).repeat(100)),
                2 => (&runs, masked(Opcode::Text, &[b'a'; 4000])[..2000].to_vec()),
                3 => (&runs, masked(Opcode::Text, &[b'a'; 4000]).repeat(8)),
                _ => (&runs, vec![]),
            };
            let Ok(mut stream) = with_small_window(address(n), port) else { continue };
            let _ = stream.write_all(&[follow(job), more].concat());
            held.push(stream);
        }
        siege.served(20);
        let following = held.iter().filter(|stream| !ended(stream)).count();
        assert!(port == &node.results || following >= FOLLOWERS, "{following} follow");
        drop(held);
        siege.lifted("followers that hold their connection");
    }
    let mut after = Socket::open(&node, address(1), &runs, "follow=true");
    assert_eq!(&after.message().value.line[..9], "00000001\n");
}

#[test]
fn resets_before_anybody_looks() {
    let (_dir, node, path) = node();
    for port in [&node.api, &node.results] {
        let siege = Siege::begin(&node, &path);
        for n in 0..1000 {
            let mut stream = from(address(n), port).unwrap();
            if n % 2 == 0 {
                let _ = stream.write_all(&get(&path));
            }
            // Closing then resets.
            rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
        }
        siege.served(5);
        siege.lifted("resets");
    }
}

#[test]
fn no_file_descriptors_left() {
    let (_dir, mut node, path) = node();
    let pid = rustix::process::Pid::from_raw(node.pid().cast_signed());
    for port in [node.api.clone(), node.results.clone()] {
        let siege = Siege::begin(&node, &path);
        siege.pause();
        let few = siege.descriptors() as u64 + 20;
        let before = rustix::process::getrlimit(Resource::Nofile);
        let limit = rustix::process::Rlimit { current: Some(few), maximum: before.maximum };
        rustix::process::prlimit(pid, Resource::Nofile, limit).unwrap();
        // Fewer than wait in the kernel to be accepted: what overflows there would come late, in the midst of the rest.
        let held = crowd(100, &port, |i| if i % 2 == 0 { get(&path) } else { b"GET".to_vec() });
        node.wait_log("no file descriptor for a connection");
        // Those who came too late were told so or closed on; nobody waits for ever.
        drop(held);
        siege.resume_when_served();
        siege.served(5);
        siege.lifted("a lack of file descriptors");
        rustix::process::prlimit(pid, Resource::Nofile, before).unwrap();
    }
    assert!(node.is_alive());
}

#[test]
fn what_can_be_read_in_two_ways() {
    let (_dir, node, path) = node();
    let hidden = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
    for port in [&node.api, &node.results] {
        let siege = Siege::begin(&node, &path);
        for fields in [
            "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            "Transfer-Encoding : chunked\r\n",
            "Content-Length: 0\r\nContent-Length: 5\r\n",
            "Content-Length: +5\r\n",
            "X: a\rContent-Length: 5\r\n",
            "X: a\nContent-Length: 5\r\n",
            "X: a\r\n Content-Length: 5\r\n",
            "X: a\r\n\tb\r\n",
            "X: a\0b\r\n",
            " X: a\r\n",
            "X-Codling-Site: a\nHost: b\r\n",
        ] {
            for body in [hidden.to_owned(), format!("0\r\n\r\n{hidden}")] {
                let mut stream = from(address(0), port).unwrap();
                let head = request("POST", JOBS, fields);
                let _ = stream.write_all(&[&head, body.as_bytes()].concat());
                let _ = stream.shutdown(Shutdown::Write);
                let mut answer = Vec::new();
                let _ = stream.read_to_end(&mut answer);
                let answer = text(&answer);
                assert!(
                    answer.starts_with("HTTP/1.1 400 ") || answer.starts_with("HTTP/1.1 501 "),
                    "{fields:?}: {answer}"
                );
                assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{fields:?}: {answer}");
                assert!(answer.contains("Connection: close") && !answer.contains("hidden"), "{answer}");
            }
        }
        siege.served(1);
        siege.lifted("requests with two meanings");
    }
    // What goes out has no room for lines of strangers either.
    let job =
        json!({ "Name": "a\r\nX: b", "Type": "batch", "Tasks": [{ "Engine": { "Type": "noop\r\nX: b" } }] });
    let (status, answer) = node.call("PUT", JOBS, Some(&json!({ "Job": job }).to_string()));
    assert_eq!(status, 400, "{answer}");
}

/// The one test that waits for the gate's times: ten seconds for a head, thirty for what does not move.
#[test]
fn a_byte_now_and_then_does_not_help() {
    let (_dir, node, path) = node();
    let siege = Siege::begin(&node, &path);
    let mut dripping = Vec::new();
    for port in [&node.api, &node.results] {
        for (n, begin) in [b"GET / HTTP/1.1\r\nX: ".to_vec(), b"GET /".to_vec()].iter().enumerate() {
            let mut stream = from(address(n), port).unwrap();
            stream.write_all(begin).unwrap();
            dripping.push(stream);
        }
    }
    let mut body = from(address(2), &node.api).unwrap();
    body.write_all(&request("PUT", JOBS, "Content-Length: 100000\r\n")).unwrap();
    dripping.push(body);
    let mut chunks = from(address(3), &node.api).unwrap();
    chunks.write_all(&request("PUT", JOBS, "Transfer-Encoding: chunked\r\n")).unwrap();
    chunks.write_all(b"186a0\r\n").unwrap();
    dripping.push(chunks);
    let mut silent = from(address(4), &node.api).unwrap();
    silent.write_all(&request("PUT", JOBS, "Content-Length: 100000\r\n")).unwrap();
    let mut deaf = with_small_window(address(5), &node.results).unwrap();
    deaf.write_all(&get(&path)).unwrap();
    // A byte a second each, until all are ended. What is sent into an ended connection is of no interest.
    let begun = Instant::now();
    while !dripping.is_empty() || !ended(&silent) || !ended(&deaf) {
        assert!(begun.elapsed() < *PATIENCE, "they are still served");
        dripping.retain_mut(|stream| !ended(stream) && stream.write_all(b"a").is_ok());
        siege.served(2);
        std::thread::park_timeout(Duration::from_secs(1));
    }
    siege.lifted("a byte a second");
}
