//! Results that several threads compress: the same bytes, and no thread afterwards.

use crate::jobs;
use crate::node::{Dir, Node, http};

/// Names of the node's threads, sorted.
fn threads(node: &Node) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", node.pid())).unwrap();
    // A thread that ends meanwhile has no name any more.
    let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).ok();
    let mut names: Vec<String> =
        tasks.flatten().filter_map(name).map(|name| name.trim().to_owned()).collect();
    names.sort();
    names
}

/// Prints 3 MiB that are the same at each run: blocks that compress, and blocks that do not.
const PRINT: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $w (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 64)
    (func (export "_start") (local $at i32) (local $x i32)
      (local.set $at (i32.const 65536))
      (local.set $x (i32.const 7))
      (loop $fill
        ;; Up to 2 MiB noise from a linear congruence, then a number that grows slowly.
        (local.set $x (i32.add (i32.mul (local.get $x) (i32.const 1664525)) (i32.const 1013904223)))
        (i32.store8 (local.get $at)
          (select (i32.shr_u (local.get $x) (i32.const 24)) (i32.shr_u (local.get $at) (i32.const 9))
            (i32.lt_u (local.get $at) (i32.const 2097152))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br_if $fill (i32.lt_u (local.get $at) (i32.const 3211264))))
      (i32.store (i32.const 0) (i32.const 65536))
      (i32.store (i32.const 4) (i32.const 3145728))
      (drop (call $w (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;

/// Runs it, and answers the archive.
fn published(node: &Node) -> Vec<u8> {
    let id = node.submit(&jobs::wasm(PRINT));
    assert_eq!(node.wait_state(&id, &["Completed", "Failed"]), "Completed", "{}", node.job(&id));
    let execution = node.executions(&id)[0]["ID"].as_str().unwrap().to_owned();
    let (status, archive) = http("GET", &format!("{}/{execution}.tar.gz", node.results), None);
    assert_eq!(status, 200);
    archive
}

#[test]
fn the_setting_changes_no_byte_and_leaves_no_thread() {
    let mut archives = Vec::new();
    for setting in ["1", "2", "8", "0"] {
        let dir = Dir::new();
        let node = Node::start(&dir.join("data"), &["-c", &format!("Results.PackThreads={setting}")]);
        let before = threads(&node);
        assert_eq!(before.iter().filter(|name| name.starts_with("packer")).count(), 1, "{before:?}");
        archives.push(published(&node));
        // Those that compressed were waited for before the result was there.
        assert!(!threads(&node).iter().any(|name| name.starts_with("packer-")), "{:?}", threads(&node));
    }
    assert!((1 << 20..3 << 20).contains(&archives[0].len()), "{}", archives[0].len());
    assert!(archives.windows(2).all(|pair| pair[0] == pair[1]));
    let dir = Dir::new();
    let (status, log) = crate::node::refused(&dir.join("data"), &["-c", "Results.PackThreads=9"], &[]);
    assert!(!status.success() && log.contains("Results.PackThreads: '9'"), "{log}");
}
