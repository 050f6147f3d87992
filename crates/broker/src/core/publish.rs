//! Publishing: messages from a publisher into queues, and the confirms back to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Action, ChannelKey, ConnectionKey, Core, Error, Output, QueueKey};
use crate::backing::{DropReason, StoredMessage};
use crate::declaration::Overflow;
use crate::message::Message;

/// Who published.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Publisher {
    Channel(ChannelKey),
    /// Inside the process; waits for [`Action::Confirmed`] with this number.
    Local(u64),
}

/// Where a confirm is sent.
#[derive(Clone, Copy, Debug)]
enum Reply {
    Channel(ChannelKey, u64),
    Local(u64),
}

/// The confirms of one channel.
#[derive(Default)]
pub(crate) struct Confirms {
    /// How many messages were published so far.
    count: u64,
    /// Those that wait for a sink.
    open: BTreeMap<u64, Open>,
}

struct Open {
    waiting: usize,
    refused: bool,
}

/// One message that one sink has not replied to.
pub(crate) struct Ticket {
    queue: QueueKey,
    weight: usize,
    reply: Option<Reply>,
}

/// Whether one queue took a message.
enum Taken {
    Yes,
    No,
    /// Its sink will reply later.
    Later,
}

impl Core {
    pub(crate) fn select_confirms(&mut self, channel: ChannelKey) {
        if let Some(it) = self.channels.get_mut(channel) {
            it.confirms.get_or_insert_default();
        }
    }

    /// Routes a message and confirms it, now or when the sinks have replied. Returns how many queues it matched.
    pub(crate) fn publish(
        &mut self,
        from: Publisher,
        message: Arc<Message>,
        mandatory: bool,
    ) -> Result<usize, Error> {
        let mut queues = std::mem::take(&mut self.routed);
        let routed = self.route(message.exchange(), message.routing_key(), &mut queues);
        let result = routed.map(|()| {
            self.counts.published += 1;
            self.publish_to(from, message, mandatory, &queues);
            queues.len()
        });
        self.routed = queues;
        result
    }

    fn publish_to(&mut self, from: Publisher, message: Arc<Message>, mandatory: bool, queues: &[QueueKey]) {
        let (connection, reply, number) = match from {
            Publisher::Local(number) => (None, Some(Reply::Local(number)), 0),
            Publisher::Channel(key) => {
                let Some(channel) = self.channels.get_mut(key) else { return };
                let reply = channel.confirms.as_mut().map(|it| {
                    it.count += 1;
                    Reply::Channel(key, it.count)
                });
                (Some(channel.connection), reply, channel.number)
            }
        };
        if queues.is_empty() {
            self.counts.unroutable += 1;
            if let (true, Some(connection)) = (mandatory, connection) {
                self.actions.push(Action::Send(connection, Output::Return { channel: number, message }));
            }
        } else {
            let mut waiting = 0;
            let mut refused = false;
            for queue in queues {
                match self.offer(*queue, &message, connection, reply) {
                    Taken::Yes => {}
                    Taken::No => {
                        refused = true;
                        self.counts.refused += 1;
                    }
                    Taken::Later => waiting += 1,
                }
                if let Some(connection) = connection {
                    self.consider_pause(connection, *queue);
                }
            }
            if waiting > 0 {
                self.note_open(reply, Open { waiting, refused });
                return;
            }
            if refused {
                self.confirm(reply, false);
                return;
            }
        }
        self.confirm(reply, true);
    }

    fn offer(
        &mut self,
        key: QueueKey,
        message: &Arc<Message>,
        connection: Option<ConnectionKey>,
        reply: Option<Reply>,
    ) -> Taken {
        let Some(queue) = self.queues.get_mut(key) else { return Taken::No };
        if queue.sink {
            let weight = message.weight();
            let ticket = self.tickets.insert(Ticket { queue: key, weight, reply });
            let user = connection.and_then(|it| self.connections.get(it)).map(|it| it.user.clone());
            self.actions.push(Action::Offer {
                queue: key,
                ticket: ticket.to_bits(),
                user: user.unwrap_or_else(|| "".into()),
                message: message.clone(),
            });
            self.hold(key, weight);
            return Taken::Later;
        }
        // A window holds only what the embedder fed. And a confirm of a persistent message promises more than memory can
        // keep.
        let unsafe_here = reply.is_some() && queue.attributes.durable && message.persistent();
        let reject_full =
            queue.attributes.overflow == Overflow::RejectPublish && queue.full(message.body().len());
        if queue.feed.is_some() || unsafe_here || reject_full {
            return Taken::No;
        }
        queue.push(message.clone(), 0, false, self.now);
        self.counts.ready += 1;
        self.hold(key, message.weight());
        if let Some(queue) = self.queues.get(key)
            && queue.overflows()
        {
            self.drain(key);
            self.drop_overflow(key);
        }
        self.touch(key);
        Taken::Yes
    }

    fn drop_overflow(&mut self, key: QueueKey) {
        while let Some(queue) = self.queues.get_mut(key)
            && queue.overflows()
            && let Some(entry) = queue.pop()
        {
            self.counts.ready -= 1;
            self.discard(key, entry, DropReason::Overflow);
        }
    }

    fn note_open(&mut self, reply: Option<Reply>, open: Open) {
        match reply {
            Some(Reply::Channel(key, number)) => {
                if let Some(confirms) = self.channels.get_mut(key).and_then(|it| it.confirms.as_mut()) {
                    confirms.open.insert(number, open);
                }
            }
            Some(Reply::Local(number)) => {
                self.local_open.insert(number, (open.waiting, open.refused));
            }
            None => {}
        }
    }

    /// Confirms to the publisher.
    fn confirm(&mut self, reply: Option<Reply>, safe: bool) {
        match reply {
            Some(Reply::Channel(key, number)) => {
                let Some(channel) = self.channels.get(key) else { return };
                let oldest = channel.confirms.as_ref().and_then(|it| it.open.first_key_value());
                let whole = oldest.is_none_or(|it| *it.0 > number);
                let output =
                    Output::Confirm { channel: channel.number, first: number, last: number, safe, whole };
                self.actions.push(Action::Send(channel.connection, output));
            }
            Some(Reply::Local(local)) => self.actions.push(Action::Confirmed { local, safe }),
            None => {}
        }
    }

    /// The replies of sinks.
    pub(crate) fn settle_tickets(&mut self, tickets: &[u64], safe: bool) {
        for ticket in tickets {
            let Some(ticket) = self.tickets.remove(super::Key::from_bits(*ticket)) else { continue };
            self.release(ticket.queue, ticket.weight);
            self.counts.refused += u64::from(!safe);
            let finished = match ticket.reply {
                Some(Reply::Channel(key, number)) => {
                    let confirms = self.channels.get_mut(key).and_then(|it| it.confirms.as_mut());
                    confirms.and_then(|confirms| {
                        let open = confirms.open.get_mut(&number)?;
                        open.waiting -= 1;
                        open.refused |= !safe;
                        let done = (open.waiting == 0).then_some(open.refused);
                        if done.is_some() {
                            confirms.open.remove(&number);
                        }
                        done
                    })
                }
                Some(Reply::Local(number)) => self.local_open.get_mut(&number).and_then(|open| {
                    open.0 -= 1;
                    open.1 |= !safe;
                    (open.0 == 0).then_some(open.1)
                }),
                None => None,
            };
            if let Some(refused) = finished {
                if let Some(Reply::Local(number)) = ticket.reply {
                    self.local_open.remove(&number);
                }
                self.confirm(ticket.reply, !refused);
            }
        }
        self.run();
    }

    /// Takes messages that the embedder feeds into a window.
    pub(crate) fn feed(
        &mut self,
        name: &str,
        window: u64,
        messages: Vec<StoredMessage>,
    ) -> Result<(), Error> {
        let key = self.queue_names.get(name).copied().ok_or(Error::NoQueue)?;
        let queue = self.queues.get_mut(key).ok_or(Error::NoQueue)?;
        let feed = queue.feed.as_mut().filter(|it| it.open && it.id == window).ok_or(Error::WindowEnded)?;
        feed.granted_messages = feed.granted_messages.saturating_sub(messages.len());
        let bytes: usize = messages.iter().map(|it| it.message.body().len()).sum();
        feed.granted_bytes = feed.granted_bytes.saturating_sub_unsigned(bytes as u64);
        self.counts.fed += messages.len() as u64;
        self.counts.ready += messages.len();
        let mut weight = 0;
        for fed in messages {
            weight += fed.message.weight();
            queue.push(Arc::new(fed.message), fed.token, fed.redelivered, self.now);
        }
        self.hold(key, weight);
        self.touch(key);
        self.run();
        Ok(())
    }

    /// Opens and ends the window of a queue with a backing, and grants credit for the room that it has.
    pub(super) fn grant_credit(&mut self, key: QueueKey) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        let Some(feed) = queue.feed.as_mut() else { return };
        if queue.consumers.is_empty() {
            // The window stays open while deliveries are unsettled: they can still be acknowledged.
            if feed.open && queue.unacknowledged == 0 {
                feed.open = false;
                let window = feed.id;
                let forgotten = std::mem::take(&mut queue.ready);
                queue.ready_bytes = 0;
                let weight = forgotten.iter().map(|it| it.message.weight()).sum();
                let unacknowledged =
                    forgotten.iter().filter(|it| it.redelivered).map(|it| it.token).collect();
                self.counts.ready -= forgotten.len();
                self.counts.forgotten += forgotten.len() as u64;
                self.release(key, weight);
                self.actions.push(Action::Ended { queue: key, window, unacknowledged });
                self.actions.push(Action::Discard(forgotten));
            }
            return;
        }
        if !feed.open {
            feed.open = true;
            // Ids also rise over a deletion of the queue: its backing may still get calls about the old one.
            self.windows += 1;
            feed.id = self.windows;
            feed.granted_messages = 0;
            feed.granted_bytes = 0;
        }
        let limit = feed.limit;
        let present = queue.ready.len() + feed.granted_messages;
        let messages = if present <= limit.messages / 2 { limit.messages - present } else { 0 };
        let limit_bytes = i64::try_from(limit.bytes).unwrap_or(i64::MAX);
        let present = i64::try_from(queue.ready_bytes).unwrap_or(i64::MAX).saturating_add(feed.granted_bytes);
        let bytes = if present <= limit_bytes / 2 { limit_bytes.saturating_sub(present) } else { 0 };
        if messages > 0 || bytes > 0 {
            feed.granted_messages += messages;
            feed.granted_bytes += bytes;
            let bytes = usize::try_from(bytes).unwrap_or(0);
            self.actions.push(Action::GrantCredit { queue: key, window: feed.id, messages, bytes });
        }
    }
}
