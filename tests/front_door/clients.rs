//! Programs that are not ours, held against a node: issue 5, item 5.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::jobs;
use crate::node::{Dir, Node, text};

/// Brings one of the clients, if it is not there yet; returns the directory of all of them.
pub fn bring(client: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(root.join("tests/clients/setup.sh")).arg(client).output().unwrap();
    assert!(output.status.success(), "setup.sh {client}: {}", text(&output.stderr));
    root.join("target/clients")
}

/// Runs a script in the virtual environment against that node.
fn python(node: &Node, home: &Path, script: &str, arguments: &[PathBuf]) -> Output {
    let (host, port) = node.api.split_once("://").unwrap().1.rsplit_once(':').unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(script);
    Command::new(bring("python").join("venv/bin/python"))
        .arg(script)
        .args(arguments)
        .env("BACALHAU_API_HOST", host)
        .env("BACALHAU_API_PORT", port)
        .env("BACALHAU_DIR", home)
        .output()
        .unwrap()
}

#[test]
fn the_python_sdk_drives_a_job_from_submission_to_unpacked_result() {
    let dir = Dir::new();
    let node = Node::start(&dir.join("data"), &[]);
    let modules = [("hello.wasm", jobs::print_wat("hello from wasm")), ("endless.wasm", jobs::LOOP.into())];
    let modules = modules.map(|(name, wat)| {
        let path = dir.join(name);
        std::fs::write(&path, wat::parse_str(wat).unwrap()).unwrap();
        path
    });
    let output = python(&node, &dir.0, "sdk.py", &modules);
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    assert!(text(&output.stdout).contains("the SDK ran j-"), "{}", text(&output.stdout));
}
