//! The readers on PostgreSQL: what they do when the writer goes over to another server in the middle of a read.

use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::time::{sleep, timeout};

use super::*;
use crate::Servers;
use crate::database::{Readers, postgres, query};

#[tokio::test]
async fn an_open_store_shows_no_password() {
    let Some(database) = database().await else { return };
    // The test's server lets in whoever comes.
    let url = database.url().unwrap();
    let (user, rest) = url.strip_prefix("postgres://").unwrap().split_once('@').unwrap();
    let user = user.split(':').next().unwrap();
    let servers: Servers = format!("postgres://{user}:hunter2@{rest}").parse().unwrap();
    let store =
        Store::open_postgres(&servers, &database.path().join("payloads"), Sharing::Alone).await.unwrap();
    let session = servers.session(77, Duration::from_secs(1)).await.unwrap();
    let shown = format!("{store:?} {session:?}");
    assert!(shown.contains("ServerOptions") && !shown.contains("hunter2"), "{shown}");
    store.close().await;
}

/// How many rows a stream has here: far more than wait for who reads them.
const ROWS: i64 = 100_000;

#[tokio::test]
async fn a_stream_whose_rows_were_read_ends_with_an_error_if_the_server_is_switched() {
    let Some(database) = database().await else { return };
    let servers: Servers = database.url().unwrap().parse().unwrap();
    let (session, readers) = postgres::open(&servers, 1).await.unwrap();
    let on = Readers::Postgres(readers.clone());
    let mut rows = query("SELECT n FROM generate_series(1::bigint, $1) AS n").bind(ROWS).fetch(&on);
    let mut read: Vec<i64> = Vec::new();
    let error = loop {
        match rows.next().await.expect("an error, or all rows") {
            Ok(row) => read.push(row.try_get("n").unwrap()),
            Err(error) => break error,
        }
        if read.len() == 3 {
            readers.switch_to(&session.server);
            // Who sends the rows hears of it while the channel is full.
            sleep(Duration::from_millis(200)).await;
        }
    };
    let expected: Vec<i64> = (1..).take(read.len()).collect();
    assert_eq!(read, expected, "no row comes twice");
    assert!(crate::StoreError::from(error).is_outage());

    // What has read nothing yet is repeated.
    let mut rows = query("SELECT 1::bigint AS n, pg_sleep(0.3)").fetch(&on);
    let next = tokio::spawn({
        let readers = readers.clone();
        async move {
            sleep(Duration::from_millis(100)).await;
            readers.switch_to(&session.server);
        }
    });
    let row = timeout(Duration::from_secs(5), rows.next()).await.unwrap().unwrap();
    assert_eq!(row.unwrap().try_get::<i64>("n").unwrap(), 1);
    next.await.unwrap();
    assert!(rows.next().await.is_none());
}
