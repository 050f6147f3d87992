//! Connections, channels and consumers: opened, closed and configured.

use std::collections::VecDeque;
use std::sync::Arc;

use super::publish::Confirms;
use super::queue::Entry;
use super::unacked::Unacked;
use super::{Action, ChannelKey, ConnectionKey, ConsumerKey, Core, Error, Output, QueueKey};
use crate::message::Message;

/// One client.
pub(crate) struct Connection {
    pub(crate) user: Arc<str>,
    /// A connection inside the process, which is never paused.
    pub(crate) local: bool,
    /// The client understands `basic.cancel` from the server.
    pub(crate) accepts_cancel: bool,
    pub(crate) channels: Vec<ChannelKey>,
    pub(crate) exclusive_queues: Vec<QueueKey>,
    /// Deliveries that are not yet written, oldest first. Those without acknowledgement still count for their queue.
    pub(super) in_flight: VecDeque<InFlight>,
    pub(super) in_flight_bytes: usize,
    /// Consumers that wait until this connection has written enough.
    pub(super) parked: Vec<ConsumerKey>,
    /// For how many queues it is paused.
    pub(super) paused_for: usize,
}

/// Bytes of deliveries that are not yet written.
pub(super) struct InFlight {
    pub(super) queue: Option<QueueKey>,
    pub(super) bytes: usize,
}

pub(crate) struct Channel {
    pub(crate) connection: ConnectionKey,
    pub(crate) number: u16,
    /// The next delivery's tag.
    pub(super) next_tag: u64,
    pub(super) unacked: Unacked<Unsettled>,
    pub(super) consumers: Vec<ConsumerKey>,
    /// The limits for each consumer started from now on, and for all of the channel together; 0 is no limit.
    pub(super) prefetch_each: u16,
    pub(super) prefetch_all: u16,
    pub(super) flowing: bool,
    /// Consumers that wait for an acknowledgement or for flow.
    pub(super) parked: Vec<ConsumerKey>,
    pub(super) confirms: Option<Confirms>,
}

/// A delivery that waits for its acknowledgement.
pub(crate) struct Unsettled {
    pub(super) queue: QueueKey,
    /// `None` for a `get`.
    pub(super) consumer: Option<ConsumerKey>,
    pub(super) entry: Entry,
}

pub(crate) struct Consumer {
    pub(super) channel: ChannelKey,
    pub(super) queue: QueueKey,
    pub(super) tag: Arc<str>,
    pub(super) no_ack: bool,
    pub(super) prefetch: u16,
    pub(super) outstanding: usize,
}

/// What a consumer is started with.
#[derive(Clone, Debug)]
pub(crate) struct Consume<'a> {
    pub(crate) queue: &'a str,
    pub(crate) tag: Arc<str>,
    pub(crate) no_ack: bool,
    pub(crate) exclusive: bool,
}

/// The message that a `get` took.
pub(crate) struct Got {
    pub(crate) tag: u64,
    pub(crate) redelivered: bool,
    pub(crate) remaining: u32,
    pub(crate) message: Arc<Message>,
}

impl Core {
    pub(crate) fn open_connection(&mut self, local: bool) -> ConnectionKey {
        self.connections.insert(Connection {
            user: "".into(),
            local,
            accepts_cancel: local,
            channels: Vec::new(),
            exclusive_queues: Vec::new(),
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            parked: Vec::new(),
            paused_for: 0,
        })
    }

    /// The client has logged in.
    pub(crate) fn identify(&mut self, connection: ConnectionKey, user: Arc<str>, accepts_cancel: bool) {
        if let Some(it) = self.connections.get_mut(connection) {
            it.user = user;
            it.accepts_cancel = accepts_cancel;
        }
    }

    /// The client is gone, for whatever reason: what it had not settled is requeued, its exclusive queues are deleted.
    pub(crate) fn close_connection(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let channels = std::mem::take(&mut connection.channels);
        // All consumers are removed before anything is requeued, so that nothing is delivered to this connection.
        for channel in &channels {
            self.drop_consumers(*channel);
        }
        for channel in channels {
            self.drop_channel(channel);
        }
        let Some(connection) = self.connections.remove(key) else { return };
        self.memory.paused -= usize::from(connection.paused_for > 0);
        for flight in connection.in_flight {
            if let Some(queue) = flight.queue {
                self.release(queue, flight.bytes);
            }
        }
        for queue in connection.exclusive_queues {
            self.drop_queue(queue);
        }
        self.run();
    }

    pub(crate) fn open_channel(&mut self, connection: ConnectionKey, number: u16) -> ChannelKey {
        let key = self.channels.insert(Channel {
            connection,
            number,
            next_tag: 1,
            unacked: Unacked::default(),
            consumers: Vec::new(),
            prefetch_each: 0,
            prefetch_all: 0,
            flowing: true,
            parked: Vec::new(),
            confirms: None,
        });
        if let Some(it) = self.connections.get_mut(connection) {
            it.channels.push(key);
        }
        key
    }

    pub(crate) fn close_channel(&mut self, key: ChannelKey) {
        self.drop_consumers(key);
        self.drop_channel(key);
        self.run();
    }

    fn drop_channel(&mut self, key: ChannelKey) {
        let Some(mut channel) = self.channels.remove(key) else { return };
        if let Some(connection) = self.connections.get_mut(channel.connection) {
            connection.channels.retain(|it| *it != key);
        }
        let mut lost = channel.unacked.take_if(|_| true);
        // The last first, so that each is put to the front of its queue.
        while let Some(unsettled) = lost.pop() {
            self.requeue(unsettled, false);
        }
    }

    fn drop_consumers(&mut self, channel: ChannelKey) {
        let Some(it) = self.channels.get_mut(channel) else { return };
        let gone = std::mem::take(&mut it.consumers);
        let mut queues: Vec<QueueKey> =
            gone.iter().filter_map(|it| self.consumers.remove(*it)).map(|it| it.queue).collect();
        queues.sort_unstable();
        queues.dedup();
        // Once per queue: a connection may have thousands of consumers on one.
        for key in queues {
            if let Some(queue) = self.queues.get_mut(key) {
                queue.keep_consumers(|it| self.consumers.get(it).is_some());
                self.consumer_left(key);
            }
        }
    }

    /// Removes a consumer. What it has not settled stays with its channel.
    fn drop_consumer(&mut self, key: ConsumerKey) {
        let Some(consumer) = self.consumers.remove(key) else { return };
        if let Some(channel) = self.channels.get_mut(consumer.channel) {
            channel.consumers.retain(|it| *it != key);
        }
        if let Some(queue) = self.queues.get_mut(consumer.queue) {
            queue.keep_consumers(|it| it != key);
            self.consumer_left(consumer.queue);
        }
    }

    /// A consumer of this queue was removed.
    fn consumer_left(&mut self, key: QueueKey) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        queue.used = self.now;
        if queue.consumers.is_empty() && queue.attributes.auto_delete {
            self.drop_queue(key);
        } else {
            self.touch(key);
        }
    }

    /// Removes a consumer of a deleted queue, and notifies its client if that understands it.
    pub(super) fn cancel_by_broker(&mut self, key: ConsumerKey) {
        let Some(consumer) = self.consumers.remove(key) else { return };
        let Some(channel) = self.channels.get_mut(consumer.channel) else { return };
        channel.consumers.retain(|it| *it != key);
        let (number, connection) = (channel.number, channel.connection);
        if self.connections.get(connection).is_some_and(|it| it.accepts_cancel) {
            let cancel = Output::Cancel { channel: number, consumer: consumer.tag };
            self.actions.push(Action::Send(connection, cancel));
        }
    }

    pub(crate) fn consumer_count(&self, connection: ConnectionKey) -> usize {
        let channels = self.connections.get(connection).into_iter().flat_map(|it| &it.channels);
        channels.filter_map(|it| self.channels.get(*it)).map(|it| it.consumers.len()).sum()
    }

    pub(crate) fn has_consumer(&self, channel: ChannelKey, tag: &str) -> bool {
        self.find_consumer(channel, tag).is_some()
    }

    fn find_consumer(&self, channel: ChannelKey, tag: &str) -> Option<ConsumerKey> {
        let channel = self.channels.get(channel)?;
        let is_it = |key: &ConsumerKey| self.consumers.get(*key).is_some_and(|it| *it.tag == *tag);
        channel.consumers.iter().copied().find(is_it)
    }

    /// Starts a consumer. It gets its first message in [`run`](Core::run).
    pub(crate) fn consume(&mut self, channel: ChannelKey, how: Consume<'_>) -> Result<(), Error> {
        let Some(connection) = self.channels.get(channel).map(|it| it.connection) else { return Ok(()) };
        let queue_key = self.queue_for(how.queue, connection)?;
        if self.has_consumer(channel, &how.tag) {
            return Err(Error::TagTaken);
        }
        let Some(queue) = self.queues.get_mut(queue_key) else { return Err(Error::NoQueue) };
        if queue.exclusive_consumer || (how.exclusive && !queue.consumers.is_empty()) {
            return Err(Error::InUse);
        }
        let Some(channel_state) = self.channels.get_mut(channel) else { return Ok(()) };
        let key = self.consumers.insert(Consumer {
            channel,
            queue: queue_key,
            tag: how.tag,
            no_ack: how.no_ack,
            prefetch: channel_state.prefetch_each,
            outstanding: 0,
        });
        channel_state.consumers.push(key);
        queue.exclusive_consumer = how.exclusive;
        queue.consumers.push(key);
        queue.active.push_back(key);
        queue.used = self.now;
        self.touch(queue_key);
        Ok(())
    }

    pub(crate) fn cancel(&mut self, channel: ChannelKey, tag: &str) {
        if let Some(consumer) = self.find_consumer(channel, tag) {
            self.drop_consumer(consumer);
        }
    }

    /// `each`: for every consumer started from now on, otherwise for the channel as a whole.
    pub(crate) fn set_prefetch(&mut self, channel: ChannelKey, count: u16, each: bool) {
        let Some(it) = self.channels.get_mut(channel) else { return };
        if each {
            it.prefetch_each = count;
        } else {
            it.prefetch_all = count;
            self.unpark_channel(channel);
        }
    }

    pub(crate) fn set_flow(&mut self, channel: ChannelKey, flowing: bool) {
        if let Some(it) = self.channels.get_mut(channel) {
            it.flowing = flowing;
            self.unpark_channel(channel);
        }
    }

    pub(crate) fn has_connection(&self, key: ConnectionKey) -> bool {
        self.connections.get(key).is_some()
    }

    pub(crate) fn connection_of(&self, channel: ChannelKey) -> Option<ConnectionKey> {
        self.channels.get(channel).map(|it| it.connection)
    }

    /// The connections of the users for whom `whose` is true.
    pub(crate) fn connections_whose<'a>(
        &'a self,
        whose: impl Fn(&str) -> bool + 'a,
    ) -> impl Iterator<Item = ConnectionKey> + 'a {
        self.connections.iter().filter(move |it| !it.1.local && whose(&it.1.user)).map(|it| it.0)
    }

    /// The connections of this user.
    pub(crate) fn connections_of<'a>(&'a self, user: &'a str) -> impl Iterator<Item = ConnectionKey> + 'a {
        self.connections_whose(move |it| it == user)
    }
}
