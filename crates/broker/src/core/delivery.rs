//! Delivery: which consumer takes the next ready message, and what is recorded of it.

use super::connection::{InFlight, Unsettled};
use super::queue::Entry;
use super::{Action, ChannelKey, ConnectionKey, ConsumerKey, Core, Error, Got, Output, QueueKey};
use crate::backing::DropReason;

/// Why a consumer can't take a message now. It is parked until that changes.
enum Busy {
    /// Its channel has reached its prefetch, or the client stopped its flow.
    Channel,
    /// Its connection has enough deliveries to write.
    Connection,
    /// It no longer exists.
    Gone,
}

impl Core {
    /// Delivers from this queue while there are a message and a consumer that can take it, each consumer in turn.
    pub(super) fn drain(&mut self, key: QueueKey) {
        loop {
            let Some(queue) = self.queues.get_mut(key) else { return };
            if let Some(entry) = queue.pop_expired(self.now) {
                self.counts.ready -= 1;
                self.discard(key, entry, DropReason::Expired);
                continue;
            }
            if queue.ready.is_empty() || !queue.may_deliver() {
                return;
            }
            let Some(consumer) = queue.active.front().copied() else { return };
            match self.busy(consumer) {
                None => {
                    let Some(queue) = self.queues.get_mut(key) else { return };
                    if queue.active.len() > 1 {
                        queue.active.rotate_left(1);
                    }
                    if let Some(entry) = queue.pop() {
                        self.counts.ready -= 1;
                        self.deliver(consumer, entry);
                    }
                }
                Some(busy) => {
                    if let Some(queue) = self.queues.get_mut(key) {
                        queue.active.pop_front();
                    }
                    self.park(consumer, &busy);
                }
            }
        }
    }

    fn busy(&self, key: ConsumerKey) -> Option<Busy> {
        let Some(consumer) = self.consumers.get(key) else { return Some(Busy::Gone) };
        let Some(channel) = self.channels.get(consumer.channel) else { return Some(Busy::Gone) };
        let Some(connection) = self.connections.get(channel.connection) else { return Some(Busy::Gone) };
        let full = |limit: u16, outstanding: usize| limit != 0 && outstanding >= usize::from(limit);
        let limited = !consumer.no_ack
            && (full(consumer.prefetch, consumer.outstanding)
                || full(channel.prefetch_all, channel.unacked.len()));
        if limited || !channel.flowing {
            Some(Busy::Channel)
        } else if connection.in_flight_bytes >= self.settings.output_window {
            Some(Busy::Connection)
        } else {
            None
        }
    }

    fn park(&mut self, key: ConsumerKey, busy: &Busy) {
        let Some(consumer) = self.consumers.get(key) else { return };
        let Some(channel) = self.channels.get_mut(consumer.channel) else { return };
        match busy {
            Busy::Channel => channel.parked.push(key),
            Busy::Connection => {
                if let Some(connection) = self.connections.get_mut(channel.connection) {
                    connection.parked.push(key);
                }
            }
            Busy::Gone => {}
        }
    }

    pub(super) fn unpark_channel(&mut self, channel: ChannelKey) {
        if let Some(it) = self.channels.get_mut(channel)
            && !it.parked.is_empty()
        {
            let parked = std::mem::take(&mut it.parked);
            self.unpark(parked);
        }
    }

    fn unpark(&mut self, parked: Vec<ConsumerKey>) {
        for key in parked {
            let Some(queue_key) = self.consumers.get(key).map(|it| it.queue) else { continue };
            if let Some(queue) = self.queues.get_mut(queue_key) {
                queue.active.push_back(key);
                self.touch(queue_key);
            }
        }
    }

    fn deliver(&mut self, key: ConsumerKey, entry: Entry) {
        let Some(consumer) = self.consumers.get_mut(key) else { return };
        let Some(channel) = self.channels.get_mut(consumer.channel) else { return };
        let tag = channel.next_tag;
        channel.next_tag += 1;
        let output = Output::Deliver {
            channel: channel.number,
            consumer: consumer.tag.clone(),
            tag,
            redelivered: entry.redelivered,
            message: entry.message.clone(),
        };
        self.actions.push(Action::Send(channel.connection, output));
        self.counts.delivered += 1;
        self.counts.redelivered += u64::from(entry.redelivered);
        let (queue, connection, no_ack) = (consumer.queue, channel.connection, consumer.no_ack);
        let weight = entry.message.weight();
        if no_ack {
            self.note_settled_by_delivery(queue, connection, &entry);
        } else {
            consumer.outstanding += 1;
            self.counts.unacknowledged += 1;
            if let Some(queue) = self.queues.get_mut(queue) {
                queue.unacknowledged += 1;
                queue.unacknowledged_bytes += entry.message.body().len();
            }
            channel.unacked.push(tag, Unsettled { queue, consumer: Some(key), entry });
        }
        let Some(connection) = self.connections.get_mut(connection) else { return };
        connection.in_flight_bytes += weight;
        let queue = no_ack.then_some(queue);
        match connection.in_flight.back_mut() {
            Some(last) if last.queue == queue => last.bytes += weight,
            _ => connection.in_flight.push_back(InFlight { queue, bytes: weight }),
        }
    }

    /// Counts a delivery without acknowledgement as acknowledged.
    fn note_settled_by_delivery(&mut self, queue: QueueKey, connection: ConnectionKey, entry: &Entry) {
        self.counts.acknowledged += 1;
        if self.queues.get(queue).is_some_and(|it| it.feed.is_some())
            && let Some(connection) = self.connections.get(connection)
        {
            let user = connection.user.clone();
            self.actions.push(Action::Acknowledged { queue, user, token: entry.token });
        }
    }

    /// So many bytes of deliveries were written to the client.
    pub(crate) fn written(&mut self, key: ConnectionKey, bytes: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let mut left = bytes.min(connection.in_flight_bytes);
        connection.in_flight_bytes -= left;
        let mut released = Vec::new();
        while left > 0 {
            let Some(first) = connection.in_flight.front_mut() else { break };
            let part = left.min(first.bytes);
            first.bytes -= part;
            left -= part;
            released.extend(first.queue.map(|queue| (queue, part)));
            if first.bytes == 0 {
                connection.in_flight.pop_front();
            }
        }
        if connection.in_flight.is_empty() {
            connection.in_flight.shrink_to(4);
        }
        let parked = if connection.in_flight_bytes < self.settings.output_window {
            std::mem::take(&mut connection.parked)
        } else {
            Vec::new()
        };
        for (queue, bytes) in released {
            self.release(queue, bytes);
        }
        self.unpark(parked);
        self.run();
    }

    /// Takes one message without a consumer.
    pub(crate) fn get(
        &mut self,
        channel: ChannelKey,
        queue: &str,
        no_ack: bool,
    ) -> Result<Option<Got>, Error> {
        let Some(connection) = self.connection_of(channel) else { return Ok(None) };
        let key = self.queue_for(queue, connection)?;
        let entry = loop {
            let Some(queue) = self.queues.get_mut(key) else { return Ok(None) };
            queue.used = self.now;
            match queue.pop_expired(self.now) {
                Some(expired) => {
                    self.counts.ready -= 1;
                    self.discard(key, expired, DropReason::Expired);
                }
                None => break queue.pop(),
            }
        };
        self.touch(key);
        let Some(entry) = entry else { return Ok(None) };
        self.counts.ready -= 1;
        self.counts.delivered += 1;
        self.counts.redelivered += u64::from(entry.redelivered);
        let Some(channel) = self.channels.get_mut(channel) else { return Ok(None) };
        let tag = channel.next_tag;
        channel.next_tag += 1;
        let Some(queue) = self.queues.get_mut(key) else { return Ok(None) };
        let got = Got {
            tag,
            redelivered: entry.redelivered,
            remaining: u32::try_from(queue.ready.len()).unwrap_or(u32::MAX),
            message: entry.message.clone(),
        };
        if no_ack {
            let weight = entry.message.weight();
            self.note_settled_by_delivery(key, connection, &entry);
            self.release(key, weight);
        } else {
            self.counts.unacknowledged += 1;
            queue.unacknowledged += 1;
            queue.unacknowledged_bytes += entry.message.body().len();
            channel.unacked.push(tag, Unsettled { queue: key, consumer: None, entry });
        }
        Ok(Some(got))
    }
}
