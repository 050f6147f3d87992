//! AMQP for the load generator: publishes tasks, and consumes results as the broker pushes them.

use std::time::Instant;

use anyhow::Context;
use futures_util::StreamExt;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, QueuePurgeOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use tokio::sync::{mpsc, oneshot};
use wire::message::{Message, decode};

use crate::transport::Arrival;

/// How many deliveries one acknowledgement may cover.
const ACKNOWLEDGED_AT_ONCE: usize = 256;

pub(crate) async fn connect(url: &str) -> anyhow::Result<Connection> {
    Connection::connect(url, ConnectionProperties::default())
        .await
        .with_context(|| format!("cannot connect to {}", wire::queue::redacted(url)))
}

/// A prepared message.
pub(crate) struct Prepared {
    pub(crate) exchange: &'static str,
    pub(crate) routing_key: String,
    pub(crate) properties: BasicProperties,
    pub(crate) body: Vec<u8>,
}

pub(crate) async fn publish(channel: &Channel, messages: &mut Vec<Prepared>) -> anyhow::Result<()> {
    for message in messages.drain(..) {
        let options = BasicPublishOptions::default();
        channel
            .basic_publish(
                message.exchange.into(),
                message.routing_key.as_str().into(),
                options,
                &message.body,
                message.properties,
            )
            .await?;
    }
    Ok(())
}

/// Consumes the results of a queue in the background, and sends the time of each.
pub(crate) async fn arrivals(
    channel: &Channel,
    queue: &str,
) -> anyhow::Result<mpsc::UnboundedReceiver<Arrival>> {
    let consumer = channel
        .basic_consume(queue.into(), "bench".into(), BasicConsumeOptions::default(), FieldTable::default())
        .await
        .with_context(|| format!("cannot consume {queue}"))?;
    // Bounded by the burst that the caller sends.
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut deliveries = consumer.ready_chunks(ACKNOWLEDGED_AT_ONCE);
        while let Some(chunk) = deliveries.next().await {
            let at = Instant::now();
            let mut last = None;
            for delivery in chunk {
                let Ok(delivery) = delivery else { return };
                let _ = sender.send(Arrival { at, error: error_of(&delivery.data) });
                last = Some(delivery.acker);
            }
            if let Some(acker) = last
                && acker.ack(BasicAckOptions { multiple: true }).await.is_err()
            {
                return;
            }
        }
    });
    Ok(receiver)
}

/// Resolves to the time of the first message in a queue, after purging it.
pub(crate) async fn first(channel: &Channel, queue: &str) -> anyhow::Result<oneshot::Receiver<Instant>> {
    channel.queue_purge(queue.into(), QueuePurgeOptions::default()).await?;
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let mut consumer =
        channel.basic_consume(queue.into(), "first".into(), options, FieldTable::default()).await?;
    let (sender, receiver) = oneshot::channel();
    tokio::spawn(async move {
        if let Some(Ok(_)) = consumer.next().await {
            let _ = sender.send(Instant::now());
        }
        // The others: nobody wants them, and they must not pile up.
        while let Some(Ok(_)) = consumer.next().await {}
    });
    Ok(receiver)
}

/// The error that a result message holds, if it does.
fn error_of(body: &[u8]) -> Option<String> {
    match decode(body) {
        Ok(Message::Result(result)) if !result.is_error() => None,
        Ok(Message::Result(result)) => Some(result.data.to_str().into_owned()),
        Ok(other) => Some(format!("not a result but a {}", other.kind())),
        Err(error) => Some(error.to_string()),
    }
}
