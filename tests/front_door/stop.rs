//! How a node ends, and what it tells the service manager.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::jobs;
use crate::node::{Dir, Node, PATIENCE, eventually};

/// The job's only execution is at work.
fn at_work(node: &Node, id: &str) {
    node.wait_state(id, &["Running"]);
    eventually("a directory", || std::fs::read_dir(node.data.join("scratch")).unwrap().next().map(|_| ()));
}

#[test]
fn what_is_in_hand_may_end_and_nothing_new_is_taken() {
    let dir = Dir::new();
    let data = dir.join("data");
    let mut node = Node::start(&data, &["-c", "Compute.StopTimeout=10m", "-c", "Compute.MaxExecutions=1"]);
    let running = node.submit(&jobs::sleeps(6, "ended by itself\n"));
    let waiting = node.submit(&jobs::hello("later\n"));
    at_work(&node, &running);
    node.signal("TERM");
    node.wait_log("stopping: what is in hand");
    let (status, answer) = node.get("/readyz");
    assert_eq!((status, &answer["Details"]["stopping"]), (503, &"the node is stopping".into()));
    assert_eq!(node.get("/livez").0, 200);
    let body = serde_json::json!({ "Job": jobs::hello("too late") }).to_string();
    let (status, answer) = node.call("PUT", "/api/v1/orchestrator/jobs", Some(&body));
    assert_eq!(status, 503, "{answer}");
    assert!(answer["Message"].as_str().unwrap().contains("stopping"), "{answer}");
    assert_eq!(node.state(&running), "Running", "questions are answered");
    assert!(node.wait().success());

    let node = Node::start(&data, &[]);
    assert_eq!(node.state(&running), "Completed");
    assert_eq!(node.executions(&running).len(), 1);
    assert_eq!(node.executions(&running)[0]["RunOutput"]["Stdout"], "ended by itself\n");
    node.wait_state(&waiting, &["Completed"]);
}

#[test]
fn what_does_not_end_in_time_is_cut_off_and_run_again() {
    let dir = Dir::new();
    let data = dir.join("data");
    let mut node = Node::start(&data, &["-c", "Compute.StopTimeout=200ms"]);
    let id = node.submit(&jobs::wasm(jobs::LOOP));
    at_work(&node, &id);
    node.signal("INT");
    node.wait_log("1 execution(s) are cut off");
    assert!(node.wait().success());
    let node = Node::start(&data, &[]);
    eventually("another execution", || (node.executions(&id).len() == 2).then_some(()));
    assert!(node.history(&id).iter().any(|m| m.contains("the node restarted while it ran")));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let dir = Dir::new();
    let data = dir.join("data");
    let mut node = Node::start(&data, &["-c", "Compute.StopTimeout=10m"]);
    let done = node.submit(&jobs::hello("kept\n"));
    node.wait_state(&done, &["Completed"]);
    let id = node.submit(&jobs::wasm(jobs::LOOP));
    at_work(&node, &id);
    node.signal("TERM");
    node.wait_log("stopping: what is in hand");
    node.signal("TERM");
    node.wait_log("ends at once");
    assert_eq!(node.wait().code(), Some(143));
    let node = Node::start(&data, &[]);
    assert_eq!(node.state(&done), "Completed");
    eventually("another execution", || (node.executions(&id).len() == 2).then_some(()));
}

#[test]
fn a_download_in_hand_is_finished() {
    let dir = Dir::new();
    let data = dir.join("data");
    let mut node = Node::start(&data, &["-c", "Compute.MaxLogSize=64MiB", "-c", "Compute.StopTimeout=10m"]);
    let id = node.submit(&jobs::noise(48));
    node.wait_state(&id, &["Completed"]);
    let execution = node.executions(&id)[0]["ID"].as_str().unwrap().to_owned();
    let host = node.results.strip_prefix("http://").unwrap().to_owned();
    let mut stream = TcpStream::connect(&host).unwrap();
    stream.set_read_timeout(Some(*PATIENCE)).unwrap();
    let request = format!("GET /{execution}.tar.gz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut first = vec![0; 1 << 16];
    stream.read_exact(&mut first).unwrap();
    node.signal("TERM");
    node.wait_log("stopping: what is in hand");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    let size = std::fs::metadata(data.join(format!("results/{execution}.tar.gz"))).unwrap().len();
    let head = first.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    assert_eq!((first.len() + rest.len() - head) as u64, size);
    assert!(node.wait().success());
}

/// The service manager's end of the socket.
struct Manager(UnixDatagram);

impl Manager {
    fn next(&self) -> String {
        self.0.set_read_timeout(Some(*PATIENCE)).unwrap();
        let mut buffer = [0; 1024];
        let length = self.0.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    fn wait_for(&self, text: &str) -> String {
        loop {
            let message = self.next();
            if message.lines().any(|line| line.starts_with(text)) {
                return message;
            }
        }
    }
}

#[test]
fn the_service_manager_hears_of_ready_life_and_stop() {
    let dir = Dir::new();
    let path = dir.join("notify");
    let name = format!("codling-it-{}", uuid::Uuid::new_v4());
    let abstract_address = SocketAddr::from_abstract_name(&name).unwrap();
    let sockets = [
        (path.to_str().unwrap().to_owned(), UnixDatagram::bind(&path).unwrap()),
        (format!("@{name}"), UnixDatagram::bind_addr(&abstract_address).unwrap()),
    ];
    for (address, socket) in sockets {
        let manager = Manager(socket);
        let env = [("NOTIFY_SOCKET", address.as_str()), ("WATCHDOG_USEC", "300000")];
        let node = Node::start_env(&dir.join("data"), &["-c", "Compute.StopTimeout=0s"], &env);
        let ready = manager.next();
        assert!(ready.starts_with("READY=1\nSTATUS=API on 127.0.0.1:"), "{ready}");
        for _ in 0..3 {
            assert_eq!(manager.next(), "WATCHDOG=1");
        }
        node.signal("TERM");
        let stopping = manager.wait_for("STOPPING=1");
        let extended = stopping.lines().find_map(|line| line.strip_prefix("EXTEND_TIMEOUT_USEC="));
        assert!(extended.unwrap().parse::<u64>().unwrap() >= 10_000_000, "{stopping}");
        assert!(node.wait().success());
    }
}
