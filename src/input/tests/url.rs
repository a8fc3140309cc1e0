use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc;

use super::server::{Server, be_silent, send, send_endlessly};
use super::*;

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn params(url: &str) -> Value {
    json!({ "URL": url })
}

#[test]
fn a_file_below_the_target() {
    let server = Server::fixed(ok("a,b\n1,2\n"));
    let bench = Bench::new();
    let mount =
        bench.fetch("urlDownload", "/inputs/", params(&server.url("/data/my%20table.csv?v=1"))).unwrap();
    assert_eq!((mount.guest.as_str(), mount.writable), ("/inputs/my table.csv", false));
    assert_eq!(std::fs::read_to_string(mount.host).unwrap(), "a,b\n1,2\n");
    assert_eq!(bench.meter.used(), Bytes(2 * 4096 + 8));
    assert_eq!(server.requests(), 1);
}

#[test]
fn all_framings() {
    let chunked =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
    let until_close = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello world";
    // Compressed on the way or not: what the server has is what arrives.
    let encoded = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 11\r\n\r\nhello world";
    for response in [chunked, until_close, encoded] {
        let server = Server::fixed(response);
        let bench = Bench::new();
        let mount = bench.fetch("urldownload", "/in", params(&server.url("/f"))).unwrap();
        assert_eq!(std::fs::read_to_string(mount.host).unwrap(), "hello world");
    }
}

#[test]
fn redirects_are_followed_a_few_times() {
    let server = Server::new(|path, _, connection| match path {
        "/old.csv" => send(connection, b"HTTP/1.1 302 Found\r\nLocation: /new\r\nContent-Length: 0\r\n\r\n"),
        "/new" => send(connection, ok("moved").as_bytes()),
        _ => send(connection, b"HTTP/1.1 301 Moved\r\nLocation: /loop\r\nContent-Length: 0\r\n\r\n"),
    });
    let bench = Bench::new();
    let mount = bench.fetch("urlDownload", "/in", params(&server.url("/old.csv"))).unwrap();
    assert_eq!(
        (mount.guest.as_str(), std::fs::read_to_string(mount.host).unwrap().as_str()),
        ("/in/old.csv", "moved")
    );
    let before = server.requests();
    let bench = Bench::new();
    let (code, message) = bench.refused("urlDownload", params(&server.url("/loop")));
    assert_eq!(code, FailureCode::InputFailed);
    assert!(message.contains("more than 10 redirects"), "{message}");
    assert!(server.requests() - before <= 12);
    // Out of HTTP altogether.
    let server =
        Server::fixed("HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(Bench::new().refused("urlDownload", params(&server.url("/f"))).0, FailureCode::InputFailed);
}

#[test]
fn what_will_not_get_better_is_asked_once() {
    for status in ["404 Not Found", "403 Forbidden", "410 Gone", "401 Unauthorized"] {
        let server = Server::fixed(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"));
        let (code, message) = Bench::new().refused("urlDownload", params(&server.url("/f?token=secret")));
        assert_eq!(code, FailureCode::InputFailed);
        assert!(message.ends_with(&format!("the server answered with status {}", &status[..3])), "{message}");
        assert!(message.contains(&server.url("/f")) && !message.contains("secret"), "{message}");
        assert_eq!(server.requests(), 1);
    }
}

#[test]
fn what_may_get_better_is_asked_again() {
    let server = Server::new(|_, n, connection| match n {
        0 => send(connection, b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"),
        // Breaks off in the middle.
        1 => send(connection, b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf of it"),
        _ => send(connection, ok("whole").as_bytes()),
    });
    let bench = Bench::new();
    let mount = bench.fetch("urlDownload", "/in", params(&server.url("/f"))).unwrap();
    assert_eq!(std::fs::read_to_string(mount.host).unwrap(), "whole");
    assert_eq!((server.requests(), bench.meter.used()), (3, Bytes(2 * 4096 + 5)));

    let server = Server::fixed("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n");
    let (code, message) = Bench::new().refused("urlDownload", params(&server.url("/f")));
    assert_eq!((code, server.requests()), (FailureCode::InputFailed, 3));
    assert!(message.ends_with("status 500 (3 attempts)"), "{message}");
}

#[test]
fn nobody_answers() {
    // A port that was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (code, message) = Bench::new().refused("urlDownload", params(&format!("http://{address}/f")));
    assert_eq!(code, FailureCode::InputFailed);
    assert!(message.contains("(3 attempts)"), "{message}");
}

#[test]
fn a_length_that_is_a_lie() {
    let server = Server::fixed("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort");
    let (code, message) = Bench::new().refused("urlDownload", params(&server.url("/f")));
    assert_eq!((code, server.requests()), (FailureCode::InputFailed, 3), "{message}");
    let server = Server::fixed("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello and more");
    let mount = Bench::new();
    let mount = (mount.fetch("urlDownload", "/in", params(&server.url("/f"))).unwrap(), mount);
    assert_eq!(std::fs::read_to_string(&mount.0.host).unwrap(), "hello");
}

#[test]
fn more_than_fits() {
    // Announced: nothing of it is read.
    let server = Server::fixed("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\nx");
    let bench = Bench::new();
    let (code, message) = bench.refused("urlDownload", params(&server.url("/f")));
    assert_eq!((code, server.requests()), (FailureCode::DiskQuota, 1));
    assert!(message.contains("may write 8.0 MiB to disk and wanted 90.9 TiB more"), "{message}");
    // Not announced: until the limit.
    let server = Server::new(|_, _, connection| {
        send(connection, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
        send_endlessly(connection, &[b'x'; 65_536]);
    });
    let bench = Bench::new();
    assert_eq!(bench.refused("urlDownload", params(&server.url("/f"))).0, FailureCode::DiskQuota);
    assert_eq!(server.requests(), 1);
    let size = on_disk(&bench.dir.path().join("inputs"));
    assert!(size <= bench.meter.limit().0 && size > 7 << 20, "{size}");
}

#[test]
fn headers_without_end() {
    let server = Server::new(|_, _, connection| {
        send(connection, b"HTTP/1.1 200 OK\r\n");
        send_endlessly(connection, b"X-More: and more\r\n");
    });
    assert_eq!(Bench::new().refused("urlDownload", params(&server.url("/f"))).0, FailureCode::InputFailed);
    let server = Server::fixed("\x16\x03\x01 this is no HTTP\r\n\r\n");
    assert_eq!(Bench::new().refused("urlDownload", params(&server.url("/f"))).0, FailureCode::InputFailed);
}

#[test]
fn silence_has_a_limit() {
    for begin in ["", "HTTP/1.1 200 OK\r\nContent-Le", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegin"]
    {
        let server = Server::new(move |_, _, connection| {
            send(connection, begin.as_bytes());
            be_silent(connection);
        });
        let mut bench = Bench::new();
        bench.policy.retries = 0;
        bench.policy.read_timeout = Duration::from_millis(50);
        let (code, message) = bench.refused("urlDownload", params(&server.url("/f")));
        assert_eq!(code, FailureCode::InputFailed);
        assert!(message.contains("timeout") || message.contains("timed out"), "{message}");
    }
}

/// Fetches on a thread and stops it as soon as the server says so.
fn stopped(answer: impl Fn(&mut std::net::TcpStream) + Send + Sync + 'static, backoff: Duration) {
    let (reached, signal) = mpsc::channel();
    let server = Server::new(move |_, _, connection| {
        let _ = reached.send(());
        answer(connection);
    });
    let mut bench = Bench::new();
    bench.policy.backoff = backoff;
    let (bench, url) = (Arc::new(bench), server.url("/f"));
    let fetching = {
        let bench = Arc::clone(&bench);
        std::thread::spawn(move || bench.fetch("urlDownload", "/in", params(&url)).unwrap_err())
    };
    signal.recv().unwrap();
    bench.interrupt.raise(Cause::Cancelled);
    assert_eq!(fetching.join().unwrap().code, FailureCode::Cancelled);
}

#[test]
fn a_transfer_stops_at_once() {
    let hour = Duration::from_secs(3600);
    stopped(be_silent, hour);
    stopped(
        |connection| {
            send(connection, b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegin");
            be_silent(connection);
        },
        hour,
    );
    // Close-delimited: the end of the connection looks like the end of the file.
    stopped(
        |connection| {
            send(connection, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nbegin");
            be_silent(connection);
        },
        hour,
    );
    // Between two attempts.
    stopped(|connection| send(connection, b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"), hour);
}

#[test]
fn other_schemes() {
    for url in ["ftp://h/f", "file:///etc/passwd", "/etc/passwd", "h/f", "javascript:x"] {
        assert_eq!(Bench::new().refused("urlDownload", params(url)).0, FailureCode::InvalidJob, "{url}");
    }
    for url in ["http://", "http:///f", "http://[::1", "http://h:99999999/"] {
        assert_eq!(Bench::new().refused("urlDownload", params(url)).0, FailureCode::InputFailed, "{url}");
    }
    // TLS spoken to a server that has none.
    let server = Server::fixed(ok("plain"));
    let url = server.url("/f").replace("http:", "https:");
    assert_eq!(Bench::new().refused("urlDownload", params(&url)).0, FailureCode::InputFailed);
}

#[test]
fn the_node_itself_is_not_a_server() {
    let server = Server::new(|_, _, connection| send(connection, ok("secret").as_bytes()));
    let port = server.address.rsplit_once(':').unwrap().1.to_owned();
    let bench = || {
        let mut bench = Bench::new();
        bench.policy.allow_local = false;
        bench
    };
    // Whatever the machine is called: names, other spellings of the address, its other addresses.
    for host in [
        "127.0.0.1",
        "localhost",
        "127.1",
        "2130706433",
        "0x7f.0.0.1",
        "0.0.0.0",
        "[::1]",
        "[::ffff:127.0.0.1]",
    ] {
        let (code, message) = bench().refused("urlDownload", params(&format!("http://{host}:{port}/f")));
        assert_eq!(code, FailureCode::InputFailed, "{host}");
        // A machine without IPv6 or with another C library does not know all of them.
        let known = ["127.0.0.1", "localhost", "0.0.0.0"].contains(&host);
        assert!(!known || message.contains("this machine itself"), "{host}: {message}");
    }
    for host in ["169.254.169.254", "[fe80::1]", "224.0.0.1"] {
        let (_, message) = bench().refused("urlDownload", params(&format!("http://{host}:{port}/f")));
        assert!(message.contains("inputs are not fetched from there"), "{host}: {message}");
    }
    assert_eq!(server.requests(), 0, "nothing was sent");
    let failure = bench().fetch("urlDownload", "/in", params(&server.url("/f"))).unwrap_err();
    assert!(failure.hint.contains("InputSources.AllowLocalAddresses"), "{failure:?}");
}

#[test]
fn a_redirect_does_not_lead_to_the_node_either() {
    // A server on an address of this machine that is not loopback stands for one of the network.
    let address =
        crate::sys::Network::detect().addresses.into_iter().find(|a| a.ip.is_ipv4() && !a.ip.is_loopback());
    let secret = Server::new(|_, _, connection| send(connection, ok("secret").as_bytes()));
    let target = secret.url("/f");
    let answer = format!("HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n");
    let first = Server::at(
        address.map_or(std::net::IpAddr::from([127, 0, 0, 1]), |a| a.ip),
        move |_, _, connection| {
            send(connection, answer.as_bytes());
        },
    );
    let mut bench = Bench::new();
    bench.policy.allow_local = false;
    let (code, message) = bench.refused("urlDownload", params(&first.url("/old")));
    assert_eq!(code, FailureCode::InputFailed);
    assert!(message.contains("127.0.0.1, which is this machine itself"), "{message}");
    // On a machine with no address but loopback, the first step is refused already.
    assert_eq!((first.requests(), secret.requests()), (usize::from(address_count() > 0), 0));
}

fn address_count() -> usize {
    crate::sys::Network::detect().addresses.iter().filter(|a| a.ip.is_ipv4() && !a.ip.is_loopback()).count()
}

#[test]
fn a_proxy_may_be_here_and_what_it_is_asked_for_may_not() {
    use crate::input::reach::{guarded, refusal};
    let proxy = Server::fixed("HTTP/1.1 502 Nobody\r\nContent-Length: 0\r\n\r\n");
    let config = ureq::Agent::config_builder().proxy(Some(ureq::Proxy::new(&proxy.url("")).unwrap())).build();
    let agent = guarded(config);
    for host in ["127.0.0.1:9", "localhost:9", "localhost.", "[::1]:9", "169.254.169.254"] {
        let error = agent.get(format!("http://{host}/f")).call().unwrap_err();
        assert!(refusal(&error).is_some(), "{host}: {error}");
    }
    assert_eq!(proxy.requests(), 0, "nobody was asked");
    // A name is the proxy's to look up, and the proxy the owner's to choose.
    let error = agent.get("http://files.example/f").call().unwrap_err();
    assert!(refusal(&error).is_none() && proxy.requests() == 1, "{error}");
}
