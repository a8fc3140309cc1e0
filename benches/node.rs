//! What a node costs: size of the program, start, memory and writes while idle, no-op jobs end to end.
//!
//! `cargo bench --bench node` (add `-- --quick` for a short run). Prints figures, asserts none.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a program that measures and prints")]

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const CODLING: &str = env!("CARGO_BIN_EXE_codling");

struct Node {
    child: Child,
    api: String,
    started_in: Duration,
}

impl Node {
    fn start(data: &Path) -> Self {
        let begin = Instant::now();
        let mut child = Command::new(CODLING)
            .args(["serve", "--api-port", "0", "-c", "Publishers.Types.Local.Port=0", "--data-dir"])
            .arg(data)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let api = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| {
                line.split_once("ready: API on ").map(|(_, rest)| rest.split(',').next().map(str::to_owned))
            })
            .flatten()
            .expect("it says that it is ready");
        let started_in = begin.elapsed();
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, api, started_in }
    }

    /// A figure of /proc/PID/io.
    fn io(&self, field: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/io", self.child.id())).expect("Linux");
        text.lines()
            .find_map(|l| l.strip_prefix(field)?.trim_start_matches(':').trim().parse().ok())
            .unwrap_or(0)
    }

    /// Bytes that the store thread alone sent to the block layer: the cost of state.
    fn state_bytes(&self) -> u64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("Linux");
        let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
        let store = tasks
            .flatten()
            .map(|t| t.path())
            .find(|t| read(t.join("comm")).trim() == "store")
            .expect("a store");
        read(store.join("io"))
            .lines()
            .find_map(|l| l.strip_prefix("write_bytes:")?.trim().parse().ok())
            .unwrap_or(0)
    }

    /// KiB of a line of smaps_rollup.
    fn memory(&self, field: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id())).expect("Linux");
        text.lines().find_map(|l| l.strip_prefix(field)?.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    }

    fn call(&self, agent: &ureq::Agent, method: &str, path: &str, body: Option<String>) -> Value {
        let request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.api));
        let mut answer = match body {
            Some(body) => agent.run(request.body(body).expect("valid")),
            None => agent.run(request.body(()).expect("valid")),
        }
        .expect("the node answers");
        let mut bytes = Vec::new();
        answer.body_mut().as_reader().read_to_end(&mut bytes).expect("whole");
        serde_json::from_slice(&bytes).expect("JSON")
    }

    /// Submits one no-op job and waits for its end.
    fn job(&self, agent: &ureq::Agent, job: &str) {
        let id = self.call(agent, "PUT", "/api/v1/orchestrator/jobs", Some(job.to_owned()));
        let path = format!("/api/v1/orchestrator/jobs/{}", id["JobID"].as_str().expect("an id"));
        loop {
            let state = self.call(agent, "GET", &path, None);
            match state["Job"]["State"]["StateType"].as_str() {
                Some("Completed") => return,
                Some("Failed") => panic!("{state}"),
                _ => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn noop() -> String {
    use base64::Engine as _;
    let module =
        wat::parse_str(r#"(module (memory (export "memory") 1) (func (export "_start")))"#).expect("valid");
    let url =
        format!("data:application/wasm;base64,{}", base64::engine::general_purpose::STANDARD.encode(module));
    json!({ "Job": { "Type": "batch", "Count": 1, "Tasks": [{
        "Name": "main",
        "Engine": { "Type": "wasm", "Params": {
            "EntryModule": { "Source": { "Type": "inline", "Params": { "URL": url } } }, "Entrypoint": "_start" } },
        "Publisher": { "Type": "local" } }] } })
    .to_string()
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(60))).build().into()
}

/// `n` jobs by `clients` clients; prints rate and what each cost.
fn jobs(node: &Node, clients: usize, n: usize) {
    let job = noop();
    let stats = || node.call(&agent(), "GET", "/api/v1/codling/stats", None);
    let (written, state, before, begin) =
        (node.io("write_bytes"), node.state_bytes(), stats(), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                let agent = agent();
                (0..n / clients).for_each(|_| node.job(&agent, &job));
            });
        }
    });
    let seconds = begin.elapsed().as_secs_f64();
    let after = stats();
    let commits = |stats: &Value| stats["DurableCommits"].as_u64().unwrap_or(0);
    println!(
        "no-op jobs, {clients:2} client(s), {n}: {:7.1} jobs/s, {:4.2} durable commits/job, {:6.1} KB state/job, {:6.1} KB written in all/job",
        n as f64 / seconds,
        (commits(&after) - commits(&before)) as f64 / n as f64,
        (node.state_bytes() - state) as f64 / 1000.0 / n as f64,
        (node.io("write_bytes") - written) as f64 / 1000.0 / n as f64,
    );
}

fn main() {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let base = std::env::var_os("CODLING_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let data = base.join(format!("codling-bench-{}", std::process::id()));
    let size = std::fs::metadata(CODLING).expect("built").len();
    println!("program: {:.2} MB", size as f64 / 1e6);
    let node = Node::start(&data);
    println!("start to ready: {:.0} ms (first start, new directory)", node.started_in.as_secs_f64() * 1e3);
    std::thread::sleep(Duration::from_secs(2));
    println!(
        "idle: PSS {} KiB, RSS {} KiB, private dirty {} KiB",
        node.memory("Pss:"),
        node.memory("Rss:"),
        node.memory("Private_Dirty:")
    );
    let minute = Duration::from_secs(if quick { 5 } else { 60 });
    let written = node.io("write_bytes");
    std::thread::sleep(minute);
    println!("idle: {} bytes written in {} s", node.io("write_bytes") - written, minute.as_secs());
    let n = if quick { 32 } else { 320 };
    for clients in [1, 4, 16] {
        jobs(&node, clients, n);
    }
    println!(
        "after them: PSS {} KiB, private dirty {} KiB",
        node.memory("Pss:"),
        node.memory("Private_Dirty:")
    );
    drop(node);
    let _ = std::fs::remove_dir_all(&data);
}
