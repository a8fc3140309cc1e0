//! Which executions' files are being read by followers: their room is not given back before.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::model::ExecutionId;

/// Who reads what.
#[derive(Debug, Default)]
pub struct Readers {
    held: Mutex<HashMap<ExecutionId, usize>>,
    released: Notify,
}

impl Readers {
    /// Says that the execution's files are read for as long as the answer lives.
    #[must_use]
    pub fn hold(self: &Arc<Self>, id: &ExecutionId) -> Hold {
        *self.lock().entry(id.clone()).or_default() += 1;
        Hold { readers: Arc::clone(self), id: id.clone() }
    }

    /// Whether anybody reads them.
    #[must_use]
    pub fn has(&self, id: &ExecutionId) -> bool {
        self.lock().contains_key(id)
    }

    /// Waits until nobody does.
    pub async fn released(&self, id: &ExecutionId) {
        loop {
            let released = self.released.notified();
            if !self.has(id) {
                return;
            }
            released.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ExecutionId, usize>> {
        // A count is changed in one step.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody reads an execution's files.
#[derive(Debug)]
pub struct Hold {
    readers: Arc<Readers>,
    id: ExecutionId,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut held = self.readers.lock();
        if let Some(count) = held.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.id);
            }
        }
        drop(held);
        self.readers.released.notify_waiters();
    }
}
