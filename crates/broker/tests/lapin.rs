//! Tests with lapin, the AMQP client library of Farcall's endpoint.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is a failed test")]

mod support;

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::*;
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind};

use broker::{Config, Limits, Operation, QueueOptions, Window};
use support::{BackingEvent, Permissions, Server, Store, in_time, quick, sink};

async fn declare(channel: &Channel, queue: &str) {
    channel.queue_declare(queue.into(), QueueDeclareOptions::default(), FieldTable::default()).await.unwrap();
}

async fn consume(channel: &Channel, queue: &str, tag: &str) -> lapin::Consumer {
    channel
        .basic_consume(queue.into(), tag.into(), BasicConsumeOptions::default(), FieldTable::default())
        .await
        .unwrap()
}

async fn publish(channel: &Channel, exchange: &str, key: &str, body: &[u8]) -> Confirmation {
    publish_with(channel, exchange, key, body, BasicProperties::default()).await
}

async fn publish_with(
    channel: &Channel,
    exchange: &str,
    key: &str,
    body: &[u8],
    properties: BasicProperties,
) -> Confirmation {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    channel
        .basic_publish(exchange.into(), key.into(), options, body, properties)
        .await
        .unwrap()
        .await
        .unwrap()
}

async fn next(consumer: &mut lapin::Consumer) -> Delivery {
    in_time(consumer.next()).await.expect("the consumer goes on").unwrap()
}

fn reply_code(error: &lapin::Error) -> u16 {
    match error.kind() {
        lapin::ErrorKind::ProtocolError(it) => it.get_id(),
        other => panic!("no reply code: {other:?}"),
    }
}

#[tokio::test]
async fn a_conversation() {
    let server = Server::plain().await;
    let connection = server.connect("somebody").await;
    let channel = connection.create_channel().await.unwrap();
    channel
        .exchange_declare(
            "results".into(),
            ExchangeKind::Topic,
            ExchangeDeclareOptions { durable: true, ..Default::default() },
            FieldTable::default(),
        )
        .await
        .unwrap();
    declare(&channel, "q").await;
    channel
        .queue_bind(
            "q".into(),
            "results".into(),
            "*.results".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    channel.basic_qos(2, BasicQosOptions::default()).await.unwrap();
    for number in 0..5u8 {
        let confirmed = publish(&channel, "results", "ep.results", &[number]).await;
        assert!(matches!(confirmed, Confirmation::Ack(None)), "{confirmed:?}");
    }
    let returned = publish(&channel, "results", "nobody", b"lost").await;
    let Confirmation::Ack(Some(returned)) = returned else { panic!("not returned: {returned:?}") };
    assert_eq!((returned.reply_code, &returned.delivery.data[..]), (312, &b"lost"[..]));

    let mut consumer = consume(&channel, "q", "c").await;
    let first = next(&mut consumer).await;
    let second = next(&mut consumer).await;
    assert_eq!((first.data[0], second.data[0], first.redelivered), (0, 1, false));
    assert_eq!((first.exchange.as_str(), first.routing_key.as_str()), ("results", "ep.results"));
    assert_eq!(server.handle.queue("q").unwrap().unacknowledged, 2, "prefetch holds the rest");
    second.reject(BasicRejectOptions { requeue: true }).await.unwrap();
    let again = next(&mut consumer).await;
    assert_eq!((again.data[0], again.redelivered), (1, true));
    again.ack(BasicAckOptions { multiple: true }).await.unwrap();
    for expected in 2..5 {
        let delivery = next(&mut consumer).await;
        assert_eq!((delivery.data[0], delivery.redelivered), (expected, false));
        delivery.ack(BasicAckOptions::default()).await.unwrap();
    }
    channel.basic_cancel("c".into(), BasicCancelOptions::default()).await.unwrap();
    connection.close(200, "done".into()).await.unwrap();
    let stats = server.handle.stats();
    assert_eq!((stats.ready, stats.unacknowledged, stats.memory), (0, 0, 0));
}

#[tokio::test]
async fn large_bodies_are_delivered_unchanged() {
    let server = Server::plain().await;
    let connection = server.connect("somebody").await;
    let channel = connection.create_channel().await.unwrap();
    declare(&channel, "q").await;
    let mut consumer = consume(&channel, "q", "c").await;
    for size in [0, 1, 131_064, 131_065, 5_000_000] {
        let body: Vec<u8> = (0..size).map(|it| (it % 251) as u8).collect();
        publish(&channel, "", "q", &body).await;
        let delivery = next(&mut consumer).await;
        assert!(delivery.data == body, "{size} bytes came back different");
        delivery.ack(BasicAckOptions::default()).await.unwrap();
    }
}

#[tokio::test]
async fn passive_declares_compare_no_attributes_and_errors_close_the_channel() {
    let server = Server::plain().await;
    server.handle.declare_exchange("results", broker::ExchangeKind::Topic, true).unwrap();
    server.handle.declare_queue("q", QueueOptions { durable: true, ..Default::default() }).unwrap();
    let connection = server.connect("somebody").await;
    let channel = connection.create_channel().await.unwrap();
    let passive = ExchangeDeclareOptions { passive: true, ..Default::default() };
    let table = FieldTable::default;
    channel.exchange_declare("results".into(), ExchangeKind::Direct, passive, table()).await.unwrap();
    let passive = QueueDeclareOptions { passive: true, ..Default::default() };
    channel.queue_declare("q".into(), passive, table()).await.unwrap();
    let error = channel
        .queue_declare("q".into(), QueueDeclareOptions::default(), table())
        .await
        .expect_err("durable differs");
    assert_eq!(reply_code(&error), 406);
    let channel = connection.create_channel().await.unwrap();
    let error = channel.queue_declare("none".into(), passive, table()).await.expect_err("there is none");
    assert_eq!(reply_code(&error), 404);
    assert!(connection.status().connected());
}

#[tokio::test]
async fn an_exclusive_consumer_is_alone_until_its_connection_is_lost() {
    let server = Server::plain().await;
    server.handle.declare_queue("q", QueueOptions::default()).unwrap();
    server.handle.publish(support::message("q", "m"));
    let first = server.connect("first").await;
    let channel = first.create_channel().await.unwrap();
    let exclusive = BasicConsumeOptions { exclusive: true, ..Default::default() };
    let mut consumer =
        channel.basic_consume("q".into(), "c".into(), exclusive, FieldTable::default()).await.unwrap();
    next(&mut consumer).await;
    let second = server.connect("second").await;
    let channel = second.create_channel().await.unwrap();
    let error = channel
        .basic_consume("q".into(), "c".into(), exclusive, FieldTable::default())
        .await
        .expect_err("in exclusive use");
    assert_eq!(reply_code(&error), 403);
    // Its connection is lost without a close.
    assert_eq!(server.handle.disconnect_user("first", "over"), 1);
    let channel = second.create_channel().await.unwrap();
    let mut consumer =
        channel.basic_consume("q".into(), "c".into(), exclusive, FieldTable::default()).await.unwrap();
    let delivery = next(&mut consumer).await;
    assert!(delivery.redelivered);
}

#[tokio::test]
async fn a_deleted_queue_cancels_its_consumers() {
    let server = Server::plain().await;
    server.handle.declare_queue("q", QueueOptions::default()).unwrap();
    let connection = server.connect("somebody").await;
    let channel = connection.create_channel().await.unwrap();
    let mut consumer = consume(&channel, "q", "c").await;
    assert!(server.handle.delete_queue("q"));
    assert!(consumer.next().await.is_none(), "the consumer ends");
    assert!(channel.status().connected());
}

#[tokio::test]
async fn requeueing_ends_at_the_delivery_limit() {
    let server = Server::start(Config { delivery_limit: 3, ..quick() }, Permissions::default()).await;
    server.handle.declare_queue("q", QueueOptions::default()).unwrap();
    server.handle.publish(support::message("q", "poison"));
    let connection = server.connect("somebody").await;
    let channel = connection.create_channel().await.unwrap();
    let mut consumer = consume(&channel, "q", "c").await;
    for _ in 0..4 {
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.data, b"poison");
        delivery.nack(BasicNackOptions { requeue: true, ..Default::default() }).await.unwrap();
    }
    server.handle.publish(support::message("q", "good"));
    assert_eq!(next(&mut consumer).await.data, b"good");
    assert_eq!(server.handle.stats().dropped, 1);
}

#[tokio::test]
async fn a_sink_decides_the_confirm() {
    let server = Server::plain().await;
    let (sink, mut taken) = sink();
    server
        .handle
        .declare_queue("results", QueueOptions { durable: true, sink: Some(sink), ..Default::default() })
        .unwrap();
    let connection = server.connect("ep.1").await;
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let send = |body: &'static [u8]| {
        let channel = channel.clone();
        let persistent = BasicProperties::default().with_delivery_mode(2);
        tokio::spawn(async move { publish_with(&channel, "", "results", body, persistent).await })
    };
    let (one, (first, reply)) = (send(b"one"), taken.recv().await.unwrap());
    assert_eq!((&first.body()[..], &*first.user, first.persistent()), (&b"one"[..], "ep.1", true));
    let (two, (_, refused)) = (send(b"two"), taken.recv().await.unwrap());
    let (three, (_, dropped)) = (send(b"three"), taken.recv().await.unwrap());
    refused.refuse();
    assert!(matches!(two.await.unwrap(), Confirmation::Nack(_)));
    drop(dropped);
    assert!(matches!(three.await.unwrap(), Confirmation::Nack(_)));
    assert!(!one.is_finished(), "no confirm before the reply");
    assert!(server.handle.stats().memory > 0, "messages at the sink count");
    reply.safe();
    assert!(matches!(one.await.unwrap(), Confirmation::Ack(None)));
    assert_eq!(server.handle.stats().memory, 0);
}

#[tokio::test]
async fn a_persistent_message_that_could_be_lost_is_never_confirmed() {
    let server = Server::plain().await;
    server.handle.declare_queue("durable", QueueOptions { durable: true, ..Default::default() }).unwrap();
    server.handle.declare_queue("transient", QueueOptions::default()).unwrap();
    let connection = server.connect("somebody").await;
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let persistent = || BasicProperties::default().with_delivery_mode(2);
    let answer = publish_with(&channel, "", "durable", b"x", persistent()).await;
    assert!(matches!(answer, Confirmation::Nack(_)), "{answer:?}");
    let answer = publish_with(&channel, "", "transient", b"x", persistent()).await;
    assert!(matches!(answer, Confirmation::Ack(None)), "{answer:?}");
    let answer = publish(&channel, "", "durable", b"x").await;
    assert!(matches!(answer, Confirmation::Ack(None)), "{answer:?}");
    assert_eq!(server.handle.queue("durable").unwrap().ready, 1);
}

#[tokio::test]
async fn several_queues_answer_together() {
    let server = Server::plain().await;
    let (first, mut first_taken) = sink();
    let (second, mut second_taken) = sink();
    server.handle.declare_exchange("all", broker::ExchangeKind::Fanout, true).unwrap();
    for (name, sink) in [("first", Some(first)), ("second", Some(second)), ("plain", None)] {
        server.handle.declare_queue(name, QueueOptions { sink, ..Default::default() }).unwrap();
        server.handle.bind(name, "all", "").unwrap();
    }
    let connection = server.connect("somebody").await;
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    for (last_is_safe, expected) in [(true, true), (false, false)] {
        let sending = {
            let channel = channel.clone();
            tokio::spawn(async move { publish(&channel, "all", "", b"m").await })
        };
        let (_, one) = first_taken.recv().await.unwrap();
        let (_, other) = second_taken.recv().await.unwrap();
        one.safe();
        tokio::task::yield_now().await;
        assert!(!sending.is_finished());
        if last_is_safe {
            other.safe()
        } else {
            other.refuse()
        }
        assert_eq!(matches!(sending.await.unwrap(), Confirmation::Ack(_)), expected);
    }
}

#[tokio::test]
async fn a_queue_with_a_backing_holds_a_window_of_the_store() {
    let server = Server::plain().await;
    let (store, mut events) = Store::new(5_000, 100);
    *store.handle.lock().unwrap() = Some(server.handle.clone());
    let options = QueueOptions {
        durable: true,
        backing: Some(store.clone()),
        window: Window { messages: 50, bytes: 1 << 20 },
        unacknowledged: Window { messages: 80, bytes: 1 << 20 },
        ..Default::default()
    };
    server.handle.declare_queue("tasks", options).unwrap();
    assert_eq!(server.handle.stats().memory, 0, "without a consumer the broker holds nothing");

    let connection = server.connect("ep").await;
    let channel = connection.create_channel().await.unwrap();
    let mut consumer = consume(&channel, "tasks", "c").await;
    for expected in 0..1_000 {
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.data[..8], format!("{expected:08}").into_bytes()[..]);
        let stats = server.handle.queue("tasks").unwrap();
        assert!(stats.ready <= 50 && stats.unacknowledged <= 80, "{stats:?}");
        if expected % 10 == 9 {
            delivery.ack(BasicAckOptions { multiple: true }).await.unwrap();
        }
    }
    // The connection is lost with some messages unacknowledged: they are redelivered in a new window, and nothing is lost.
    server.handle.disconnect_user("ep", "over");
    loop {
        if let BackingEvent::Ended(unacknowledged) = in_time(events.recv()).await.unwrap() {
            assert!(!unacknowledged.is_empty());
            break;
        }
    }
    assert_eq!(server.handle.stats().memory, 0, "without a consumer the broker holds nothing");
    let connection = server.connect("ep").await;
    let channel = connection.create_channel().await.unwrap();
    let mut consumer = consume(&channel, "tasks", "c").await;
    let first = next(&mut consumer).await;
    assert_eq!((&first.data[..8], first.redelivered), (&b"00001000"[..], true));
    first.reject(BasicRejectOptions { requeue: false }).await.unwrap();
    let mut left: std::collections::BTreeSet<u64> =
        store.inner.lock().unwrap().messages.keys().copied().collect();
    left.remove(&1_000);
    while !left.is_empty() {
        let delivery = next(&mut consumer).await;
        let token: u64 = std::str::from_utf8(&delivery.data[..8]).unwrap().parse().unwrap();
        assert!(left.remove(&token), "{token} came twice");
        delivery.ack(BasicAckOptions::default()).await.unwrap();
    }
    let mut dropped = Vec::new();
    while let Some(it) = in_time(events.recv()).await {
        if let BackingEvent::Dropped(tokens, why) = it {
            dropped.push((tokens, why));
            break;
        }
    }
    assert_eq!(dropped, [(vec![1_000], broker::DropReason::Rejected)]);
}

#[tokio::test]
async fn permissions_depend_on_the_routing_key() {
    let permissions = Permissions {
        may: Box::new(|user, operation| match operation {
            Operation::Publish { routing_key, .. } => *routing_key == format!("{user}.results"),
            Operation::Consume { queue } => *queue == format!("{user}.tasks"),
            Operation::DeclareQueue { passive, .. } => *passive,
            _ => true,
        }),
        ..Permissions::default()
    };
    let server = Server::start(quick(), permissions).await;
    server.handle.declare_exchange("results", broker::ExchangeKind::Topic, true).unwrap();
    for name in ["results", "a.tasks", "b.tasks"] {
        server.handle.declare_queue(name, QueueOptions::default()).unwrap();
    }
    server.handle.bind("results", "results", "*.results").unwrap();
    let connection = server.connect("a").await;
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    assert!(matches!(publish(&channel, "results", "a.results", b"m").await, Confirmation::Ack(None)));
    consume(&channel, "a.tasks", "c").await;
    let error = channel
        .basic_consume("b.tasks".into(), "d".into(), BasicConsumeOptions::default(), FieldTable::default())
        .await
        .expect_err("not theirs");
    assert_eq!(reply_code(&error), 403);
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let sent = channel
        .basic_publish(
            "results".into(),
            "b.results".into(),
            BasicPublishOptions::default(),
            b"m",
            BasicProperties::default(),
        )
        .await
        .unwrap();
    assert!(sent.await.is_err(), "published under another's key");
    let channel = connection.create_channel().await.unwrap();
    let error = channel
        .queue_declare("mine".into(), QueueDeclareOptions::default(), FieldTable::default())
        .await
        .expect_err("no declares");
    assert_eq!(reply_code(&error), 403);
    assert_eq!(server.handle.queue("results").unwrap().ready, 1);
}

#[tokio::test]
async fn an_unknown_queue_is_declared_for_a_user_who_may_consume_it() {
    let permissions = Permissions {
        may: Box::new(|user, operation| match operation {
            Operation::Consume { queue } => queue.starts_with(&format!("client.{user}.")),
            _ => true,
        }),
        unknown: Box::new(|_, queue| queue.starts_with("client.").then(QueueOptions::default)),
        ..Permissions::default()
    };
    let server = Server::start(quick(), permissions).await;
    let connection = server.connect("me").await;
    let channel = connection.create_channel().await.unwrap();
    consume(&channel, "client.me.group", "c").await;
    assert_eq!(server.handle.queue("client.me.group").unwrap().consumers, 1);
    let error = channel
        .basic_consume(
            "client.you.group".into(),
            "d".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await
        .expect_err("not theirs");
    assert_eq!(reply_code(&error), 403);
    assert!(server.handle.queue("client.you.group").is_none());
    let channel = connection.create_channel().await.unwrap();
    let error = channel
        .basic_consume("client.me".into(), "d".into(), BasicConsumeOptions::default(), FieldTable::default())
        .await
        .expect_err("not theirs either");
    assert_eq!(reply_code(&error), 403);
}

#[tokio::test]
async fn log_ins_are_refused_in_three_ways() {
    let permissions = Permissions {
        may: Box::new(|user, operation| !matches!(operation, Operation::Open { .. }) || user != "locked"),
        limits: Limits { connections: 1, ..Limits::default() },
        ..Permissions::default()
    };
    let server = Server::start(quick(), permissions).await;
    let attempt = |user: &str, password: &str, vhost: &str| {
        let url = format!("amqp://{user}:{password}@{}/{vhost}", server.address);
        async move { Connection::connect(&url, ConnectionProperties::default()).await }
    };
    for (user, password, vhost, code) in [
        ("me", "wrong", "%2F", 403),
        ("me", "later", "%2F", 320),
        ("locked", "secret", "%2F", 530),
        ("me", "secret", "other", 530),
    ] {
        match attempt(user, password, vhost).await {
            Err(error) => assert_eq!(reply_code(&error), code, "{user} {password} {vhost}"),
            // The handshake succeeds first, so that no client takes this for wrong credentials.
            Ok(connection) => {
                assert_eq!(code, 320);
                assert!(connection.create_channel().await.is_err());
            }
        }
    }
    let first = attempt("me", "secret", "%2F").await.unwrap();
    let error = attempt("me", "secret", "%2F").await.expect_err("one connection at a time");
    assert_eq!(reply_code(&error), 530);
    first.close(200, "".into()).await.unwrap();
}

#[tokio::test]
async fn stopping_closes_connections_with_a_reply_code() {
    let mut server = Server::plain().await;
    let connection = server.connect("somebody").await;
    let channel = connection.create_channel().await.unwrap();
    declare(&channel, "q").await;
    server.stop();
    server.task.take().unwrap().await.unwrap();
    assert!(
        channel
            .queue_declare("q".into(), QueueDeclareOptions::default(), FieldTable::default())
            .await
            .is_err()
    );
    assert_eq!(server.handle.stats().connections, 0);
}
