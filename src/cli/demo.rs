//! `codling demo`: the main job from start to finish, with the commands that a user would type.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};

use clap::Args;
use serde_json::json;

use super::Context;
use super::exit::{CliError, Exit};
use crate::sys::fs::create_private_dir;

/// Four years of weather in Seattle, packed; see `examples/data/README.md` for where it comes from.
const SAMPLE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/seattle-weather.csv.gz"));
const SAMPLE_NAME: &str = "seattle-weather.csv";

/// What the job runs, packed; its source is in `guests/weather`.
const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/weather.wasm.gz"));

/// Run the main job from start to finish on a sample
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// A file of your own instead of the sample
    #[arg(value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// Where to work; must not exist yet [default: a new directory for temporary files]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Runs the main job from start to finish.
///
/// # Errors
/// A step failed; its own message stands above.
pub fn run(args: &DemoArgs, context: &Context<'_>) -> Result<Exit, CliError> {
    let dir = working_directory(args.dir.as_deref())?;
    let input = match &args.input {
        Some(path) => path.canonicalize().map_err(|error| {
            CliError::caused(Exit::NotFound, format!("cannot read {}", path.display()), error)
        })?,
        None => {
            let path = dir.join(SAMPLE_NAME);
            write(&path, &unpack(SAMPLE)?)?;
            path
        }
    };
    let (program, job) = (dir.join("weather.wasm"), dir.join("job.yaml"));
    write(&program, &unpack(PROGRAM)?)?;
    write(&job, job_file(&program, &input)?.as_bytes())?;
    let demo = Demo { context, exe: exe()? };
    demo.step("1. A node starts, with an embedded store and no other service")?;
    let node = demo.start_node(&dir, &program, &input)?;
    demo.step(&format!("2. A job file goes to it: {}", job.display()))?;
    let id = demo.command(&node, &["job", "run", "--wait", "--id-only", &job.to_string_lossy()])?;
    let id = id.trim();
    demo.step("3. What happened to the job")?;
    demo.print(&node, &["job", "history", id])?;
    demo.step("4. What its program printed")?;
    demo.print(&node, &["job", "describe", id])?;
    demo.step("5. Its result is fetched, checked against its SHA-256, and unpacked")?;
    let result = dir.join("result");
    demo.print(&node, &["job", "get", id, "-o", &result.to_string_lossy()])?;
    demo.print(&node, &["results", "list", "--wide"])?;
    demo.step("6. The quota that it is kept under")?;
    demo.print(&node, &["results", "df"])?;
    node.stop();
    demo.step("Done")?;
    context.out.line(&format!("The result lies in {}:", result.display()))?;
    let mut files = Vec::new();
    list(&result, &mut files);
    for file in files {
        context.out.line(&format!("  {}", file.display()))?;
    }
    if let Ok(report) = fs::read_to_string(result.join("outputs/report.txt")) {
        context.out.line("")?;
        context.out.program_output(&report, false)?;
    }
    context.out.line("")?;
    context.out.line(&format!(
        "The node has stopped. Its data are in {}; remove it when you like.",
        dir.display()
    ))?;
    Ok(Exit::Ok)
}

fn working_directory(wanted: Option<&Path>) -> Result<PathBuf, CliError> {
    let dir = match wanted {
        Some(dir) => std::path::absolute(dir).map_err(|error| cannot_create(dir, error))?,
        None => std::env::temp_dir().join(format!("codling-demo-{}", uuid::Uuid::new_v4().simple())),
    };
    if dir.exists() {
        let what = format!("{} exists already", dir.display());
        return Err(CliError::new(Exit::CannotCreate, what).hint("name another with --dir"));
    }
    create_private_dir(&dir).map_err(|error| cannot_create(&dir, error))?;
    // Paths of inputs are compared after links are resolved.
    dir.canonicalize().map_err(|error| cannot_create(&dir, error))
}

fn cannot_create(path: &Path, error: std::io::Error) -> CliError {
    CliError::caused(Exit::CannotCreate, format!("cannot create {}", path.display()), error)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    fs::write(path, bytes).map_err(|error| cannot_create(path, error))
}

/// What the build packed.
fn unpack(gzip: &[u8]) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(gzip)
        .read_to_end(&mut bytes)
        .map_err(|error| CliError::caused(Exit::Internal, "this program is damaged", error))?;
    Ok(bytes)
}

fn exe() -> Result<PathBuf, CliError> {
    std::env::current_exe()
        .map_err(|error| CliError::caused(Exit::Internal, "cannot find this program", error))
}

/// The job, in Bacalhau 1.9's form.
fn job_file(program: &Path, input: &Path) -> Result<String, CliError> {
    let local = |target: &str, path: &Path| json!({ "Target": target, "Source": { "Type": "localDirectory", "Params": { "SourcePath": path } } });
    let name = input.file_name().unwrap_or_default().to_string_lossy();
    let job = json!({
        "Name": "weather",
        "Type": "batch",
        "Count": 1,
        "Tasks": [{
            "Name": "main",
            "Engine": { "Type": "wasm", "Params": { "EntryModule": "/program/weather.wasm", "Entrypoint": "_start" } },
            "InputSources": [local("/program/weather.wasm", program), local(&format!("/inputs/{name}"), input)],
            "ResultPaths": [{ "Name": "outputs", "Path": "/outputs" }],
            "Publisher": { "Type": "local" },
            "Resources": { "CPU": "500m", "Memory": "64Mi", "Disk": "64Mi" },
            "Timeouts": { "ExecutionTimeout": 600 },
        }],
    });
    yaml(&job)
}

fn yaml(value: &serde_json::Value) -> Result<String, CliError> {
    yaml_serde::to_string(value)
        .map_err(|error| CliError::caused(Exit::Internal, "cannot encode a file", error))
}

fn list(dir: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            list(&path, files);
        } else {
            files.push(path);
        }
    }
}

struct Demo<'a> {
    context: &'a Context<'a>,
    exe: PathBuf,
}

impl Demo<'_> {
    fn step(&self, text: &str) -> Result<(), CliError> {
        self.context.out.line("")?;
        self.context.out.line(&format!("== {text}"))
    }

    fn start_node(&self, dir: &Path, program: &Path, input: &Path) -> Result<Node, CliError> {
        let config = dir.join("config.yaml");
        let settings = json!({
            "DataDir": dir.join("node"),
            "API": { "Port": 0 },
            "Compute": { "AllowListedLocalPaths": [program, input] },
            "Publishers": { "Types": { "Local": { "Port": 0 } } },
        });
        write(&config, yaml(&settings)?.as_bytes())?;
        let mut command = Command::new(&self.exe);
        self.context.out.line(&format!("$ codling serve --config {}", config.display()))?;
        command.arg("serve").arg("--config").arg(&config);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let failed = |error| CliError::caused(Exit::Unavailable, "the node does not start", error);
        let mut child = command.spawn().map_err(failed)?;
        let log = child.stderr.take();
        let mut node = Node { child, api: String::new() };
        let address = log.map(BufReader::new).and_then(|log| self.wait_ready(log));
        node.api = address.ok_or_else(|| CliError::new(Exit::Unavailable, "the node does not start"))?;
        Ok(node)
    }

    /// Shows the node's log until it is ready, and returns the address of its API.
    fn wait_ready(&self, mut log: BufReader<ChildStderr>) -> Option<String> {
        let mut line = String::new();
        while log.read_line(&mut line).is_ok_and(|n| n > 0) {
            self.context.out.note(line.trim_end());
            if let Some((_, rest)) = line.split_once("ready: API on ") {
                let address = rest.split(',').next().unwrap_or_default().trim().to_owned();
                // Nobody waits for the rest, but the pipe must not fill up.
                std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
                return Some(address);
            }
            line.clear();
        }
        None
    }

    /// Runs a command of this program against the node, shows it, and returns what it printed.
    fn command(&self, node: &Node, args: &[&str]) -> Result<String, CliError> {
        self.context.out.line(&format!("$ codling {}", args.join(" ")))?;
        let output = Command::new(&self.exe)
            .args(args)
            .env("BACALHAU_API_HOST", &node.api)
            .env_remove("BACALHAU_API_PORT")
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| CliError::caused(Exit::Internal, "cannot run this program", error))?;
        if !output.status.success() {
            return Err(CliError::new(Exit::Unavailable, format!("`codling {}` failed", args.join(" "))));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn print(&self, node: &Node, args: &[&str]) -> Result<(), CliError> {
        let text = self.command(node, args)?;
        self.context.out.program_output(&text, false)
    }
}

/// The node of the demonstration: it ends with it, however that ends.
struct Node {
    child: Child,
    api: String,
}

impl Node {
    fn stop(mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw)
            && rustix::process::kill_process(pid, rustix::process::Signal::TERM).is_ok()
        {
            // It ends within its own deadline; dropping kills whatever is left.
            let _ = self.child.wait();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
