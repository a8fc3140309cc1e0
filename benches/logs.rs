//! Followers: memory, CPU time and delay while 100 of them read one log.
//!
//! `cargo bench --bench logs`. Prints figures, asserts that every follower got every line.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a program that measures and prints")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use codling::wire::log_line::LogMessage;
use codling::wire::websocket::{Event, From, Reader};

mod harness;

use harness::{Node, agent, directory, job};

/// Followers at once.
const FOLLOWERS: usize = 100;
/// Lines that the job prints, a thousand a second.
const LINES: usize = 10_000;
/// Bytes of one.
const LINE: usize = 50;

fn main() {
    let data = directory("logs");
    let (node, agent) = (Node::start(&data, &[]), agent());
    std::thread::sleep(Duration::from_secs(2));
    let started = figures(&node);
    let id = node.submit(&agent, &job(&talker()));
    let mut first = Follower::open(&node, &id);
    // The job runs, and what is made for the first follower is there.
    first.read(LINE * 100);
    let idle = figures(&node);
    let begin = Instant::now();
    let mut all = vec![first];
    all.extend((1..FOLLOWERS).map(|_| Follower::open(&node, &id)));
    let mut peak = figures(&node);
    while all.iter().any(|follower| follower.bytes < LINES * LINE) {
        for follower in &mut all {
            follower.read(LINE * 10);
        }
        let now = figures(&node);
        peak.pss = peak.pss.max(now.pss);
        peak.anonymous = peak.anonymous.max(now.anonymous);
    }
    let end = figures(&node);
    let seconds = begin.elapsed().as_secs_f64();
    assert!(all.iter().all(|follower| follower.bytes == LINES * LINE), "a line is missing");
    println!("{FOLLOWERS} followers of one log, {LINES} lines of {LINE} bytes, a thousand a second");
    println!("PSS before the job {} KiB, with the job and one follower {} KiB", started.pss, idle.pss);
    println!(
        "PSS at most {:+} KiB (wanted: at most +4096), of that anonymous {:+} KiB; threads {:+}",
        peak.pss as i64 - idle.pss as i64,
        peak.anonymous as i64 - idle.anonymous as i64,
        end.threads as i64 - idle.threads as i64
    );
    println!(
        "CPU {:.1} % of one core, the job's own included, over {seconds:.1} s",
        (end.cpu - idle.cpu) / seconds * 100.0
    );
    // They wait, and nothing is written.
    let quiet = figures(&node);
    std::thread::sleep(Duration::from_secs(5));
    let still = figures(&node);
    println!("then {} wake-ups of their thread in 5 s", still.wakes - quiet.wakes);
    drop((all, node));
    std::fs::remove_dir_all(&data).expect("it can be removed");
}

struct Figures {
    pss: u64,
    anonymous: u64,
    threads: u64,
    /// Seconds.
    cpu: f64,
    /// Times that the thread of the followers slept.
    wakes: u64,
}

fn figures(node: &Node) -> Figures {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", node.pid())).expect("it runs");
    let (mut cpu, mut wakes) = (0, 0);
    for task in tasks.flatten().map(|task| task.path()) {
        let read = |name: &str| std::fs::read_to_string(task.join(name)).unwrap_or_default();
        cpu += read("schedstat").split(' ').next().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        if read("comm").trim() == "followers" {
            let status = read("status");
            let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            wakes = line.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        }
    }
    Figures {
        pss: node.memory("Pss"),
        anonymous: node.memory("Pss_Anon"),
        threads: node.threads(),
        cpu: cpu as f64 / 1e9,
        wakes,
    }
}

struct Follower {
    stream: TcpStream,
    reader: Reader,
    received: Vec<u8>,
    bytes: usize,
}

impl Follower {
    fn open(node: &Node, job: &str) -> Self {
        let address = node.api.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("it can be set");
        let request = format!(
            "GET /api/v1/orchestrator/jobs/{job}/logs?follow=true HTTP/1.1\r\nHost: {address}\r\n\
             Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("it answers");
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        Self { stream, reader: Reader::new(From::Server, 1 << 20), received: Vec::new(), bytes: 0 }
    }

    /// Reads at least so many bytes of the log more, if there are so many to come.
    fn read(&mut self, more: usize) {
        let wanted = (self.bytes + more).min(LINES * LINE);
        while self.bytes < wanted {
            while let Some(event) = self.reader.next(&mut self.received).expect("frames") {
                if let Event::Message(bytes) = event {
                    let message: LogMessage = serde_json::from_slice(&bytes).expect("a message");
                    assert!(message.error.is_empty(), "{}", message.error);
                    self.bytes += message.value.line.len();
                }
            }
            if self.bytes < wanted {
                let mut buffer = [0; 4096];
                let n = self.stream.read(&mut buffer).expect("it sends");
                assert!(n > 0, "it ended");
                self.received.extend_from_slice(&buffer[..n]);
            }
        }
    }
}

/// Prints ten lines, sleeps 10 ms, and so on; then stays.
fn talker() -> String {
    let line = format!("{}\\0a", "x".repeat(LINE - 1)).repeat(10);
    let (steps, length) = (LINES / 10, LINE * 10);
    format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func $w (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 2)
            (data (i32.const 4096) "{line}")
            (func $sleep (param $ms i64)
              (i32.store (i32.const 1040) (i32.const 1))
              (i64.store (i32.const 1048) (i64.mul (local.get $ms) (i64.const 1000000)))
              (drop (call $poll (i32.const 1024) (i32.const 1088) (i32.const 1) (i32.const 1152))))
            (func (export "_start") (local $n i32)
              (local.set $n (i32.const {steps}))
              (loop $more
                (i32.store (i32.const 0) (i32.const 4096))
                (i32.store (i32.const 4) (i32.const {length}))
                (drop (call $w (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
                (call $sleep (i64.const 10))
                (local.set $n (i32.sub (local.get $n) (i32.const 1)))
                (br_if $more (local.get $n)))
              (loop $stay (call $sleep (i64.const 1000)) (br $stay))))"#
    )
}
