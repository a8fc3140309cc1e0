//! For tests: a real HTTP server on a thread, whose answers a closure scripts, and streams that remember.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::out::Out;
use super::target::{ConnectArgs, Target};

/// What a client asked.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET /path HTTP/1.1`.
    pub line: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    pub fn path(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// What the server answers.
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    cut: Option<usize>,
    endless: bool,
    announced: Option<u64>,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), cut: None, endless: false, announced: None }
    }

    pub fn json(body: impl Into<String>) -> Self {
        Self::new(200, body.into()).header("Content-Type", "application/json")
    }

    /// A JSON text without an end.
    pub fn endless() -> Self {
        Self { endless: true, ..Self::new(200, "\"") }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Announces the whole body and closes the connection after `n` bytes of it.
    pub fn cut_after(mut self, n: usize) -> Self {
        self.cut = Some(n);
        self
    }

    /// Says that the body has this many bytes.
    pub fn announce(mut self, length: u64) -> Self {
        self.announced = Some(length);
        self
    }

    /// Answers the range that was asked for, if `If-Range` holds this tag; otherwise everything.
    pub fn file(request: &Request, body: &[u8], etag: &str) -> Self {
        let start = request
            .header("range")
            .filter(|_| request.header("if-range") == Some(etag))
            .and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
        match start {
            Some(start) if start < body.len() => Self::new(206, &body[start..])
                .header("Content-Range", &format!("bytes {start}-{}/{}", body.len() - 1, body.len()))
                .header("ETag", etag),
            Some(_) => Self::new(416, "").header("Content-Range", &format!("bytes */{}", body.len())),
            None => Self::new(200, body).header("ETag", etag),
        }
    }

    fn send(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        let mut head = format!("HTTP/1.1 {} Status\r\nConnection: close\r\n", self.status);
        if !self.endless {
            let length = self.announced.unwrap_or(self.body.len() as u64);
            head.push_str(&format!("Content-Length: {length}\r\n"));
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes())?;
        stream.write_all(&self.body[..self.cut.unwrap_or(self.body.len()).min(self.body.len())])?;
        if self.endless {
            // Ends when the client closes the connection.
            let filler = vec![b'x'; 1 << 20];
            loop {
                stream.write_all(&filler)?;
            }
        }
        Ok(())
    }
}

/// A server on a free port of the loopback.
pub struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(script: impl Fn(&Request) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (seen, stopped) = (Arc::clone(&requests), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let mut stream = stream.unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
                stream.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
                if let Some(request) = read_request(&mut stream) {
                    seen.lock().unwrap().push(request.clone());
                    // A client that goes away early is part of some tests.
                    let _ = script(&request).send(&mut stream);
                }
            }
        });
        Self { address, requests, stop, thread: Some(thread) }
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    pub fn target(&self) -> Target {
        let env = |name: &str| (name == "BACALHAU_API_KEY").then(|| "test-token".to_owned());
        self.connect().target(&env).unwrap()
    }

    pub fn connect(&self) -> ConnectArgs {
        ConnectArgs {
            api_host: Some(self.address.ip().to_string()),
            api_port: Some(self.address.port()),
            ..ConnectArgs::default()
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Runs a whole command line against this server.
    pub fn run(&self, args: &[&str]) -> Captured {
        self.run_with_stdin(args, b"")
    }

    pub fn run_with_stdin(&self, args: &[&str], stdin: &[u8]) -> Captured {
        let (host, port) = (self.address.ip().to_string(), self.address.port().to_string());
        run(args, stdin, &move |name| match name {
            "BACALHAU_API_HOST" => Some(host.clone()),
            "BACALHAU_API_PORT" => Some(port.clone()),
            _ => None,
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the accept.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Runs a whole command line with a given environment and standard input; `codling` is put before it.
pub fn run(args: &[&str], stdin: &[u8], env: &dyn Fn(&str) -> Option<String>) -> Captured {
    let captured = Captured::new();
    let mut context = super::Context {
        out: captured.out(),
        env,
        pace: super::Pace { poll: Duration::from_millis(1), retry: Duration::from_millis(1) },
        stdin: RefCell::new(Box::new(std::io::Cursor::new(stdin.to_vec()))),
    };
    let args = std::iter::once("codling").chain(args.iter().copied()).map(Into::into);
    let exit = super::run(args, &mut context);
    Captured { exit: exit.code(), ..captured }
}

/// Calls something with the surroundings of a command that nobody watches.
pub fn with_context<T>(call: impl FnOnce(&super::Context<'_>) -> T) -> T {
    call(&super::Context {
        out: Captured::new().out(),
        env: &|_| None,
        pace: super::Pace { poll: Duration::from_millis(1), retry: Duration::from_millis(1) },
        stdin: RefCell::new(Box::new(std::io::empty())),
    })
}

fn read_request(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 * 1024];
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break end;
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(n) => bytes.extend_from_slice(&buffer[..n]),
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap().to_owned();
    let headers: Vec<(String, String)> = lines
        .map(|l| l.split_once(':').unwrap())
        .map(|(n, v)| (n.trim().to_owned(), v.trim().to_owned()))
        .collect();
    let mut body = bytes[end + 4..].to_vec();
    let header =
        |name: &str| headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.clone());
    let length: usize = header("content-length").map_or(0, |v| v.parse().unwrap());
    while body.len() < length {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(n) => body.extend_from_slice(&buffer[..n]),
        }
    }
    Some(Request { line, headers, body })
}

#[derive(Clone, Default)]
struct Shared(Rc<RefCell<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What a command printed, and its exit status.
pub struct Captured {
    stdout: Shared,
    stderr: Shared,
    pub exit: u8,
}

impl Captured {
    pub fn new() -> Self {
        Self { stdout: Shared::default(), stderr: Shared::default(), exit: 0 }
    }

    pub fn out(&self) -> Out {
        Out::to(Box::new(self.stdout.clone()), Box::new(self.stderr.clone()))
    }

    pub fn stdout(&self) -> String {
        String::from_utf8(self.stdout.0.borrow().clone()).unwrap()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8(self.stderr.0.borrow().clone()).unwrap()
    }

    /// Fails the test, showing everything, unless the status is `exit`.
    pub fn expect(self, exit: u8) -> Self {
        assert_eq!(self.exit, exit, "\nstdout: {}\nstderr: {}", self.stdout(), self.stderr());
        self
    }
}

/// A directory of its own for each test, removed with it.
pub struct Scratch(pub std::path::PathBuf);

impl Scratch {
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!("codling-cli-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
