//! What the one lock guards: the core, and the owner's objects for its queues.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::core::{Attributes, Core, Error, Owned, QueueKey};
use crate::handle::QueueOptions;
use crate::owner::{Backing, Sink};

/// What the owner tied to a queue.
#[derive(Clone)]
pub(crate) struct Ties {
    pub(crate) queue: Arc<str>,
    pub(crate) sink: Option<Arc<dyn Sink>>,
    pub(crate) backing: Option<Arc<dyn Backing>>,
}

pub(crate) struct State {
    pub(crate) core: Core,
    pub(crate) ties: HashMap<QueueKey, Ties>,
}

impl State {
    /// Declares a queue with the owner's options.
    pub(crate) fn declare(&mut self, name: &str, options: QueueOptions) -> Result<QueueKey, Error> {
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
        let owned = Owned {
            sink: options.sink.is_some(),
            backing: options.backing.as_ref().map(|_| (options.window, options.unacknowledged)),
        };
        let key = self.core.declare_owned(name, attributes, owned)?;
        self.ties.remove(&key);
        if owned.sink || owned.backing.is_some() {
            let ties = Ties { queue: name.into(), sink: options.sink, backing: options.backing };
            self.ties.insert(key, ties);
        }
        Ok(key)
    }
}
