//! Tells those who follow logs that an execution or a job may have changed.

use crate::store::ExecutionStore;
use crate::sys::{Bell, Ring};

/// The way to them.
#[derive(Clone)]
pub(super) struct News {
    bell: Bell,
    store: ExecutionStore,
}

impl News {
    pub(super) fn new(bell: &Bell, store: &ExecutionStore) -> Self {
        Self { bell: bell.clone(), store: store.clone() }
    }

    /// Rings, if anybody listens, once what has been written is to be seen.
    pub(super) fn tell(&self) {
        if !self.bell.is_used() {
            return;
        }
        let this = self.clone();
        tokio::task::spawn_local(async move {
            // One thread writes both databases: what it was handed lazily is done by then. If it fails, others say so.
            let _ = this.store.ping().await;
            this.bell.ring(Ring::State);
        });
    }
}
