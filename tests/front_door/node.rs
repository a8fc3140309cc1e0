//! A real node: the built binary in a directory of its own, on ports of its own.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The program under test: the one that was built with these tests, or what `CODLING_UNDER_TEST` names. So this harness
/// holds a program for another processor as well, if that file is a script that runs it in an emulator
/// (`tests/boards/targets.sh`).
pub static CODLING: LazyLock<String> = LazyLock::new(|| {
    std::env::var("CODLING_UNDER_TEST").unwrap_or_else(|_| env!("CARGO_BIN_EXE_codling").to_owned())
});

/// How long anything may take before a test gives up. Generous: machines are shared. `CODLING_PATIENCE` is another number
/// of seconds, for processors that are emulated.
pub static PATIENCE: LazyLock<Duration> = LazyLock::new(|| {
    let seconds = std::env::var("CODLING_PATIENCE").map_or(120, |seconds| seconds.parse().unwrap());
    Duration::from_secs(seconds)
});

/// A directory that goes when it is dropped.
pub struct Dir(pub PathBuf);

impl Dir {
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!("codling-it-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = Command::new("chmod").args(["-R", "u+rwX"]).arg(&self.0).status();
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running node.
pub struct Node {
    child: Child,
    pub data: PathBuf,
    pub api: String,
    pub results: String,
    log: Receiver<String>,
    seen: Vec<String>,
}

impl Node {
    /// Starts a node in `data` with further settings, and waits until it says that it is ready.
    pub fn start(data: &Path, extra: &[&str]) -> Self {
        Self::start_env(data, extra, &[])
    }

    pub fn start_env(data: &Path, extra: &[&str], env: &[(&str, &str)]) -> Self {
        Self::start_program(&CODLING, data, extra, env)
    }

    /// Starts a node of this program.
    pub fn start_program(program: &str, data: &Path, extra: &[&str], env: &[(&str, &str)]) -> Self {
        let mut node = Self::spawn_program(program, data, extra, env);
        let ready = node.wait_log("ready: API on ");
        let (_, addresses) = ready.split_once("ready: API on ").unwrap();
        let (api, results) = addresses.split_once(", results on ").unwrap();
        node.api = api.trim().to_owned();
        node.results = results.trim().to_owned();
        node
    }

    /// Starts a node and waits for nothing.
    pub fn spawn(data: &Path, extra: &[&str], env: &[(&str, &str)]) -> Self {
        Self::spawn_program(&CODLING, data, extra, env)
    }

    fn spawn_program(program: &str, data: &Path, extra: &[&str], env: &[(&str, &str)]) -> Self {
        let mut command = Command::new(program);
        command.arg("serve").arg("--data-dir").arg(data);
        command.args(["--api-port", "0"]).args(extra);
        if !extra.contains(&"--local-publisher-port") {
            command.args(["-c", "Publishers.Types.Local.Port=0"]);
        }
        command.env_remove("LOG_LEVEL").envs(env.iter().copied());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let (sender, log) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self {
            child,
            data: data.to_owned(),
            api: String::new(),
            results: String::new(),
            log,
            seen: Vec::new(),
        }
    }

    /// Waits for a log line that contains `text`, among those not looked at yet.
    pub fn wait_log(&mut self, text: &str) -> String {
        let deadline = Instant::now() + *PATIENCE;
        loop {
            match self.log.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(error) => panic!("no '{text}' in the log ({error}):\n{}", self.seen.join("\n")),
            }
        }
    }

    /// Everything logged so far.
    pub fn log_so_far(&mut self) -> String {
        self.seen.extend(self.log.try_iter());
        self.seen.join("\n")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Runs the command line against this node.
    pub fn cli(&self, args: &[&str]) -> Output {
        self.cli_in(Path::new("."), args)
    }

    pub fn cli_in(&self, dir: &Path, args: &[&str]) -> Output {
        self.command(args).current_dir(dir).output().unwrap()
    }

    /// The command line against this node, to be started.
    pub fn command(&self, args: &[&str]) -> Command {
        let (host, port) = self.api.split_once("://").unwrap().1.rsplit_once(':').unwrap();
        let mut command = Command::new(&*CODLING);
        command.args(args).env("BACALHAU_API_HOST", host).env("BACALHAU_API_PORT", port);
        command.stdin(Stdio::null());
        command
    }

    /// Like `cli`, and it must succeed; returns what it printed.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.cli(args);
        assert!(output.status.success(), "{args:?}: {}\n{}", output.status, text(&output.stderr));
        text(&output.stdout)
    }

    /// GET of an API path: status and JSON.
    pub fn get(&self, path: &str) -> (u16, Value) {
        self.call("GET", path, None)
    }

    pub fn call(&self, method: &str, path: &str, body: Option<&str>) -> (u16, Value) {
        let (status, bytes) = http(method, &format!("{}{path}", self.api), body);
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    /// Submits a job through the API; returns its id.
    pub fn submit(&self, job: &Value) -> String {
        let body = serde_json::json!({ "Job": job }).to_string();
        let (status, answer) = self.call("PUT", "/api/v1/orchestrator/jobs", Some(&body));
        assert_eq!(status, 200, "{answer}");
        answer["JobID"].as_str().unwrap().to_owned()
    }

    pub fn job(&self, id: &str) -> Value {
        let (status, answer) = self.get(&format!("/api/v1/orchestrator/jobs/{id}"));
        assert_eq!(status, 200, "{answer}");
        answer["Job"].clone()
    }

    pub fn state(&self, id: &str) -> String {
        self.job(id)["State"]["StateType"].as_str().unwrap().to_owned()
    }

    /// Waits until the job is in one of `states`; returns which.
    pub fn wait_state(&self, id: &str, states: &[&str]) -> String {
        eventually(&format!("job {id} in {states:?}"), || {
            let state = self.state(id);
            states.contains(&state.as_str()).then_some(state)
        })
    }

    pub fn executions(&self, id: &str) -> Vec<Value> {
        let (status, answer) = self.get(&format!("/api/v1/orchestrator/jobs/{id}/executions"));
        assert_eq!(status, 200, "{answer}");
        answer["Items"].as_array().unwrap().clone()
    }

    /// The messages of a job's history, oldest first.
    pub fn history(&self, id: &str) -> Vec<String> {
        let (status, answer) = self.get(&format!("/api/v1/orchestrator/jobs/{id}/history?limit=1000"));
        assert_eq!(status, 200, "{answer}");
        let items = answer["Items"].as_array().unwrap();
        items.iter().map(|item| item["Event"]["Message"].as_str().unwrap_or("").to_owned()).collect()
    }

    /// Ends the node at once, as a power cut would.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks the node to end and waits for it.
    pub fn stop(self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Waits for the node to end.
    pub fn wait(mut self) -> ExitStatus {
        let child = &mut self.child;
        eventually("the node to end", || child.try_wait().unwrap())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the node ---\n{}", self.log_so_far());
        }
    }
}

/// Runs the program with these arguments and no node.
pub fn codling(args: &[&str]) -> Output {
    Command::new(&*CODLING).args(args).stdin(Stdio::null()).output().unwrap()
}

/// Starts a node that is expected to refuse; returns its exit status and what it wrote.
pub fn refused(data: &Path, extra: &[&str], env: &[(&str, &str)]) -> (ExitStatus, String) {
    let mut node = Node::spawn(data, extra, env);
    let status = eventually("the node to refuse", || node.child.try_wait().unwrap());
    let lines: Vec<String> = node.log.iter().collect();
    (status, lines.join("\n"))
}

pub fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap().success());
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Asks until there is an answer. Polls a peer that offers no event; the pause only keeps it from being flooded.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + *PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// One request; status and body.
pub fn http(method: &str, url: &str, body: Option<&str>) -> (u16, Vec<u8>) {
    let (status, _, bytes) = http_with(method, url, &[], body);
    (status, bytes)
}

/// One request with headers; status, headers and body.
pub fn http_with(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: Option<&str>,
) -> (u16, Vec<(String, String)>, Vec<u8>) {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(*PATIENCE))
        .build()
        .into();
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut response = match body {
        Some(body) => agent.run(request.body(body.to_owned()).unwrap()),
        None => agent.run(request.body(()).unwrap()),
    }
    .unwrap_or_else(|error| panic!("{method} {url}: {error}"));
    let status = response.status().as_u16();
    let headers =
        response.headers().iter().map(|(n, v)| (n.as_str().to_owned(), text(v.as_bytes()))).collect();
    let mut bytes = Vec::new();
    response.body_mut().as_reader().read_to_end(&mut bytes).unwrap();
    (status, headers, bytes)
}
