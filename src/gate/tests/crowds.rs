//! More connections than there is room for.

use std::process::Command;

use super::*;

/// Clients whose requests a handler has, one after the other.
fn at_work(node: &Node, clients: u32) -> Vec<Client> {
    let one = |n| {
        let mut client = node.connect();
        client.send(get("/wait"));
        node.latch.reached(n);
        client
    };
    (1..=clients).map(one).collect()
}

#[test]
fn a_crowd_is_told_that_it_is_one() {
    let node = Node::start(Limits { connections: 3, per_peer: 3, ..limits() });
    let busy = at_work(&node, 3);
    let mut late = node.connect();
    let answer = late.answer(false);
    assert_eq!(answer.status, 503);
    assert!(answer.head.contains("\r\nRetry-After: 1\r\n"));
    node.latch.open();
    for mut client in busy {
        assert_eq!(client.answer(false).status, 200);
    }
    // All of them are idle now: one has to make room.
    assert_eq!(node.connect().ask(get("/")).status, 200);
}

#[test]
fn who_finds_no_room_waits_a_moment_for_some() {
    let node = Node::start(Limits { per_peer: 2, door_time: PATIENCE, ..limits() });
    let busy = at_work(&node, 2);
    // As wrk does between two runs: those who asked go away, and as many come at once.
    drop(busy);
    let mut next: Vec<_> = (0..2).map(|_| node.connect()).collect();
    next.iter_mut().for_each(|client| client.send(get("/?bytes=3")));
    node.latch.open();
    for client in &mut next {
        assert_eq!(client.answer(false).text(), "xxx");
    }
}

#[test]
fn who_leaves_while_it_waits_for_a_handler_makes_room() {
    let places = limits::INNER_CONNECTIONS + 1;
    let node = Node::start(Limits { per_peer: places, door_time: Duration::from_millis(500), ..limits() });
    let busy = at_work(&node, u32::try_from(places - 1).unwrap());
    let mut given_up = node.connect();
    given_up.send(put("/", "nobody waits for that"));
    drop(given_up);
    let mut next = node.connect();
    next.send(get("/?bytes=3"));
    // For it there is a place, for one more there is none.
    assert_eq!(node.connect().answer(false).status, 503);
    node.latch.open();
    assert_eq!(next.answer(false).text(), "xxx");
    drop(busy);
}

#[test]
fn only_so_many_wait_for_room() {
    let node = Node::start(Limits { per_peer: 1, door_time: PATIENCE, ..limits() });
    let mut busy = at_work(&node, 1);
    let mut waiting: Vec<_> = (0..limits::DOOR).map(|_| node.connect()).collect();
    assert_eq!(node.connect().answer(false).status, 503);
    // Nobody of another peer waits behind them.
    assert_eq!(from_another_peer(&node).ask(get("/")).status, 200);
    node.latch.open();
    assert_eq!(busy[0].answer(false).status, 200);
    drop(busy);
    assert_eq!(waiting[0].ask(get("/")).status, 200);
}

/// A connection from another address of this machine: all of 127/8 is it.
pub(super) fn from_another_peer(node: &Node) -> Client {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    );
    let socket = socket.unwrap();
    rustix::net::bind(&socket, &"127.0.0.2:0".parse::<SocketAddr>().unwrap()).unwrap();
    rustix::net::connect(&socket, &node.address).unwrap();
    let other = Client { stream: socket.into(), received: Vec::new() };
    other.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    other
}

#[test]
fn one_peer_does_not_take_all_the_room() {
    let node = Node::start(Limits { connections: 10, per_peer: 2, ..limits() });
    let busy = at_work(&node, 2);
    assert_eq!(node.connect().answer(false).status, 503);
    assert_eq!(from_another_peer(&node).ask(get("/")).status, 200);
    node.latch.open();
    drop(busy);
}

#[test]
fn idle_connections_are_closed_when_their_time_is_over() {
    let node = Node::start(Limits { idle_time: Duration::from_millis(20), ..limits() });
    let mut client = node.connect();
    assert_eq!(client.ask(get("/")).status, 200);
    assert!(client.is_over());
}

#[test]
fn many_keep_alive_clients_take_turns() {
    let node = Node::start(limits());
    let mut clients: Vec<_> = (0..limits::CONNECTIONS_PER_PEER).map(|_| node.connect()).collect();
    for _ in 0..20 {
        for client in &mut clients {
            client.send(get("/?bytes=1"));
        }
        for client in &mut clients {
            assert_eq!(client.answer(false).text(), "x");
        }
    }
}

#[test]
fn both_families_can_be_bound_to_one_port() {
    let Ok(six) = bind("[::1]:0".parse().unwrap()) else { return };
    let port = six.local_addr().unwrap().port();
    assert!(bind(format!("127.0.0.1:{port}").parse().unwrap()).is_ok());
    assert!(bind(format!("[::1]:{port}").parse().unwrap()).is_err(), "in use");
}

/// Runs in a process of its own, whose file descriptors it uses up.
#[test]
fn running_out_of_file_descriptors_is_survived() {
    let test = "gate::tests::crowds::in_a_process_without_file_descriptors";
    let output = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "uses up its process's file descriptors: run by running_out_of_file_descriptors_is_survived"]
fn in_a_process_without_file_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let node = Node::start(Limits { accept_pause: Duration::from_millis(1), ..limits() });
    let mut before = node.connect();
    assert_eq!(before.ask(get("/")).status, 200);
    let waiting = node.connect();
    let late = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    );
    let late = late.unwrap();
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: limit.maximum }).unwrap();
    let mut taken = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }
    // There is no descriptor for it: it is closed on, not left waiting.
    rustix::net::connect(&late, &node.address).unwrap();
    let mut late = Client { stream: late.into(), received: Vec::new() };
    late.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(late.is_over());
    // Who is connected is served all the while.
    assert_eq!(before.ask(get("/")).status, 200);
    taken.clear();
    drop(waiting);
    assert_eq!(node.connect().ask(get("/")).status, 200);
}
