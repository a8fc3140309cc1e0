//! The same gate inside TLS: its deadlines and bounds hold there, too.

use std::process::{Command, Stdio};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::*;

/// A node with a certificate, and whom its clients trust.
struct Secure {
    node: Node,
    trust: Arc<ClientConfig>,
}

type Client = StreamOwned<ClientConnection, TcpStream>;

impl Secure {
    fn start(limits: Limits) -> Self {
        let dir = std::env::temp_dir().join(format!("gate-tls-{}", uuid::Uuid::new_v4()));
        crate::sys::fs::create_private_dir(&dir).unwrap();
        let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
        let made = Command::new("openssl")
            .args(["req", "-x509", "-nodes", "-subj", "/CN=x", "-newkey", "ed25519", "-days", "2"])
            .args(["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=CA:FALSE"])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&cert)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let tls = Tls::open(cert.clone(), key, None).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&cert).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let trust = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let trust = Arc::new(trust.unwrap().with_root_certificates(roots).with_no_client_auth());
        std::fs::remove_dir_all(dir).unwrap();
        Self { node: Node::secure(limits, None, Some(tls)), trust }
    }

    fn connect(&self) -> Client {
        let stream = self.node.connect().stream;
        let name = ServerName::try_from("localhost").unwrap();
        StreamOwned::new(ClientConnection::new(Arc::clone(&self.trust), name).unwrap(), stream)
    }

    fn archive(&self, size: usize) -> Vec<u8> {
        let bytes: Vec<u8> =
            (0..size).map(|i| (i.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect();
        std::fs::write(&self.node.archive, &bytes).unwrap();
        bytes
    }
}

/// Sends a request for the connection's last answer, and reads that: head and body.
fn last(client: &mut Client, path: &str) -> (String, Vec<u8>) {
    write!(client, "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut all = Vec::new();
    client.read_to_end(&mut all).unwrap();
    let end = crate::gate::head::end_of_head(&all).unwrap();
    let body = all.split_off(end);
    (String::from_utf8(all).unwrap(), body)
}

/// Waits until the other side has closed, whatever it says before.
fn is_over(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    if let Err(error) = stream.read_to_end(&mut rest) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    }
}

#[test]
fn answers_and_archives_come_whole_and_the_end_is_said() {
    let secure = Secure::start(limits());
    let bytes = secure.archive(3_000_000);
    // A large answer, part of an archive, and all of it. Reading to the end fails if the end is not said.
    assert_eq!(last(&mut secure.connect(), "/?bytes=1000000").1, "x".repeat(1_000_000).as_bytes());
    assert!(last(&mut secure.connect(), "/archive?offset=17&length=1000000").1 == bytes[17..1_000_017]);
    assert!(last(&mut secure.connect(), "/archive?offset=5&length=0").1.is_empty());
    let downloads: Vec<_> = (0..8)
        .map(|_| {
            let mut client = secure.connect();
            std::thread::spawn(move || last(&mut client, "/archive"))
        })
        .collect();
    for download in downloads {
        let (head, body) = download.join().unwrap();
        assert!(head.starts_with("HTTP/1.1 200") && body == bytes);
    }
    // The connection lives on after an archive.
    let mut client = secure.connect();
    write!(client, "GET /archive?length=10 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let (first, second) = last(&mut client, "/?bytes=3");
    assert!(first.contains("Content-Length: 10"), "{first}");
    assert!(second.starts_with(&bytes[..10]) && second.ends_with(b"\r\n\r\nxxx"));
}

#[test]
fn a_handshake_that_does_not_come_to_its_end_is_ended() {
    let secure = Secure::start(Limits { head_time: Duration::from_millis(200), ..limits() });
    // Nothing, a byte, and the beginning of a hello.
    for sent in [&[][..], &[22], &[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]] {
        let mut client = secure.node.connect();
        client.send(sent);
        is_over(&mut client.stream);
    }
    assert_eq!(last(&mut secure.connect(), "/?bytes=2").1, b"xx");
}

#[test]
fn records_that_carry_nothing_hold_no_connection() {
    let secure = Secure::start(Limits { head_time: Duration::from_millis(300), ..limits() });
    let mut client = secure.connect();
    client.conn.complete_io(&mut client.sock).unwrap();
    let begun = std::time::Instant::now();
    // Keys are changed without end; the node reads all of it, and is not fooled.
    while client.conn.refresh_traffic_keys().is_ok() && client.conn.write_tls(&mut client.sock).is_ok() {
        assert!(begun.elapsed() < PATIENCE, "still connected");
        assert_eq!(last(&mut secure.connect(), "/?bytes=2").1, b"xx");
    }
}

#[test]
fn a_reader_that_stops_is_ended_and_no_archive_is_held_for_it() {
    let secure = Secure::start(Limits { stall_time: Duration::from_millis(200), ..limits() });
    let bytes = secure.archive(30_000_000);
    let mut client = secure.connect();
    write!(client, "GET /archive HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    client.flush().unwrap();
    let mut poll = [rustix::event::PollFd::new(&client.sock, rustix::event::PollFlags::RDHUP)];
    rustix::event::poll(&mut poll, None).unwrap();
    let mut all = Vec::new();
    assert!(client.read_to_end(&mut all).is_err() && all.len() < bytes.len(), "it is no whole answer");
    assert_eq!(last(&mut secure.connect(), "/?bytes=2").1, b"xx");
}

#[test]
fn plain_http_is_told_so_and_nonsense_is_not_answered() {
    let secure = Secure::start(limits());
    let text = secure.node.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(text.starts_with("HTTP/1.1 400 ") && text.contains("this port speaks TLS"), "{text}");
    for nonsense in [&b"\0\0\0\0\0\0\0\0"[..], &[22, 3, 3, 0xff, 0xff, 1, 2, 3], &[0x80, 0x2e, 1, 0, 2]] {
        let mut client = secure.node.connect();
        client.send(nonsense);
        client.stream.shutdown(std::net::Shutdown::Write).unwrap();
        is_over(&mut client.stream);
    }
}

#[test]
fn whoever_is_in_a_handshake_makes_room() {
    let secure = Secure::start(Limits { per_peer: 4, ..limits() });
    let mut half_open: Vec<_> = (0..4)
        .map(|_| {
            let mut client = secure.node.connect();
            client.send([22, 3, 1]);
            client
        })
        .collect();
    assert_eq!(last(&mut secure.connect(), "/?bytes=2").1, b"xx");
    is_over(&mut half_open.remove(0).stream);
}
