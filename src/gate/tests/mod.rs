//! The real gate before a real tiny_http, talked to over real sockets.

mod archives;
mod attacks;
mod crowds;
mod ordinary;
#[cfg(feature = "tls")]
mod tls;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::LocalSet;

use crate::config::Secret;

use super::testing::{Client, PATIENCE};
use super::*;

const BODY: u64 = 100_000;

fn rules(method: &str, path: &str) -> Rule {
    Rule { body: if method == "PUT" && path == "/large" { 10 << 20 } else { BODY }, open: path == "/open" }
}

/// A door that handlers wait at until the test opens it.
#[derive(Default)]
struct Latch(Mutex<(u32, bool)>, Condvar);

impl Latch {
    fn wait(&self) {
        let mut state = self.0.lock().unwrap();
        state.0 += 1;
        self.1.notify_all();
        while !state.1 {
            state = self.1.wait(state).unwrap();
        }
        state.0 -= 1;
        self.1.notify_all();
    }

    /// Waits until `n` handlers wait.
    fn reached(&self, n: u32) {
        let mut state = self.0.lock().unwrap();
        while state.0 < n {
            state = self.1.wait(state).unwrap();
        }
    }

    fn open(&self) {
        self.0.lock().unwrap().1 = true;
        self.1.notify_all();
    }
}

struct Node {
    address: SocketAddr,
    latch: Arc<Latch>,
    archive: PathBuf,
    stop: Option<oneshot::Sender<Duration>>,
    gate: Option<JoinHandle<()>>,
    handlers: Vec<JoinHandle<()>>,
    server: Arc<tiny_http::Server>,
    directory: PathBuf,
}

impl Node {
    fn start(limits: Limits) -> Self {
        Self::with(limits, None)
    }

    fn with(limits: Limits, token: Option<&str>) -> Self {
        Self::of(limits, token.map(|token| Token::new(Secret::parse(token).unwrap())))
    }

    fn of(limits: Limits, token: Option<Token>) -> Self {
        Self::secure(limits, token, None)
    }

    fn secure(limits: Limits, token: Option<Token>, tls: Option<Tls>) -> Self {
        let directory = std::env::temp_dir().join(format!("gate-{}", uuid::Uuid::new_v4()));
        crate::sys::fs::create_private_dir(&directory).unwrap();
        let (socket, archive) = (directory.join("s"), directory.join("archive"));
        let listener = UnixListener::bind(&socket).unwrap();
        let server = Arc::new(tiny_http::Server::from_listener(listener, None).unwrap());
        let (latch, parcels) = (Arc::new(Latch::default()), Parcels::new());
        let handlers = (0..limits::INNER_CONNECTIONS)
            .map(|_| {
                let (server, latch) = (Arc::clone(&server), Arc::clone(&latch));
                let (parcels, archive) = (parcels.clone(), archive.clone());
                std::thread::spawn(move || {
                    while let Ok(request) = server.recv() {
                        handle(request, &latch, &parcels, &archive);
                    }
                })
            })
            .collect();
        let inner = InnerAddress::default();
        inner.set(socket);
        let listeners = vec![bind("127.0.0.1:0".parse().unwrap()).unwrap()];
        let address = listeners[0].local_addr().unwrap();
        let sites = vec![Site { name: "test", listeners, rules }];
        let logs = crate::logs::none(&directory);
        let settings = GateSettings { limits, sites, inner, parcels, logs, token, tls };
        let (stop, stopped) = oneshot::channel();
        let gate = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            LocalSet::new().block_on(&runtime, async move {
                let gate = open(settings).unwrap();
                if let Ok(patience) = stopped.await {
                    gate.close(patience).await;
                }
            });
        });
        Self { address, latch, archive, stop: Some(stop), gate: Some(gate), handlers, server, directory }
    }

    fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// Sends that and returns all that comes until the connection ends.
    fn say(&self, text: impl AsRef<[u8]>) -> String {
        let mut client = self.connect();
        client.send(text);
        client.rest()
    }

    /// The status that is the answer to that.
    fn status(&self, text: impl AsRef<[u8]>) -> u16 {
        let mut client = self.connect();
        client.send(text);
        client.answer(false).status
    }

    fn stop(&mut self, patience: Duration) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(patience);
        }
        if let Some(gate) = self.gate.take() {
            gate.join().unwrap();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.latch.open();
        self.stop(Duration::ZERO);
        self.handlers.iter().for_each(|_| self.server.unblock());
        for handler in self.handlers.drain(..) {
            let _ = handler.join();
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Says what it was asked; some paths do more.
fn handle(mut request: tiny_http::Request, latch: &Latch, parcels: &Parcels, archive: &Path) {
    let mut body = Vec::new();
    request.as_reader().read_to_end(&mut body).unwrap();
    let url = request.url().to_owned();
    let number = |name: &str| -> Option<u64> {
        let (_, query) = url.split_once('?')?;
        query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
    };
    if url.starts_with("/wait") {
        latch.wait();
    }
    let mut text = match number("bytes") {
        Some(n) => "x".repeat(usize::try_from(n).unwrap()),
        None => {
            let fields: Vec<_> = request.headers().iter().map(|h| format!("{h}")).collect();
            let digest = crate::model::Sha256::of(&body);
            format!("{} {url}\n{}\n{} {digest}", request.method(), fields.join("\n"), body.len())
        }
    };
    let mut status = 200;
    if url.starts_with("/empty") {
        (status, text) = (304, String::new());
    }
    let mut response = tiny_http::Response::from_string(text).with_status_code(status);
    if url.starts_with("/archive") {
        let file = File::open(archive).unwrap();
        let length = file.metadata().unwrap().len();
        let offset = number("offset").unwrap_or(0);
        let length = number("length").unwrap_or(length - offset);
        let head_only = *request.method() == tiny_http::Method::Head;
        let parcel = Parcel { file, keep: Box::new(()), sent: None };
        let token = if head_only { 0 } else { parcels.put(parcel).unwrap() };
        let value = Instruction { token, offset, length }.value();
        response = tiny_http::Response::from_data(Vec::new())
            .with_header(tiny_http::Header::from_bytes(INSTRUCTION, value).unwrap());
    }
    let _ = request.respond(response.with_chunked_threshold(usize::MAX));
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: node\r\n\r\n")
}

fn put(path: &str, body: &str) -> String {
    format!("PUT {path} HTTP/1.1\r\nHost: node\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn limits() -> Limits {
    Limits::default()
}
