//! The answer to a write.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::sync::oneshot;

use crate::store::StoreError;

/// The answer to a write: wait for it by `.await`, or with [`Ticket::wait`] on a plain thread.
///
/// A dropped ticket takes nothing back.
#[must_use = "a write may fail, and only its ticket says so"]
#[derive(Debug)]
pub struct Ticket(State);

#[derive(Debug)]
enum State {
    Answered(Result<(), StoreError>),
    Waiting(oneshot::Receiver<Result<(), StoreError>>),
}

impl Ticket {
    /// A ticket that is answered already.
    pub(in crate::store) fn answered(result: Result<(), StoreError>) -> Self {
        Self(State::Answered(result))
    }

    /// One that the thread will answer.
    pub(super) fn waiting(answer: oneshot::Receiver<Result<(), StoreError>>) -> Self {
        Self(State::Waiting(answer))
    }

    /// Blocks until the write is committed. Not for threads that run a tokio runtime: it panics there.
    ///
    /// # Errors
    /// The write was refused or failed, and nothing of it was stored; or, after `write_soon`, it is visible but may
    /// not survive a power cut.
    pub fn wait(self) -> Result<(), StoreError> {
        match self.0 {
            State::Answered(result) => result,
            State::Waiting(answer) => answer.blocking_recv().unwrap_or(Err(StoreError::Closed)),
        }
    }
}

impl Future for Ticket {
    type Output = Result<(), StoreError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let result = match &mut self.0 {
            State::Answered(result) => result.clone(),
            State::Waiting(answer) => {
                ready!(Pin::new(answer).poll(context)).unwrap_or(Err(StoreError::Closed))
            }
        };
        self.0 = State::Answered(result.clone());
        Poll::Ready(result)
    }
}
