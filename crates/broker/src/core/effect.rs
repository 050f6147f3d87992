//! What the core decided; the shell performs it, in order.

use std::collections::VecDeque;
use std::sync::Arc;

use amq_protocol::protocol::AMQPClass;

use super::{ConnectionKey, QueueKey, queue::Entry};
use crate::message::Message;
use crate::owner::DropReason;

/// One thing to do.
#[derive(Debug)]
pub(crate) enum Effect {
    /// To a client, in this order.
    Send(ConnectionKey, Output),
    /// A paused connection may be read again.
    Resume(ConnectionKey),
    /// To the owner's sink; answered with [`Core::settle_tickets`](super::Core::settle_tickets).
    Offer {
        queue: QueueKey,
        ticket: u64,
        user: Arc<str>,
        message: Arc<Message>,
    },
    /// The outcome of a publish from inside the process.
    Confirmed {
        local: u64,
        safe: bool,
    },
    /// To the owner's backing.
    GrantCredit {
        queue: QueueKey,
        window: u64,
        messages: usize,
        bytes: usize,
    },
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
    /// The queue is gone; so is what the shell keeps for it, after the effects before this one.
    Deleted(QueueKey),
    /// Memory to be freed outside the lock.
    Discard(VecDeque<Entry>),
}

impl Output {
    /// Bytes that a client which does not read makes this broker hold. Deliveries are bounded by the core.
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
    /// Answers to publishes `first..=last`. `whole`: nothing below `first` is open, so one `multiple` may say it all.
    Confirm {
        channel: u16,
        first: u64,
        last: u64,
        safe: bool,
        whole: bool,
    },
    /// The broker cancels a consumer (sent to clients that can be told).
    Cancel {
        channel: u16,
        consumer: Arc<str>,
    },
    /// The connection is paused, or no longer (sent to clients that can be told).
    Blocked(bool),
    Method {
        channel: u16,
        method: Box<AMQPClass>,
    },
    Heartbeat,
    /// The bytes `AMQP0091`, to a client that speaks something else.
    ProtocolHeader,
}
