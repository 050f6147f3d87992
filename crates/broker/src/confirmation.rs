//! The confirmation of a message that was published through the [`Handle`](crate::Handle).

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

/// What became of a published message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// Every queue that it was routed to has it; a queue with a sink: the embedder replied that it is safe.
    Confirmed,
    /// It matched no queue.
    Unroutable,
    /// At least one queue did not take it.
    Refused,
}

/// Resolves to the [`Confirmation`] of one message. When it is dropped, the message is still published.
pub struct Confirm {
    confirmation: oneshot::Receiver<Confirmation>,
}

impl Confirm {
    pub(crate) fn new(confirmation: oneshot::Receiver<Confirmation>) -> Confirm {
        Confirm { confirmation }
    }
}

impl Future for Confirm {
    type Output = Confirmation;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Confirmation> {
        Pin::new(&mut self.confirmation).poll(context).map(|it| it.unwrap_or(Confirmation::Refused))
    }
}
