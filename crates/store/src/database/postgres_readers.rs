//! Connections to PostgreSQL that only read: a few, shared by all who read, and replaced when the writer goes over to another
//! server.
//!
//! A read whose connection has gone is repeated for a bounded time, and so is one that hangs on a server from which another
//! has taken over. A stream whose first row was sent is never repeated: it ends with an error. A connection in the middle of an
//! answer is closed, never used again.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use sqlx::Connection as _;
use sqlx::postgres::{PgConnection, PgRow};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::postgres_errors::{is_disconnected, is_refused};
use super::server_options::ServerOptions;
use super::statement::Statement;

/// How long one server is given to answer.
pub(super) const CONNECT: Duration = Duration::from_secs(3);
/// How many may read at a time.
pub(super) const MOST: usize = 8;
/// How long a reader waits for its turn.
const TURN: Duration = Duration::from_secs(5);
/// How long readers try to reach a server that has gone before they fail.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a read may take with all its attempts: longer than the server's own limit for a statement, which says more. Only a
/// server that is not there any more takes as long, or a writer that connects again and again.
const LONGEST: Duration = Duration::from_secs(65);
/// How many rows wait for their reader, where it takes them one by one.
const ROWS_AHEAD: usize = 16;

/// The readers of one database. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct PostgresReaders(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    turns: Arc<Semaphore>,
    server: Mutex<Server>,
    /// How often readers went over to another server. Wakes those who wait for the old one.
    switches: watch::Sender<u64>,
    /// Wakes the writer when a reader has lost its connection.
    lost: Notify,
}

/// The server that readers use, and its connections that nobody uses at the moment.
#[derive(Debug)]
struct Server {
    options: ServerOptions,
    switch: u64,
    idle: Vec<PgConnection>,
}

/// A connection that one reader has.
struct Reader<'r> {
    connection: PgConnection,
    switch: u64,
    readers: &'r PostgresReaders,
    _turn: OwnedSemaphorePermit,
}

impl PostgresReaders {
    pub(crate) fn new(options: ServerOptions) -> PostgresReaders {
        PostgresReaders(Arc::new(Shared {
            turns: Arc::new(Semaphore::new(MOST)),
            server: Mutex::new(Server { options, switch: 0, idle: Vec::new() }),
            switches: watch::Sender::new(0),
            lost: Notify::new(),
        }))
    }

    /// Reads from this server from now on.
    pub(crate) fn switch_to(&self, options: &ServerOptions) {
        self.server().options = options.clone();
        self.reconnect();
    }

    /// Uses none of the connections any more: whoever waits for an answer connects again.
    pub(crate) fn reconnect(&self) {
        let mut server = self.server();
        server.switch += 1;
        server.idle.clear();
        self.0.switches.send_replace(server.switch);
    }

    /// Waits until a reader has lost its connection.
    pub(crate) async fn lost(&self) {
        self.0.lost.notified().await;
    }

    pub(crate) async fn close(&self) {
        self.0.turns.close();
        let idle = std::mem::take(&mut self.server().idle);
        for connection in idle {
            // The server notices anyway.
            let _ = connection.close().await;
        }
    }

    pub(super) async fn execute(&self, statement: &Statement) -> Result<u64, sqlx::Error> {
        self.repeat(|| async {
            let mut reader = self.reader().await?;
            let done = statement.clone().for_postgres()?.execute(&mut reader.connection).await?;
            reader.release();
            Ok(done.rows_affected())
        })
        .await
    }

    pub(super) async fn fetch_all(&self, statement: &Statement) -> Result<Vec<PgRow>, sqlx::Error> {
        self.repeat(|| async {
            let mut reader = self.reader().await?;
            let rows = statement.clone().for_postgres()?.fetch_all(&mut reader.connection).await?;
            reader.release();
            Ok(rows)
        })
        .await
    }

    pub(super) async fn fetch_optional(&self, statement: &Statement) -> Result<Option<PgRow>, sqlx::Error> {
        self.repeat(|| async {
            let mut reader = self.reader().await?;
            let row = statement.clone().for_postgres()?.fetch_optional(&mut reader.connection).await?;
            reader.release();
            Ok(row)
        })
        .await
    }

    /// Its rows one after another. Nothing is repeated once the first was sent: it would be read twice.
    pub(super) fn fetch(&self, statement: Statement) -> BoxStream<'static, Result<PgRow, sqlx::Error>> {
        let (rows, received) = mpsc::channel(ROWS_AHEAD);
        let readers = self.clone();
        tokio::spawn(async move {
            let begun = AtomicBool::new(false);
            let sent = readers.repeat_unless(&begun, || readers.send(&statement, &rows, &begun)).await;
            if let Err(error) = sent {
                // Who reads may have gone.
                let _ = rows.send(Err(error)).await;
            }
        });
        let next = |mut received: mpsc::Receiver<_>| async { Some((received.recv().await?, received)) };
        futures_util::stream::unfold(received, next).boxed()
    }

    /// Sends the rows of a statement. Sets `begun` before it sends the first.
    async fn send(
        &self,
        statement: &Statement,
        rows: &mpsc::Sender<Result<PgRow, sqlx::Error>>,
        begun: &AtomicBool,
    ) -> Result<(), sqlx::Error> {
        let mut reader = self.reader().await?;
        let mut stream = statement.clone().for_postgres()?.fetch(&mut reader.connection);
        while let Some(row) = stream.try_next().await? {
            begun.store(true, Ordering::Relaxed);
            if rows.send(Ok(row)).await.is_err() {
                return Ok(());
            }
        }
        drop(stream);
        reader.release();
        Ok(())
    }

    /// Reads until it succeeds, fails for another reason than a connection that has gone, or the time is up.
    async fn repeat<T, F>(&self, attempt: impl FnMut() -> F) -> Result<T, sqlx::Error>
    where
        F: Future<Output = Result<T, sqlx::Error>>,
    {
        self.repeat_unless(&AtomicBool::new(false), attempt).await
    }

    /// The same. An attempt that has set `begun` is the last one.
    async fn repeat_unless<T, F>(
        &self,
        begun: &AtomicBool,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, sqlx::Error>
    where
        F: Future<Output = Result<T, sqlx::Error>>,
    {
        let mut switches = self.0.switches.subscribe();
        let until = Instant::now() + PATIENCE;
        // A read that hangs learns of another server only after `until`.
        let last = Instant::now() + LONGEST;
        let mut pause = Duration::ZERO;
        loop {
            switches.mark_unchanged();
            let done = tokio::select! {
                done = timeout_at(last, attempt()) => done.unwrap_or_else(|_| Err(silent())),
                _ = switches.changed() => {
                    if begun.load(Ordering::Relaxed) || self.0.turns.is_closed() || Instant::now() >= last {
                        return Err(switched());
                    }
                    continue;
                }
            };
            match done {
                Err(error) if begun.load(Ordering::Relaxed) => return Err(error),
                Err(error) if is_disconnected(&error) || is_refused(&error) => {
                    if is_disconnected(&error) {
                        // The others have gone with it, most likely.
                        self.server().idle.clear();
                    }
                    self.0.lost.notify_one();
                    if self.0.turns.is_closed() || Instant::now() >= until {
                        return Err(error);
                    }
                    tokio::select! {
                        () = sleep(pause) => {}
                        _ = switches.changed() => {}
                    }
                    pause = (pause * 2).clamp(Duration::from_millis(20), Duration::from_millis(500));
                }
                done => return done,
            }
        }
    }

    async fn reader(&self) -> Result<Reader<'_>, sqlx::Error> {
        let turn = timeout(TURN, self.0.turns.clone().acquire_owned()).await;
        let turn = turn.map_err(|_| sqlx::Error::PoolTimedOut)?.map_err(|_| sqlx::Error::PoolClosed)?;
        let (options, switch, idle) = {
            let mut server = self.server();
            (server.options.clone(), server.switch, server.idle.pop())
        };
        let connection = match idle {
            Some(connection) => connection,
            None => {
                let connecting = timeout(CONNECT, options.connect()).await;
                connecting.unwrap_or_else(|_| Err(silent()))?
            }
        };
        Ok(Reader { connection, switch, readers: self, _turn: turn })
    }

    fn server(&self) -> MutexGuard<'_, Server> {
        // A panic while it was held cannot have left it half changed.
        self.0.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader<'_> {
    /// Gives the connection back, after a whole answer.
    fn release(self) {
        let mut server = self.readers.server();
        if server.switch == self.switch {
            server.idle.push(self.connection);
        }
    }
}

/// The server has not answered in time.
pub(super) fn silent() -> sqlx::Error {
    std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer in time").into()
}

/// The writer went over to another server, or connected again, in the middle of a read.
fn switched() -> sqlx::Error {
    std::io::Error::new(std::io::ErrorKind::ConnectionAborted, "the connection to the database was replaced")
        .into()
}
