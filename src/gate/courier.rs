//! The thread that sends archives: file to socket inside the kernel, a step at a time, nothing copied here.
//!
//! sendfile(2) waits for the disk, so it has no place on the core thread. A slow disk lets the downloads wait for
//! each other; it never lets requests wait.

use std::any::Any;
use std::fs::File;
use std::io;
use std::net::TcpStream as StdStream;
use std::num::NonZeroU64;
use std::thread::JoinHandle;

use rustix::fs::{Advice, fadvise, sendfile};
use rustix::net::{SendFlags, send as net_send};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::timeout_at;

use super::limits::{Limits, SEND_STEP};
use super::pace::{Lost, Pace, cut};
use super::race::{Won, race};

/// The thread's stack.
const STACK: usize = 256 << 10;

/// One answer to send.
pub struct Load {
    /// The connection, in non-blocking mode.
    pub stream: StdStream,
    /// The response's head.
    pub head: Vec<u8>,
    /// The archive.
    pub file: File,
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
    /// Dropped when it is over.
    pub keep: Box<dyn Any + Send>,
    /// Called once all is sent.
    pub sent: Option<super::parcels::Sent>,
    /// Brings the connection back once all is sent; it is dropped if it was not.
    pub back: oneshot::Sender<StdStream>,
}

/// The thread.
pub struct Courier {
    loads: mpsc::UnboundedSender<Load>,
    cut: watch::Sender<bool>,
    over: oneshot::Receiver<()>,
    thread: JoinHandle<()>,
}

impl Courier {
    /// Starts the thread.
    pub fn start(limits: Limits) -> io::Result<Self> {
        // As many loads as there are permits for downloads: whoever sends holds one.
        let (loads, receiver) = mpsc::unbounded_channel();
        let (cut, cut_seen) = watch::channel(false);
        let (done, over) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let thread =
            std::thread::Builder::new().name("courier".into()).stack_size(STACK).spawn(move || {
                let local = LocalSet::new();
                local.block_on(&runtime, run(receiver, cut_seen, limits));
                // Nobody may be waiting for it.
                let _ = done.send(());
            })?;
        Ok(Self { loads, cut, over, thread })
    }

    /// Where to put loads.
    pub fn sender(&self) -> mpsc::UnboundedSender<Load> {
        self.loads.clone()
    }

    /// Ends what is still being sent, and the thread. All senders must be gone by then, or go now.
    pub async fn stop(self) {
        let Self { loads, cut, over, thread } = self;
        cut.send_replace(true);
        drop(loads);
        // An error says that the thread is over, too.
        let _ = over.await;
        if thread.join().is_err() {
            log::error!("the courier thread panicked");
        }
    }
}

async fn run(mut loads: mpsc::UnboundedReceiver<Load>, mut cut: watch::Receiver<bool>, limits: Limits) {
    // Whatever is still being sent at the end is dropped with the set that it runs in.
    while let Won::Second(Some(load)) = race(cut.wait_for(|cut| *cut), loads.recv()).await {
        drop(spawn_local(carry(load, limits)));
    }
}

/// Sends one load and gives the connection back.
async fn carry(load: Load, limits: Limits) {
    let Load { stream, head, file, offset, length, keep, sent: when_sent, mut back } = load;
    let stream = match TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => return log::warn!("cannot send an archive: {error}"),
    };
    // Advice only: reading works without it.
    let _ = fadvise(&file, offset, NonZeroU64::new(length), Advice::Sequential);
    // Whoever waits for the connection may have to leave before all is sent.
    let sent = match race(back.closed(), send(&stream, &head, &file, offset, length, &limits)).await {
        Won::First(()) => Err(Lost::Gone),
        Won::Second(sent) => sent,
    };
    if sent.is_ok()
        && let Some(tell) = when_sent
    {
        tell();
    }
    drop((file, keep));
    match sent {
        Ok(()) => {
            // Both errors mean that nobody needs the connection any more.
            if let Ok(stream) = stream.into_std() {
                let _ = back.send(stream);
            }
        }
        Err(lost) => {
            log::debug!("a download ended early: {lost:?}");
            cut(stream);
        }
    }
}

async fn send(
    stream: &TcpStream,
    mut head: &[u8],
    file: &File,
    mut offset: u64,
    length: u64,
    limits: &Limits,
) -> Result<(), Lost> {
    let mut pace = Pace::of_archive(limits);
    // MORE: the head shares its packet with the first bytes.
    let flags = if length > 0 { SendFlags::MORE | SendFlags::NOSIGNAL } else { SendFlags::NOSIGNAL };
    while !head.is_empty() {
        let n = step(stream, &pace, || Ok(net_send(stream, head, flags)?)).await?;
        pace.moved(n);
        head = head.get(n..).unwrap_or_default();
    }
    let mut left = length;
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(SEND_STEP).min(SEND_STEP);
        let n = step(stream, &pace, || Ok(sendfile(stream, file, Some(&mut offset), want)?)).await?;
        if n == 0 {
            log::warn!("an archive became shorter while it was being sent");
            return Err(Lost::Gone);
        }
        pace.moved(n);
        left -= n as u64;
        // One step, then the others' turn.
        tokio::task::yield_now().await;
    }
    Ok(())
}

async fn step(
    stream: &TcpStream,
    pace: &Pace,
    mut act: impl FnMut() -> io::Result<usize>,
) -> Result<usize, Lost> {
    loop {
        match stream.try_io(Interest::WRITABLE, &mut act) {
            Ok(n) => return Ok(n),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                match timeout_at(pace.deadline(), stream.writable()).await {
                    Err(_) => return Err(Lost::Slow),
                    Ok(Err(_)) => return Err(Lost::Gone),
                    Ok(Ok(())) => {}
                }
            }
            Err(error) => {
                log::debug!("sending an archive: {error}");
                return Err(Lost::Gone);
            }
        }
    }
}
