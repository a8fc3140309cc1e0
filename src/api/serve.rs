//! tiny_http on a Unix socket, its threads, and what brings it back when it fails.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tiny_http::{Header, Response, Server};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::gate::limits::INNER_CONNECTIONS;
use crate::gate::{INSTRUCTION, InnerAddress};
use crate::wire::{ApiError, Code};

use super::ask::{Ask, Reply};
use super::{App, handle};

/// A handler thread's stack. The deepest thing that happens on it is a JSON value of 64 levels.
const STACK: usize = 256 << 10;
/// Pause between two tries to bring the server back.
const PAUSE: Duration = Duration::from_millis(100);
/// Longest path of a Unix socket, by the size of its field in the kernel.
const PATH_MAX: usize = 100;

/// tiny_http of one time: when its accept loop ends (one failed accept is enough), the next takes its place.
struct Generation {
    number: u32,
    server: Arc<Server>,
    /// For tests that end the accept loop.
    #[cfg(test)]
    listener: UnixListener,
}

struct Shared {
    app: Arc<App>,
    address: InnerAddress,
    directory: PathBuf,
    current: Mutex<Generation>,
    stopping: AtomicBool,
}

/// The handlers: as many threads as the gate has connections to them.
pub struct Handlers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Ends when the last thread has ended.
    running: mpsc::Receiver<()>,
    /// A directory of our own that goes with us.
    temporary: Option<PathBuf>,
}

impl Handlers {
    /// Starts the handlers on a socket in `directory`, which becomes private to this user, and tells `address` where.
    /// If the directory's path is too long for a socket, a directory for temporary files takes its place.
    ///
    /// # Errors
    /// The directory, the socket or a thread cannot be made.
    pub fn start(app: Arc<App>, directory: &Path, address: InnerAddress) -> io::Result<Self> {
        let (directory, temporary) = private_directory(directory)?;
        let current = Mutex::new(listen(&directory, 0, &address)?);
        let shared = Arc::new(Shared { app, address, directory, current, stopping: AtomicBool::new(false) });
        let (alive, running) = mpsc::channel(1);
        let mut handlers = Self { shared, threads: Vec::new(), running, temporary };
        for n in 0..INNER_CONNECTIONS {
            let (shared, alive) = (Arc::clone(&handlers.shared), alive.clone());
            let thread = std::thread::Builder::new().name(format!("http-{n}")).stack_size(STACK);
            let thread = thread.spawn(move || {
                work(&shared);
                drop(alive);
            })?;
            handlers.threads.push(thread);
        }
        Ok(handlers)
    }

    /// Ends the threads; those that do not end in time are left behind.
    pub async fn stop(mut self, patience: Duration) {
        self.tell_all();
        if timeout(patience, self.running.recv()).await.is_err() {
            log::warn!("a handler has not ended in time");
            return;
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                log::error!("a handler thread panicked");
            }
        }
    }

    /// Ends the accept loop, as a failed accept would.
    #[cfg(test)]
    pub(super) fn breaker(&self) -> Box<dyn Fn() + Send> {
        let shared = Arc::clone(&self.shared);
        Box::new(move || {
            rustix::net::shutdown(&shared.lock().listener, rustix::net::Shutdown::Both).unwrap();
        })
    }

    fn tell_all(&self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let server = Arc::clone(&self.shared.lock().server);
        self.threads.iter().for_each(|_| server.unblock());
    }
}

impl Drop for Handlers {
    fn drop(&mut self) {
        self.tell_all();
        if let Some(directory) = &self.temporary {
            // What is left of it is empty, private, and below the directory for temporary files.
            let _ = std::fs::remove_dir_all(directory);
        }
    }
}

/// The wanted directory, or a temporary one of ours: only this user may enter either.
fn private_directory(wanted: &Path) -> io::Result<(PathBuf, Option<PathBuf>)> {
    if wanted.as_os_str().len() < PATH_MAX - "http-4294967295.sock".len() {
        crate::sys::fs::create_private_dir(wanted)?;
        std::fs::set_permissions(wanted, std::fs::Permissions::from_mode(0o700))?;
        return Ok((wanted.to_owned(), None));
    }
    let directory = std::env::temp_dir().join(format!("codling-{}", uuid::Uuid::new_v4()));
    // It must not be there: somebody else may have made it.
    DirBuilder::new().mode(0o700).create(&directory)?;
    Ok((directory.clone(), Some(directory)))
}

fn listen(directory: &Path, number: u32, address: &InnerAddress) -> io::Result<Generation> {
    let path = directory.join(format!("http-{number}.sock"));
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    let generation = Generation {
        number,
        #[cfg(test)]
        listener: listener.try_clone()?,
        server: Server::from_listener(listener, None)
            .map(Arc::new)
            .map_err(|error| io::Error::other(format!("tiny_http does not start: {error}")))?,
    };
    address.set(path);
    Ok(generation)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Generation> {
        // A generation is replaced whole.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a new server in the place of generation `number`, unless that has been done.
    fn replace(&self, number: u32) {
        let mut current = self.lock();
        if current.number != number {
            return;
        }
        log::error!("the inner HTTP server ended; it is started again");
        let next = number.wrapping_add(1);
        while !self.stopping.load(Ordering::SeqCst) {
            match listen(&self.directory, next, &self.address) {
                Ok(generation) => {
                    let old = std::mem::replace(&mut *current, generation);
                    // The others wait at the old one.
                    (1..INNER_CONNECTIONS).for_each(|_| old.server.unblock());
                    return;
                }
                Err(error) => log::error!("cannot start the inner HTTP server: {error}"),
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// One handler thread.
fn work(shared: &Shared) {
    while !shared.stopping.load(Ordering::SeqCst) {
        let (number, server) = {
            let current = shared.lock();
            (current.number, Arc::clone(&current.server))
        };
        while let Ok(request) = server.recv() {
            answer(&shared.app, request);
        }
        if !shared.stopping.load(Ordering::SeqCst) {
            shared.replace(number);
        }
        // What came in between is answered here, or nowhere.
        while let Ok(Some(request)) = server.try_recv() {
            answer(&shared.app, request);
        }
        // Looking takes away what was to wake another thread.
        server.unblock();
    }
}

fn answer(app: &App, mut request: tiny_http::Request) {
    // A release build ends at a panic; elsewhere one request fails, and no more.
    let reply = catch_unwind(AssertUnwindSafe(|| read(&mut request).map(|ask| handle(app, &ask))));
    let reply = match reply {
        Ok(Ok(reply)) => reply,
        Ok(Err(error)) => error.into(),
        Err(_) => ApiError::new(Code::InternalError, "the handler panicked").into(),
    };
    // Whoever asked may have gone.
    if let Err(error) = request.respond(response(reply)) {
        log::debug!("an answer was not wanted: {error}");
    }
}

/// The request, with its body: what is not read would be read by tiny_http, into a buffer of any size.
fn read(request: &mut tiny_http::Request) -> Result<Ask, ApiError> {
    let mut body = Vec::with_capacity(request.body_length().unwrap_or(0));
    let read = request.as_reader().read_to_end(&mut body);
    read.map_err(|error| ApiError::new(Code::BadRequest, format!("the body cannot be read: {error}")))?;
    let mut ask = Ask::new(request.method().as_str(), request.url())?;
    let fields = request.headers().iter();
    ask.fields = fields.map(|h| (h.field.as_str().to_string(), h.value.to_string())).collect();
    ask.body = body;
    Ok(ask)
}

fn response(reply: Reply) -> Response<io::Cursor<Vec<u8>>> {
    let mut response =
        Response::from_data(reply.body).with_status_code(reply.status).with_chunked_threshold(usize::MAX);
    let send = reply.send.map(|send| (INSTRUCTION, send.value()));
    for (name, value) in reply.fields.into_iter().chain(send) {
        match Header::from_bytes(name, value) {
            Ok(header) => response.add_header(header),
            Err(()) => log::error!("the field {name} of an answer is not ASCII"),
        }
    }
    response
}
