//! Settling: acknowledgements, rejections, and requeues of what lost consumers had.

use std::sync::Arc;

use super::connection::Unsettled;
use super::queue::Entry;
use super::{Action, ChannelKey, Core, Error, QueueKey};
use crate::backing::DropReason;

/// How a delivery is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Acknowledge,
    Requeue,
    Drop,
}

impl Core {
    /// Settles one delivery, or with `multiple` all up to it (tag 0: all).
    pub(crate) fn settle_delivery(
        &mut self,
        key: ChannelKey,
        tag: u64,
        multiple: bool,
        verdict: Verdict,
    ) -> Result<(), Error> {
        let Some(channel) = self.channels.get_mut(key) else { return Ok(()) };
        let Some(connection) = self.connections.get(channel.connection) else { return Ok(()) };
        let user = connection.user.clone();
        if multiple {
            if tag != 0 && !channel.unacked.contains(tag) {
                return Err(Error::UnknownTag);
            }
            let last = if tag == 0 { u64::MAX } else { tag };
            if verdict == Verdict::Acknowledge {
                while let Some(unsettled) =
                    self.channels.get_mut(key).and_then(|it| it.unacked.take_up_to(last))
                {
                    self.acknowledge(unsettled, &user);
                }
            } else {
                let mut taken = Vec::new();
                while let Some(unsettled) = channel.unacked.take_up_to(last) {
                    taken.push(unsettled);
                }
                while let Some(unsettled) = taken.pop() {
                    self.reject(unsettled, verdict);
                }
            }
        } else {
            let unsettled = channel.unacked.take(tag).ok_or(Error::UnknownTag)?;
            match verdict {
                Verdict::Acknowledge => self.acknowledge(unsettled, &user),
                verdict => self.reject(unsettled, verdict),
            }
        }
        self.unpark_channel(key);
        Ok(())
    }

    /// Requeues everything that the channel has not settled.
    pub(crate) fn recover(&mut self, key: ChannelKey) {
        let Some(channel) = self.channels.get_mut(key) else { return };
        let mut taken = channel.unacked.take_if(|_| true);
        while let Some(unsettled) = taken.pop() {
            self.reject(unsettled, Verdict::Requeue);
        }
        self.unpark_channel(key);
    }

    fn acknowledge(&mut self, unsettled: Unsettled, user: &Arc<str>) {
        self.uncount(&unsettled);
        self.counts.acknowledged += 1;
        let Unsettled { queue: key, entry, .. } = unsettled;
        self.release(key, entry.message.weight());
        if self.queues.get(key).is_some_and(|it| it.feed.is_some()) {
            self.actions.push(Action::Acknowledged { queue: key, user: user.clone(), token: entry.token });
            // The queue may have waited for its number of unacknowledged messages to fall.
            self.touch(key);
        }
    }

    fn reject(&mut self, unsettled: Unsettled, verdict: Verdict) {
        if verdict == Verdict::Requeue {
            self.requeue(unsettled, true);
        } else {
            self.uncount(&unsettled);
            self.discard(unsettled.queue, unsettled.entry, DropReason::Rejected);
            self.touch(unsettled.queue);
        }
    }

    /// Puts a delivery back to its place in the queue. `by_consumer`: the consumer asked for it, which the delivery limit
    /// counts.
    pub(super) fn requeue(&mut self, unsettled: Unsettled, by_consumer: bool) {
        self.uncount(&unsettled);
        let Unsettled { queue: key, mut entry, .. } = unsettled;
        let Some(queue) = self.queues.get_mut(key) else {
            self.counts.dropped += 1;
            return;
        };
        entry.redelivered = true;
        entry.returns += u32::from(by_consumer);
        let limit = queue.attributes.delivery_limit.unwrap_or(self.settings.delivery_limit);
        if entry.returns > limit {
            self.discard(key, entry, DropReason::DeliveryLimit);
        } else {
            queue.put_back(entry);
            self.counts.ready += 1;
        }
        self.touch(key);
    }

    /// Takes a delivery off the counts of its consumer and queue.
    fn uncount(&mut self, unsettled: &Unsettled) {
        self.counts.unacknowledged -= 1;
        if let Some(key) = unsettled.consumer
            && let Some(consumer) = self.consumers.get_mut(key)
        {
            consumer.outstanding -= 1;
        }
        if let Some(queue) = self.queues.get_mut(unsettled.queue) {
            queue.unacknowledged -= 1;
            queue.unacknowledged_bytes -= unsettled.entry.message.body().len();
        }
    }

    /// Drops a message that was not acknowledged.
    pub(super) fn discard(&mut self, key: QueueKey, entry: Entry, why: DropReason) {
        self.counts.dropped += 1;
        self.release(key, entry.message.weight());
        if self.queues.get(key).is_some_and(|it| it.feed.is_some()) {
            self.actions.push(Action::Dropped { queue: key, token: entry.token, why });
        }
    }
}
