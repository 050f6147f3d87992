//! The only writer of this process. Commands that wait when a transaction begins share it and its fsync.
//!
//! ```text
//! write(a) --+
//! write(b) --+--> [a b c] -> BEGIN, a, b, c, COMMIT (one fsync) -> answers to a, b, c
//! write(c) --+        while this runs, the next ones gather
//! ```
//!
//! Each command runs in a savepoint of its own, so that a failed one undoes no other. Callers get their answers after the
//! commit: an answer means that the command is on disk. Commands run one after another in the order in which they commit.
//!
//! With PostgreSQL others may write at the same time. If they are in the way of a transaction, its commands run again, each
//! in a transaction of its own. If the connection goes, the writer connects again and asks what became of the commit.

pub(crate) mod postgres;
mod sqlite;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, oneshot};

use crate::database::Tx;
use crate::{StoreError, outage_log};

/// How many commands may queue; further callers wait.
const QUEUE_LENGTH: usize = 1024;
/// The most commands in one transaction: bounds how long one waits for the others.
const MOST_IN_TRANSACTION: usize = 128;

/// A unit of work for the writer. If it returns an error, everything it wrote is undone. It may run more than once, if what it
/// wrote before was undone.
pub trait Command: Clone + Send + 'static {
    type Output: Send + 'static;

    fn run(self, tx: &mut Tx) -> impl Future<Output = Result<Self::Output, StoreError>> + Send;
}

/// Sends commands to the writer.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    requests: mpsc::Sender<Request>,
    /// How many commands were given to the writer.
    pub(crate) commands: Arc<AtomicU64>,
    #[cfg(test)]
    pub(crate) watch: Arc<watch::Watch>,
}

enum Request {
    Write(Box<dyn AnyCommand>),
    /// Run the commands queued before, close the database, then answer.
    Close(oneshot::Sender<()>),
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Request")
    }
}

/// Whether a command may have to run again, and is kept for that.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rerun {
    No,
    Maybe,
}

/// A command together with the channel for its answer, without its type.
pub(crate) trait AnyCommand: Send {
    fn run<'c>(
        &'c mut self,
        tx: &'c mut Tx,
        rerun: Rerun,
    ) -> Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send + 'c>>;
    fn answer(self: Box<Self>, result: Result<(), StoreError>);
}

struct PendingCommand<C: Command> {
    command: Option<C>,
    output: Option<C::Output>,
    answer: oneshot::Sender<Result<C::Output, StoreError>>,
    #[cfg(test)]
    watch: Arc<watch::Watch>,
}

impl<C: Command> AnyCommand for PendingCommand<C> {
    fn run<'c>(
        &'c mut self,
        tx: &'c mut Tx,
        rerun: Rerun,
    ) -> Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send + 'c>> {
        Box::pin(async move {
            let command = match rerun {
                Rerun::No => self.command.take(),
                Rerun::Maybe => self.command.clone(),
            };
            if let Some(command) = command {
                self.output = Some(command.run(tx).await?);
            }
            #[cfg(test)]
            self.watch.count();
            Ok(())
        })
    }

    fn answer(self: Box<Self>, result: Result<(), StoreError>) {
        let PendingCommand { output, answer, .. } = *self;
        let result = result.and_then(|()| output.ok_or(StoreError::Closed));
        // Whoever asked may have gone; what was written stays written.
        let _ = answer.send(result);
    }
}

impl Handle {
    pub(crate) async fn write<C: Command>(&self, command: C) -> Result<C::Output, StoreError> {
        let (answer, answered) = oneshot::channel();
        let work = Box::new(PendingCommand {
            command: Some(command),
            output: None,
            answer,
            #[cfg(test)]
            watch: self.watch.clone(),
        });
        self.commands.fetch_add(1, Ordering::Relaxed);
        self.requests.send(Request::Write(work)).await.map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }

    pub(crate) async fn close(&self) {
        let (answer, answered) = oneshot::channel();
        if self.requests.send(Request::Close(answer)).await.is_ok() {
            let _ = answered.await;
        }
    }
}

/// The connection that writes.
#[derive(Debug)]
pub(crate) enum Connection {
    Sqlite(Tx),
    Postgres(Box<postgres::Writer>),
}

impl Connection {
    async fn commit_together(&mut self, batch: Vec<Box<dyn AnyCommand>>) {
        if batch.is_empty() {
            return;
        }
        match self {
            Connection::Sqlite(tx) => sqlite::commit_together(tx, batch).await,
            Connection::Postgres(writer) => writer.commit_together(batch).await,
        }
    }

    /// Waits until it should be checked while it is idle.
    async fn wait_for_check(&self) {
        match self {
            Connection::Sqlite(_) => std::future::pending().await,
            Connection::Postgres(writer) => writer.wait_for_check().await,
        }
    }

    async fn check(&mut self) {
        match self {
            Connection::Sqlite(_) => {}
            Connection::Postgres(writer) => writer.check().await,
        }
    }

    async fn close(self) -> Result<(), sqlx::Error> {
        match self {
            Connection::Sqlite(tx) => tx.close().await,
            Connection::Postgres(writer) => writer.close().await,
        }
    }
}

/// Starts the writer on its own connection.
pub(crate) fn start(connection: Connection) -> Handle {
    let (requests, waiting) = mpsc::channel(QUEUE_LENGTH);
    #[cfg(test)]
    let watch = Arc::<watch::Watch>::default();
    let handle = Handle {
        requests,
        commands: Arc::default(),
        #[cfg(test)]
        watch: watch.clone(),
    };
    tokio::spawn(async move {
        #[cfg(test)]
        let connection = watch.over(connection).await;
        run(connection, waiting).await;
    });
    handle
}

async fn run(mut connection: Connection, mut waiting: mpsc::Receiver<Request>) {
    let mut requests = Vec::with_capacity(MOST_IN_TRANSACTION);
    let mut closing = Vec::new();
    while closing.is_empty() {
        let received = tokio::select! {
            biased;
            received = waiting.recv_many(&mut requests, MOST_IN_TRANSACTION) => received,
            () = connection.wait_for_check() => {
                connection.check().await;
                continue;
            }
        };
        if received == 0 {
            break;
        }
        let mut batch = Vec::with_capacity(requests.len());
        for request in requests.drain(..) {
            match request {
                Request::Write(work) => batch.push(work),
                Request::Close(answer) => closing.push(answer),
            }
        }
        connection.commit_together(batch).await;
    }
    waiting.close();
    if let Err(error) = connection.close().await {
        tracing::warn!(%error, "cannot close the database cleanly");
    }
    for answer in closing {
        let _ = answer.send(());
    }
}

/// Sends the answers of a transaction: what each command returned, or why nothing was written.
fn answer(
    batch: Vec<Box<dyn AnyCommand>>,
    results: Vec<Result<(), StoreError>>,
    transaction: Result<(), StoreError>,
) {
    match transaction {
        Ok(()) => batch.into_iter().zip(results).for_each(|(work, result)| work.answer(result)),
        Err(error) => {
            if !outage_log::logs(&error) {
                tracing::error!(%error, requests = batch.len(), "transaction failed; nothing was written");
            }
            // A command's own error says more than the transaction's.
            let own = results.into_iter().map(Result::err).chain(std::iter::repeat(None));
            batch.into_iter().zip(own).for_each(|(work, own)| {
                work.answer(Err(own.unwrap_or_else(|| error.clone())));
            });
        }
    }
}

/// What commands cost, for tests.
#[cfg(test)]
pub(crate) mod watch {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use super::Connection;
    use crate::Tx;

    #[derive(Debug, Default)]
    pub(crate) struct Watch {
        /// Steps of SQLite's machine: since the last command, and the most that one has made.
        steps: AtomicU64,
        pub(crate) most: AtomicU64,
    }

    impl Watch {
        pub(super) async fn over(self: Arc<Self>, mut connection: Connection) -> Connection {
            let step = move || {
                self.steps.fetch_add(1, Relaxed);
                true
            };
            if let Connection::Sqlite(Tx::Sqlite(connection)) = &mut connection {
                connection.lock_handle().await.unwrap().set_progress_handler(1, step);
            }
            connection
        }

        /// A command is done.
        pub(crate) fn count(&self) {
            self.most.fetch_max(self.steps.swap(0, Relaxed), Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use sqlx::sqlite::SqliteConnectOptions;
    use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};

    use super::*;
    use crate::database::{query, query_scalar};

    /// Adds a row; fails afterwards when `fail`.
    #[derive(Clone)]
    struct Add {
        value: i64,
        fail: bool,
    }

    impl Command for Add {
        type Output = i64;

        async fn run(self, tx: &mut Tx) -> Result<i64, StoreError> {
            query("INSERT INTO numbers (value) VALUES ($1)").bind(self.value).execute(&mut *tx).await?;
            if self.fail {
                return Err(StoreError::Corrupt("asked to fail"));
            }
            Ok(query_scalar("SELECT count(*) FROM numbers").fetch_one(tx).await?)
        }
    }

    async fn execute(tx: &mut Tx, sql: &'static str) {
        let Tx::Sqlite(connection) = tx else { panic!("SQLite") };
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.unwrap();
    }

    async fn numbers() -> (tempfile::TempDir, std::path::PathBuf, Tx) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("numbers.db");
        let options = SqliteConnectOptions::new().filename(&file).create_if_missing(true);
        let mut connection = Tx::Sqlite(SqliteConnection::connect_with(&options).await.unwrap());
        execute(&mut connection, "CREATE TABLE numbers (value BIGINT NOT NULL UNIQUE)").await;
        (directory, file, connection)
    }

    fn slot(value: i64, fail: bool) -> (Box<dyn AnyCommand>, oneshot::Receiver<Result<i64, StoreError>>) {
        let (answer, answered) = oneshot::channel();
        let watch = Default::default();
        (
            Box::new(PendingCommand { command: Some(Add { value, fail }), output: None, answer, watch }),
            answered,
        )
    }

    #[tokio::test]
    async fn a_batch_is_one_transaction_and_a_failure_takes_only_its_own() {
        let (_directory, _file, mut connection) = numbers().await;
        let (first, first_answer) = slot(1, false);
        let (bad, bad_answer) = slot(2, true);
        let (twin, twin_answer) = slot(1, false);
        let (last, last_answer) = slot(3, false);
        sqlite::commit_together(&mut connection, vec![first, bad, twin, last]).await;
        assert_eq!(first_answer.await.unwrap().unwrap(), 1);
        assert!(matches!(bad_answer.await.unwrap(), Err(StoreError::Corrupt("asked to fail"))));
        assert!(matches!(twin_answer.await.unwrap(), Err(StoreError::Database(_))));
        assert_eq!(last_answer.await.unwrap().unwrap(), 2, "sees the first one's row and nobody else's");
        let rows: Vec<i64> = query_scalar("SELECT value FROM numbers ORDER BY value")
            .fetch_all(&mut connection)
            .await
            .unwrap();
        assert_eq!(rows, [1, 3]);
    }

    #[tokio::test]
    async fn nobody_is_answered_well_when_the_commit_fails() {
        let (_directory, file, mut connection) = numbers().await;
        let options = SqliteConnectOptions::new().filename(&file).busy_timeout(std::time::Duration::ZERO);
        let mut other = Tx::Sqlite(SqliteConnection::connect_with(&options).await.unwrap());
        execute(&mut other, "BEGIN EXCLUSIVE").await;
        execute(&mut connection, "PRAGMA busy_timeout = 0").await;
        let (work, answer) = slot(1, false);
        sqlite::commit_together(&mut connection, vec![work]).await;
        assert!(answer.await.unwrap().is_err());
        execute(&mut other, "COMMIT").await;
        let (work, answer) = slot(1, false);
        sqlite::commit_together(&mut connection, vec![work]).await;
        assert_eq!(answer.await.unwrap().unwrap(), 1, "it recovers without a hand");
    }

    #[tokio::test]
    async fn those_who_wait_share_a_transaction_and_closing_finishes_them() {
        let (_directory, file, connection) = numbers().await;
        let handle = start(Connection::Sqlite(connection));
        let writes: Vec<_> = (0..50)
            .map(|value| {
                let handle = handle.clone();
                tokio::spawn(async move { handle.write(Add { value, fail: false }).await })
            })
            .collect();
        for write in writes {
            write.await.unwrap().unwrap();
        }
        handle.close().await;
        assert!(matches!(handle.write(Add { value: 99, fail: false }).await, Err(StoreError::Closed)));
        let options = SqliteConnectOptions::new().filename(&file);
        let mut connection = Tx::Sqlite(SqliteConnection::connect_with(&options).await.unwrap());
        let count: i64 =
            query_scalar("SELECT count(*) FROM numbers").fetch_one(&mut connection).await.unwrap();
        assert_eq!(count, 50);
    }
}
