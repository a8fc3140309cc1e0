//! The accept loop: it never ends by itself, whatever accept says.

use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::task::Poll;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind as net_bind, listen, socket_with, sockopt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use tokio::time::sleep;

use super::conn::Conn;
use super::race::{Won, race};
use super::slots::{Crowded, Slot};
use super::stream::Stream;
use super::{Shared, Site, door};

/// Connections that wait in the kernel to be accepted.
const BACKLOG: i32 = 128;

/// Binds a public socket. `[::]` takes IPv6 only, so that `0.0.0.0` can be bound beside it.
///
/// # Errors
/// As the operating system says: the address is in use, or not this machine's.
pub fn bind(address: SocketAddr) -> io::Result<StdListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    net_bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// Accepts until the gate closes.
pub async fn run(listener: TcpListener, site: Rc<Site>, shared: Rc<Shared>) {
    let mut stopping = shared.stopping.clone();
    let mut spare = Spare::new();
    loop {
        let Won::Second(accepted) = race(stopping.wait_for(|stopping| *stopping), listener.accept()).await
        else {
            return;
        };
        match accepted {
            Ok((stream, peer)) => admit(stream, peer, &site, &shared),
            Err(error) => match Errno::from_io_error(&error) {
                // The peer changed its mind, or the network did: nothing is wrong here.
                Some(
                    Errno::CONNABORTED
                    | Errno::INTR
                    | Errno::PROTO
                    | Errno::NETDOWN
                    | Errno::HOSTUNREACH
                    | Errno::NETUNREACH
                    | Errno::PERM,
                ) => log::debug!("{}: a connection was not completed: {error}", site.name),
                Some(Errno::MFILE | Errno::NFILE) => {
                    log::warn!("{}: no file descriptor for a connection: {error}", site.name);
                    spare.turn_away(&listener).await;
                    sleep(shared.limits.accept_pause).await;
                }
                _ => {
                    log::error!("{}: cannot accept connections: {error}", site.name);
                    sleep(shared.limits.accept_pause).await;
                }
            },
        }
    }
}

fn admit(stream: TcpStream, peer: SocketAddr, site: &Rc<Site>, shared: &Rc<Shared>) {
    // Without it answers are only later: not worth a connection.
    let _ = stream.set_nodelay(true);
    let limits = &shared.limits;
    match shared.slots.admit(peer.ip().into(), limits.connections, limits.per_peer, limits.fresh_time) {
        Ok(slot) => serve(stream, peer, slot, site, shared),
        Err(Crowded) => door::wait(stream, peer, site, shared),
    }
}

/// Serves a connection that there is room for.
pub fn serve(stream: TcpStream, peer: SocketAddr, slot: Slot, site: &Rc<Site>, shared: &Rc<Shared>) {
    let stream = match Stream::new(stream, shared.tls.as_ref()) {
        Ok(stream) => stream,
        Err(error) => return log::error!("{}: TLS does not work: {error}", site.name),
    };
    let (id, slots) = (slot.id(), shared.slots.clone());
    let conn = Conn::new(Rc::clone(shared), Rc::clone(site), &stream, peer, slot);
    let task = spawn_local(conn.serve(stream));
    Slot::task(&slots, id, task.abort_handle());
}

/// A file descriptor kept for the day when there are none: with it, a connection can be accepted to be closed.
/// Without, its peer would wait in the backlog, and the kernel would wake the loop for ever.
struct Spare(Option<File>);

impl Spare {
    fn new() -> Self {
        Self(File::open("/dev/null").ok())
    }

    async fn turn_away(&mut self, listener: &TcpListener) {
        self.0 = None;
        // Those that are waiting: behind a full backlog nobody else would get as far as to be turned away.
        for _ in 0..BACKLOG {
            let waiting = poll_fn(|cx| Poll::Ready(listener.poll_accept(cx))).await;
            if !matches!(waiting, Poll::Ready(Ok(_))) {
                break;
            }
        }
        *self = Self::new();
    }
}
