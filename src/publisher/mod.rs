//! The packer: one thread for everything that reads or writes whole files, so that the core thread never does.
//!
//! It packs results onto the shelf and takes finished executions' directories away.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::model::{ExecutionId, Failure, FailureCode, JobId};
use crate::results::{Published, Shelf};
use crate::sys::Interrupt;

/// Stack of the packer thread: the compressor's tables live on the heap.
const STACK: usize = 256 << 10;

type Work = Box<dyn FnOnce() + Send>;

/// The packer thread is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the packer thread has ended; restart the node")]
pub struct PackerGone;

/// Hands work to the packer thread. What waits is bounded by its callers: one entry for each execution that has
/// just ended, and one for the janitor.
#[derive(Debug, Clone)]
pub struct Packer {
    queue: Sender<Work>,
}

impl Packer {
    /// Starts the thread. It ends when the last handle is dropped and its queue is empty.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start() -> std::io::Result<Self> {
        let (queue, work) = channel::<Work>();
        std::thread::Builder::new().name("packer".into()).stack_size(STACK).spawn(move || {
            crate::sys::fs::lower_priority();
            for work in work {
                work();
            }
        })?;
        Ok(Self { queue })
    }

    /// Runs `work` there; the answer comes when it is done.
    ///
    /// # Errors
    /// The thread is gone.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PackerGone> {
        let (answer, done) = oneshot::channel();
        let work: Work = Box::new(move || {
            // Whoever asked may have gone away; the work counts all the same.
            let _ = answer.send(work());
        });
        self.queue.send(work).map_err(|_| PackerGone)?;
        done.await.map_err(|_| PackerGone)
    }
}

/// Publishes results on this node's own shelf: publisher type `local`.
#[derive(Clone)]
pub struct LocalPublisher {
    shelf: Arc<Shelf>,
    packer: Packer,
}

impl LocalPublisher {
    /// One that packs on `packer` and stores on `shelf`.
    #[must_use]
    pub fn new(shelf: Arc<Shelf>, packer: Packer) -> Self {
        Self { shelf, packer }
    }

    /// Packs `dir` and puts the archive on the shelf. It is served once the returned entry's ledger row is durable
    /// and [`Shelf::confirm`] was called.
    ///
    /// # Errors
    /// Why there is no archive; nothing of it is left on disk.
    pub async fn publish(
        &self,
        id: &ExecutionId,
        job: &JobId,
        dir: PathBuf,
        retention: Option<Duration>,
        interrupt: Interrupt,
    ) -> Result<Published, Failure> {
        let (shelf, id, job) = (Arc::clone(&self.shelf), id.clone(), job.clone());
        let packed = self.packer.run(move || shelf.publish(&id, &job, &dir, retention, &interrupt)).await;
        match packed {
            Ok(result) => result.map_err(Failure::from),
            Err(gone) => Err(Failure::new(FailureCode::PublishFailed, gone.to_string())),
        }
    }
}
