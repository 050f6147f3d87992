//! The actions that the core decides; the driver performs them in order.

use std::collections::VecDeque;
use std::sync::Arc;

use amq_protocol::protocol::AMQPClass;

use super::{ConnectionKey, QueueKey, queue::Entry};
use crate::backing::DropReason;
use crate::message::Message;

/// One action.
#[derive(Debug)]
pub(crate) enum Action {
    /// Send to a client, in this order.
    Send(ConnectionKey, Output),
    /// Read a paused connection again.
    Resume(ConnectionKey),
    /// Give a message to the queue's sink. The reply comes back through
    /// [`Core::settle_tickets`](super::Core::settle_tickets).
    Offer {
        queue: QueueKey,
        ticket: u64,
        user: Arc<str>,
        message: Arc<Message>,
    },
    /// Resolve the confirmation of a publish from inside the process.
    Confirmed {
        local: u64,
        safe: bool,
    },
    /// Grant credit to the queue's backing.
    GrantCredit {
        queue: QueueKey,
        window: u64,
        messages: usize,
        bytes: usize,
    },
    /// Report acknowledged, dropped or forgotten messages to the queue's backing.
    Acknowledged {
        queue: QueueKey,
        user: Arc<str>,
        token: u64,
    },
    Dropped {
        queue: QueueKey,
        token: u64,
        why: DropReason,
    },
    Ended {
        queue: QueueKey,
        window: u64,
        unacknowledged: Vec<u64>,
    },
    /// The queue is deleted: remove what the driver keeps for it, after the actions before this one.
    Deleted(QueueKey),
    /// Free these outside the lock.
    Discard(VecDeque<Entry>),
}

impl Output {
    /// The bytes that this takes in memory until the client has read it. Deliveries count nothing here: the core bounds them.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Output::Deliver { .. } => 0,
            Output::Got { message, .. } | Output::Return { message, .. } => message.weight(),
            _ => 64,
        }
    }
}

/// What a client is sent.
#[derive(Debug)]
pub(crate) enum Output {
    Deliver {
        channel: u16,
        consumer: Arc<str>,
        tag: u64,
        redelivered: bool,
        message: Arc<Message>,
    },
    Got {
        channel: u16,
        tag: u64,
        redelivered: bool,
        remaining: u32,
        message: Arc<Message>,
    },
    Return {
        channel: u16,
        message: Arc<Message>,
    },
    /// Confirms publishes `first..=last`. `whole`: none below `first` is unconfirmed, so `multiple` may be used.
    Confirm {
        channel: u16,
        first: u64,
        last: u64,
        safe: bool,
        whole: bool,
    },
    /// The broker cancels a consumer. Only for clients that understand it.
    Cancel {
        channel: u16,
        consumer: Arc<str>,
    },
    /// The connection is paused, or no longer. Only for clients that understand it.
    Blocked(bool),
    Method {
        channel: u16,
        method: Box<AMQPClass>,
    },
    Heartbeat,
    /// The bytes `AMQP0091`, to a client that speaks something else.
    ProtocolHeader,
}
