//! The sign of life for the service manager: given only while core and store thread both live.

use std::rc::Rc;
use std::time::Duration;

use crate::store::ExecutionStore;
use crate::sys::Notifier;

/// Runs for as long as the node; ends at once if nobody wants a sign of life, so that an idle node wakes for nothing.
///
/// It runs on the core thread: a core that is stuck gives no sign. The store's thread is asked before each one; while
/// a disk hangs under it, none is given either, and the service manager ends the node.
pub(super) async fn run(notifier: Rc<Notifier>, store: ExecutionStore) {
    let Some(period) = notifier.watchdog() else { return };
    let half = period / 2;
    loop {
        tokio::time::sleep(half).await;
        if answered(&store, half).await {
            notifier.tell("WATCHDOG=1");
        } else {
            // The store is closed: the node stops.
            return;
        }
    }
}

/// Waits for the store's thread, for as long as it takes.
async fn answered(store: &ExecutionStore, patience: Duration) -> bool {
    let mut ping = store.ping();
    match tokio::time::timeout(patience, &mut ping).await {
        Ok(answer) => answer.is_ok(),
        Err(_) => {
            log::error!(
                "the store's thread has not answered for {} s: the disk hangs, or is very slow",
                patience.as_secs()
            );
            ping.await.is_ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::sync::{Arc, Mutex};

    use tokio::task::LocalSet;

    use super::*;
    use crate::store::{
        Backend, Change, Durability, MemoryBackend, StoreError, StoreSettings, Stores, Visit, open,
    };

    const PERIOD: Duration = Duration::from_millis(40);
    /// Long enough for several signs.
    const SILENCE: Duration = Duration::from_millis(400);

    /// A manager's socket, and the node's end of it.
    fn manager() -> (UnixDatagram, Rc<Notifier>, std::path::PathBuf) {
        let path = std::env::temp_dir().join(format!("codling-watchdog-{}", uuid::Uuid::new_v4()));
        let socket = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::new(|name| match name {
            "NOTIFY_SOCKET" => Some(path.clone().into()),
            "WATCHDOG_USEC" => Some(PERIOD.as_micros().to_string().into()),
            _ => None,
        });
        (socket, Rc::new(notifier), path)
    }

    /// The next message, if one comes in time.
    fn next(socket: &UnixDatagram, within: Duration) -> Option<String> {
        let mut buffer = [0; 64];
        socket.set_read_timeout(Some(within)).unwrap();
        let length = socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }

    fn hears_a_beat(socket: &UnixDatagram) {
        assert_eq!(next(socket, Duration::from_secs(60)).as_deref(), Some("WATCHDOG=1"));
    }

    /// What came before, and one that was on its way; then none comes.
    fn hears_nothing(socket: &UnixDatagram) {
        socket.set_nonblocking(true).unwrap();
        while socket.recv(&mut [0; 64]).is_ok() {}
        socket.set_nonblocking(false).unwrap();
        let late = std::iter::from_fn(|| next(socket, SILENCE)).take(2).count();
        assert!(late < 2);
    }

    /// A database whose commits wait to be let through.
    struct Stuck(MemoryBackend, Mutex<Sender<()>>, Mutex<Receiver<()>>);

    impl Backend for Stuck {
        fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
            self.0.get(key)
        }

        fn scan(&self, from: &[u8], to: &[u8], rev: bool, visit: &mut Visit<'_>) -> Result<(), StoreError> {
            self.0.scan(from, to, rev, visit)
        }

        fn commit(&self, changes: &[Change], durability: Durability) -> Result<(), StoreError> {
            self.1.lock().unwrap().send(()).unwrap();
            let _ = self.2.lock().unwrap().recv();
            self.0.commit(changes, durability)
        }

        fn close(&self) -> Result<(), StoreError> {
            self.0.close()
        }
    }

    /// The core thread with the watchdog on it, and a way to make it stuck.
    fn core(notifier: impl FnOnce() -> Rc<Notifier> + Send + 'static, store: ExecutionStore) -> Core {
        let (jam, mut jams) = tokio::sync::mpsc::unbounded_channel::<Jam>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            LocalSet::new().block_on(&runtime, async move {
                tokio::task::spawn_local(run(notifier(), store));
                while let Some((stuck, wait)) = jams.recv().await {
                    stuck.send(()).unwrap();
                    let _ = wait.recv();
                }
            });
        });
        (jam, thread)
    }

    /// Says that the thread is stuck, and waits to be let go.
    type Jam = (Sender<()>, Receiver<()>);
    type Core = (tokio::sync::mpsc::UnboundedSender<Jam>, std::thread::JoinHandle<()>);

    #[test]
    fn no_sign_of_life_while_the_store_or_the_core_is_stuck() {
        let (begin, begun) = channel();
        let (release, wait) = channel();
        let stuck = Arc::new(Stuck(MemoryBackend::new(), Mutex::new(begin), Mutex::new(wait)));
        let jobs = Arc::new(MemoryBackend::new());
        let stores = Stores::over(stuck, jobs, Duration::from_secs(3600)).unwrap();
        // Let go before the store is closed, whatever becomes of this test.
        let release = release;
        let (socket, _, path) = manager();
        let make = path.clone();
        let again = move || {
            Rc::new(Notifier::new(|name| match name {
                "NOTIFY_SOCKET" => Some(make.clone().into()),
                "WATCHDOG_USEC" => Some(PERIOD.as_micros().to_string().into()),
                _ => None,
            }))
        };
        let (jam, thread) = core(again, stores.executions.clone());
        hears_a_beat(&socket);
        hears_a_beat(&socket);

        let ticket = stores.executions.write(stores.executions.change());
        begun.recv().unwrap();
        hears_nothing(&socket);
        release.send(()).unwrap();
        ticket.wait().unwrap();
        hears_a_beat(&socket);

        let ((stuck, is_stuck), (go_on, wait)) = (channel(), channel());
        jam.send((stuck, wait)).unwrap();
        is_stuck.recv().unwrap();
        hears_nothing(&socket);
        go_on.send(()).unwrap();
        hears_a_beat(&socket);

        drop(jam);
        thread.join().unwrap();
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn it_ends_at_once_if_nobody_asks_for_it_and_with_the_store() {
        let stores = open(&StoreSettings::memory()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(run(Rc::default(), stores.executions.clone()));
        let (_socket, notifier, path) = manager();
        let store = stores.executions.clone();
        stores.close().unwrap();
        runtime.block_on(run(notifier, store));
        std::fs::remove_file(path).unwrap();
    }
}
