//! What others do.

use super::*;

/// Whatever happened before, the next one is served.
fn still_serves(node: &Node) {
    assert_eq!(node.connect().ask(get("/?bytes=2")).text(), "xx");
}

#[test]
fn what_is_malformed_is_refused_and_the_connection_ends() {
    let node = Node::start(limits());
    let long = "a".repeat(limits::HEAD_BYTES);
    let many = "X: y\r\n".repeat(200_000);
    for (text, wanted) in [
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\nHost: a\n\r\n\r\n".into(), 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n".into(), 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n".into(), 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".into(), 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n".into(), 501),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000000000\r\n\r\n".into(), 413),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n".into(), 413),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100001\r\n\r\n".into(), 413),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n186a1\r\n".into(), 413),
        (format!("GET /{long}"), 414),
        (format!("GET / HTTP/1.1\r\nX: {long}"), 431),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), 431),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n".into(), 417),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n".into(), 505),
        ("\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03\r\n\r\n".into(), 400),
    ] {
        let mut client = node.connect();
        // What is too large is answered before it has been sent.
        let _ = client.stream.write_all(text.as_bytes());
        let answer = client.answer(false);
        let shown: String = text.chars().take(80).collect();
        assert_eq!(answer.status, wanted, "{shown:?}");
        let error: crate::wire::ApiError = serde_json::from_slice(&answer.body).unwrap();
        assert!(error.status == wanted && !error.message.is_empty(), "{error:?}");
        assert!(answer.head.contains("\r\nConnection: close\r\n"));
        let _ = client.stream.shutdown(std::net::Shutdown::Write);
        assert!(client.is_over(), "{shown:?}");
    }
    still_serves(&node);
}

#[test]
fn what_begins_no_request_is_told_before_a_head_could_end() {
    let node = Node::start(Limits { head_time: Duration::from_secs(600), ..limits() });
    for (begin, wanted) in
        [("\x16\x03\x01", "plain HTTP"), ("\r\n\x16\x03", "plain HTTP"), ("\0", "malformed")]
    {
        let mut client = node.connect();
        client.send(begin);
        let answer = client.answer(false);
        assert!(answer.status == 400 && answer.text().contains(wanted), "{begin:?}: {answer:?}");
    }
}

#[test]
fn a_second_request_is_not_smuggled_in() {
    let node = Node::start(limits());
    let hidden = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
    for fields in [
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
        "Content-Length: 0\r\nContent-Length: 5\r\n",
        "Content-Length : 0\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "X: y\nContent-Length: 0\r\n",
        "X: y\rContent-Length: 0\r\n",
    ] {
        for body in [hidden.to_owned(), format!("0\r\n\r\n{hidden}")] {
            let text = node.say(format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}"));
            assert!(!text.contains("hidden") && text.matches("HTTP/1.1 ").count() == 1, "{fields:?}: {text}");
        }
    }
    // The same bytes inside of a body are only a body.
    let answer = node.connect().ask(put("/", &format!("0\r\n\r\n{hidden}")));
    assert!(answer.text().starts_with("PUT /\n") && !answer.text().contains("hidden"));
    still_serves(&node);
}

#[test]
fn a_hundred_thousand_pipelined_requests_end_at_the_limit() {
    let limits = Limits { requests: 200, ..limits() };
    let node = Node::start(limits);
    let mut client = node.connect();
    let mut flood = client.stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        let text = get("/?bytes=1").repeat(1000);
        // It is closed on long before all are sent.
        for _ in 0..100 {
            if flood.write_all(text.as_bytes()).is_err() {
                break;
            }
        }
    });
    for n in 1..=200 {
        let answer = client.answer(false);
        assert_eq!(answer.head.contains("\r\nConnection: close\r\n"), n == 200, "answer {n}");
    }
    assert!(client.is_over());
    sender.join().unwrap();
    still_serves(&node);
}

#[test]
fn slow_heads_and_bodies_are_told_and_ended() {
    let soon = Duration::from_millis(50);
    let node = Node::start(Limits { head_time: soon, stall_time: soon, ..limits() });
    for (text, wanted) in [
        ("GET / HTTP/1.1\r\nHo", 408),
        ("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhel", 408),
        ("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n", 408),
    ] {
        let mut client = node.connect();
        client.send(text);
        assert_eq!(client.answer(false).status, wanted, "{text:?}");
        let _ = client.stream.shutdown(std::net::Shutdown::Write);
        assert!(client.is_over());
    }
    // Who never says a word is not told either.
    assert!(node.connect().is_over());
}

/// Sends byte after byte until the other side answers or ends it.
fn trickle(client: &mut Client, text: &[u8]) {
    client.stream.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
    for byte in text {
        if client.stream.write_all(&[*byte]).is_err() {
            break;
        }
        let mut buffer = [0; 4096];
        match client.stream.read(&mut buffer) {
            Ok(n) => {
                client.received.extend_from_slice(&buffer[..n]);
                break;
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    client.stream.set_read_timeout(Some(PATIENCE)).unwrap();
}

#[test]
fn trickling_does_not_help() {
    let grace = Duration::from_millis(50);
    let node = Node::start(Limits { head_time: grace, grace_time: grace, rate: 1 << 20, ..limits() });
    let mut client = node.connect();
    trickle(&mut client, format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(4000)).as_bytes());
    assert_eq!(client.answer(false).status, 408);
    let mut client = node.connect();
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 90000\r\n\r\n");
    trickle(&mut client, &[b'a'; 90_000]);
    assert_eq!(client.answer(false).status, 408);
    still_serves(&node);
}

/// Waits until the other side has ended the connection; nothing is read for it.
fn ended(client: &Client) {
    let mut poll = [rustix::event::PollFd::new(&client.stream, rustix::event::PollFlags::RDHUP)];
    rustix::event::poll(&mut poll, None).unwrap();
}

#[test]
fn who_does_not_read_is_ended() {
    let node = Node::start(Limits { stall_time: Duration::from_millis(100), ..limits() });
    let mut client = node.connect();
    client.send(get("/?bytes=12000000"));
    ended(&client);
    // The kernel buffers some of it; the rest was never taken, and the connection is reset.
    let mut all = Vec::new();
    let end = client.stream.read_to_end(&mut all);
    assert!(end.is_err() || all.len() < 12_000_000);
    still_serves(&node);
}

#[test]
fn large_answers_that_nobody_reads_keep_only_half_of_the_handlers() {
    let node = Node::start(limits());
    let mut waiting: Vec<_> = (0..limits::INNER_CONNECTIONS + 4)
        .map(|_| {
            let mut client = node.connect();
            client.send(get("/?bytes=12000000"));
            client
        })
        .collect();
    // One has all the memory, two wait for it, all others are told so.
    let mut poll: Vec<_> = waiting
        .iter()
        .map(|client| rustix::event::PollFd::new(&client.stream, rustix::event::PollFlags::IN))
        .collect();
    while poll.iter().filter(|fd| fd.revents().contains(rustix::event::PollFlags::IN)).count() < 6 {
        rustix::event::poll(&mut poll, None).unwrap();
    }
    still_serves(&node);
    // Each is served when the one before it has been read.
    let readers: Vec<_> =
        waiting.drain(..).map(|mut client| std::thread::spawn(move || client.answer(false))).collect();
    let served = readers.into_iter().map(|reader| reader.join().unwrap()).fold(0, |served, answer| {
        assert!(answer.status == 503 || answer.body.len() == 12_000_000);
        served + u32::from(answer.status == 200)
    });
    assert_eq!(served, 3);
}

#[test]
fn bodies_share_a_bounded_memory() {
    let node = Node::start(Limits { bodies: 4 << 20, ..limits() });
    // One that holds most of the memory, and waits.
    let mut large = node.connect();
    large.send("PUT /large HTTP/1.1\r\nHost: a\r\nContent-Length: 3500000\r\n\r\n");
    large.send(vec![b'a'; 3_499_999]);
    // Small ones need none of it.
    assert_eq!(node.connect().ask(put("/", "small")).status, 200);
    let refused = loop {
        let mut client = node.connect();
        let text = "PUT /large HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n".to_owned();
        let _ = client.stream.write_all((text + &"b".repeat(3_000_000)).as_bytes());
        let answer = client.answer(false);
        // The large one may not have been read yet.
        if answer.status != 200 {
            break answer;
        }
    };
    assert_eq!(refused.status, 503);
    assert!(refused.head.contains("\r\nRetry-After: 1\r\n"), "{}", refused.head);
    assert_eq!(large.ask("a").status, 200);
    still_serves(&node);
}

#[test]
fn resets_before_and_after_accept_do_no_harm() {
    let node = Node::start(limits());
    for n in 0..300 {
        let stream = TcpStream::connect(node.address).unwrap();
        let socket = rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
        socket.unwrap();
        if n % 2 == 0 {
            let _ = (&stream).write_all(get("/").as_bytes());
        }
        drop(stream);
    }
    // Who has not been noticed to be gone may still be in the way.
    while node.connect().ask(get("/?bytes=2")).status != 200 {}
    still_serves(&node);
}

#[test]
fn random_bytes_are_answered_or_not() {
    let node = Node::start(Limits { head_time: Duration::from_millis(20), ..limits() });
    let mut seed = 1_u64;
    for _ in 0..50 {
        let mut bytes = Vec::new();
        for _ in 0..400 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            bytes.push(seed.to_be_bytes()[0]);
        }
        bytes.extend_from_slice(b"\r\n\r\n");
        let mut client = node.connect();
        client.send(&bytes);
        let _ = client.stream.shutdown(std::net::Shutdown::Write);
        let text = client.rest();
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 "), "{text}");
    }
    still_serves(&node);
}

#[test]
fn a_handler_that_hangs_is_given_up() {
    let node = Node::start(Limits { answer_time: Duration::from_millis(100), ..limits() });
    // More often than there are handlers.
    for n in 1..=limits::INNER_CONNECTIONS * 2 {
        assert_eq!(node.connect().ask(get("/wait")).status, 504, "request {n}");
    }
    node.latch.open();
    // They have old requests to answer first, which nobody waits for any more.
    while node.connect().ask(get("/?bytes=2")).status != 200 {}
}

#[test]
fn too_large_an_answer_is_no_answer() {
    let node = Node::start(limits());
    assert_eq!(node.connect().ask(get("/?bytes=13000000")).status, 502);
    still_serves(&node);
}
