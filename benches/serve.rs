//! Serving: one archive of 1 GiB on loopback, beside nginx with sendfile; then 64 clients at once.
//!
//! `cargo bench --bench serve` (add `-- --quick` for a short run). Prints figures, asserts that every download is whole.
//! Needs nginx (`apt-get install nginx-light`) and 3 GiB in the directory for temporary files, or in
//! `CODLING_BENCH_DIR`. Wants a quiet machine with two free cores: one for the server, one for the client.
//!
//! A real job makes the archive. The node is started anew before anything is measured, and nginx serves the same file.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a program that measures and prints")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

mod harness;

use harness::{Node, agent, directory, job, noise};

const GB: f64 = 1e9;
/// Clients at once.
const CROWD: usize = 64;
/// What a client reads at once.
const BUFFER: usize = 256 << 10;

fn main() {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let data = directory("serve");
    let execution = make_archive(&data, if quick { 128 } else { 1024 });
    let node = Node::start(&data, SETTINGS);
    let archive = data.join(format!("results/{execution}.tar.gz"));
    let size = std::fs::metadata(&archive).expect("the job's archive").len();
    println!("one archive of {:.3} GB", size as f64 / GB);
    let results = node.results.trim_start_matches("http://").to_owned();
    let codling = Server { name: "codling", pids: vec![node.pid()], address: results, execution };
    let nginx = Nginx::start(&data, &archive);
    let servers = nginx.as_ref().map_or_else(|| vec![&codling], |nginx| vec![&nginx.server, &codling]);
    one_client(&servers, size, if quick { 3 } else { 15 });
    for server in servers {
        crowd(server, size);
    }
    drop((node, nginx));
    std::fs::remove_dir_all(&data).expect("it can be removed");
}

// ---- measuring ---------------------------------------------------------------------------------------------------

/// One after the other, taking turns.
fn one_client(servers: &[&Server], size: u64, rounds: usize) {
    println!("\none client, {rounds} rounds taking turns, medians (and the fastest round)");
    let mut seen = vec![(Vec::new(), Vec::new()); servers.len()];
    for round in 0..=rounds {
        for (server, (wall, cpu)) in servers.iter().zip(&mut seen) {
            let (begin, before) = (Instant::now(), server.cpu());
            assert_eq!(server.fetch(&AtomicU32::new(0)), size);
            // The first round fills the page cache.
            if round > 0 {
                wall.push(begin.elapsed().as_secs_f64());
                cpu.push(server.cpu() - before);
            }
        }
    }
    let gb = size as f64 / GB;
    let medians: Vec<(f64, f64)> = seen.iter().map(|(wall, cpu)| (median(wall), median(cpu))).collect();
    for ((server, (wall, cpu)), (all_wall, all_cpu)) in servers.iter().zip(&medians).zip(&seen) {
        println!(
            "{:8} {:6.2} GB/s ({:5.2}) {:6.3} CPU s/GB ({:5.3})",
            server.name,
            gb / wall,
            gb / least(all_wall),
            cpu / gb,
            least(all_cpu) / gb
        );
    }
    if let [nginx, codling] = medians[..] {
        println!(
            "codling / nginx: speed {:.2}x (wanted: at least 0.8), CPU {:.2}x (wanted: at most 1.5)",
            nginx.0 / codling.0,
            codling.1 / nginx.1
        );
    }
}

/// All at once; who is told to come again does.
fn crowd(server: &Server, size: u64) {
    let idle = (server.memory("Rss:"), server.memory("Pss:"));
    let peak = (AtomicU64::new(0), AtomicU64::new(0));
    let (over, refused) = (AtomicBool::new(false), AtomicU32::new(0));
    let (begin, before) = (Instant::now(), server.cpu());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                peak.0.fetch_max(server.memory("Rss:"), Ordering::SeqCst);
                peak.1.fetch_max(server.memory("Pss:"), Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let clients: Vec<_> = (0..CROWD).map(|_| scope.spawn(|| server.fetch(&refused))).collect();
        let whole = clients.into_iter().map(|client| client.join().is_ok_and(|length| length == size));
        let whole: Vec<bool> = whole.collect();
        over.store(true, Ordering::SeqCst);
        assert!(!whole.contains(&false), "a download failed");
    });
    let (seconds, gb) = (begin.elapsed().as_secs_f64(), CROWD as f64 * size as f64 / GB);
    println!(
        "\n{}, {CROWD} clients at once, all from one address: all whole after {seconds:.1} s, {:.2} GB/s, {:.3} CPU s/GB, told to come again {} times",
        server.name,
        gb / seconds,
        (server.cpu() - before) / gb,
        refused.load(Ordering::SeqCst)
    );
    let rise = |peak: &AtomicU64, idle: u64| peak.load(Ordering::SeqCst) as i64 - idle as i64;
    println!(
        "  RSS {} KiB idle, {:+} KiB at most; PSS {} KiB idle, {:+} KiB at most; afterwards RSS {:+} KiB (wanted of codling: at most +4096)",
        idle.0,
        rise(&peak.0, idle.0),
        idle.1,
        rise(&peak.1, idle.1),
        server.memory("Rss:") as i64 - idle.0 as i64
    );
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

// ---- servers -----------------------------------------------------------------------------------------------------

struct Server {
    name: &'static str,
    pids: Vec<u32>,
    address: String,
    execution: String,
}

impl Server {
    /// Seconds that all its threads have had a CPU, from the scheduler's own nanoseconds.
    fn cpu(&self) -> f64 {
        let of_task = |task: std::fs::DirEntry| {
            let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            text.split(' ').next().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0)
        };
        let of = |pid: &u32| {
            let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
            tasks.flatten().map(of_task).sum::<u64>()
        };
        self.pids.iter().map(of).sum::<u64>() as f64 / 1e9
    }

    /// KiB of a line of smaps_rollup, of all its processes.
    fn memory(&self, field: &str) -> u64 {
        let of = |pid: &u32| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix(field));
            line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
        };
        self.pids.iter().map(of).sum()
    }

    /// Downloads the archive, throws it away and answers its length. Counts how often it had to come again.
    fn fetch(&self, refused: &AtomicU32) -> u64 {
        loop {
            match self.attempt() {
                Ok(length) => return length,
                Err(pause) => {
                    refused.fetch_add(1, Ordering::SeqCst);
                    std::thread::sleep(pause);
                }
            }
        }
    }

    /// The error is how long to wait.
    fn attempt(&self) -> Result<u64, Duration> {
        let stream = TcpStream::connect(&self.address).expect("it listens");
        let (path, host) = (&self.execution, &self.address);
        let request = format!("GET /{path}.tar.gz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        (&stream).write_all(request.as_bytes()).expect("it reads");
        let mut reader = BufReader::with_capacity(BUFFER, stream);
        let (mut status, mut length, mut retry) = (0, None, None);
        loop {
            let mut line = String::new();
            // Turned away in a crowd, before it could be told when to come again.
            if reader.read_line(&mut line).is_err() {
                return Err(Duration::from_secs(1));
            }
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(rest) = line.strip_prefix("http/1.1 ") {
                status = rest.split(' ').next().and_then(|code| code.parse::<u16>().ok()).unwrap_or(0);
            } else if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse::<u64>().ok();
            } else if let Some(value) = line.strip_prefix("retry-after: ") {
                retry = value.parse().ok().map(Duration::from_secs);
            } else if line.is_empty() {
                break;
            }
        }
        if status == 503 {
            return Err(retry.expect("a refusal says when to come again"));
        }
        assert_eq!(status, 200);
        let mut have = reader.buffer().len() as u64;
        let mut stream = reader.into_inner();
        let mut buffer = vec![0; BUFFER];
        loop {
            match stream.read(&mut buffer).expect("it sends") {
                0 => break,
                n => have += n as u64,
            }
        }
        assert_eq!(Some(have), length, "a download is not whole");
        Ok(have)
    }
}

/// Room for an execution that prints 1 GiB, and for its archive.
const SETTINGS: &[&str] =
    &["-c", "Results.Quota=4Gi", "-c", "Compute.MaxLogSize=1Gi", "-c", "Compute.JobDisk=1500Mi"];

/// Lets a node run a job that prints so much noise. Answers the execution.
fn make_archive(data: &Path, mib: u32) -> String {
    let (node, agent) = (Node::start(data, SETTINGS), agent());
    let id = node.submit(&agent, &job(&noise(u64::from(mib) * 16)));
    assert_eq!(node.ended(&agent, &id), "Completed");
    let executions = node.call(&agent, "GET", &format!("/api/v1/orchestrator/jobs/{id}/executions"), None);
    executions["Items"][0]["ID"].as_str().expect("an execution").to_owned()
}

struct Nginx {
    child: Child,
    server: Server,
}

impl Nginx {
    /// One worker, sendfile, everything else as it comes; serves the archive's directory. None if it is not installed.
    fn start(data: &Path, archive: &Path) -> Option<Self> {
        let dir = data.join("nginx");
        std::fs::create_dir(&dir).expect("it can be made");
        // Free a moment ago: nginx cannot be asked for any free port.
        let port =
            std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let root = archive.parent().expect("a directory").display();
        // The archives are their owner's alone: the worker must be that user, too.
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let here = dir.display();
        let config = format!(
            "{user} worker_processes 1; daemon off; pid {here}/pid; error_log {here}/error.log;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ access_log off; sendfile on; tcp_nopush on; client_body_temp_path {here}/body;\n\
             proxy_temp_path {here}/proxy; fastcgi_temp_path {here}/fastcgi; uwsgi_temp_path {here}/uwsgi;\n\
             scgi_temp_path {here}/scgi;\n\
             server {{ listen 127.0.0.1:{port}; root {root}; }} }}\n"
        );
        std::fs::write(dir.join("nginx.conf"), config).expect("it can be written");
        let program = ["/usr/sbin/nginx", "nginx"].into_iter().find(|program| {
            Command::new(program)
                .arg("-v")
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        });
        let Some(program) = program else {
            println!("nginx is not installed (apt-get install nginx-light): nothing to compare with");
            return None;
        };
        let child = Command::new(program)
            .arg("-p")
            .arg(&dir)
            .arg("-c")
            .arg(dir.join("nginx.conf"))
            .spawn()
            .expect("it starts");
        let address = format!("127.0.0.1:{port}");
        let deadline = Instant::now() + Duration::from_secs(30);
        let worker: u32 = loop {
            let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id()));
            let worker = children.ok().and_then(|children| children.trim().parse().ok());
            if let (Some(worker), Ok(_)) = (worker, TcpStream::connect(&address)) {
                break worker;
            }
            assert!(Instant::now() < deadline, "nginx does not start: see {here}/error.log");
            std::thread::sleep(Duration::from_millis(10));
        };
        let execution = archive.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let execution = execution.trim_end_matches(".tar.gz").to_owned();
        Some(Self { child, server: Server { name: "nginx", pids: vec![worker], address, execution } })
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}
