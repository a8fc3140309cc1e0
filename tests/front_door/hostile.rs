//! What attack tests need: connections from other addresses, a well-behaved client, and a look at the node's costs.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};
use rustix::process::{Resource, getrlimit, setrlimit};

use codling::gate::limits::{CONNECTIONS, FOLLOWERS};

use crate::node::{Node, PATIENCE, eventually, text};

/// What the node's memory may grow by.
const GROWTH: u64 = 8 << 20;
/// File descriptors that the node may have more of in the meantime: all connections, an archive for each, all followers,
/// and those that are turned away.
const DESCRIPTORS: usize = CONNECTIONS * 2 + FOLLOWERS + 48;
/// Where the well-behaved client lives.
const GOOD: [u8; 4] = [127, 0, 0, 2];

/// For a thousand connections at once.
pub fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, ..limit }).unwrap();
}

/// A connection from that address to a base URL's port.
pub fn from(address: [u8; 4], to: &str) -> io::Result<TcpStream> {
    open(address, to, None)
}

/// The same, taking only a few bytes before they are read.
pub fn with_small_window(address: [u8; 4], to: &str) -> io::Result<TcpStream> {
    open(address, to, Some(4 << 10))
}

fn open(address: [u8; 4], to: &str, window: Option<usize>) -> io::Result<TcpStream> {
    let to: SocketAddr = to.strip_prefix("http://").unwrap().parse().unwrap();
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    if let Some(window) = window {
        sockopt::set_socket_recv_buffer_size(&socket, window)?;
    }
    bind(&socket, &SocketAddr::from((address, 0)))?;
    let to = SocketAddr::from(([127, 0, 0, 1], to.port()));
    connect(&socket, &to)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(*PATIENCE))?;
    stream.set_write_timeout(Some(*PATIENCE))?;
    Ok(stream)
}

/// A request's head with these further lines.
pub fn request(method: &str, path: &str, fields: &str) -> Vec<u8> {
    format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes()
}

pub fn get(path: &str) -> Vec<u8> {
    request("GET", path, "")
}

/// The status of the answer, read to the end of the connection; 0 if there is none.
pub fn status_of(mut stream: TcpStream) -> u16 {
    let mut answer = Vec::new();
    // A reset after the answer is no news.
    let _ = stream.read_to_end(&mut answer);
    text(&answer).split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// Whether the other side has ended the connection. Nothing is read for it.
pub fn ended(stream: &TcpStream) -> bool {
    let mut fds = [PollFd::new(stream, PollFlags::RDHUP)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap();
    !fds[0].revents().is_empty()
}

/// The time of an attack: a well-behaved client at work, and what the node cost before.
pub struct Siege {
    process: PathBuf,
    good: Arc<Good>,
    thread: Option<JoinHandle<()>>,
    memory: u64,
    threads: u64,
    descriptors: usize,
}

/// What the well-behaved client knows.
struct Good {
    api: String,
    results: String,
    path: String,
    process: PathBuf,
    over: AtomicBool,
    paused: AtomicBool,
    /// Rounds: a request on each port.
    served: AtomicU64,
    threads: AtomicU64,
    descriptors: AtomicUsize,
}

impl Good {
    fn round(&self) {
        let alive = answer(&self.api, &get_close("/api/v1/agent/alive", ""));
        assert!(alive.starts_with("HTTP/1.1 200 "), "the well-behaved client was not served: {alive:?}");
        let part = answer(&self.results, &get_close(&self.path, "Range: bytes=0-9999\r\n"));
        assert!(part.starts_with("HTTP/1.1 206 "), "the well-behaved client was not served: {part:?}");
        self.count();
        self.served.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) {
        self.threads.fetch_max(status(&self.process, "Threads"), Ordering::Relaxed);
        self.descriptors.fetch_max(descriptors(&self.process), Ordering::Relaxed);
    }

    /// Open descriptors once what has just been closed is closed on the other side, too.
    fn settled(&self) -> usize {
        let (mut last, mut same) = (0, 0);
        eventually("the node to settle", || {
            let now = descriptors(&self.process);
            self.count();
            same = if now == last { same + 1 } else { 0 };
            last = now;
            (same == 30).then_some(now)
        })
    }
}

fn get_close(path: &str, fields: &str) -> Vec<u8> {
    request("GET", path, &format!("{fields}Connection: close\r\n"))
}

/// The first of what comes back.
fn answer(to: &str, request: &[u8]) -> String {
    let mut stream = from(GOOD, to).unwrap();
    let mut answer = Vec::new();
    let asked = stream.write_all(request).and_then(|()| stream.read_to_end(&mut answer));
    match asked {
        Ok(_) => text(&answer[..answer.len().min(200)]),
        Err(error) => format!("{error}, after {} bytes", answer.len()),
    }
}

/// A number of `/proc/PID/status`.
fn status(process: &std::path::Path, name: &str) -> u64 {
    let status = std::fs::read_to_string(process.join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

impl Siege {
    /// Looks at the node when everything in it that is made on demand has been made, and sends the client to work.
    pub fn begin(node: &Node, path: &str) -> Self {
        let process = PathBuf::from(format!("/proc/{}", node.pid()));
        let good = Arc::new(Good {
            api: node.api.clone(),
            results: node.results.clone(),
            path: path.to_owned(),
            process: process.clone(),
            over: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            served: AtomicU64::new(0),
            threads: AtomicU64::new(0),
            descriptors: AtomicUsize::new(0),
        });
        // All handlers at once, and each kind of refusal.
        std::thread::scope(|scope| {
            for _ in 0..12 {
                scope.spawn(|| (0..10).for_each(|_| good.round()));
            }
        });
        for base in [&node.api, &node.results] {
            for fields in ["Content-Length: 9999999999999\r\nConnection: close\r\n", "X:\n\r\n"] {
                drop(answer(base, &request("PUT", "/api/v1/orchestrator/jobs", fields)));
            }
        }
        let descriptors = good.settled();
        let threads = good.threads.load(Ordering::Relaxed);
        good.served.store(0, Ordering::Relaxed);
        let at_work = Arc::clone(&good);
        // The kernel's mark of the most memory begins anew.
        std::fs::write(process.join("clear_refs"), "5").unwrap();
        let memory = status(&process, "VmRSS") << 10;
        let thread = std::thread::spawn(move || {
            while !at_work.over.load(Ordering::Relaxed) {
                if at_work.paused.load(Ordering::Relaxed) {
                    std::thread::park_timeout(std::time::Duration::from_millis(5));
                } else {
                    at_work.round();
                }
            }
        });
        Self { process, good, thread: Some(thread), memory, threads, descriptors }
    }

    /// Waits until the well-behaved client has been served so many times more on both ports.
    pub fn served(&self, times: u64) {
        let wanted = self.good.served.load(Ordering::Relaxed) + times;
        eventually("the well-behaved client to be served", || {
            let failed = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            (failed || self.good.served.load(Ordering::Relaxed) >= wanted).then_some(())
        });
    }

    /// Lets the client rest, for attacks that leave nothing to serve with.
    pub fn pause(&self) {
        self.good.paused.store(true, Ordering::Relaxed);
    }

    /// Lets the client go on as soon as there is something to serve it with again.
    pub fn resume_when_served(&self) {
        // Who is served comes after all that still waited to be accepted.
        let Good { api, results, path, .. } = &*self.good;
        eventually("connections to be served again", || {
            let served = [(api, "/api/v1/agent/alive"), (results, path.as_str())]
                .map(|(port, path)| answer(port, &request("HEAD", path, "Connection: close\r\n")));
            served.iter().all(|head| head.starts_with("HTTP/1.1 200 ")).then_some(())
        });
        self.given_back("before the client goes on");
        self.good.paused.store(false, Ordering::Relaxed);
    }

    /// Open descriptors of the node before.
    pub fn descriptors(&self) -> usize {
        self.descriptors
    }

    /// The attack is over: it cost next to nothing, and everything is given back.
    pub fn lifted(mut self, what: &str) {
        let threads = self.good.threads.load(Ordering::Relaxed);
        self.good.over.store(true, Ordering::Relaxed);
        let client = self.thread.take().unwrap().join();
        assert!(client.is_ok(), "{what}: the well-behaved client was not served");
        assert!(self.good.served.load(Ordering::Relaxed) > 0, "{what}: nobody was served");
        let peak = status(&self.process, "VmHWM") << 10;
        let grown = peak.saturating_sub(self.memory);
        let most = self.good.descriptors.load(Ordering::Relaxed).saturating_sub(self.descriptors);
        eprintln!("{what}: {} KiB and {most} descriptors more, {threads} threads", grown >> 10);
        assert!(grown < GROWTH, "{what}: memory grew from {} by {grown} bytes", self.memory);
        assert!(threads <= self.threads, "{what}: {threads} threads, {} before", self.threads);
        assert!(most <= DESCRIPTORS, "{what}: {most} descriptors more than the {} before", self.descriptors);
        self.given_back(what);
    }

    fn given_back(&self, what: &str) {
        eventually(&format!("{what}: all file descriptors to be given back"), || {
            (descriptors(&self.process) <= self.descriptors).then_some(())
        });
    }
}

impl Drop for Siege {
    fn drop(&mut self) {
        self.good.over.store(true, Ordering::Relaxed);
    }
}

fn descriptors(process: &std::path::Path) -> usize {
    std::fs::read_dir(process.join("fd")).unwrap().count()
}
