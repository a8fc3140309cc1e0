//! Deletes results whose time has come. Sleeps until the next one is due; an idle node wakes for nothing.

use std::sync::Arc;
use std::time::Duration;

use crate::publisher::Packer;
use crate::results::Shelf;
use crate::sys::Clock;

/// How soon to look again while the wall clock is not to be believed: it is set once the board reaches a network.
const CLOCK_CHECK: Duration = Duration::from_secs(60);

/// Longest sleep: wall-clock time may be set while a monotonic sleep goes on.
const SLEEP_MAX: Duration = Duration::from_secs(600);

/// Runs for as long as the node.
pub(super) async fn run(shelf: Arc<Shelf>, packer: Packer, clock: Arc<dyn Clock>) {
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
            None => shelf.changed().await,
            Some(_) if !clock.is_trusted() => wait(&shelf, CLOCK_CHECK).await,
            Some(due) => {
                let left = due.since(clock.now());
                if left.is_zero() {
                    let expired = Arc::clone(&shelf);
                    match packer.run(move || expired.expire()).await {
                        Ok(Ok(gone)) if !gone.is_empty() => {}
                        Ok(Ok(_)) => wait(&shelf, CLOCK_CHECK).await,
                        Ok(Err(error)) => {
                            log::warn!("results that are due stay for now: {error}");
                            wait(&shelf, CLOCK_CHECK).await;
                        }
                        Err(_) => return,
                    }
                } else {
                    wait(&shelf, left.min(SLEEP_MAX)).await;
                }
            }
        }
    }
}

/// Sleeps until results have changed, at most for `longest`.
async fn wait(shelf: &Shelf, longest: Duration) {
    // Which of the two it was does not matter: the caller looks again.
    let _ = tokio::time::timeout(longest, shelf.changed()).await;
}
