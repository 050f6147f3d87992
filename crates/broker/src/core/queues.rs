//! Declaring, deleting and purging queues.

use std::sync::Arc;

use super::exchange::Target;
use super::queue::Queue;
use super::{Action, Attributes, ConnectionKey, Core, Error, QueueKey, Storage};
use crate::backing::DropReason;

/// The counts in `queue.declare-ok`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Declared {
    pub(crate) messages: u32,
    pub(crate) consumers: u32,
}

impl Core {
    /// The queue, if this connection may see it.
    pub(super) fn queue_for(&self, name: &str, connection: ConnectionKey) -> Result<QueueKey, Error> {
        let key = self.queue_names.get(name).copied().ok_or(Error::NoQueue)?;
        let queue = self.queues.get(key).ok_or(Error::NoQueue)?;
        match queue.owner {
            Some(owner) if owner != connection => Err(Error::Locked),
            _ => Ok(key),
        }
    }

    pub(crate) fn queue(&self, name: &str) -> Option<&Queue> {
        self.queue_names.get(name).and_then(|it| self.queues.get(*it))
    }

    pub(crate) fn queue_key(&self, name: &str) -> Option<QueueKey> {
        self.queue_names.get(name).copied()
    }

    /// Declares passively.
    pub(crate) fn inspect_queue(&mut self, name: &str, connection: ConnectionKey) -> Result<Declared, Error> {
        let key = self.queue_for(name, connection)?;
        let now = self.now;
        let queue = self.queues.get_mut(key).ok_or(Error::NoQueue)?;
        queue.used = now;
        Ok(declared(queue))
    }

    /// Declares for a client. `Ok` also when the queue exists with the same attributes.
    pub(crate) fn declare_queue(
        &mut self,
        name: &str,
        connection: ConnectionKey,
        attributes: Attributes,
    ) -> Result<Declared, Error> {
        if self.queue_names.contains_key(name) {
            let key = self.queue_for(name, connection)?;
            let now = self.now;
            let queue = self.queues.get_mut(key).ok_or(Error::NoQueue)?;
            same(&queue.attributes, &attributes)?;
            queue.used = now;
            return Ok(declared(queue));
        }
        let owner = attributes.exclusive.then_some(connection);
        let key = self.create_queue(name, attributes, owner, Storage::default());
        if owner.is_some()
            && let Some(it) = self.connections.get_mut(connection)
        {
            it.exclusive_queues.push(key);
        }
        Ok(Declared { messages: 0, consumers: 0 })
    }

    /// Declares for the embedder. A queue that exists keeps what it holds.
    pub(crate) fn declare_for_embedder(
        &mut self,
        name: &str,
        attributes: Attributes,
        storage: Storage,
    ) -> Result<QueueKey, Error> {
        let Some(key) = self.queue_key(name) else {
            return Ok(self.create_queue(name, attributes, None, storage));
        };
        let queue = self.queues.get_mut(key).ok_or(Error::NoQueue)?;
        if queue.owner.is_some() {
            return Err(Error::Locked);
        }
        same(&queue.attributes, &attributes)?;
        if queue.feed.is_some() != storage.backing.is_some() {
            return Err(Error::Different { what: "backing" });
        }
        queue.sink = storage.sink;
        Ok(key)
    }

    fn create_queue(
        &mut self,
        name: &str,
        attributes: Attributes,
        owner: Option<ConnectionKey>,
        storage: Storage,
    ) -> QueueKey {
        let name: Arc<str> = name.into();
        let key = self.queues.insert(Queue::new(name.clone(), attributes, owner, storage, self.now));
        self.queue_names.insert(name, key);
        self.touch(key);
        key
    }

    /// Deletes for a client. Returns how many messages were in it; `None` if there was no such queue.
    pub(crate) fn delete_queue(
        &mut self,
        name: &str,
        connection: ConnectionKey,
        if_unused: bool,
        if_empty: bool,
    ) -> Result<Option<u32>, Error> {
        let key = match self.queue_for(name, connection) {
            Ok(key) => key,
            Err(Error::NoQueue) => return Ok(None),
            Err(error) => return Err(error),
        };
        let queue = self.queues.get(key).ok_or(Error::NoQueue)?;
        if if_unused && !queue.consumers.is_empty() {
            return Err(Error::StillUsed);
        }
        if if_empty && !queue.ready.is_empty() {
            return Err(Error::NotEmpty);
        }
        let messages = u32::try_from(queue.ready.len()).unwrap_or(u32::MAX);
        self.drop_queue(key);
        Ok(Some(messages))
    }

    pub(crate) fn drop_queue(&mut self, key: QueueKey) {
        self.release_all(key);
        let Some(queue) = self.queues.remove(key) else { return };
        self.queue_names.remove(&queue.name);
        for (exchange, routing_key) in &queue.bindings {
            self.remove_binding(*exchange, Target::Queue(key), routing_key);
        }
        if let Some(owner) = queue.owner.and_then(|it| self.connections.get_mut(it)) {
            owner.exclusive_queues.retain(|it| *it != key);
        }
        for consumer in queue.consumers {
            self.cancel_by_broker(consumer);
        }
        self.counts.ready -= queue.ready.len();
        self.counts.dropped += queue.ready.len() as u64;
        if queue.feed.is_some() {
            let dropped = queue.ready.iter();
            let dropped =
                dropped.map(|it| Action::Dropped { queue: key, token: it.token, why: DropReason::Deleted });
            self.actions.extend(dropped);
        }
        self.actions.push(Action::Deleted(key));
        self.actions.push(Action::Discard(queue.ready));
    }

    /// Drops the messages that wait. Returns how many.
    pub(crate) fn purge_queue(
        &mut self,
        name: &str,
        connection: Option<ConnectionKey>,
    ) -> Result<u32, Error> {
        let key = match connection {
            Some(connection) => self.queue_for(name, connection)?,
            None => self.queue_key(name).ok_or(Error::NoQueue)?,
        };
        let queue = self.queues.get_mut(key).ok_or(Error::NoQueue)?;
        let purged = std::mem::take(&mut queue.ready);
        queue.ready_bytes = 0;
        let weight = purged.iter().map(|it| it.message.weight()).sum();
        if queue.feed.is_some() {
            let dropped = purged.iter();
            let dropped =
                dropped.map(|it| Action::Dropped { queue: key, token: it.token, why: DropReason::Purged });
            self.actions.extend(dropped);
        }
        self.release(key, weight);
        self.counts.ready -= purged.len();
        self.counts.dropped += purged.len() as u64;
        let count = u32::try_from(purged.len()).unwrap_or(u32::MAX);
        self.actions.push(Action::Discard(purged));
        self.touch(key);
        Ok(count)
    }
}

fn declared(queue: &Queue) -> Declared {
    Declared {
        messages: u32::try_from(queue.ready.len()).unwrap_or(u32::MAX),
        consumers: u32::try_from(queue.consumers.len()).unwrap_or(u32::MAX),
    }
}

fn same(old: &Attributes, new: &Attributes) -> Result<(), Error> {
    if old.exclusive != new.exclusive {
        return Err(Error::Locked);
    }
    let different = [
        (old.durable != new.durable, "durable"),
        (old.auto_delete != new.auto_delete, "auto_delete"),
        (old.message_ttl != new.message_ttl, "x-message-ttl"),
        (old.expires != new.expires, "x-expires"),
        (old.max_length != new.max_length, "x-max-length"),
        (old.max_bytes != new.max_bytes, "x-max-length-bytes"),
        (old.overflow != new.overflow, "x-overflow"),
        (old.delivery_limit != new.delivery_limit, "x-delivery-limit"),
    ];
    match different.into_iter().find(|it| it.0) {
        Some((_, what)) => Err(Error::Different { what }),
        None => Ok(()),
    }
}
