//! Whether a node is healthy: it is ready, and a job runs from its submission to its verified result.

use std::path::PathBuf;
use std::time::Instant;

use base64::Engine as _;
use serde_json::{Value, json};

use crate::cli::Context;
use crate::cli::answers::{NodeInfo, read};
use crate::cli::client::Client;
use crate::cli::exit::CliError;
use crate::cli::job::run_and_get;

/// A program that writes [`SAYS`] to its standard output; [`tests`] have its text.
const PROGRAM: &[u8] = include_bytes!("selftest.wasm");

/// What it says.
const SAYS: &str = "codling self-test\n";

/// Before those that wait.
const PRIORITY: i32 = 1_000;

/// Its result is of no use to anybody afterwards.
const RETENTION: &str = "1h";

/// Tries the node once; the job may take until `deadline`. Ok with a word about what was left out.
pub(super) fn check(
    client: &Client,
    context: &Context<'_>,
    deadline: Instant,
) -> Result<Option<String>, String> {
    let client = client.until(Some(deadline));
    client.ready().map_err(|error| told(error.doing("see the node ready")))?;
    let answer = client.get("agent/node", &[]).map_err(|error| told(error.doing("ask the node")))?;
    let info: NodeInfo = read(&client, &answer).map_err(|error| told(error.doing("ask the node")))?;
    let engines = info.compute.map(|compute| compute.execution_engines).unwrap_or_default();
    if !engines.iter().any(|engine| engine.eq_ignore_ascii_case("wasm")) {
        return Ok(Some("the node has no WASM engine: it is ready, but no job was run".into()));
    }
    let into = Scratch::new();
    run_and_get(&job(), &into.0, &client, context, deadline).map_err(told)?;
    match std::fs::read_to_string(into.0.join("stdout")) {
        Ok(said) if said == SAYS => Ok(None),
        Ok(said) => Err(format!("the self-test job wrote {said:?}")),
        Err(error) => Err(format!("the self-test job's result has no stdout: {error}")),
    }
}

fn job() -> Value {
    let module = base64::engine::general_purpose::STANDARD.encode(PROGRAM);
    json!({
        "Name": "codling-self-test",
        "Type": "batch",
        "Count": 1,
        "Priority": PRIORITY,
        "Labels": { "codling/retention": RETENTION },
        "Tasks": [{
            "Name": "main",
            "Engine": { "Type": "wasm", "Params": {
                "EntryModule": { "Source": { "Type": "inline", "Params": {
                    "URL": format!("data:application/wasm;base64,{module}"),
                } } },
                "Entrypoint": "_start",
            } },
            "Publisher": { "Type": "local" },
            "Resources": { "CPU": "10m", "Memory": "1Mi", "Disk": "64Ki" },
            "Timeouts": { "ExecutionTimeout": 60 },
        }],
    })
}

/// An error in one line.
fn told(error: CliError) -> String {
    match error {
        CliError::Failed(failed) => failed.to_string(),
        CliError::PipeClosed => "the link was closed".into(),
    }
}

/// A name for a directory that goes with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("codling-self-test-{}", uuid::Uuid::new_v4().simple())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // If it is not there, nothing was fetched.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The program's source.
    const TEXT: &str = r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func $w (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 16) "codling self-test\n")
        (func (export "_start")
            (i32.store (i32.const 0) (i32.const 16))
            (i32.store (i32.const 4) (i32.const 18))
            (drop (call $w (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;

    #[test]
    fn the_program_is_what_its_source_gives() {
        let built = wat::parse_str(TEXT).unwrap();
        if std::env::var_os("CODLING_WRITE").is_some() {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cli/update/selftest.wasm");
            std::fs::write(path, &built).unwrap();
        }
        assert_eq!(built, PROGRAM);
    }
}
