//! Deletes results whose time has come. Sleeps until the next one is due; an idle node wakes for nothing.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::publisher::Packer;
use crate::results::Shelf;
use crate::sys::Clock;

/// How soon to look again while the wall clock is not to be believed: it is set once the board reaches a network.
const CLOCK_CHECK: Duration = Duration::from_secs(60);

/// Longest sleep: wall-clock time may be set while a monotonic sleep goes on.
const SLEEP_MAX: Duration = Duration::from_secs(600);

/// Runs for as long as the node. `changed` says that a result was published or that a policy changed.
pub(super) async fn run(shelf: Arc<Shelf>, packer: Packer, clock: Arc<dyn Clock>, changed: Rc<Notify>) {
    let mut jumps = clock.jumps();
    loop {
        if std::mem::replace(&mut jumps, clock.jumps()) != jumps {
            // What was published before has the age that was witnessed; that is worth writing down at once.
            let shelf = Arc::clone(&shelf);
            if let Ok(Err(error)) = packer.run(move || shelf.expire()).await {
                log::warn!("results keep the dates that they had before the clock was set: {error}");
            }
        }
        match shelf.next_expiry() {
            None => changed.notified().await,
            Some(_) if !clock.is_trusted() => wait(&changed, CLOCK_CHECK).await,
            Some(due) => {
                let left = due.since(clock.now());
                if left.is_zero() {
                    let shelf = Arc::clone(&shelf);
                    match packer.run(move || shelf.expire()).await {
                        Ok(Ok(gone)) if !gone.is_empty() => {}
                        Ok(Ok(_)) => wait(&changed, CLOCK_CHECK).await,
                        Ok(Err(error)) => {
                            log::warn!("results that are due stay for now: {error}");
                            wait(&changed, CLOCK_CHECK).await;
                        }
                        Err(_) => return,
                    }
                } else {
                    wait(&changed, left.min(SLEEP_MAX)).await;
                }
            }
        }
    }
}

/// Sleeps until something changed, at most for `longest`.
async fn wait(changed: &Notify, longest: Duration) {
    // Which of the two it was does not matter: the caller looks again.
    let _ = tokio::time::timeout(longest, changed.notified()).await;
}
