//! A card that is moved from one board into another: what one processor's program wrote, the others read.

use std::path::{Path, PathBuf};

use crate::jobs;
use crate::node::{CODLING, Dir, Node, http};

/// A result, where it was made, and what it must be.
struct Made {
    job: String,
    by: String,
    size: usize,
    digest: codling::model::Sha256,
}

fn fetch(node: &Node, job: &str) -> Vec<u8> {
    let (_, results) = node.get(&format!("/api/v1/orchestrator/jobs/{job}/results"));
    let (status, bytes) = http("GET", results["Items"][0]["Params"]["URL"].as_str().unwrap(), None);
    assert_eq!(status, 200, "{results}");
    bytes
}

fn identity(data: &Path) -> String {
    std::fs::read_to_string(data.join("node.json")).unwrap()
}

/// One data directory goes from program to program: those that `CODLING_MOVES` names, one after the other and back to the
/// first (`tests/boards/targets.sh`: aarch64, ARMv7, ARMv6, x86_64), or twice the one that was built with these tests.
/// Each finds everybody's jobs, histories and results, whole, runs the same module anew, and finishes what was queued.
#[test]
fn a_data_directory_moves_between_processors() {
    let dir = Dir::new();
    let data = dir.join("data");
    let programs = std::env::var("CODLING_MOVES").unwrap_or_else(|_| CODLING.clone());
    let mut programs: Vec<&str> = programs.split(':').collect();
    programs.push(programs[0]);
    let mut made: Vec<Made> = Vec::new();
    let mut first = None;
    let mut queued: Option<String> = None;
    for program in programs {
        let node = Node::start_program(program, &data, &["-c", "Compute.MaxExecutions=1"], &[]);
        assert_eq!(*first.get_or_insert_with(|| identity(&data)), identity(&data), "{program}");
        for before in &made {
            let told = format!("made by {}, read by {program}", before.by);
            assert_eq!(node.state(&before.job), "Completed", "{told}");
            assert!(
                !node.history(&before.job).is_empty() && !node.executions(&before.job).is_empty(),
                "{told}"
            );
            let bytes = fetch(&node, &before.job);
            assert_eq!(bytes.len(), before.size, "{told}");
            assert_eq!(codling::model::Sha256::of(&bytes), before.digest, "{told}");
        }
        if let Some(job) = queued.take() {
            node.wait_state(&job, &["Completed"]);
        }
        let job = node.submit(&jobs::noise(1));
        node.wait_state(&job, &["Completed"]);
        let bytes = fetch(&node, &job);
        let (size, digest) = (bytes.len(), codling::model::Sha256::of(&bytes));
        made.push(Made { job, by: program.to_owned(), size, digest });
        // One that the next board has to begin again, and one behind it that has not begun.
        let running = node.submit(&jobs::sleeps(1, "slept"));
        node.wait_state(&running, &["Running"]);
        queued = Some(node.submit(&jobs::hello("moved")));
        node.kill();
    }
    for one in &made {
        eprintln!("moved: {} of {} bytes, made by {}", one.job, one.size, one.by);
    }
}

/// What is written to disk, or sent, has the same width everywhere: no type that is stored or encoded has a field of
/// pointer size. (Bytes in the order of the machine are kept out by clippy's `host_endian_bytes`.)
#[test]
fn nothing_that_is_stored_has_the_size_of_a_pointer() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    let mut seen = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for (at, derived) in text.match_indices("#[derive(") {
            let rest = &text[at + derived.len()..];
            let (traits, rest) = rest.split_once(")]").unwrap();
            if !traits.contains("Serialize") && !traits.contains("Deserialize") {
                continue;
            }
            seen += 1;
            let body = body(rest);
            let found =
                body.split(|c: char| !c.is_alphanumeric()).find(|word| ["usize", "isize"].contains(word));
            assert_eq!(found, None, "{}: a stored type:{body}", file.display());
        }
    }
    assert!(seen > 50, "only {seen} types were found");
}

/// A type's definition, up to its end: the brace that closes it, or the semicolon of one without braces.
fn body(rest: &str) -> &str {
    let mut depth = 0;
    for (at, c) in rest.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return &rest[..at],
            '}' => depth -= 1,
            ';' if depth == 0 => return &rest[..at],
            _ => {}
        }
    }
    rest
}

fn sources(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, files);
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
}
