//! A server that does what a test wants of it.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

/// Answers each connection with a function, on a thread of its own.
pub struct Server {
    pub address: String,
    pub requests: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// `answer` gets the path asked for, the number of the request from 0, and the connection.
    pub fn new(answer: impl Fn(&str, usize, &mut TcpStream) + Send + Sync + 'static) -> Self {
        Self::at(IpAddr::from([127, 0, 0, 1]), answer)
    }

    /// The same on another address of this machine.
    pub fn at(ip: IpAddr, answer: impl Fn(&str, usize, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((ip, 0)).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (requests, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counter, stopped, answer) = (Arc::clone(&requests), Arc::clone(&stop), Arc::new(answer));
        let thread = std::thread::spawn(move || {
            for connection in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (counter, answer) = (Arc::clone(&counter), Arc::clone(&answer));
                std::thread::spawn(move || {
                    let mut connection = connection.unwrap();
                    let mut head = BufReader::new(connection.try_clone().unwrap()).lines();
                    let Some(Ok(first)) = head.next() else { return };
                    while head.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
                    answer(&path, counter.fetch_add(1, Ordering::SeqCst), &mut connection);
                });
            }
        });
        Self { address, requests, stop, thread: Some(thread) }
    }

    /// One that always sends the same.
    pub fn fixed(response: impl Into<Vec<u8>>) -> Self {
        let response = response.into();
        Self::new(move |_, _, connection| send(connection, &response))
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the accept.
        let _ = TcpStream::connect(&self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Sends, also to a peer that has gone.
pub fn send(connection: &mut TcpStream, bytes: &[u8]) {
    let _ = connection.write_all(bytes);
}

/// Sends for ever, until the peer goes.
pub fn send_endlessly(connection: &mut TcpStream, bytes: &[u8]) {
    while connection.write_all(bytes).is_ok() {}
}

/// Is silent until the peer goes.
pub fn be_silent(connection: &mut TcpStream) {
    let mut rest = BufReader::new(connection.try_clone().unwrap());
    while rest.fill_buf().is_ok_and(|bytes| !bytes.is_empty()) {
        rest.consume(1);
    }
}
