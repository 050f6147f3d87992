//! A consumer inside the process.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use thiserror::Error;

use crate::core::{ChannelKey, ConnectionKey, Consume, Error as Refused, Output, Verdict};
use crate::driver::outbox::Outbox;
use crate::driver::shared::Shared;
use crate::message::Message;

/// Deliveries are reported to the core as taken whenever they add up to this weight.
const REPORT_AFTER: usize = 64 << 10;

/// How an in-process consumer consumes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConsumeOptions {
    pub exclusive: bool,
    /// Deliveries count as acknowledged when delivered.
    pub no_ack: bool,
    /// The limit of unacknowledged deliveries at a time; 0 is no limit.
    pub prefetch: u16,
}

/// Why a queue can't be consumed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ConsumeError {
    #[error("no queue '{0}'")]
    NoQueue(String),
    #[error("queue '{0}' is in exclusive use")]
    InUse(String),
}

/// A consumer inside the process. Dropping it has the effect of a lost connection: what it had not settled is
/// redelivered to others.
pub struct Consumer {
    shared: Arc<Shared>,
    connection: ConnectionKey,
    channel: ChannelKey,
    outbox: Arc<Outbox>,
    batch: std::vec::IntoIter<Output>,
    taken: usize,
    ended: bool,
}

/// One delivery.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub tag: u64,
    pub redelivered: bool,
    pub message: Arc<Message>,
}

impl Consumer {
    pub(crate) fn start(
        shared: &Arc<Shared>,
        queue: &str,
        options: ConsumeOptions,
    ) -> Result<Consumer, ConsumeError> {
        let mut locked = shared.lock_for_embedder();
        let (connection, outbox) = locked.open_connection(true);
        let core = locked.core();
        let channel = core.open_channel(connection, 1);
        core.set_prefetch(channel, options.prefetch, true);
        let how =
            Consume { queue, tag: "inside".into(), no_ack: options.no_ack, exclusive: options.exclusive };
        let started = core.consume(channel, how);
        core.run();
        if let Err(error) = started {
            locked.remove_connection(connection, true);
            return Err(match error {
                Refused::NoQueue => ConsumeError::NoQueue(queue.into()),
                _ => ConsumeError::InUse(queue.into()),
            });
        }
        drop(locked);
        let batch = Vec::new().into_iter();
        let shared = shared.clone();
        Ok(Consumer { shared, connection, channel, outbox, batch, taken: 0, ended: false })
    }

    /// The next delivery; `None` once the queue is deleted.
    pub async fn next(&mut self) -> Option<Delivery> {
        poll_fn(|context| {
            self.outbox.waker.register(context.waker());
            loop {
                match self.batch.next() {
                    Some(Output::Deliver { tag, redelivered, message, .. }) => {
                        self.taken += message.weight();
                        if self.taken >= REPORT_AFTER {
                            self.report();
                        }
                        return Poll::Ready(Some(Delivery { tag, redelivered, message }));
                    }
                    Some(Output::Cancel { .. }) => self.ended = true,
                    Some(_) => {}
                    None if self.ended => return Poll::Ready(None),
                    None => {
                        self.report();
                        let mut batch = Vec::new();
                        self.outbox.take(&mut batch);
                        if batch.is_empty() {
                            return Poll::Pending;
                        }
                        self.batch = batch.into_iter();
                    }
                }
            }
        })
        .await
    }

    fn report(&mut self) {
        let taken = std::mem::take(&mut self.taken);
        if taken > 0 {
            self.shared.lock_for_embedder().core().written(self.connection, taken);
        }
    }

    /// Acknowledges one delivery, or with `multiple` all up to it. A tag that is already settled changes nothing.
    pub fn ack(&self, tag: u64, multiple: bool) {
        self.settle(tag, multiple, Verdict::Acknowledge);
    }

    /// Refuses one delivery, or with `multiple` all up to it. With `requeue` they are delivered again, otherwise dropped.
    pub fn nack(&self, tag: u64, multiple: bool, requeue: bool) {
        self.settle(tag, multiple, if requeue { Verdict::Requeue } else { Verdict::Drop });
    }

    fn settle(&self, tag: u64, multiple: bool, verdict: Verdict) {
        let mut locked = self.shared.lock_for_embedder();
        // An unknown tag is a mistake of the embedder's without further effect.
        let _ = locked.core().settle_delivery(self.channel, tag, multiple, verdict);
        locked.core().run();
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.shared.lock_for_embedder().remove_connection(self.connection, true);
    }
}
