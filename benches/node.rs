//! What a node costs: size of the program, start, memory and writes while idle, no-op jobs end to end.
//!
//! `cargo bench --bench node` (add `-- --quick` for a short run). Prints figures, asserts none.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a program that measures and prints")]

mod harness;

use std::time::{Duration, Instant};

use serde_json::Value;

use harness::{CODLING, NOOP, Node, agent};

/// `n` jobs by `clients` clients, each to its end.
fn run(node: &Node, clients: usize, n: usize) {
    let job = harness::job(NOOP);
    std::thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                let agent = agent();
                for _ in 0..n / clients {
                    let id = node.submit(&agent, &job);
                    assert_eq!(node.ended(&agent, &id), "Completed");
                }
            });
        }
    });
}

/// The same; prints rate and what each cost.
fn jobs(node: &Node, clients: usize, n: usize, past: &str) {
    let stats = || node.call(&agent(), "GET", "/api/v1/codling/stats", None);
    let (written, state, before, begin) =
        (node.io("write_bytes"), node.state_bytes(), stats(), Instant::now());
    run(node, clients, n);
    let seconds = begin.elapsed().as_secs_f64();
    let after = stats();
    let commits = |stats: &Value| stats["DurableCommits"].as_u64().unwrap_or(0);
    println!(
        "no-op jobs, {clients:2} client(s), {n}: {:7.1} jobs/s, {:4.2} durable commits/job, {:6.1} KB state/job, {:6.1} KB written in all/job{past}",
        n as f64 / seconds,
        (commits(&after) - commits(&before)) as f64 / n as f64,
        (node.state_bytes() - state) as f64 / 1000.0 / n as f64,
        (node.io("write_bytes") - written) as f64 / 1000.0 / n as f64,
    );
}

fn main() {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let data = harness::directory("node");
    let size = std::fs::metadata(CODLING).expect("built").len();
    println!("program: {:.2} MB", size as f64 / 1e6);
    let node = Node::start(&data, &[]);
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
    let n = 320;
    for (clients, past) in [(1, ""), (4, ""), (16, ""), (1, "; for each result that comes one goes")] {
        jobs(&node, clients, n, past);
    }
    if !quick {
        // Beyond the bounds of what is remembered: 1000 results that went, then 10,000 jobs.
        run(&node, 16, 1120);
        jobs(&node, 1, n, "; and one that went is forgotten");
        run(&node, 16, 8000);
        // They leave in steps: four of them.
        jobs(&node, 1, 1024, "; and a job leaves");
    }
    println!(
        "after them: PSS {} KiB, private dirty {} KiB",
        node.memory("Pss:"),
        node.memory("Private_Dirty:")
    );
    let size = |file: &str| std::fs::metadata(data.join(file)).map_or(0.0, |found| found.len() as f64 / 1e6);
    println!(
        "databases: executions {:.1} MB, jobs {:.1} MB",
        size("compute/executions.db"),
        size("orchestrator/jobs.db")
    );
    drop(node);
    let _ = std::fs::remove_dir_all(&data);
}
