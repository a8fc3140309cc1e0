//! tiny_http and its threads.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;

fn handlers(world: &World, directory: &Path) -> (Handlers, InnerAddress) {
    let address = InnerAddress::default();
    (Handlers::start(Arc::clone(&world.app), directory, address.clone()).unwrap(), address)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn ask_socket(path: &Path) -> String {
    use std::io::{Read, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn the_socket_is_for_this_user_only_and_goes_with_the_handlers() {
    let world = World::start();
    let directory = world.directory.join("own");
    let (handlers, address) = handlers(&world, &directory);
    let path = address.get();
    assert_eq!(std::fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(ask_socket(&path).ends_with(r#"{"Status":"OK"}"#));
    // A name too long for a socket: somewhere else, as private, and gone afterwards.
    let long = world.directory.join("d".repeat(120));
    let (far, elsewhere) = super::serving::handlers(&world, &long);
    let elsewhere = elsewhere.get();
    assert!(!elsewhere.starts_with(&world.directory) && ask_socket(&elsewhere).contains("OK"));
    let parent = elsewhere.parent().unwrap();
    assert_eq!(std::fs::metadata(parent).unwrap().permissions().mode() & 0o777, 0o700);
    block_on(far.stop(PATIENCE));
    assert!(!parent.exists());
    block_on(handlers.stop(PATIENCE));
    assert!(!path.exists());
}

#[test]
fn what_a_crash_left_behind_is_no_obstacle() {
    let world = World::start();
    let directory = world.directory.join("own");
    crate::sys::fs::create_private_dir(&directory).unwrap();
    drop(std::os::unix::net::UnixListener::bind(directory.join("http-0.sock")).unwrap());
    let (handlers, address) = handlers(&world, &directory);
    assert!(ask_socket(&address.get()).contains("OK"));
    block_on(handlers.stop(PATIENCE));
}

#[test]
fn an_accept_loop_that_ended_is_replaced() {
    let world = World::start();
    let directory = world.directory.join("own");
    let (handlers, address) = handlers(&world, &directory);
    for _ in 0..3 {
        let before = address.get();
        assert!(ask_socket(&before).contains("OK"));
        handlers.breaker()();
        // Whoever connects in between is not answered; the new socket is there soon.
        while address.get() == before {
            std::thread::yield_now();
        }
        assert!(ask_socket(&address.get()).contains("OK"));
    }
    block_on(handlers.stop(PATIENCE));
}

#[test]
fn requests_go_on_while_the_handlers_are_replaced() {
    let world = World::start();
    let mut client = Client::connect(world.api);
    let livez = "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(client.ask(livez).status, 200);
    let path = world.directory.join("run").join("http-0.sock");
    assert!(path.exists());
    (world.break_handlers)();
    while !world.directory.join("run").join("http-1.sock").exists() {
        std::thread::yield_now();
    }
    for _ in 0..20 {
        assert_eq!(client.ask(livez).status, 200);
    }
}
