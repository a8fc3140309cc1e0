//! The thread that sends archives: file to socket inside the kernel, a step at a time, nothing copied here.
//!
//! sendfile(2) waits for the disk, so it has no place on the core thread. A slow disk lets the downloads wait for
//! each other; it never lets requests wait. Inside TLS a step is one record, read and encrypted here.

use std::any::Any;
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::rc::Rc;
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
use super::rates::{Allowance, Rates};
use super::slots::Peer;
use super::stream::{Detached, Stream};
use super::tls::{RECORD, Session};

/// The thread's stack.
const STACK: usize = 256 << 10;

/// One answer to send.
pub struct Load {
    /// The connection, in non-blocking mode.
    pub stream: Detached,
    /// Whose it is.
    pub peer: Peer,
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
    pub back: oneshot::Sender<Detached>,
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
    let rates = Rc::new(Rates::new(&limits));
    // Whatever is still being sent at the end is dropped with the set that it runs in.
    while let Won::Second(Some(load)) = race(cut.wait_for(|cut| *cut), loads.recv()).await {
        let allowance = rates.allowance(load.peer);
        drop(spawn_local(carry(load, limits, allowance)));
    }
}

/// Sends one load and gives the connection back.
async fn carry(load: Load, limits: Limits, mut allowance: Allowance) {
    let Load { stream, peer: _, head, file, offset, length, keep, sent: when_sent, mut back } = load;
    let stream = match Stream::attach(stream) {
        Ok(stream) => stream,
        Err(error) => return log::warn!("cannot send an archive: {error}"),
    };
    // Advice only: reading works without it.
    let _ = fadvise(&file, offset, NonZeroU64::new(length), Advice::Sequential);
    let mut pace = Pace::of_archive(&limits);
    let piece = Piece { file: &file, offset, left: length };
    let sending = async {
        match &stream.tls {
            None => send(&stream.tcp, &head, piece, &mut allowance, &mut pace).await,
            Some(tls) => send_tls(tls, &stream.tcp, &head, piece, &mut allowance, &mut pace).await,
        }
    };
    // Whoever waits for the connection may have to leave before all is sent.
    let sent = match race(back.closed(), sending).await {
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
            if let Ok(stream) = stream.detach() {
                let _ = back.send(stream);
            }
        }
        Err(lost) => {
            log::debug!("a download ended early: {lost:?}");
            cut(stream);
        }
    }
}

/// What is still to be sent of a file.
struct Piece<'a> {
    file: &'a File,
    offset: u64,
    left: u64,
}

async fn send(
    stream: &TcpStream,
    mut head: &[u8],
    mut piece: Piece<'_>,
    allowance: &mut Allowance,
    pace: &mut Pace,
) -> Result<(), Lost> {
    // MORE: the head shares its packet with the first bytes.
    let flags = if piece.left > 0 { SendFlags::MORE | SendFlags::NOSIGNAL } else { SendFlags::NOSIGNAL };
    while !head.is_empty() {
        let n = step(stream, pace, || Ok(net_send(stream, head, flags)?)).await?;
        pace.moved(n);
        head = head.get(n..).unwrap_or_default();
    }
    while piece.left > 0 {
        let some = allowance.some(piece.left).await;
        let want = usize::try_from(some).unwrap_or(SEND_STEP).min(SEND_STEP);
        let n =
            step(stream, pace, || Ok(sendfile(stream, piece.file, Some(&mut piece.offset), want)?)).await?;
        if n == 0 {
            return Err(shorter());
        }
        pace.moved(n);
        allowance.sent(n as u64);
        piece.left -= n as u64;
        // One step, then the others' turn.
        tokio::task::yield_now().await;
    }
    Ok(())
}

async fn send_tls(
    tls: &Session,
    stream: &TcpStream,
    head: &[u8],
    mut piece: Piece<'_>,
    allowance: &mut Allowance,
    pace: &mut Pace,
) -> Result<(), Lost> {
    tls.send(stream, head, pace).await?;
    while piece.left > 0 {
        let want = allowance.some(piece.left).await.min(RECORD as u64);
        let n = tls.load(piece.file, piece.offset, want).map_err(|error| {
            log::warn!("an archive cannot be read: {error}");
            Lost::Gone
        })?;
        if n == 0 {
            return Err(shorter());
        }
        tls.send(stream, &[], pace).await?;
        allowance.sent(n as u64);
        piece.offset += n as u64;
        piece.left -= n as u64;
        tokio::task::yield_now().await;
    }
    Ok(())
}

fn shorter() -> Lost {
    log::warn!("an archive became shorter while it was being sent");
    Lost::Gone
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
