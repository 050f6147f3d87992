//! A message: where it was sent, its properties as raw bytes, its body.
//!
//! The broker never re-encodes properties: header tables reach the consumer byte for byte as the publisher wrote them.

use std::sync::Arc;

use amq_protocol::protocol::basic::{gen_properties, parse_properties};
use bytes::Bytes;
use thiserror::Error;

use crate::frame::properties::{self, Summary};

/// The properties of a message, parsed.
pub use amq_protocol::protocol::BasicProperties as Properties;

/// Exchange and routing key in one allocation, which consecutive messages of a publisher with the same ones share.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    text: Arc<str>,
    /// Where the exchange ends and the routing key begins.
    middle: u8,
}

impl Address {
    /// Shortens names that are longer than 255 bytes.
    pub(crate) fn new(exchange: &str, routing_key: &str) -> Address {
        let (exchange, routing_key) = (short(exchange), short(routing_key));
        let text =
            if exchange.is_empty() { routing_key.into() } else { [exchange, routing_key].concat().into() };
        Address { text, middle: u8::try_from(exchange.len()).expect("a short string") }
    }

    pub(crate) fn exchange(&self) -> &str {
        &self.text[..self.middle.into()]
    }

    pub(crate) fn routing_key(&self) -> &str {
        &self.text[self.middle.into()..]
    }
}

/// What is counted for a message besides its bytes: queue entries, headers of allocations and the like.
const OVERHEAD: usize = 256;

/// One message. Cloning shares the bytes.
#[derive(Clone, Debug)]
pub struct Message {
    address: Address,
    properties: Bytes,
    body: Bytes,
    summary: Summary,
}

/// The raw properties of a message are malformed.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("malformed message properties: {0}")]
pub struct BadProperties(#[from] properties::Malformed);

impl Message {
    /// Makes a message. The properties are encoded once.
    ///
    /// Names longer than 255 bytes are shortened to that, because the protocol can't carry them.
    pub fn new(
        exchange: &str,
        routing_key: &str,
        properties: &Properties,
        body: impl Into<Bytes>,
    ) -> Result<Message, BadProperties> {
        Message::assemble(Address::new(exchange, routing_key), encode_properties(properties), body.into())
    }

    /// Makes a message with raw properties (flags and list), for example those of a [`Published`](crate::Published) one.
    pub fn raw(
        exchange: &str,
        routing_key: &str,
        properties: Bytes,
        body: impl Into<Bytes>,
    ) -> Result<Message, BadProperties> {
        Message::assemble(Address::new(exchange, routing_key), properties, body.into())
    }

    pub(crate) fn assemble(
        address: Address,
        properties: Bytes,
        body: Bytes,
    ) -> Result<Message, BadProperties> {
        let summary = properties::summarize(&properties)?;
        Ok(Message { address, properties, body, summary })
    }

    /// As [`assemble`](Message::assemble), when the properties have been read already.
    pub(crate) fn from_parts(address: Address, properties: Bytes, body: Bytes, summary: Summary) -> Message {
        Message { address, properties, body, summary }
    }

    pub fn exchange(&self) -> &str {
        self.address.exchange()
    }

    pub fn routing_key(&self) -> &str {
        self.address.routing_key()
    }

    pub fn raw_properties(&self) -> &Bytes {
        &self.properties
    }

    pub fn properties(&self) -> Properties {
        parse_properties(&self.properties[..]).map(|(_, it)| it).unwrap_or_default()
    }

    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Whether the delivery mode is 2.
    pub fn persistent(&self) -> bool {
        self.summary.persistent
    }

    /// The property `expiration`, in milliseconds.
    pub(crate) fn expiration(&self) -> Option<u64> {
        self.summary.expiration
    }

    /// What this message takes in memory.
    pub(crate) fn weight(&self) -> usize {
        self.body.len() + self.properties.len() + OVERHEAD
    }
}

/// The longest prefix of whole characters that a short string holds.
pub(crate) fn short(text: &str) -> &str {
    let mut end = text.len().min(255);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn encode_properties(properties: &Properties) -> Bytes {
    match gen_properties::<Vec<u8>>(properties)(Vec::new().into()) {
        Ok(written) => Bytes::from(written.into_inner().0),
        // Writing to memory does not fail. If it did, this single byte is refused as malformed.
        Err(_) => Bytes::from_static(&[0]),
    }
}
