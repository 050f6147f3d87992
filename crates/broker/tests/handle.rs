//! Tests of the embedder's handle: it has the same semantics as a client with a socket.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is a failed test")]

mod support;

use std::time::Duration;

use broker::{
    Config, Confirmation, ConsumeError, ConsumeOptions, Consumer, DeclareError, Delivery, ExchangeKind,
    Message, Overflow, Properties, QueueOptions, Window,
};
use futures_util::FutureExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use support::{BackingEvent, Permissions, Server, message, quick, sink, until};

fn body(delivery: &Delivery) -> String {
    String::from_utf8(delivery.message.body().to_vec()).unwrap()
}

/// The delivery that can be had without waiting.
fn at_once(consumer: &mut Consumer) -> Option<Delivery> {
    consumer.next().now_or_never().map(|it| it.expect("the queue is there"))
}

fn all_at_once(consumer: &mut Consumer) -> Vec<Delivery> {
    std::iter::from_fn(|| at_once(consumer)).collect()
}

fn bodies(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(body).collect()
}

fn prefetch(prefetch: u16) -> ConsumeOptions {
    ConsumeOptions { prefetch, ..ConsumeOptions::default() }
}

#[tokio::test]
async fn the_prefetch_limits_unacknowledged_deliveries() {
    let server = Server::plain().await;
    let handle = &server.handle;
    handle.declare_queue("q", QueueOptions::default()).unwrap();
    for number in 0..10 {
        assert_eq!(handle.publish(message("q", &number.to_string())).await, Confirmation::Confirmed);
    }
    let mut consumer = handle.consume("q", prefetch(3)).unwrap();
    let first = all_at_once(&mut consumer);
    assert_eq!(bodies(&first), ["0", "1", "2"]);
    assert!(first.iter().all(|it| !it.redelivered));
    assert_eq!((handle.queue("q").unwrap().ready, handle.stats().unacknowledged), (7, 3));
    consumer.ack(first[1].tag, false);
    assert_eq!(bodies(&all_at_once(&mut consumer)), ["3"]);
    // A tag that is settled already, and an unknown one, change nothing.
    consumer.ack(first[1].tag, false);
    consumer.ack(1_000, false);
    assert!(at_once(&mut consumer).is_none());
    // All up to the third: two more of them.
    consumer.ack(first[2].tag, true);
    assert_eq!(bodies(&all_at_once(&mut consumer)), ["4", "5"]);
    assert_eq!((handle.stats().acknowledged, handle.stats().unacknowledged), (3, 3));
    // Without a limit everything is delivered, and without acknowledgements nothing is held.
    let mut other = handle.consume("q", ConsumeOptions { no_ack: true, ..prefetch(0) }).unwrap();
    assert_eq!(bodies(&all_at_once(&mut other)), ["6", "7", "8", "9"]);
    assert_eq!(handle.stats().unacknowledged, 3);
    drop((consumer, other));
    assert_eq!((handle.stats().consumers, handle.stats().connections), (0, 0));
}

#[tokio::test]
async fn requeued_messages_are_delivered_again_in_their_place() {
    let server = Server::plain().await;
    let handle = &server.handle;
    handle.declare_queue("q", QueueOptions::default()).unwrap();
    for number in 0..5 {
        handle.publish(message("q", &number.to_string()));
    }
    let mut consumer = handle.consume("q", prefetch(3)).unwrap();
    let first = all_at_once(&mut consumer);
    consumer.nack(first[1].tag, true, true);
    let again = all_at_once(&mut consumer);
    assert_eq!(bodies(&again), ["0", "1"]);
    assert!(again.iter().all(|it| it.redelivered));
    // Rejected without requeueing: it is dropped.
    consumer.nack(again[0].tag, false, false);
    let next = all_at_once(&mut consumer);
    assert_eq!(bodies(&next), ["3"]);
    assert!(!next[0].redelivered);
    assert_eq!(handle.stats().dropped, 1);
    // Dropping the consumer has the effect of a lost connection: 1, 2 and 3 are redelivered in order, before 4.
    drop(consumer);
    assert_eq!(handle.queue("q").unwrap().ready, 4);
    let mut second = handle.consume("q", prefetch(0)).unwrap();
    let all = all_at_once(&mut second);
    assert_eq!(bodies(&all), ["1", "2", "3", "4"]);
    let flags: Vec<bool> = all.iter().map(|it| it.redelivered).collect();
    assert_eq!(flags, [true, true, true, false]);
}

#[tokio::test]
async fn a_consumer_waits_is_woken_and_ends_with_its_queue() {
    let server = Server::plain().await;
    let handle = server.handle.clone();
    handle.declare_queue("q", QueueOptions::default()).unwrap();
    let mut consumer = handle.consume("q", prefetch(0)).unwrap();
    let waiting = tokio::spawn(async move {
        let mut seen = Vec::new();
        while let Some(delivery) = consumer.next().await {
            seen.push(body(&delivery));
        }
        seen
    });
    for number in 0..3 {
        handle.publish(message("q", &number.to_string())).await;
        tokio::task::yield_now().await;
    }
    assert!(handle.delete_queue("q"));
    assert_eq!(waiting.await.unwrap(), ["0", "1", "2"]);
    assert!(!handle.delete_queue("q"));
    assert_eq!(handle.stats().consumers, 0);
    let missing = handle.consume("q", prefetch(0)).err();
    assert_eq!(missing, Some(ConsumeError::NoQueue("q".into())));
}

#[tokio::test]
async fn exclusive_use_is_the_same_inside_and_outside() {
    let server = Server::plain().await;
    let handle = &server.handle;
    handle.declare_queue("q", QueueOptions::default()).unwrap();
    let exclusive = ConsumeOptions { exclusive: true, ..ConsumeOptions::default() };
    let inside = handle.consume("q", exclusive).unwrap();
    assert_eq!(handle.consume("q", prefetch(0)).err(), Some(ConsumeError::InUse("q".into())));
    let connection = server.connect("somebody").await;
    let consume = async || {
        let channel = connection.create_channel().await.unwrap();
        let options = BasicConsumeOptions::default();
        channel.basic_consume("q".into(), "c".into(), options, FieldTable::default()).await
    };
    assert!(consume().await.is_err(), "403: somebody has it for themselves");
    drop(inside);
    let _outside = consume().await.unwrap();
    assert_eq!(handle.consume("q", exclusive).err(), Some(ConsumeError::InUse("q".into())));
    let _shared = handle.consume("q", prefetch(0)).unwrap();
    // Another connection's exclusive queue can't even be declared passively.
    let channel = connection.create_channel().await.unwrap();
    let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    channel.queue_declare("mine".into(), options, FieldTable::default()).await.unwrap();
    let locked = handle.declare_queue("mine", QueueOptions::default());
    assert_eq!(locked, Err(DeclareError::Locked("mine".into())));
    assert!(handle.consume("mine", prefetch(0)).is_err());
}

#[tokio::test]
async fn the_confirmation_of_a_publish() {
    let server = Server::plain().await;
    let handle = &server.handle;
    let (sink, mut taken) = sink();
    handle.declare_queue("plain", QueueOptions::default()).unwrap();
    let options = QueueOptions { sink: Some(sink), durable: true, ..QueueOptions::default() };
    handle.declare_queue("kept", options).unwrap();
    handle.declare_queue("durable", QueueOptions { durable: true, ..QueueOptions::default() }).unwrap();
    let full =
        QueueOptions { max_length: Some(1), overflow: Overflow::RejectPublish, ..QueueOptions::default() };
    handle.declare_queue("full", full).unwrap();
    let persistent = |queue: &str| {
        Message::new("", queue, &Properties::default().with_delivery_mode(2), "m".to_owned()).unwrap()
    };

    assert_eq!(handle.publish(message("nobody", "m")).await, Confirmation::Unroutable);
    let nowhere = Message::new("no such exchange", "k", &Properties::default(), "m".to_owned()).unwrap();
    assert_eq!(handle.publish(nowhere).await, Confirmation::Unroutable);
    assert_eq!(handle.publish(message("plain", "m")).await, Confirmation::Confirmed);
    assert_eq!(handle.publish(persistent("durable")).await, Confirmation::Refused, "it could still be lost");
    assert_eq!(handle.publish(message("full", "1")).await, Confirmation::Confirmed);
    assert_eq!(handle.publish(message("full", "2")).await, Confirmation::Refused);

    // A sink decides later, and a fan-out is confirmed when all queues have taken the message.
    handle.declare_exchange("x", ExchangeKind::Fanout, false).unwrap();
    for queue in ["plain", "kept"] {
        handle.bind(queue, "x", "").unwrap();
    }
    for (safe, outcome) in [(true, Confirmation::Confirmed), (false, Confirmation::Refused)] {
        let to_both = Message::new("x", "", &Properties::default(), "m".to_owned()).unwrap();
        let mut confirm = handle.publish(to_both);
        let (published, reply) = taken.recv().await.unwrap();
        assert_eq!((&*published.queue, &*published.user), ("kept", ""));
        assert!((&mut confirm).now_or_never().is_none(), "the sink has not replied");
        if safe {
            reply.safe();
        } else {
            drop(reply);
        }
        assert_eq!(confirm.await, outcome);
    }
    // When the confirmation is dropped, the message is published nevertheless.
    drop(handle.publish(persistent("kept")));
    let (_, reply) = taken.recv().await.unwrap();
    reply.safe();
    let stats = handle.stats();
    assert_eq!((stats.published, stats.unroutable, stats.refused), (8, 1, 3), "{stats:?}");
}

type Argument = (&'static str, AMQPValue);

/// Declarations in process and through a socket: both accept and refuse the same.
#[tokio::test]
async fn declarations_mean_the_same_inside_and_outside() {
    let server = Server::plain().await;
    let handle = &server.handle;
    let connection = server.connect("somebody").await;
    let millis = Duration::from_millis;
    let plain = QueueOptions::default;
    let number = |name: &'static str, value: i32| (name, AMQPValue::LongInt(value));
    let cases: [(QueueOptions, bool, bool, Vec<Argument>); 8] = [
        (plain(), false, false, vec![]),
        (QueueOptions { durable: true, ..plain() }, true, false, vec![]),
        (QueueOptions { auto_delete: true, ..plain() }, false, true, vec![]),
        (
            QueueOptions { message_ttl: Some(millis(60_000)), ..plain() },
            false,
            false,
            vec![number("x-message-ttl", 60_000)],
        ),
        (
            QueueOptions { expires: Some(millis(90_000)), ..plain() },
            false,
            false,
            vec![number("x-expires", 90_000)],
        ),
        (QueueOptions { max_length: Some(5), ..plain() }, false, false, vec![number("x-max-length", 5)]),
        (
            QueueOptions { max_bytes: Some(50), ..plain() },
            false,
            false,
            vec![number("x-max-length-bytes", 50)],
        ),
        (
            QueueOptions { max_length: Some(5), overflow: Overflow::RejectPublish, ..plain() },
            false,
            false,
            vec![number("x-max-length", 5), ("x-overflow", AMQPValue::LongString("reject-publish".into()))],
        ),
    ];
    let outside = async |name: &str, durable, auto_delete, arguments: &[Argument]| {
        let channel = connection.create_channel().await.unwrap();
        let mut table = FieldTable::default();
        for (name, value) in arguments {
            table.insert((*name).into(), value.clone());
        }
        let options = QueueDeclareOptions { durable, auto_delete, ..QueueDeclareOptions::default() };
        channel.queue_declare(name.into(), options, table).await.is_ok()
    };
    for (first, (options, durable, auto_delete, arguments)) in cases.iter().enumerate() {
        let inside_first = format!("inside-{first}");
        let outside_first = format!("outside-{first}");
        handle.declare_queue(&inside_first, options.clone()).unwrap();
        assert!(outside(&outside_first, *durable, *auto_delete, arguments).await);
        for (second, (options, durable, auto_delete, arguments)) in cases.iter().enumerate() {
            let same = first == second;
            let declared = outside(&inside_first, *durable, *auto_delete, arguments).await;
            assert_eq!(declared, same, "{second} through a socket where {first} is");
            let declared = handle.declare_queue(&outside_first, options.clone());
            let expected = if same { Ok(()) } else { Err(DeclareError::Different(outside_first.clone())) };
            assert_eq!(declared, expected, "{second} in process where {first} is");
        }
    }

    handle.declare_exchange("x", ExchangeKind::Topic, true).unwrap();
    handle.declare_exchange("x", ExchangeKind::Topic, true).unwrap();
    let different = Err(DeclareError::Different("x".into()));
    assert_eq!(handle.declare_exchange("x", ExchangeKind::Direct, true), different);
    assert_eq!(handle.declare_exchange("x", ExchangeKind::Topic, false), different);
    assert_eq!(
        handle.declare_exchange("", ExchangeKind::Direct, true),
        Err(DeclareError::Reserved(String::new()))
    );
    assert_eq!(handle.bind("inside-0", "none", "k"), Err(DeclareError::NoExchange("none".into())));
    assert_eq!(handle.bind("none", "x", "k"), Err(DeclareError::NoQueue("none".into())));
    handle.bind("inside-0", "x", "a.*").unwrap();
    let matching = || Message::new("x", "a.b", &Properties::default(), "m".to_owned()).unwrap();
    assert_eq!(handle.publish(matching()).await, Confirmation::Confirmed);
    handle.unbind("inside-0", "x", "a.*");
    assert_eq!(handle.publish(matching()).await, Confirmation::Unroutable);
    assert_eq!(handle.purge_queue("inside-0"), 1);
    assert!(handle.delete_exchange("x"));
    assert!(!handle.delete_exchange("x"));
}

/// One queue, a consumer in process and one with a socket: each message goes to one of them.
#[tokio::test]
async fn consumers_inside_and_outside_share_a_queue() {
    let server = Server::plain().await;
    let handle = &server.handle;
    handle.declare_queue("q", QueueOptions::default()).unwrap();
    let connection = server.connect("somebody").await;
    let channel = connection.create_channel().await.unwrap();
    channel.basic_qos(1, BasicQosOptions::default()).await.unwrap();
    let consume = channel.basic_consume(
        "q".into(),
        "outside".into(),
        BasicConsumeOptions::default(),
        FieldTable::default(),
    );
    let mut outside = consume.await.unwrap();
    let mut inside = handle.consume("q", prefetch(1)).unwrap();
    for number in 0..10 {
        let body = number.to_string();
        let publish = channel.basic_publish(
            "".into(),
            "q".into(),
            BasicPublishOptions::default(),
            body.as_bytes(),
            Properties::default(),
        );
        publish.await.unwrap();
    }
    let mut seen = Vec::new();
    let mut from_inside = 0;
    while seen.len() < 10 {
        tokio::select! {
            delivery = inside.next() => {
                let delivery = delivery.unwrap();
                seen.push(body(&delivery));
                from_inside += 1;
                inside.ack(delivery.tag, false);
            }
            delivery = futures_util::StreamExt::next(&mut outside) => {
                let delivery = delivery.unwrap().unwrap();
                seen.push(String::from_utf8(delivery.data.clone()).unwrap());
                delivery.ack(BasicAckOptions::default()).await.unwrap();
            }
        }
    }
    assert!((1..10).contains(&from_inside), "{from_inside} of 10 went inside");
    seen.sort_unstable();
    assert_eq!(seen, (0..10).map(|it| it.to_string()).collect::<Vec<_>>());
}

/// The deliveries ahead of a slow consumer in process are bounded, too.
#[tokio::test]
async fn deliveries_ahead_of_a_slow_consumer_are_bounded() {
    let window = 64 << 10;
    let server = Server::start(Config { output_window: window, ..quick() }, Permissions::default()).await;
    let handle = &server.handle;
    handle.declare_queue("q", QueueOptions::default()).unwrap();
    let large = "x".repeat(10_000);
    for _ in 0..100 {
        handle.publish(message("q", &large));
    }
    let mut consumer = handle.consume("q", ConsumeOptions { no_ack: true, ..prefetch(0) }).unwrap();
    let ahead = 100 - handle.queue("q").unwrap().ready;
    assert!(ahead * 10_000 <= window + 10_000, "{ahead} were written ahead");
    for _ in 0..100 {
        assert!(at_once(&mut consumer).is_some());
    }
    assert!(at_once(&mut consumer).is_none());
    assert_eq!((handle.stats().memory, handle.stats().acknowledged), (0, 100));
}

/// A million messages wait in the embedder's store. The broker holds the window and the unacknowledged messages.
#[tokio::test]
async fn a_million_stored_messages_take_the_memory_of_a_window() {
    const COUNT: u64 = 1_000_000;
    let server = Server::plain().await;
    let handle = &server.handle;
    let (store, mut events) = support::Store::new(COUNT, 64);
    *store.handle.lock().unwrap() = Some(handle.clone());
    let window = Window { messages: 1_000, bytes: 8 << 20 };
    let unacknowledged = Window { messages: 500, bytes: 1 << 20 };
    let options =
        QueueOptions { backing: Some(store.clone()), window, unacknowledged, ..QueueOptions::default() };
    handle.declare_queue("tasks", options).unwrap();
    assert_eq!(handle.stats().memory, 0, "without a consumer nothing is held");
    // The weight of one message, and the maximum number of them.
    let most = (window.messages + unacknowledged.messages) * (64 + 2 + 256);
    let mut consumer = handle.consume("tasks", prefetch(0)).unwrap();
    for number in 0..COUNT {
        let delivery = consumer.next().await.unwrap();
        assert_eq!(
            delivery.message.body()[..8.min(delivery.message.body().len())],
            *format!("{number:08}").as_bytes()
        );
        if number % 100 == 99 {
            consumer.ack(delivery.tag, true);
            let stats = handle.stats();
            assert!(stats.memory <= most, "{stats:?}");
            assert!(stats.ready <= window.messages && stats.unacknowledged <= unacknowledged.messages);
            // A task of the broker reports to the backing.
            while let Ok(what) = events.try_recv() {
                assert!(matches!(what, BackingEvent::Acknowledged(_)), "{what:?}");
            }
        }
    }
    until(|| store.inner.lock().unwrap().messages.is_empty()).await;
    drop(consumer);
    let stats = handle.stats();
    assert_eq!((stats.memory, stats.fed, stats.acknowledged, stats.forgotten), (0, COUNT, COUNT, 0));
}
