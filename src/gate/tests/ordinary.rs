//! What well-behaved clients do.

use super::*;

#[test]
fn a_request_arrives_clean_and_its_answer_comes_back() {
    let node = Node::start(limits());
    let answer = node.connect().ask(
        "PUT /a?b=%20c HTTP/1.1\r\nhost: node:1234\r\ncontent-length: 5\r\nCookie: s\r\nX-Codling-Site: evil\r\n\
         X-Codling-Send: 1 0 10\r\nx-bacalhau-git-version: v1.9.3\r\nAuthorization: Bearer t\r\nTE: chunked\r\n\
         Connection: keep-alive, Range\r\n\r\nhello",
    );
    let wanted = format!(
        "PUT /a?b=%20c\nHost: node:1234\nX-Codling-Site: test\nX-Bacalhau-Git-Version: v1.9.3\nContent-Length: 5\n5 {}",
        crate::model::Sha256::of(b"hello")
    );
    assert_eq!((answer.status, answer.text()), (200, wanted));
    assert!(answer.head.starts_with("HTTP/1.1 200 OK\r\n"), "{}", answer.head);
    assert!(answer.head.contains("\r\nConnection: keep-alive\r\n"), "{}", answer.head);
    assert!(!answer.head.contains("Server") && !answer.head.contains("Codling"), "{}", answer.head);
}

#[test]
fn connections_are_kept_and_used_again() {
    let node = Node::start(limits());
    let mut client = node.connect();
    for n in 0..50 {
        let answer = client.ask(put(&format!("/{n}"), &"y".repeat(n)));
        assert!(answer.text().starts_with(&format!("PUT /{n}\n")));
        assert!(answer.text().contains(&format!("\n{n} ")));
    }
    let answer = client.ask("GET /last HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
    assert!(answer.head.contains("\r\nConnection: close\r\n"));
    assert!(client.is_over());
}

#[test]
fn old_clients_get_one_answer() {
    let node = Node::start(limits());
    let text = node.say("GET /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.contains("GET /old"), "{text}");
    assert!(text.contains(&format!("Host: {}", node.address)), "{text}");
}

#[test]
fn head_has_a_length_and_no_body() {
    let node = Node::start(limits());
    let mut client = node.connect();
    client.send("HEAD /?bytes=70000 HTTP/1.1\r\nHost: node\r\n\r\n");
    let answer = client.answer(true);
    assert!(answer.head.contains("\r\nContent-Length: 70000\r\n"), "{}", answer.head);
    // The connection is in step afterwards.
    assert_eq!(client.ask(get("/?bytes=70000")).body.len(), 70_000);
    let answer = client.ask(get("/empty"));
    assert!(answer.status == 304 && !answer.head.contains("Content-Length"), "{}", answer.head);
    assert_eq!(client.ask(get("/?bytes=3")).text(), "xxx");
}

#[test]
fn large_bodies_go_both_ways_whole() {
    let node = Node::start(limits());
    let mut client = node.connect();
    let body = "0123456789".repeat(500_000);
    let answer = client.ask(put("/large", &body));
    let wanted = format!("{} {}", body.len(), crate::model::Sha256::of(body.as_bytes()));
    assert!(answer.text().ends_with(&wanted), "{}", answer.text());
    assert_eq!(client.ask(get("/?bytes=5000000")).body, vec![b'x'; 5_000_000]);
}

#[test]
fn chunked_bodies_are_put_together() {
    let node = Node::start(limits());
    let mut client = node.connect();
    client.send("POST /c HTTP/1.1\r\nHost: node\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel");
    client.send("lo\r\n6;x=y\r\n world\r\n0\r\nTrailer: z\r\n\r\n");
    let answer = client.answer(false);
    let wanted = format!("\nContent-Length: 11\n11 {}", crate::model::Sha256::of(b"hello world"));
    assert!(answer.text().ends_with(&wanted), "{}", answer.text());
    assert_eq!(client.ask(get("/?bytes=1")).text(), "x");
}

#[test]
fn those_who_ask_first_are_told_to_continue() {
    let node = Node::start(limits());
    let mut client = node.connect();
    client.send("PUT /c HTTP/1.1\r\nHost: node\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.answer(true).status, 100);
    assert_eq!(client.ask("hello").status, 200);
    // Not if the body is unwanted.
    client.send("PUT /c HTTP/1.1\r\nHost: node\r\nContent-Length: 999999\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.answer(false).status, 413);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let node = Node::start(limits());
    let mut client = node.connect();
    let texts: Vec<_> = (0..100).map(|n| put(&format!("/{n}"), "body")).collect();
    client.send(texts.concat());
    for n in 0..100 {
        assert!(client.answer(false).text().starts_with(&format!("PUT /{n}\n")));
    }
}

#[test]
fn the_token_is_needed_where_the_rules_say_so() {
    let node = Node::with(limits(), Some("s3cret"));
    let with = |path: &str, field: &str| format!("GET {path} HTTP/1.1\r\nHost: node\r\n{field}\r\n");
    let refused = node.connect().ask(with("/x", ""));
    assert_eq!(refused.status, 401);
    assert!(refused.head.contains("\r\nWWW-Authenticate: Bearer\r\n"));
    let error: crate::wire::ApiError = serde_json::from_slice(&refused.body).unwrap();
    assert_eq!((error.status, &*error.code), (401, "Unauthorized"));
    for field in ["Bearer wrong", "Bearer", "Bearer ", "Bearer s3crets", "Basic s3cret", "s3cret"] {
        assert_eq!(node.status(with("/x", &format!("Authorization: {field}\r\n"))), 401, "{field}");
    }
    assert_eq!(node.status(with("/x", "Authorization: Bearer s3cret\r\n")), 200);
    assert_eq!(node.status(with("/open", "")), 200);
    assert_eq!(node.status(with("//open", "")), 401);
    // The body of who may not send one is not waited for.
    assert_eq!(node.status("PUT /x HTTP/1.1\r\nHost: node\r\nContent-Length: 10\r\n\r\n"), 401);
}

#[test]
fn pages_of_other_sites_change_nothing() {
    let node = Node::start(limits());
    let with = |method: &str, origin: &str| {
        format!("{method} / HTTP/1.1\r\nHost: node:1234\r\nOrigin: {origin}\r\nContent-Length: 0\r\n\r\n")
    };
    assert_eq!(node.status(with("POST", "http://evil.example")), 403);
    assert_eq!(node.status(with("DELETE", "null")), 403);
    assert_eq!(node.status(with("POST", "http://node:1234")), 200);
    assert_eq!(node.status(with("GET", "http://evil.example")), 200);
}

#[test]
fn closing_lets_requests_finish_and_idle_connections_go() {
    let mut node = Node::start(limits());
    let mut idle = node.connect();
    assert_eq!(idle.ask(get("/")).status, 200);
    let mut busy = node.connect();
    busy.send(get("/wait"));
    node.latch.reached(1);
    let (stop, gate) = (node.stop.take().unwrap(), node.gate.take().unwrap());
    stop.send(PATIENCE).unwrap();
    assert!(idle.is_over());
    // Nobody is let in any more, or is closed on at once.
    if let Ok(stream) = TcpStream::connect(node.address) {
        let mut late = Client { stream, received: Vec::new() };
        let _ = late.stream.write_all(get("/").as_bytes());
        assert!(late.is_over());
    }
    node.latch.open();
    let answer = busy.answer(false);
    assert!(answer.status == 200 && answer.head.contains("\r\nConnection: close\r\n"), "{}", answer.head);
    gate.join().unwrap();
}

#[test]
fn closing_does_not_wait_for_ever() {
    let mut node = Node::start(limits());
    let mut busy = node.connect();
    busy.send(get("/wait"));
    node.latch.reached(1);
    node.stop(Duration::ZERO);
    assert!(busy.is_over());
}

#[test]
fn wrong_tokens_are_answered_more_slowly_and_right_ones_at_once() {
    let mut node = Node::with(Limits { per_peer: 64, ..limits() }, Some("s3cret"));
    let ask = |token: &str| format!("GET /x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n");
    // So many that the last of them waits for half a minute.
    let mut guessing: Vec<_> = (0..60)
        .map(|_| {
            let mut client = node.connect();
            client.send(ask("guess"));
            client
        })
        .collect();
    let first = guessing.remove(0).answer(false);
    assert_eq!(first.status, 401);
    // They wait, and cost nobody else anything: the right token is answered, from the same address.
    assert_eq!(node.status(ask("s3cret")), 200);
    // The node does not wait for them either.
    node.stop(PATIENCE);
    let unanswered = guessing.into_iter().map(|mut client| client.rest()).filter(String::is_empty);
    assert!(unanswered.count() > 0, "somebody was still waiting");
}

#[test]
fn a_token_that_is_read_again_counts_for_open_connections_too() {
    let token = Token::new(Secret::parse("before").unwrap());
    let node = Node::of(limits(), Some(token.clone()));
    let ask = |token: &str| format!("GET /x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n");
    let mut client = node.connect();
    assert_eq!(client.ask(ask("before")).status, 200);
    token.replace(Secret::parse("after").unwrap());
    assert_eq!(client.ask(ask("after")).status, 200);
    assert_eq!(client.ask(ask("before")).status, 401);
}

#[test]
fn who_ends_only_its_own_side_is_answered() {
    let node = Node::start(limits());
    let mut client = node.connect();
    client.send(get("/?bytes=3"));
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.answer(false).text(), "xxx");
}
