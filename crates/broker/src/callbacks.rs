//! The embedder's sinks and backings, by queue, and the declaration of queues that have them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::backing::Backing;
use crate::core::{Attributes, Core, Error, QueueKey, Storage};
use crate::declaration::QueueOptions;
use crate::sink::Sink;

/// What the embedder attached to one queue.
struct QueueCallbacks {
    queue: Arc<str>,
    sink: Option<Arc<dyn Sink>>,
    backing: Option<Arc<dyn Backing>>,
}

/// The callbacks of all queues that have some.
#[derive(Default)]
pub(crate) struct Callbacks(HashMap<QueueKey, QueueCallbacks>);

impl Callbacks {
    /// Declares a queue for the embedder, and attaches the sink and the backing of its options.
    pub(crate) fn declare(
        &mut self,
        core: &mut Core,
        name: &str,
        options: QueueOptions,
    ) -> Result<QueueKey, Error> {
        let millis = |it: Duration| u64::try_from(it.as_millis()).unwrap_or(u64::MAX);
        let attributes = Attributes {
            durable: options.durable,
            auto_delete: options.auto_delete,
            exclusive: false,
            message_ttl: options.message_ttl.map(millis),
            expires: options.expires.map(millis),
            max_length: options.max_length,
            max_bytes: options.max_bytes,
            overflow: options.overflow,
            delivery_limit: options.delivery_limit,
        };
        let storage = Storage {
            sink: options.sink.is_some(),
            backing: options.backing.as_ref().map(|_| (options.window, options.unacknowledged)),
        };
        let key = core.declare_for_embedder(name, attributes, storage)?;
        self.0.remove(&key);
        if storage.sink || storage.backing.is_some() {
            let callbacks =
                QueueCallbacks { queue: name.into(), sink: options.sink, backing: options.backing };
            self.0.insert(key, callbacks);
        }
        Ok(key)
    }

    pub(crate) fn remove(&mut self, queue: QueueKey) {
        self.0.remove(&queue);
    }

    /// The name and the sink of a queue.
    pub(crate) fn sink(&self, queue: QueueKey) -> Option<(Arc<str>, Arc<dyn Sink>)> {
        let callbacks = self.0.get(&queue)?;
        Some((callbacks.queue.clone(), callbacks.sink.clone()?))
    }

    /// The name and the backing of a queue.
    pub(crate) fn backing(&self, queue: QueueKey) -> Option<(Arc<str>, Arc<dyn Backing>)> {
        let callbacks = self.0.get(&queue)?;
        Some((callbacks.queue.clone(), callbacks.backing.clone()?))
    }
}
