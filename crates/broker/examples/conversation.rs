//! The conversation of `tests/broker/test_clients.py`, with lapin: declare, bind, publish with confirms, a return, consume
//! with a prefetch and one rejection, a missing queue. Then it loses the broker, reconnects and does it all again.
//!
//! ```text
//! conversation PORT
//! ```
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a program for a test, which reads its output"
)]

use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, BasicRejectOptions,
    ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ErrorKind, ExchangeKind,
};

const QUEUE: &str = "lapin";
const EXCHANGE: &str = "lapin.x";

fn say(what: impl std::fmt::Display) {
    println!("- {what}");
}

async fn connect(port: &str) -> lapin::Result<Connection> {
    let url = format!("amqp://guest:guest@127.0.0.1:{port}/%2F?heartbeat=10");
    Connection::connect(&url, ConnectionProperties::default()).await
}

async fn publish(channel: &Channel, key: &str, number: i32) -> Confirmation {
    let mut headers = FieldTable::default();
    headers.insert("number".into(), AMQPValue::LongInt(number));
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let body = number.to_string();
    let properties = BasicProperties::default().with_headers(headers);
    channel
        .basic_publish(EXCHANGE.into(), key.into(), options, body.as_bytes(), properties)
        .await
        .unwrap()
        .await
        .unwrap()
}

async fn converse(connection: &Connection) {
    let channel = connection.create_channel().await.unwrap();
    let kind = ExchangeKind::Topic;
    let nothing = FieldTable::default;
    channel
        .exchange_declare(EXCHANGE.into(), kind, ExchangeDeclareOptions::default(), nothing())
        .await
        .unwrap();
    let queue = channel.queue_declare(QUEUE.into(), QueueDeclareOptions::default(), nothing()).await.unwrap();
    say(format_args!("declared {}", queue.message_count()));
    channel
        .queue_bind(QUEUE.into(), EXCHANGE.into(), "to.#".into(), QueueBindOptions::default(), nothing())
        .await
        .unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    for number in 0..10 {
        let confirmed = publish(&channel, &format!("to.{number}"), number).await;
        if confirmed != Confirmation::Ack(None) {
            say(format_args!("not confirmed: {confirmed:?}"));
        }
    }
    say("confirmed 10");
    match publish(&channel, "nobody", 11).await {
        Confirmation::Ack(Some(returned)) => say(format_args!("returned {}", returned.reply_code)),
        other => say(format_args!("not returned: {other:?}")),
    }
    consume(connection).await;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let other = connection.create_channel().await.unwrap();
    if let Err(error) = other.queue_declare("lapin.missing".into(), passive, nothing()).await
        && let ErrorKind::ProtocolError(error) = error.kind()
    {
        say(format_args!("closed {}", error.get_id()));
    }
    let queue = channel.queue_declare(QUEUE.into(), passive, nothing()).await.unwrap();
    say(format_args!("left {}", queue.message_count()));
}

/// Consumes ten messages and rejects the first one once.
async fn consume(connection: &Connection) {
    let channel = connection.create_channel().await.unwrap();
    channel.basic_qos(3, BasicQosOptions::default()).await.unwrap();
    let options = BasicConsumeOptions::default();
    let mut deliveries =
        channel.basic_consume(QUEUE.into(), "c".into(), options, FieldTable::default()).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 11 {
        let delivery = deliveries.next().await.unwrap().unwrap();
        let headers = delivery.properties.headers().clone().unwrap_or_default();
        let number = headers.inner().get("number").cloned();
        seen.push(format!(
            "{:?}, {number:?}, {}",
            String::from_utf8_lossy(&delivery.data),
            delivery.redelivered
        ));
        if seen.len() == 1 {
            delivery.reject(BasicRejectOptions { requeue: true }).await.unwrap();
        } else {
            delivery.ack(BasicAckOptions::default()).await.unwrap();
        }
    }
    seen.sort();
    say(format_args!("consumed {seen:?}"));
    channel.close(200, "done".into()).await.unwrap();
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let port = std::env::args().nth(1).expect("a port as the only argument");
    let connection = connect(&port).await.unwrap();
    converse(&connection).await;
    say("waiting for the end of the broker");
    while connection.status().connected() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    say("lost");
    let mut patience = 300;
    let connection = loop {
        match connect(&port).await {
            Ok(connection) => break connection,
            Err(_) if patience > 0 => patience -= 1,
            Err(error) => panic!("the broker does not come back: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    converse(&connection).await;
    // lapin may fail here because the broker has just closed a channel. That is not compared.
    let _ = connection.close(200, "done".into()).await;
    say("done");
}
