//! A message of the command queue, as the core hears it and as the log shows it.

use client::amqp::Delivery;
use manager::core::{Received, Tag};
use serde_json::Value;
use wire::queue::{header, redacted};

pub(super) fn received(delivery: &Delivery) -> Received<'_> {
    Received {
        tag: Tag { session: delivery.tag.session, number: delivery.tag.number },
        content_type: delivery.content_type.as_deref(),
        timestamp: delivery.timestamp,
        body: &delivery.body,
    }
}

/// Logs a command whose sender asks for it, without its passwords.
pub(super) fn debug(delivery: &Delivery) {
    if delivery.headers.get(header::DEBUG) == Some(&Value::Bool(true)) {
        let body: String = String::from_utf8_lossy(&delivery.body)
            .split('"')
            .map(|word| if word.contains("://") { redacted(word) } else { word.to_owned() })
            .collect::<Vec<_>>()
            .join("\"");
        tracing::warn!(
            "Command debug requested:\n  Delivery Tag: {}\n  Timestamp: {:?}\n  Body bytes: {body:?}",
            delivery.tag.number,
            delivery.timestamp
        );
    }
}
