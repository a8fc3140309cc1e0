//! From a job file to unpacked files: issue items 7 and 10.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use serde_json::json;

use crate::jobs;
use crate::node::{Dir, Node, text};

/// Writes one file below the output directory.
fn writes_output() -> serde_json::Value {
    let mut job = jobs::wasm(
        r#"(module
        (import "wasi_snapshot_preview1" "path_open"
          (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_write" (func $w (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 100) "out/result.txt")
        (data (i32.const 200) "forty-two\n")
        (func (export "_start")
          (if (call $open (i32.const 3) (i32.const 0) (i32.const 100) (i32.const 14) (i32.const 9)
                (i64.const -1) (i64.const -1) (i32.const 0) (i32.const 16)) (then unreachable))
          (i32.store (i32.const 0) (i32.const 200))
          (i32.store (i32.const 4) (i32.const 10))
          (if (call $w (i32.load (i32.const 16)) (i32.const 0) (i32.const 1) (i32.const 8)) (then unreachable))))"#,
    );
    job["Tasks"][0]["ResultPaths"] = json!([{ "Name": "outputs", "Path": "/out" }]);
    job
}

#[test]
fn a_job_file_becomes_files_on_the_users_disk() {
    let dir = Dir::new();
    let node = Node::start(&dir.join("data"), &[]);
    let file = dir.join("job.json");
    std::fs::write(&file, writes_output().to_string()).unwrap();
    let output = node.cli(&["job", "run", file.to_str().unwrap(), "--wait", "--id-only"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let id = text(&output.stdout).trim().to_owned();
    assert!(id.starts_with("j-"), "{id}");
    let out = dir.join("got");
    node.ok(&["job", "get", &id, "-o", out.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(out.join("outputs/result.txt")).unwrap(), "forty-two\n");
    assert_eq!(std::fs::read_to_string(out.join("exitCode")).unwrap(), "0");
    assert_eq!(std::fs::read(out.join("stdout")).unwrap(), b"");
    // A second time into the same place: refused, nothing overwritten.
    let again = node.cli(&["job", "get", &id, "-o", out.to_str().unwrap()]);
    assert!(!again.status.success());
    // The same by a short id, and as GNU tar sees it.
    let (_, results) = node.get(&format!("/api/v1/orchestrator/jobs/{}/results", &id[..10]));
    let (_, archive) = crate::node::http("GET", results["Items"][0]["Params"]["URL"].as_str().unwrap(), None);
    let path = dir.join("a.tar.gz");
    std::fs::write(&path, archive).unwrap();
    let list = Command::new("tar").arg("-tzf").arg(&path).output().unwrap();
    assert!(list.status.success(), "{}", text(&list.stderr));
    let names: Vec<String> = text(&list.stdout).lines().map(|l| l.trim_end_matches('/').to_owned()).collect();
    assert_eq!(names, [".", "exitCode", "outputs", "outputs/result.txt", "stderr", "stdout"]);
}

/// Passes connections on to the results server and cuts the first one after `cut` bytes.
fn flaky_proxy(target: String, cut: usize) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for (n, client) in listener.incoming().enumerate() {
            let (mut client, target) = (client.unwrap(), target.clone());
            std::thread::spawn(move || {
                let mut server = TcpStream::connect(target).unwrap();
                let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
                if n == 0 {
                    let mut part = vec![0; cut];
                    if server.read_exact(&mut part).is_ok() {
                        let _ = client.write_all(&part);
                    }
                    let _ = client.shutdown(std::net::Shutdown::Both);
                } else {
                    let _ = std::io::copy(&mut server, &mut client);
                }
            });
        }
    });
    port
}

#[test]
fn a_broken_link_is_resumed_and_the_digest_is_checked() {
    let dir = Dir::new();
    let node = Node::start(&dir.join("data"), &[]);
    let id = node.submit(&jobs::noise(3));
    node.wait_state(&id, &["Completed"]);
    let data = node.data.clone();
    drop(node);
    // The board gets another port and advertises a bad link to it: stored results follow at once.
    let results_port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let relay = flaky_proxy(format!("127.0.0.1:{results_port}"), 1_000_000);
    let node = Node::start(
        &data,
        &[
            "-c",
            &format!("Publishers.Types.Local.Address=127.0.0.1:{relay}"),
            "--local-publisher-port",
            &results_port.to_string(),
        ],
    );
    let (_, results) = node.get(&format!("/api/v1/orchestrator/jobs/{id}/results"));
    let url = results["Items"][0]["Params"]["URL"].as_str().unwrap();
    assert!(url.starts_with(&format!("http://127.0.0.1:{relay}/")), "{url}");
    let out = dir.join("got");
    node.ok(&["job", "get", &id, "-o", out.to_str().unwrap()]);
    assert_eq!(std::fs::metadata(out.join("stdout")).unwrap().len(), 3 << 20);
}
