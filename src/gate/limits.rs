//! Every bound of the gate, in one place.

use std::time::Duration;

/// Open connections, in all. One that waits takes some 2 KiB here, one with half a head at most 12 KiB.
pub const CONNECTIONS: usize = 128;
/// Open connections of one peer: an IPv4 address, or an IPv6 network of 64 bits. A laboratory behind one router and
/// everybody behind a reverse proxy are one peer, too.
pub const CONNECTIONS_PER_PEER: usize = 64;
/// Bytes of a request's head.
pub const HEAD_BYTES: usize = 8 << 10;
/// Header fields of a request.
pub const HEAD_FIELDS: usize = 64;
/// Bytes of a request's target.
pub const TARGET_BYTES: usize = 4 << 10;
/// Bytes of a chunked body's chunk extensions and trailers together.
pub const CHUNK_EXTRAS: usize = 4 << 10;
/// Requests on one connection.
pub const REQUESTS: u32 = 1000;
/// Memory for bodies, of requests and of answers together. Both are held whole.
pub const BODIES: usize = 16 << 20;
/// Bytes of an answer's body. A submitted job is shown whole, so this is more than the largest submission.
pub const ANSWER_BYTES: usize = 12 << 20;
/// Bytes of an answer's head.
pub const ANSWER_HEAD_BYTES: usize = 16 << 10;
/// Archives that are sent at one time: as many as there are connections, for each takes two file descriptors and a few
/// hundred bytes, and nobody shall wait for those who do not read. Bacalhau's client gives up when it is told to come
/// again, so it should not have to be.
pub const DOWNLOADS: usize = CONNECTIONS;
/// Logs that are followed at one time, beside the connections. Who follows takes a file descriptor and some 2 KiB (inside
/// TLS some 20), and at most [`FOLLOWER_PENDING`] of what is on its way.
pub const FOLLOWERS: usize = 128;
/// Bytes of a log that wait in the kernel to be sent to one follower (Linux counts its own costs, too).
pub const FOLLOWER_BUFFER: usize = 32 << 10;
/// Bytes of one message to a follower, and of its frame.
pub const FOLLOWER_PENDING: usize = 17 << 10;
/// Bytes of a message from a follower. Nothing is done with it.
pub const FOLLOWER_MESSAGE: usize = 4 << 10;
/// Bytes that a follower may send between two pings.
pub const FOLLOWER_TALK: usize = 64 << 10;
/// Archives that are read at one time for those who want a log that is over: some 90 KiB each.
pub const REPLAYS: usize = 4;
/// Connections to the handlers, and with it threads that handle requests.
pub const INNER_CONNECTIONS: usize = 4;
/// Connections that wait for room, beside those that have it: each takes a file descriptor and some 500 bytes. As many as
/// one peer may have, so that its next crowd does not have to be turned away because its last one is still leaving.
pub const DOOR: usize = CONNECTIONS_PER_PEER;
/// Connections that were turned away and may still read why.
pub const LINGERING: usize = 16;
/// Bytes of an unwanted request that are read so that its sender gets to see the answer.
pub const LINGER_BYTES: usize = 16 << 20;
/// Bytes that one call of sendfile sends: on a slow card, what other downloads wait for.
pub const SEND_STEP: usize = 256 << 10;

/// The bounds that tests change, and the times.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Open connections, in all.
    pub connections: usize,
    /// Open connections of one peer.
    pub per_peer: usize,
    /// Requests on one connection.
    pub requests: u32,
    /// Memory for bodies, in bytes.
    pub bodies: usize,
    /// Archives that are sent at one time.
    pub downloads: usize,
    /// Logs that are followed at one time.
    pub followers: usize,
    /// Between two pings to a follower, who is gone if nothing comes back for two of them.
    pub ping_time: Duration,
    /// From a request's first byte (on a new connection: from its start) to the end of its head.
    pub head_time: Duration,
    /// Between two requests.
    pub idle_time: Duration,
    /// Without a byte moved, in either direction, while a body is.
    pub stall_time: Duration,
    /// How long a body may be slower than [`Limits::rate`].
    pub grace_time: Duration,
    /// Bytes a second that a body must make on average after the grace. Archives are exempt: links in the field are bad.
    pub rate: u64,
    /// Bytes a second of all downloads together; 0: as fast as they go.
    pub download_rate: u64,
    /// Bytes a second of one peer's downloads; 0: as fast as they go.
    pub client_rate: u64,
    /// Until the handlers have answered.
    pub answer_time: Duration,
    /// After its coming or an answer, in which a connection does not have to make room for others of its peer.
    pub fresh_time: Duration,
    /// How long a connection waits for room before it is turned away.
    pub door_time: Duration,
    /// Reading on after a refusal, so that the peer gets to see it.
    pub linger_time: Duration,
    /// Pause after a failed accept.
    pub accept_pause: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: CONNECTIONS,
            per_peer: CONNECTIONS_PER_PEER,
            requests: REQUESTS,
            bodies: BODIES,
            downloads: DOWNLOADS,
            followers: FOLLOWERS,
            ping_time: Duration::from_secs(45),
            head_time: Duration::from_secs(10),
            idle_time: Duration::from_secs(60),
            stall_time: Duration::from_secs(30),
            grace_time: Duration::from_secs(30),
            rate: 4 << 10,
            download_rate: 0,
            client_rate: 0,
            answer_time: Duration::from_secs(60),
            fresh_time: Duration::from_millis(100),
            door_time: Duration::from_secs(2),
            linger_time: Duration::from_secs(2),
            accept_pause: Duration::from_millis(100),
        }
    }
}
