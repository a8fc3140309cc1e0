//! `codling wasm run`: a program becomes a job, runs, and leaves its result.

use crate::jobs;
use crate::node::{Dir, Node, text};

/// Writes its arguments, one after the other and each with a NUL, then the first byte of each file that it is given, to
/// the file `out/said`.
const SAYS: &str = r#"(module
    (import "wasi_snapshot_preview1" "args_sizes_get" (func $sizes (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_get" (func $env (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_sizes_get" (func $env_sizes (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_read" (func $r (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $w (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_open"
      (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (memory (export "memory") 2)
    (data (i32.const 100) "in/data.txt")
    (data (i32.const 120) "out/said")
    (func $put (param $fd i32) (param $at i32) (param $len i32)
      (i32.store (i32.const 0) (local.get $at))
      (i32.store (i32.const 4) (local.get $len))
      (if (call $w (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8)) (then unreachable)))
    (func (export "begin") (local $out i32)
      (if (call $open (i32.const 3) (i32.const 0) (i32.const 120) (i32.const 8) (i32.const 9)
            (i64.const -1) (i64.const -1) (i32.const 0) (i32.const 16)) (then unreachable))
      (local.set $out (i32.load (i32.const 16)))
      (drop (call $sizes (i32.const 20) (i32.const 24)))
      (drop (call $args (i32.const 1024) (i32.const 2048)))
      (call $put (local.get $out) (i32.const 2048) (i32.load (i32.const 24)))
      (drop (call $env_sizes (i32.const 20) (i32.const 24)))
      (drop (call $env (i32.const 1024) (i32.const 4096)))
      (call $put (local.get $out) (i32.const 4096) (i32.load (i32.const 24)))
      (if (call $open (i32.const 3) (i32.const 0) (i32.const 100) (i32.const 11) (i32.const 0)
            (i64.const 2) (i64.const 2) (i32.const 0) (i32.const 16)) (then unreachable))
      (i32.store (i32.const 0) (i32.const 8192))
      (i32.store (i32.const 4) (i32.const 100))
      (drop (call $r (i32.load (i32.const 16)) (i32.const 0) (i32.const 1) (i32.const 8)))
      (call $put (local.get $out) (i32.const 8192) (i32.load (i32.const 8)))))"#;

fn module(dir: &Dir, name: &str, wat: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, wat::parse_str(wat).unwrap()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_program_gets_its_arguments_variables_and_files_and_leaves_a_result() {
    let dir = Dir::new();
    let node = Node::start(&dir.join("data"), &[]);
    let program = module(&dir, "says.wasm", SAYS);
    assert!(std::fs::metadata(&program).unwrap().len() > 512, "it is sent packed");
    let data = dir.join("data.txt");
    std::fs::write(&data, "from a file").unwrap();
    let id = node.ok(&[
        "wasm",
        "run",
        &program,
        "one",
        "--entry-point",
        "begin",
        "--wait",
        "--id-only",
        "-e",
        "COLOUR=green",
        "-i",
        &format!("{}:/in/data.txt", data.display()),
        "-o",
        "out:/out",
        "-p",
        "local",
        "--memory",
        "16Mi",
        "-l",
        "team=field",
        "--name",
        "says",
        "--",
        "--two",
    ]);
    let id = id.trim();
    let out = dir.join("got");
    node.ok(&["job", "get", id, "-o", out.to_str().unwrap()]);
    let said = std::fs::read_to_string(out.join("out/said")).unwrap();
    let parts: Vec<&str> = said.split('\0').collect();
    assert_eq!(parts[..3], ["", "one", "--two"], "{said:?}");
    assert!(parts.contains(&"COLOUR=green") && said.ends_with("from a file"), "{said:?}");
    let job = node.job(id);
    assert_eq!((&job["Name"], &job["Labels"]["team"]), (&"says".into(), &"field".into()));
}

#[test]
fn a_small_program_is_followed_and_its_exit_status_told() {
    let dir = Dir::new();
    let node = Node::start(&dir.join("data"), &[]);
    let hello = module(&dir, "hello.wasm", &jobs::print_wat("hello\n"));
    assert_eq!(node.ok(&["wasm", "run", "-f", &hello]), "hello\n");
    let fails = r#"(module (memory (export "memory") 1) (func (export "_start") unreachable))"#;
    let failed = node.cli(&["wasm", "run", "--wait", "-q", &module(&dir, "fails.wasm", fails)]);
    assert_eq!(failed.status.code(), Some(1), "{}", text(&failed.stderr));
    // What --dry-run prints is a job file.
    let job = dir.join("job.yaml");
    std::fs::write(&job, node.ok(&["wasm", "run", "--dry-run", &hello])).unwrap();
    assert_eq!(node.ok(&["job", "run", "--follow", job.to_str().unwrap()]), "hello\n");
}

#[test]
fn what_is_no_program_is_told_before_anything_is_sent() {
    let dir = Dir::new();
    let node = Node::start(&dir.join("data"), &[]);
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(dir.join(name), bytes).unwrap();
        dir.join(name).to_str().unwrap().to_owned()
    };
    let elf = write("elf", b"\x7fELF");
    // A module with a custom section of noise: whole, but it does not pack to what a job can hold.
    let mut noise = b"\0asm\x01\0\0\0\0\x80\x80\x80\x05\x01x".to_vec();
    let mut random = std::io::Read::take(std::fs::File::open("/dev/urandom").unwrap(), (10 << 20) - 2);
    std::io::Read::read_to_end(&mut random, &mut noise).unwrap();
    let large = write("large.wasm", &noise);
    let missing = dir.join("missing.wasm").to_str().unwrap().to_owned();
    for (path, code, said) in [
        (&missing, 66, "cannot read"),
        (&elf, 65, "is not a WASM module"),
        (&large, 65, "too large to be sent within a job"),
    ] {
        let output = node.cli(&["wasm", "run", path]);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{error}");
        assert!(error.contains(said), "{error}");
    }
    assert!(
        text(&node.cli(&["wasm", "run", &large]).stderr).contains("hint: put it where the node can fetch it")
    );
    assert_eq!(node.get("/api/v1/orchestrator/jobs").1["Items"], serde_json::json!([]));
}
