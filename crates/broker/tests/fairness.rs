//! One connection can't starve another. The bounds are in messages of the one that floods, never in times: everything runs
//! on one thread, so that only the order of the tasks matters.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is a failed test")]

mod support;

use broker::QueueOptions;
use support::piped::{Client, broker, publish};
use support::{message, quick};
use tokio::io::AsyncWriteExt;

/// Bytes that a connection may read or write in one turn, and those of one more read.
const TURN: usize = (256 + 64) << 10;

/// A flood of tiny publishes that can always be read: all of it is in the pipe from the start.
#[tokio::test(flavor = "current_thread")]
async fn a_flood_of_publishes_does_not_starve_another_connection() {
    let handle = broker(quick());
    for queue in ["flooded", "polite"] {
        handle
            .declare_queue(queue, QueueOptions { max_length: Some(10), ..QueueOptions::default() })
            .unwrap();
    }
    let mut polite = Client::open(&handle, 64 << 10, 0).await;
    polite.consume("polite").await;
    let tiny = publish("flooded", b"x");
    let flood = tiny.repeat((16 << 20) / tiny.len());
    let mut flooding = Client::open(&handle, flood.len() * 2, 0).await.stream;
    // The pipe takes it all at once, before the broker's task has its next turn.
    flooding.write_all(&flood).await.unwrap();
    let per_turn = (TURN / tiny.len()) as u64;
    let all = (flood.len() / tiny.len()) as u64;
    let mut rounds = 0;
    loop {
        let before = handle.stats().published;
        polite.round_trip("polite").await;
        rounds += 1;
        let meanwhile = handle.stats().published - before;
        if handle.stats().published - rounds >= all {
            break;
        }
        // A round trip is two turns of the polite connection. The flood has one for each, and the one that it was in.
        assert!(meanwhile <= 3 * per_turn, "{meanwhile} messages went before, {per_turn} fit into a turn");
    }
    assert!(rounds >= all / (3 * per_turn), "{rounds} rounds within {all} messages");
}

/// A consumer with a large backlog that reads all it is sent.
#[tokio::test(flavor = "current_thread")]
async fn a_flood_of_deliveries_does_not_starve_another_connection() {
    let handle = broker(quick());
    for queue in ["backlog", "polite"] {
        handle.declare_queue(queue, QueueOptions::default()).unwrap();
    }
    let body = "x".repeat(1_000);
    let count = 20_000;
    for _ in 0..count {
        handle.publish(message("backlog", &body));
    }
    let mut polite = Client::open(&handle, 64 << 10, 0).await;
    polite.consume("polite").await;
    let mut greedy = Client::open(&handle, 64 << 20, 0).await;
    greedy.consume("backlog").await;
    let per_turn = (TURN / body.len()) as u64;
    let mut rounds = 0;
    while handle.queue("backlog").unwrap().ready > 0 {
        let before = handle.stats().delivered;
        polite.round_trip("polite").await;
        rounds += 1;
        let meanwhile = handle.stats().delivered - before - 1;
        // The deliveries written ahead (512 KB) may be decided in one turn, too.
        let ahead = (512 << 10) / body.len() as u64;
        assert!(meanwhile <= 3 * per_turn + ahead, "{meanwhile} deliveries went before");
    }
    assert!(rounds > 3, "{rounds} rounds while {count} were delivered");
}
