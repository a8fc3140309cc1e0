//! Two futures, of which the first to be ready wins.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

/// Who was first. If both are ready, it is the first of the two.
pub enum Won<A, B> {
    /// The first.
    First(A),
    /// The second.
    Second(B),
}

/// Waits for either; the other is dropped.
pub async fn race<A, B>(first: impl Future<Output = A>, second: impl Future<Output = B>) -> Won<A, B> {
    let (mut first, mut second) = (pin!(first), pin!(second));
    poll_fn(|cx| {
        if let Poll::Ready(value) = first.as_mut().poll(cx) {
            return Poll::Ready(Won::First(value));
        }
        second.as_mut().poll(cx).map(Won::Second)
    })
    .await
}
