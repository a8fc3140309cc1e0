//! Files sent by the courier.

use super::*;

fn node(limits: Limits, size: usize) -> (Node, Vec<u8>) {
    let node = Node::start(limits);
    let bytes: Vec<u8> = (0..size).map(|i| (i.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect();
    std::fs::write(&node.archive, &bytes).unwrap();
    (node, bytes)
}

#[test]
fn archives_come_whole_and_in_part_and_the_connection_lives_on() {
    let (node, bytes) = node(limits(), 3_000_000);
    let mut client = node.connect();
    for _ in 0..3 {
        let answer = client.ask(get("/archive"));
        assert!(answer.body == bytes, "{} bytes", answer.body.len());
        assert!(!answer.head.contains("Codling"), "{}", answer.head);
        let answer = client.ask(get("/archive?offset=1000001&length=500000"));
        assert!(answer.body == bytes[1_000_001..1_500_001]);
        assert_eq!(client.ask(get("/?bytes=3")).text(), "xxx");
    }
    assert_eq!(client.ask(get("/archive?offset=5&length=0")).body, b"");
    client.send("HEAD /archive HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = client.answer(true);
    assert!(answer.head.contains("\r\nContent-Length: 3000000\r\n"), "{}", answer.head);
    // Pipelined behind an archive.
    client.send(get("/archive?length=10") + &get("/?bytes=2"));
    assert_eq!(
        (client.answer(false).body.as_slice(), client.answer(false).text()),
        (&bytes[..10], "xx".into())
    );
    let text = node.say("GET /archive?length=10 HTTP/1.0\r\n\r\n");
    assert!(
        text.contains("\r\nConnection: close\r\n") && text.contains("\r\nContent-Length: 10\r\n"),
        "{text}"
    );
}

#[test]
fn many_downloads_at_once_from_one_peer_are_each_right() {
    // Larger than what the kernel holds of a download that nobody reads: all are under way at the same time.
    let (node, bytes) = node(limits(), 12_000_000);
    let wanted = crate::model::Sha256::of(&bytes);
    let mut clients: Vec<_> = (0..limits::CONNECTIONS_PER_PEER).map(|_| node.connect()).collect();
    for client in &mut clients {
        client.send(get("/archive"));
        while client.received.len() < 1000 {
            client.more();
        }
    }
    for mut client in clients {
        let answer = client.answer(false);
        assert_eq!((answer.status, crate::model::Sha256::of(&answer.body)), (200, wanted));
    }
}

#[test]
fn a_download_makes_room_for_somebody_with_less() {
    let hour = Duration::from_secs(3600);
    let (node, _) = node(Limits { connections: 2, stall_time: hour, ..limits() }, 30_000_000);
    // Two of one peer that do not read.
    let mut deaf: Vec<_> = (0..2)
        .map(|_| {
            let mut client = node.connect();
            client.send(get("/archive"));
            client.more();
            client
        })
        .collect();
    assert_eq!(crowds::from_another_peer(&node).ask(get("/?bytes=2")).text(), "xx");
    // The one that came last is over now, not in an hour: the rest that it gets is what the kernel had taken.
    let mut last = deaf.remove(1);
    let mut rest = Vec::new();
    let end = last.stream.read_to_end(&mut rest);
    let all = last.received.len() + rest.len();
    assert!(end.is_err() || all < 30_000_000, "{all} bytes");
}

#[test]
fn downloads_beyond_the_limit_are_refused() {
    let (node, bytes) = node(Limits { downloads: 2, ..limits() }, 30_000_000);
    // Two that do not read.
    let mut slow: Vec<_> = (0..2)
        .map(|_| {
            let mut client = node.connect();
            client.send(get("/archive"));
            // Its first bytes are here: it is under way, and the rest does not fit into the kernel's buffers.
            while client.received.len() < 1000 {
                client.more();
            }
            client
        })
        .collect();
    let mut client = node.connect();
    let answer = client.ask(get("/archive"));
    assert_eq!(answer.status, 503);
    assert!(answer.head.contains("\r\nRetry-After: 1\r\n"));
    // Everything else goes on, on the same connection, too.
    assert_eq!(client.ask(get("/?bytes=1")).text(), "x");
    let answer = slow.pop().unwrap().answer(false);
    assert!(answer.body == bytes);
    let answer = loop {
        let answer = client.ask(get("/archive"));
        if answer.status == 200 {
            break answer;
        }
    };
    assert!(answer.body == bytes);
}

#[test]
fn a_reader_that_stops_is_ended() {
    let (node, _) = node(Limits { stall_time: Duration::from_millis(100), ..limits() }, 30_000_000);
    let mut client = node.connect();
    client.send(get("/archive"));
    let mut all = Vec::new();
    // Nothing is read until the other side has given up: that is seen as a reset, with most bytes never sent.
    let mut poll = [rustix::event::PollFd::new(&client.stream, rustix::event::PollFlags::RDHUP)];
    rustix::event::poll(&mut poll, None).unwrap();
    let end = client.stream.read_to_end(&mut all);
    assert!(end.is_err() || all.len() < 30_000_000);
    assert_eq!(node.connect().ask(get("/?bytes=1")).text(), "x");
}

#[test]
fn a_file_that_shrinks_ends_the_download_and_nothing_else() {
    let (node, bytes) = node(limits(), 1000);
    let mut client = node.connect();
    client.send(get("/archive?length=5000"));
    let text = client.rest();
    assert!(text.contains("\r\nContent-Length: 5000\r\n"));
    assert_eq!(node.connect().ask(get("/archive")).body, bytes);
}

#[test]
fn closing_cuts_downloads_only_when_patience_is_over() {
    let (mut node, bytes) = node(limits(), 30_000_000);
    let mut reading = node.connect();
    reading.send(get("/archive"));
    while reading.received.len() < 1000 {
        reading.more();
    }
    let (stop, gate) = (node.stop.take().unwrap(), node.gate.take().unwrap());
    stop.send(PATIENCE).unwrap();
    assert!(reading.answer(false).body == bytes);
    assert!(reading.is_over());
    gate.join().unwrap();

    let (mut node, bytes) = super::archives::node(limits(), 30_000_000);
    let mut stuck = node.connect();
    stuck.send(get("/archive"));
    while stuck.received.len() < 1000 {
        stuck.more();
    }
    node.stop(Duration::ZERO);
    let mut rest = Vec::new();
    let end = stuck.stream.read_to_end(&mut rest);
    assert!(end.is_err() || rest.len() < bytes.len());
}
