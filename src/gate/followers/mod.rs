//! The thread that sends logs to those who follow them: one for all, each a small task on it.
//!
//! It reads files, so it has no place on the core thread. Nothing of a log is kept for a follower but the message that
//! is on its way: where it is in the file is all that has to be known. Files are open once, however many read them.

mod peer;
mod tell;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep, timeout};

use crate::logs::{Live, Logs};
use crate::model::{ExecutionId, ExecutionRecord};
use crate::sys::{Ring, Rung};
use crate::wire::log_line::LogStream;

use super::limits::{Limits, REPLAYS};
use super::parcels::LogParcel;
use super::race::{Won, race};
use super::stream::Detached;

/// The thread's stack.
const STACK: usize = 256 << 10;
/// After a look at the files, the next one waits so long: what a busy program writes in between is sent together.
const TOGETHER: Duration = Duration::from_millis(10);
/// So often a look is taken although nothing rang.
const ANYWAY: Duration = Duration::from_secs(30);
/// What the last words of all followers may take when the node stops.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// A connection that becomes a websocket.
pub struct Arrival {
    /// The connection, in non-blocking mode.
    pub stream: Detached,
    /// Whose it is.
    pub peer: SocketAddr,
    /// What came behind the handshake.
    pub received: Vec<u8>,
    /// The value of `Sec-WebSocket-Accept`.
    pub accept: String,
    /// Whose log it is to be.
    pub wanted: LogParcel,
    /// Closed when the follower has to leave; dropped when it has left.
    pub place: oneshot::Sender<()>,
}

/// The thread.
pub struct Followers {
    arrivals: mpsc::UnboundedSender<Arrival>,
    stopping: watch::Sender<bool>,
    over: oneshot::Receiver<()>,
    thread: JoinHandle<()>,
}

impl Followers {
    /// Starts the thread.
    pub fn start(limits: Limits, logs: Logs) -> io::Result<Self> {
        // As many as there are places for followers: whoever arrives has one.
        let (arrivals, receiver) = mpsc::unbounded_channel();
        let (stopping, seen) = watch::channel(false);
        let (done, over) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let thread =
            std::thread::Builder::new().name("followers".into()).stack_size(STACK).spawn(move || {
                let local = LocalSet::new();
                local.block_on(&runtime, run(receiver, seen, limits, logs));
                // Nobody may be waiting for it.
                let _ = done.send(());
            })?;
        Ok(Self { arrivals, stopping, over, thread })
    }

    /// Where to send those who follow.
    pub fn sender(&self) -> mpsc::UnboundedSender<Arrival> {
        self.arrivals.clone()
    }

    /// Tells all followers that the node stops, and ends the thread.
    pub async fn stop(self) {
        self.stopping.send_replace(true);
        // An error says that the thread is over, too.
        let _ = self.over.await;
        if self.thread.join().is_err() {
            log::error!("the thread of the followers panicked");
        }
    }
}

/// What the followers share.
struct Room {
    logs: Logs,
    limits: Limits,
    /// Logs of executions that run, which somebody follows.
    open: RefCell<HashMap<ExecutionId, Weak<Open>>>,
    /// An execution or a job has changed.
    changed: Notify,
    /// Turns to read an archive.
    turns: Semaphore,
    count: Cell<usize>,
    /// The first has come, or the last has gone.
    crowd: Notify,
    stopping: watch::Receiver<bool>,
}

/// The log of an execution that runs.
struct Open {
    live: Live,
    /// Bytes of each stream when they were looked at last.
    seen: Cell<[Option<u64>; 2]>,
    /// The end, once it has come, and when that was seen.
    ended: RefCell<Option<(Rc<ExecutionRecord>, Instant)>>,
    /// One of the above is another.
    changed: Notify,
}

impl Open {
    fn lengths(&self) -> [Option<u64>; 2] {
        LogStream::ALL.map(|stream| self.live.length(stream))
    }

    fn ended(&self) -> Option<(Rc<ExecutionRecord>, Instant)> {
        self.ended.borrow().clone()
    }

    /// Looks whether there is something new, and tells those who wait.
    fn look(&self, logs: &Logs, id: &ExecutionId, rung: Option<Rung>) {
        let lengths = self.lengths();
        let mut news = self.seen.replace(lengths) != lengths;
        if rung.is_none_or(|rung| rung.has(Ring::State)) && self.ended.borrow().is_none() {
            match logs.ended(id) {
                Ok(Some(record)) => {
                    *self.ended.borrow_mut() = Some((Rc::new(record), Instant::now()));
                    news = true;
                }
                Ok(None) => {}
                Err(error) => log::warn!("cannot see how {id} stands: {error}"),
            }
        }
        if news {
            self.changed.notify_waiters();
        }
    }
}

impl Room {
    /// The log of an execution, shared by all who follow it.
    fn open(&self, id: &ExecutionId) -> Rc<Open> {
        let mut all = self.open.borrow_mut();
        all.retain(|_, open| open.strong_count() > 0);
        if let Some(open) = all.get(id).and_then(Weak::upgrade) {
            return open;
        }
        let live = self.logs.live(id);
        let open =
            Rc::new(Open { live, seen: Cell::default(), ended: RefCell::default(), changed: Notify::new() });
        all.insert(id.clone(), Rc::downgrade(&open));
        drop(all);
        // It may have ended since somebody looked.
        open.look(&self.logs, id, None);
        open
    }

    fn opened(&self) -> Vec<(ExecutionId, Rc<Open>)> {
        let all = self.open.borrow();
        all.iter().filter_map(|(id, open)| Some((id.clone(), open.upgrade()?))).collect()
    }

    /// Counts one more, or one less.
    fn crowd(&self, count: usize) {
        self.count.set(count);
        self.logs.bell.set_used(count > 0);
        self.crowd.notify_one();
    }
}

async fn run(
    mut arrivals: mpsc::UnboundedReceiver<Arrival>,
    mut stopping: watch::Receiver<bool>,
    limits: Limits,
    logs: Logs,
) {
    let room = Rc::new(Room {
        logs,
        limits,
        open: RefCell::default(),
        changed: Notify::new(),
        turns: Semaphore::new(REPLAYS),
        count: Cell::new(0),
        crowd: Notify::new(),
        stopping: stopping.clone(),
    });
    let ears = spawn_local(listen(Rc::clone(&room)));
    while let Won::Second(Some(arrival)) = race(stopping.wait_for(|s| *s), arrivals.recv()).await {
        room.crowd(room.count.get() + 1);
        let room = Rc::clone(&room);
        spawn_local(async move {
            tell::serve(arrival, &room).await;
            room.crowd(room.count.get() - 1);
        });
    }
    ears.abort();
    let empty = async {
        while room.count.get() > 0 {
            room.crowd.notified().await;
        }
    };
    if timeout(LAST_WORDS, empty).await.is_err() {
        log::debug!("{} followers did not hear that the node stops", room.count.get());
    }
}

/// Hears what is new, as long as anybody wants to know.
async fn listen(room: Rc<Room>) {
    loop {
        while room.count.get() == 0 {
            room.crowd.notified().await;
        }
        let rung = match race(room.logs.bell.heard(), sleep(ANYWAY)).await {
            Won::First(rung) => Some(rung),
            Won::Second(()) => None,
        };
        for (id, open) in room.opened() {
            open.look(&room.logs, &id, rung);
        }
        if rung.is_none_or(|rung| rung.has(Ring::State)) {
            room.changed.notify_waiters();
        }
        sleep(TOGETHER).await;
    }
}
