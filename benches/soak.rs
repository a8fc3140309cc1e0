//! A node under mixed load for a long time, at a quota of 64 MiB: does its memory grow, does it ever exceed its quota.
//!
//! `cargo bench --bench soak [-- SECONDS]`, 1800 if nothing is said. Every 100 ms the files of results, scratch and
//! cache are added up as the file system counts them; PSS is read every second. Prints figures, asserts none.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a program that measures and prints")]

mod harness;

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use harness::{NOOP, Node, agent, noise};

const QUOTA: u64 = 64 << 20;
const SAMPLE: Duration = Duration::from_millis(100);
/// Ids of jobs that clients fetch from, stop and describe.
const RECENT: usize = 64;

/// Numbers that are the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

const TRAP: &str = r#"(module (memory (export "memory") 1) (func (export "_start") unreachable))"#;
const LOOP: &str = r#"(module (memory (export "memory") 1) (func (export "_start") (loop $l (br $l))))"#;

#[derive(Default)]
struct Seen {
    jobs: AtomicU64,
    refused: AtomicU64,
    fetched: AtomicU64,
    gone: AtomicU64,
    hostile: AtomicU64,
    recent: Mutex<Vec<String>>,
}

impl Seen {
    fn remember(&self, id: String) {
        let mut recent = self.recent.lock().expect("no panic");
        if recent.len() == RECENT {
            recent.remove(0);
        }
        recent.push(id);
    }

    fn any(&self, random: &mut Random) -> Option<String> {
        let recent = self.recent.lock().expect("no panic");
        let at = random.below(recent.len().max(1) as u64);
        recent.get(usize::try_from(at).unwrap_or(0)).cloned()
    }
}

/// Submits jobs of all sorts, one after the other.
fn submit(node: &Node, seen: &Seen, seed: u64, end: &AtomicBool) {
    let (agent, mut random) = (agent(), Random(seed));
    while !end.load(Ordering::Relaxed) {
        let kind = random.below(10);
        let wat = match kind {
            0..=5 => noise(1 + random.below(48)),
            6 => TRAP.to_owned(),
            7 => LOOP.to_owned(),
            8 => noise(100_000),
            _ => NOOP.to_owned(),
        };
        let path = "/api/v1/orchestrator/jobs";
        match node.try_call(&agent, "PUT", path, Some(harness::job(&wat))) {
            Ok(answer) => {
                let id = answer["JobID"].as_str().expect("an id").to_owned();
                seen.remember(id.clone());
                if matches!(kind, 7 | 8) {
                    std::thread::sleep(Duration::from_millis(random.below(200)));
                    let _ = node.try_call(&agent, "DELETE", &format!("{path}/{id}?reason=enough"), None);
                }
                node.ended(&agent, &id);
                seen.jobs.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => {
                seen.refused.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

/// Fetches results, whole or from somewhere on; looks around; pins and unpins.
fn use_results(node: &Node, seen: &Seen, end: &AtomicBool) {
    let (agent, mut random) = (agent(), Random(99));
    while !end.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(20));
        let Some(id) = seen.any(&mut random) else { continue };
        let path = format!("/api/v1/orchestrator/jobs/{id}");
        let _ = match random.below(8) {
            0 => node.try_call(&agent, "GET", &format!("{path}/history"), None),
            1 => node.try_call(&agent, "GET", "/api/v1/orchestrator/jobs?limit=50", None),
            2 => node.try_call(&agent, "GET", "/api/v1/codling/results", None),
            3 => node.try_call(&agent, "GET", "/api/v1/codling/df", None),
            4 => node.try_call(&agent, "GET", &format!("{path}/executions"), None),
            _ => Ok(Value::Null),
        };
        let Ok(results) = node.try_call(&agent, "GET", &format!("{path}/results"), None) else { continue };
        let Some(url) = results["Items"][0]["Params"]["URL"].as_str() else { continue };
        let from = random.below(2) * random.below(100_000);
        match agent.get(url).header("Range", format!("bytes={from}-")).call() {
            Ok(mut answer) => {
                let _ = std::io::copy(&mut answer.body_mut().as_reader(), &mut std::io::sink());
                seen.fetched.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => _ = seen.gone.fetch_add(1, Ordering::Relaxed),
        }
    }
}

/// Half heads, nonsense, and connections that say nothing.
fn annoy(node: &Node, seen: &Seen, end: &AtomicBool) {
    let address = node.api.trim_start_matches("http://");
    let address = address.to_socket_addrs().expect("numbers").next().expect("one");
    let mut random = Random(7);
    let mut held = Vec::new();
    while !end.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(200));
        let Ok(mut stream) = TcpStream::connect(address) else { continue };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
        let sent = match random.below(4) {
            0 => stream.write_all(b"GET /api/v1/orch"),
            1 => stream.write_all(&[b'x'; 20_000]),
            2 => stream.write_all(
                b"PUT /api/v1/orchestrator/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n{",
            ),
            _ => stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"),
        };
        let _ = sent.and_then(|()| stream.read(&mut [0; 1024]));
        seen.hostile.fetch_add(1, Ordering::Relaxed);
        held.push(stream);
        if held.len() > 8 {
            held.remove(0);
        }
    }
}

/// What files below `dir` occupy. Some vanish while they are looked at.
fn occupied(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => occupied(&entry.path()),
        Ok(meta) => meta.blocks() * 512,
        Err(_) => 0,
    });
    sizes.sum()
}

#[derive(Default)]
struct Disk {
    samples: u64,
    most: u64,
    above: u64,
}

/// Adds the files up until the end.
fn watch_disk(data: &Path, end: &AtomicBool) -> Disk {
    let mut disk = Disk::default();
    while !end.load(Ordering::Relaxed) {
        std::thread::sleep(SAMPLE);
        let now = ["results", "scratch", "cache"].iter().map(|dir| occupied(&data.join(dir))).sum();
        disk.samples += 1;
        disk.most = disk.most.max(now);
        disk.above += u64::from(now > QUOTA);
    }
    disk
}

fn watch_memory(node: &Node, seen: &Seen, length: Duration) {
    let begin = Instant::now();
    let (mut recent, mut first, mut minute) = (Vec::new(), None, 0);
    while begin.elapsed() < length {
        std::thread::sleep(Duration::from_secs(1));
        recent.push(node.memory("Pss"));
        if recent.len() < 10 {
            continue;
        }
        let spent = begin.elapsed().as_secs();
        if spent / 60 > minute || begin.elapsed() >= length {
            minute = spent / 60;
            recent.sort_unstable();
            let median = recent.get(recent.len() / 2).copied().unwrap_or(0);
            let most = recent.last().copied().unwrap_or(0);
            println!(
                "{spent:5} s: PSS {median:6} KiB (most {most:6}), {} threads, {} jobs, {} fetched, {} gone by then, {} refused, {} hostile",
                node.threads(),
                seen.jobs.load(Ordering::Relaxed),
                seen.fetched.load(Ordering::Relaxed),
                seen.gone.load(Ordering::Relaxed),
                seen.refused.load(Ordering::Relaxed),
                seen.hostile.load(Ordering::Relaxed),
            );
            let (first, _) = *first.get_or_insert((median, most));
            println!("         {:+} KiB since the first minute", median.cast_signed() - first.cast_signed());
            recent.clear();
        }
    }
}

fn main() {
    let length = std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(1800);
    let data = harness::directory("soak");
    let settings =
        ["Results.Quota=64MiB", "Results.MinFree=1MiB", "Compute.JobDisk=8MiB", "Store.CacheSize=256KiB"];
    let args: Vec<&str> = settings.iter().flat_map(|setting| ["-c", setting]).collect();
    let node = Node::start(&data, &args);
    let (seen, end) = (Seen::default(), AtomicBool::new(false));
    println!("idle: PSS {} KiB, {} threads", node.memory("Pss"), node.threads());
    let disk = std::thread::scope(|scope| {
        for seed in 1..=3 {
            let (node, seen, end) = (&node, &seen, &end);
            scope.spawn(move || submit(node, seen, seed, end));
        }
        scope.spawn(|| use_results(&node, &seen, &end));
        scope.spawn(|| annoy(&node, &seen, &end));
        let disk = scope.spawn(|| watch_disk(&data, &end));
        watch_memory(&node, &seen, Duration::from_secs(length));
        end.store(true, Ordering::Relaxed);
        disk.join().expect("no panic")
    });
    println!(
        "disk: at most {:.1} MiB of {} in {} samples, above in {}",
        disk.most as f64 / f64::from(1 << 20),
        QUOTA >> 20,
        disk.samples,
        disk.above
    );
    let databases = occupied(&data.join("compute")) + occupied(&data.join("orchestrator"));
    println!("databases: {:.1} MiB", databases as f64 / f64::from(1 << 20));
    drop(node);
    let _ = std::fs::remove_dir_all(&data);
}
