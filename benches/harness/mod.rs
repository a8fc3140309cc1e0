//! A node for benches to measure: the built program in a directory of its own, on ports of its own.

#![allow(dead_code, reason = "each bench uses a part of it")]

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub const CODLING: &str = env!("CARGO_BIN_EXE_codling");

pub struct Node {
    child: Child,
    pub api: String,
    /// Where results are served.
    pub results: String,
    pub started_in: Duration,
}

impl Node {
    /// Starts a node with further settings and waits until it says that it is ready.
    pub fn start(data: &Path, extra: &[&str]) -> Self {
        let begin = Instant::now();
        let mut child = Command::new(CODLING)
            .args(["serve", "--api-port", "0", "-c", "Publishers.Types.Local.Port=0", "--data-dir"])
            .arg(data)
            .args(extra)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let ready = lines.by_ref().map_while(Result::ok).find(|line| line.contains("ready: API on "));
        let ready = ready.expect("it says that it is ready");
        let (_, addresses) = ready.split_once("ready: API on ").expect("as found");
        let (api, results) = addresses.split_once(", results on ").expect("both addresses");
        let (api, results) = (api.trim().to_owned(), results.trim().to_owned());
        let started_in = begin.elapsed();
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, api, results, started_in }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).expect("Linux")
    }

    /// A figure of /proc/PID/io.
    pub fn io(&self, field: &str) -> u64 {
        number(&self.proc("io"), field)
    }

    /// Bytes that the store thread alone sent to the block layer: the cost of state.
    pub fn state_bytes(&self) -> u64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("Linux");
        let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
        let store = tasks
            .flatten()
            .map(|t| t.path())
            .find(|t| read(t.join("comm")).trim() == "store")
            .expect("a store");
        number(&read(store.join("io")), "write_bytes")
    }

    /// KiB of a line of smaps_rollup.
    pub fn memory(&self, field: &str) -> u64 {
        number(&self.proc("smaps_rollup"), field)
    }

    pub fn threads(&self) -> u64 {
        number(&self.proc("status"), "Threads")
    }

    /// Calls the API; the node must answer with JSON.
    pub fn call(&self, agent: &ureq::Agent, method: &str, path: &str, body: Option<String>) -> Value {
        self.try_call(agent, method, path, body).expect("the node answers")
    }

    /// The same for answers that may be a refusal.
    pub fn try_call(
        &self,
        agent: &ureq::Agent,
        method: &str,
        path: &str,
        body: Option<String>,
    ) -> Result<Value, ureq::Error> {
        let request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.api));
        let mut answer = match body {
            Some(body) => agent.run(request.body(body).expect("valid")),
            None => agent.run(request.body(()).expect("valid")),
        }?;
        let mut bytes = Vec::new();
        answer.body_mut().as_reader().read_to_end(&mut bytes)?;
        Ok(serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    /// Submits a job; its id.
    pub fn submit(&self, agent: &ureq::Agent, job: &str) -> String {
        let answer = self.call(agent, "PUT", "/api/v1/orchestrator/jobs", Some(job.to_owned()));
        answer["JobID"].as_str().expect("an id").to_owned()
    }

    /// Waits for a job's end; its state then.
    pub fn ended(&self, agent: &ureq::Agent, id: &str) -> String {
        let path = format!("/api/v1/orchestrator/jobs/{id}");
        loop {
            let answer = self.call(agent, "GET", &path, None);
            match answer["Job"]["State"]["StateType"].as_str() {
                Some(state @ ("Completed" | "Failed" | "Stopped")) => return state.to_owned(),
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

/// The number after `field:` in a file of /proc.
fn number(text: &str, field: &str) -> u64 {
    let line = text.lines().find_map(|l| l.strip_prefix(field.trim_end_matches(':'))?.strip_prefix(':'));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// A batch job that runs the module in `wat` and publishes what it leaves.
pub fn job(wat: &str) -> String {
    use base64::Engine as _;
    let module = wat::parse_str(wat).expect("valid");
    let url =
        format!("data:application/wasm;base64,{}", base64::engine::general_purpose::STANDARD.encode(module));
    json!({ "Job": { "Type": "batch", "Count": 1, "Tasks": [{
        "Name": "main",
        "Engine": { "Type": "wasm", "Params": {
            "EntryModule": { "Source": { "Type": "inline", "Params": { "URL": url } } }, "Entrypoint": "_start" } },
        "Publisher": { "Type": "local" } }] } })
    .to_string()
}

/// Does nothing, successfully.
pub const NOOP: &str = r#"(module (memory (export "memory") 1) (func (export "_start")))"#;

/// Writes `steps` times 64 KiB that do not compress to standard output.
pub fn noise(steps: u64) -> String {
    format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func $w (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "random_get" (func $r (param i32 i32) (result i32)))
            (memory (export "memory") 3)
            (func (export "_start") (local $n i32)
              (i32.store (i32.const 0) (i32.const 65536))
              (i32.store (i32.const 4) (i32.const 65536))
              (local.set $n (i32.const {steps}))
              (loop $more
                (drop (call $r (i32.const 65536) (i32.const 65536)))
                (drop (call $w (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
                (local.set $n (i32.sub (local.get $n) (i32.const 1)))
                (br_if $more (local.get $n)))))"#
    )
}

pub fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(120))).build().into()
}

/// A directory of a bench's own. It must not be a tmpfs: `CODLING_BENCH_DIR` says where, if the usual place is one.
pub fn directory(name: &str) -> PathBuf {
    let base = std::env::var_os("CODLING_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    base.join(format!("codling-bench-{name}-{}", std::process::id()))
}
