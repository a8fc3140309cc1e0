//! Connections that there is no room for: they wait a moment for some, and are told if there is none.
//!
//! Who is told at once comes back at once: a client with as many connections as it may have was refused thousands of
//! times in the tenth of a second in which the ones it had closed before were still being answered.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::{Instant, timeout, timeout_at};

use super::accept::serve;
use super::conn::linger;
use super::limits::{DOOR, LINGERING};
use super::race::{Won, race};
use super::refusal::Refusal;
use super::slots::Slot;
use super::stream::Stream;
use super::{Shared, Site};

/// How often it is looked whether a connection has become idle, which has to make room then. That one has left is told.
const LOOK: Duration = Duration::from_millis(50);

/// Lets a connection wait for room, if not too many do.
pub fn wait(stream: TcpStream, peer: SocketAddr, site: &Rc<Site>, shared: &Rc<Shared>) {
    if *shared.waiting.borrow() >= DOOR {
        return turn_away(stream, peer, shared);
    }
    *shared.waiting.borrow_mut() += 1;
    let (site, shared) = (Rc::clone(site), Rc::clone(shared));
    spawn_local(async move {
        let mut stopping = shared.stopping.clone();
        let slot = race(stopping.wait_for(|stopping| *stopping), room(peer, &shared)).await;
        *shared.waiting.borrow_mut() -= 1;
        match slot {
            Won::First(_) => {}
            Won::Second(Some(slot)) => serve(stream, peer, slot, &site, &shared),
            Won::Second(None) => turn_away(stream, peer, &shared),
        }
    });
}

/// A slot, if there is one in time.
async fn room(peer: SocketAddr, shared: &Shared) -> Option<Slot> {
    let limits = &shared.limits;
    let deadline = Instant::now() + limits.door_time;
    loop {
        // Whatever ended it, it is looked again.
        let _ = timeout_at(deadline, timeout(LOOK, shared.slots.freed())).await;
        if let Ok(slot) =
            shared.slots.admit(peer.ip().into(), limits.connections, limits.per_peer, limits.fresh_time)
        {
            return Some(slot);
        }
        if Instant::now() >= deadline {
            return None;
        }
    }
}

/// Says that there is no room, in one packet, and gives a few of those who hear it the time to read it. Inside TLS
/// that would take a handshake, which there is no room for.
fn turn_away(stream: TcpStream, peer: SocketAddr, shared: &Rc<Shared>) {
    log::debug!("{peer} turned away: too many connections");
    if shared.tls.is_some() {
        return;
    }
    let response = Refusal::full("too many connections").response("", false, false);
    if stream.try_write(&response).is_err() || *shared.lingering.borrow() >= LINGERING {
        return;
    }
    *shared.lingering.borrow_mut() += 1;
    let shared = Rc::clone(shared);
    spawn_local(async move {
        linger(Stream { tcp: stream, tls: None }, shared.limits.linger_time).await;
        *shared.lingering.borrow_mut() -= 1;
    });
}
