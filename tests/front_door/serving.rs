//! Many downloads at once: nobody is told to come again, and the node's memory stays what it was.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Barrier;

use crate::jobs;
use crate::node::{Dir, Node, PATIENCE};

/// Clients at once, all from one address, as behind one router.
const CLIENTS: usize = 64;
/// How much the node may grow meanwhile, in KiB.
const RISE_MAX: u64 = 4 << 10;
const MIB: u32 = 16;

/// KiB that the node has in memory.
fn rss(node: &Node) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Asks for the archive, reads the beginning, waits at `middle` twice, reads the rest; answers the whole response.
fn download(results: &str, execution: &str, middle: &Barrier) -> Vec<u8> {
    let mut stream = TcpStream::connect(results.trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(*PATIENCE)).unwrap();
    write!(stream, "GET /{execution}.tar.gz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut begin = vec![0; 1000];
    let begun = stream.read_exact(&mut begin);
    middle.wait();
    middle.wait();
    begun.unwrap();
    stream.read_to_end(&mut begin).unwrap();
    begin
}

#[test]
fn a_crowd_behind_one_address_is_served_at_once_and_costs_no_memory() {
    let dir = Dir::new();
    let data = dir.join("data");
    let node = Node::start(&data, &[]);
    let id = node.submit(&jobs::noise(MIB));
    assert_eq!(node.wait_state(&id, &["Completed", "Failed"]), "Completed", "{}", node.job(&id));
    let execution = node.executions(&id)[0]["ID"].as_str().unwrap().to_owned();
    let size = std::fs::metadata(data.join(format!("results/{execution}.tar.gz"))).unwrap().len();
    // A node that has run nothing is what idle means. It has served one client: the program of the tests is large, and
    // what its pages take as they are used for the first time is not what a crowd costs.
    node.stop();
    let node = Node::start(&data, &[]);
    download(&node.results, &execution, &Barrier::new(1));
    let idle = rss(&node);
    let (results, middle) = (node.results.as_str(), Barrier::new(CLIENTS + 1));
    std::thread::scope(|scope| {
        let clients: Vec<_> =
            (0..CLIENTS).map(|_| scope.spawn(|| download(results, &execution, &middle))).collect();
        middle.wait();
        // All are under way: what they do not read is in the kernel's hands or still in the file.
        let crowded = rss(&node);
        middle.wait();
        for client in clients {
            let response = client.join().unwrap();
            let head = response.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
            assert!(response.starts_with(b"HTTP/1.1 200 "), "{}", crate::node::text(&response[..head]));
            assert_eq!((response.len() - head - 4) as u64, size);
        }
        let after = rss(&node);
        assert!(
            crowded.max(after) < idle + RISE_MAX,
            "{idle} KiB idle, {crowded} with all, {after} afterwards"
        );
    });
}
