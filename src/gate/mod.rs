//! The gate: owns the public sockets and lets only whole, checked requests in.
//!
//! Everything that a stranger can do to an HTTP server is dealt with here, on the core thread: too many connections,
//! slow ones, heads and bodies that are too large or can be read in two ways, a node without file descriptors.
//! What is left goes, one request at a time on each of a fixed number of connections, to tiny_http on a Unix
//! socket; its answers are held whole before they are sent, so that a slow reader keeps no handler waiting.
//! Archives are sent by a thread of their own, with sendfile(2) or through TLS, on a handler's [`Instruction`]; logs by
//! another, to those who follow them.

mod accept;
mod body;
mod bucket;
mod chunked;
mod conn;
mod courier;
mod door;
mod followers;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod head;
mod inner;
pub mod limits;
mod pace;
mod parcels;
mod race;
mod rates;
mod refusal;
mod slots;
mod stream;
#[cfg(feature = "tls")]
mod tls;
#[cfg(not(feature = "tls"))]
#[path = "tls/none.rs"]
mod tls;
mod token;

use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

pub use accept::bind;
pub use inner::InnerAddress;
pub use limits::Limits;
pub use parcels::{FOLLOW, INSTRUCTION, Instruction, Parcel, Parcels, Sent};
pub use tls::{Tls, TlsError};
pub use token::Token;

use crate::logs::Logs;

use body::Budget;
use courier::{Courier, Load};
use followers::{Arrival, Followers};
use inner::Inner;
use slots::Slots;
use token::Attempts;

/// The internal header field that tells the handlers which site was asked. Nobody outside can send it in.
pub const SITE_FIELD: &str = "X-Codling-Site";

/// What a site takes on one of its routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Bytes of a request's body.
    pub body: u64,
    /// Whether it is answered without the token.
    pub open: bool,
}

/// A set of public sockets that answer alike.
pub struct Site {
    /// Its name: the value of [`SITE_FIELD`].
    pub name: &'static str,
    /// Bound and listening, from [`bind`].
    pub listeners: Vec<TcpListener>,
    /// The rule for a method and a path (still encoded). Whatever it does not know must not be open.
    pub rules: fn(&str, &str) -> Rule,
}

/// What the gate is made of.
pub struct GateSettings {
    /// Bounds and times.
    pub limits: Limits,
    /// The public sockets.
    pub sites: Vec<Site>,
    /// Where the handlers listen.
    pub inner: InnerAddress,
    /// Where the handlers put files.
    pub parcels: Parcels,
    /// The logs that can be followed.
    pub logs: Logs,
    /// The API's token, if it has one.
    pub token: Option<Token>,
    /// The certificate, if all sites speak TLS.
    pub tls: Option<Tls>,
}

/// What all connections share.
struct Shared {
    limits: Limits,
    inner: Inner,
    budget: Budget,
    parcels: Parcels,
    courier: mpsc::UnboundedSender<Load>,
    downloads: Semaphore,
    followers: mpsc::UnboundedSender<Arrival>,
    /// Who follows a log.
    places: Slots,
    token: Option<Token>,
    tls: Option<Tls>,
    attempts: RefCell<Attempts>,
    started: Instant,
    slots: Slots,
    stopping: watch::Receiver<bool>,
    /// Connections that wait for room.
    waiting: RefCell<usize>,
    /// Connections that were turned away and may still read why.
    lingering: RefCell<usize>,
}

/// The running gate.
pub struct Gate {
    slots: Slots,
    stopping: watch::Sender<bool>,
    acceptors: Vec<JoinHandle<()>>,
    courier: Option<Courier>,
    followers: Option<Followers>,
    addresses: Vec<(&'static str, SocketAddr)>,
}

/// Opens the gate. To be called on the core thread, inside its `LocalSet`.
///
/// # Errors
/// A socket cannot be watched, or the courier's thread cannot be started.
pub fn open(settings: GateSettings) -> io::Result<Gate> {
    let GateSettings { limits, sites, inner, parcels, logs, token, tls } = settings;
    let courier = Courier::start(limits)?;
    let followers = Followers::start(limits, logs)?;
    let (stopping, seen) = watch::channel(false);
    let budget = Budget::new(limits.bodies);
    let slots = Slots::default();
    let connections = limits::INNER_CONNECTIONS;
    let shared = Rc::new(Shared {
        limits,
        inner: Inner::new(inner, connections, budget.clone(), limits.answer_time),
        budget,
        parcels,
        courier: courier.sender(),
        downloads: Semaphore::new(limits.downloads),
        followers: followers.sender(),
        places: Slots::default(),
        token,
        tls,
        attempts: RefCell::default(),
        started: Instant::now(),
        slots: slots.clone(),
        stopping: seen,
        waiting: RefCell::new(0),
        lingering: RefCell::new(0),
    });
    let (mut acceptors, mut addresses) = (Vec::new(), Vec::new());
    for mut site in sites {
        let listeners = std::mem::take(&mut site.listeners);
        let site = Rc::new(site);
        for listener in listeners {
            addresses.push((site.name, listener.local_addr()?));
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let accepting = accept::run(listener, Rc::clone(&site), Rc::clone(&shared));
            acceptors.push(tokio::task::spawn_local(accepting));
        }
    }
    Ok(Gate { slots, stopping, acceptors, courier: Some(courier), followers: Some(followers), addresses })
}

impl Gate {
    /// The site's addresses, as bound: port 0 has become a real one.
    pub fn addresses(&self, site: &str) -> Vec<SocketAddr> {
        self.addresses.iter().filter(|(name, _)| *name == site).map(|(_, address)| *address).collect()
    }

    /// Open connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.slots.len()
    }

    /// Stops accepting, lets requests and downloads under way finish for as long as `patience`, then ends them.
    pub async fn close(mut self, patience: Duration) {
        self.stopping.send_replace(true);
        for acceptor in self.acceptors.drain(..) {
            // It ends by itself; if it panicked, it has ended, too.
            let _ = acceptor.await;
        }
        if let Some(followers) = self.followers.take() {
            followers.stop().await;
        }
        if timeout(patience, self.slots.emptied()).await.is_err() {
            log::warn!("{} connections were cut off at the end", self.slots.len());
            self.slots.abort_all();
        }
        if let Some(courier) = self.courier.take() {
            courier.stop().await;
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.stopping.send_replace(true);
        self.slots.abort_all();
        self.acceptors.iter().for_each(JoinHandle::abort);
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
