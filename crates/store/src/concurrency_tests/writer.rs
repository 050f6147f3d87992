//! The writer on PostgreSQL: commands that fail, commands in each other's way, and connections that go at any moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use uuid::Uuid;
use wire::ContainerId;

use super::*;
use crate::columns::key;
use crate::database::query;
use crate::tests::OWNER;
use crate::{AddContainer, Command, Container, Servers, StoreError, Tx};

fn add(number: u128) -> AddContainer {
    AddContainer(Container {
        id: ContainerId::from_uuid(Uuid::from_u128(number)),
        owner: OWNER,
        name: "c".into(),
        kind: "docker".into(),
        location: "l".into(),
        description: "d".into(),
        created: NOW,
    })
}

/// Adds one to a number: what runs twice, counts twice.
#[derive(Clone)]
struct Increase;

impl Command for Increase {
    type Output = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        query("UPDATE identities SET generation = generation + 1").execute(tx).await?;
        Ok(())
    }
}

const INCREASED: &str = "SELECT generation FROM identities";

#[tokio::test]
async fn a_command_that_fails_takes_no_other_with_it() {
    let Some((database, [store, _])) = two_stores().await else { return };
    store.write(add(7)).await.unwrap();
    let writes = (0..60_u128).map(|number| {
        let store = store.clone();
        let number = if number % 3 == 0 { 7 } else { 100 + number };
        tokio::spawn(async move { (number, store.write(add(number)).await) })
    });
    let writes: Vec<_> = writes.collect();
    for write in writes {
        let (number, written) = write.await.unwrap();
        assert_eq!(written.is_ok(), number != 7, "{number}: {written:?}");
    }
    assert_eq!(number(&mut session(&database).await, "SELECT count(*) FROM containers").await, 41);
}

/// Locks two rows one after the other.
#[derive(Clone)]
struct Cross {
    rows: [u128; 2],
    ran: Arc<AtomicUsize>,
}

impl Command for Cross {
    type Output = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        self.ran.fetch_add(1, SeqCst);
        for row in self.rows {
            query("UPDATE containers SET name = name || 'x' WHERE id = $1")
                .bind(key(Uuid::from_u128(row)))
                .execute(&mut *tx)
                .await?;
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }
}

#[tokio::test]
async fn commands_that_wait_for_each_other_run_again() {
    let Some((database, [one, other])) = two_stores().await else { return };
    one.write(add(1)).await.unwrap();
    one.write(add(2)).await.unwrap();
    let ran = Arc::<AtomicUsize>::default();
    let cross = |rows| Cross { rows, ran: ran.clone() };
    let (first, second) = (cross([1, 2]), cross([2, 1]));
    let (first, second) =
        race(async move { one.write(first).await }, async move { other.write(second).await }).await;
    first.unwrap();
    second.unwrap();
    assert!(ran.load(SeqCst) > 2, "they were in each other's way");
    let names = "SELECT count(*) FROM containers WHERE name = 'cxx'";
    assert_eq!(number(&mut session(&database).await, names).await, 2, "each ran once to its end");
}

/// Finds others in its way each time.
#[derive(Clone)]
struct Hopeless(Arc<AtomicUsize>);

impl Command for Hopeless {
    type Output = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        self.0.fetch_add(1, SeqCst);
        add(self.0.load(SeqCst) as u128).run(tx).await?;
        Err(StoreError::TryAgain)
    }
}

#[tokio::test]
async fn who_finds_others_in_the_way_each_time_is_told_to_try_again() {
    let Some((database, [store, _])) = two_stores().await else { return };
    let ran = Arc::<AtomicUsize>::default();
    let refused = store.write(Hopeless(ran.clone())).await;
    assert!(matches!(refused, Err(StoreError::TryAgain)), "{refused:?}");
    assert!(ran.load(SeqCst) > 2);
    store.write(add(1000)).await.unwrap();
    assert_eq!(number(&mut session(&database).await, "SELECT count(*) FROM containers").await, 1);
}

#[tokio::test]
async fn what_was_answered_is_there_once_although_connections_end_at_any_moment() {
    let Some((database, stores)) = two_stores().await else { return };
    let mut dice = Dice::new();
    let done = Arc::new(AtomicBool::new(false));
    let killer = tokio::spawn({
        let (mut session, mut dice, done) = (session(&database).await, dice.split(), done.clone());
        async move {
            let mut ended = 0;
            while !done.load(SeqCst) {
                sleep(Duration::from_micros(dice.roll() % 100_000)).await;
                ended += number(
                    &mut session,
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                     WHERE datname = current_database() AND pid <> pg_backend_pid()",
                )
                .await;
            }
            ended
        }
    });
    let mut writers = Vec::new();
    for writer in 0..8_usize {
        let (store, mut dice) = (stores[writer % 2].clone(), dice.split());
        writers.push(tokio::spawn(async move {
            for step in 0..20 {
                store.write(add((writer * 1000 + step) as u128)).await.unwrap();
                store.write(Increase).await.unwrap();
                dice.pause().await;
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    done.store(true, SeqCst);
    eprintln!("{} connections were ended", killer.await.unwrap());
    let mut session = session(&database).await;
    assert_eq!(number(&mut session, "SELECT count(*) FROM containers").await, 160);
    assert_eq!(number(&mut session, INCREASED).await, 160);
    assert!(stores[0].has_accounts().await.unwrap(), "readers connect again, too");
}

/// What a relay does when it sees a COMMIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// It ends the connection, and the server never sees the COMMIT.
    Before,
    /// It ends the connection once the server has answered.
    After,
}

/// Relays connections to the server of `database`. Returns a URL, and where its next fault is set.
async fn relay(database: &TestDatabase) -> (String, Arc<std::sync::Mutex<Fault>>) {
    let url = database.url().unwrap();
    let (user, rest) = url.split_once('@').unwrap();
    let (server, name) = rest.split_once('/').unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let relayed = format!("{user}@{}/{name}", listener.local_addr().unwrap());
    let (server, fault) = (server.to_owned(), Arc::new(std::sync::Mutex::new(Fault::None)));
    let next = fault.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&server).await.unwrap();
            tokio::spawn(relay_one(client, server, next.clone()));
        }
    });
    (relayed, fault)
}

async fn relay_one(mut client: TcpStream, mut server: TcpStream, fault: Arc<std::sync::Mutex<Fault>>) {
    let (mut from_client, mut from_server) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let Ok(count @ 1..) = read else { return };
                let said = &from_client[..count];
                let commit = said.windows(7).any(|window| window == b"COMMIT\0");
                let act = match commit {
                    true => std::mem::replace(&mut *fault.lock().unwrap(), Fault::None),
                    false => Fault::None,
                };
                if act == Fault::Before || server.write_all(said).await.is_err() {
                    return;
                }
                if act == Fault::After {
                    let _ = server.read(&mut from_server).await;
                    return;
                }
            }
            read = server.read(&mut from_server) => {
                let Ok(count @ 1..) = read else { return };
                if client.write_all(&from_server[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_neither_lost_nor_done_twice() {
    let Some((database, _stores)) = two_stores().await else { return };
    let (url, fault) = relay(&database).await;
    let servers: Servers = url.parse().unwrap();
    let payloads = database.path().join("payloads");
    let store = Store::open_postgres(&servers, &payloads, Sharing::Alone).await.unwrap();
    let mut session = session(&database).await;
    let mut expected = 0;
    for next in [Fault::After, Fault::Before, Fault::After, Fault::None] {
        *fault.lock().unwrap() = next;
        let writes: Vec<_> = (0..3)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move { store.write(Increase).await })
            })
            .collect();
        for write in writes {
            write.await.unwrap().unwrap();
            expected += 1;
        }
        assert_eq!(*fault.lock().unwrap(), Fault::None, "the fault happened");
        assert_eq!(number(&mut session, INCREASED).await, expected, "{next:?}");
    }
    // The installation's lock went with each connection, and is held again.
    let second =
        Store::open_postgres(&database.url().unwrap().parse().unwrap(), &payloads, Sharing::Alone).await;
    assert!(matches!(second, Err(StoreError::InUse(_))), "{second:?}");
}

#[tokio::test]
async fn a_second_service_is_refused_until_the_first_has_ended() {
    let Some(database) = database().await else { return };
    let open = async || {
        let servers: Servers = database.url().unwrap().parse().unwrap();
        Store::open_postgres(&servers, &database.path().join("payloads"), Sharing::Alone).await
    };
    let first = open().await.unwrap();
    let second = open().await;
    assert!(matches!(second, Err(StoreError::InUse(_))), "{second:?}");
    first.check_works().await.unwrap();
    first.close().await;

    // One that is killed says no goodbye: its sockets close.
    let servers: Servers = database.url().unwrap().parse().unwrap();
    let payloads = database.path().join("payloads");
    let killed = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let store = runtime.block_on(Store::open_postgres(&servers, &payloads, Sharing::Alone)).unwrap();
        runtime.shutdown_background();
        drop(store);
    });
    killed.join().unwrap();
    let third = open().await.unwrap();
    third.check_works().await.unwrap();
    third.close().await;
}

#[tokio::test]
async fn a_lock_that_another_holds_is_refused_in_time_whatever_its_key() {
    let Some(database) = database().await else { return };
    for key in [5, -5, i64::MAX, i64::MIN, -1] {
        let mut holder = session(&database).await;
        sqlx::query("SELECT pg_advisory_lock($1)").bind(key).execute(&mut holder).await.unwrap();
        let servers: Servers = database.url().unwrap().parse().unwrap();
        let refused = timeout(Duration::from_secs(5), servers.session(key, Duration::from_millis(300))).await;
        assert!(matches!(refused, Ok(Err(StoreError::InUse(_)))), "{key}: {refused:?}");
    }
}

#[tokio::test]
async fn a_commit_waits_for_the_disk_whatever_the_database_says() {
    let Some(database) = database().await else { return };
    let name = database.url().unwrap().rsplit_once('/').unwrap().1.to_owned();
    for (set, ours) in [("off", "on"), ("local", "local"), ("remote_write", "remote_write"), ("on", "on")] {
        let alter = format!("ALTER DATABASE {name} SET synchronous_commit = '{set}'");
        sqlx::raw_sql(AssertSqlSafe(alter)).execute(&mut session(&database).await).await.unwrap();
        let servers: Servers = database.url().unwrap().parse().unwrap();
        let mut writer = servers.session(1, Duration::from_secs(1)).await.unwrap();
        let seen: String =
            sqlx::query_scalar("SHOW synchronous_commit").fetch_one(&mut writer.connection).await.unwrap();
        assert_eq!(seen, ours, "{set}");
        writer.connection.close().await.unwrap();
        let found = servers.inspect(|| NOW).await.unwrap();
        assert_eq!(found.synchronous_commit, set != "off", "{set}");
        let fsync = "SELECT (current_setting('fsync') = 'on')::int::bigint";
        assert_eq!(found.fsync, number(&mut session(&database).await, fsync).await == 1);
    }
}
