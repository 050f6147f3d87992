//! One transaction for several commands, on PostgreSQL, beside others' transactions and over a connection that may go.
//!
//! ```text
//! committed ------------------------------------------> answers
//! others were in the way -----------------------------> each command again, in a transaction of its own
//! the connection went before COMMIT was sent ---------> connect again, run again: nothing was written
//! the connection went after ---> connect again, ask what became of the transaction ---> answers, or run again
//! ```

use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _};
use tokio::time::{Instant, sleep};

use super::{AnyCommand, Rerun};
use crate::database::Tx;
use crate::database::postgres::{self, ReaderSwitch, Servers};
use crate::{StoreError, random};

/// How long commands wait for a database that has gone before they fail.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a command runs if others are in its way, and for how long it is tried.
const TRIES: u32 = 10;
const LONGEST: Duration = Duration::from_secs(15);
/// Begins a transaction of several commands. Together they may hold locks in an order in which one command never takes them,
/// and wait in a circle with another process: they give up soon, and each runs by itself.
const BEGIN_SEVERAL: &str = "BEGIN; SET LOCAL lock_timeout = '100ms'";

/// The session that writes.
#[derive(Debug)]
pub(crate) struct Session {
    servers: Servers,
    /// The advisory lock that it holds: the installation's, or its process's own.
    lock: i64,
    tx: Option<Tx>,
    readers: ReaderSwitch,
    down_since: Option<Instant>,
}

/// What became of a transaction.
enum Attempt {
    /// It was committed, or failed by itself.
    Ended(Vec<Result<(), StoreError>>, Result<(), StoreError>),
    /// Nothing was written; the same may succeed.
    Conflict,
    /// Nothing was written, and the connection has gone.
    Lost(StoreError),
    /// The connection has gone, and with it the answer to COMMIT.
    Unknown { id: String, results: Vec<Result<(), StoreError>> },
}

impl Session {
    pub(crate) fn new(servers: Servers, lock: i64, tx: Tx, readers: ReaderSwitch) -> Session {
        Session { servers, lock, tx: Some(tx), readers, down_since: None }
    }

    /// Runs `batch` and sends the answers.
    pub(crate) async fn commit_together(&mut self, batch: Vec<Box<dyn AnyCommand>>) {
        let Some(batch) = self.commit_unless_conflict(batch).await else { return };
        for work in batch {
            self.commit_alone(work).await;
        }
    }

    async fn commit_alone(&mut self, work: Box<dyn AnyCommand>) {
        let mut batch = vec![work];
        let begun = Instant::now();
        for tries in 0..TRIES {
            match self.commit_unless_conflict(batch).await {
                None => return,
                Some(again) => batch = again,
            }
            if begun.elapsed() > LONGEST {
                break;
            }
            // Those who were in each other's way come back at different times.
            sleep(random::up_to(Duration::from_millis(5) * 2_u32.pow(tries.min(6)))).await;
        }
        super::answer(batch, Vec::new(), Err(StoreError::TryAgain));
    }

    /// Runs `batch` and sends the answers; gives it back if others were in its way.
    async fn commit_unless_conflict(
        &mut self,
        mut batch: Vec<Box<dyn AnyCommand>>,
    ) -> Option<Vec<Box<dyn AnyCommand>>> {
        loop {
            let connection = match self.connection().await {
                Ok(connection) => connection,
                Err(error) => {
                    super::answer(batch, Vec::new(), Err(error));
                    return None;
                }
            };
            match attempt(connection, &mut batch).await {
                Attempt::Ended(results, whole) => {
                    super::answer(batch, results, whole);
                    return None;
                }
                Attempt::Conflict => return Some(batch),
                Attempt::Lost(error) => {
                    tracing::warn!(%error, "connection to the database lost; connecting again");
                    self.tx = None;
                }
                Attempt::Unknown { id, results } => {
                    tracing::warn!(
                        transaction = id,
                        "connection to the database lost at a commit; asking what became of it"
                    );
                    self.tx = None;
                    match self.is_committed(&id).await {
                        Ok(true) => {
                            super::answer(batch, results, Ok(()));
                            return None;
                        }
                        Ok(false) => {}
                        Err(error) => {
                            super::answer(batch, Vec::new(), Err(error));
                            return None;
                        }
                    }
                }
            }
        }
    }

    async fn is_committed(&mut self, id: &str) -> Result<bool, StoreError> {
        loop {
            let Tx::Postgres(connection) = self.connection().await? else { return Err(StoreError::Closed) };
            match postgres::is_committed(connection, id).await {
                Ok(committed) => return Ok(committed),
                Err(error) if postgres::is_disconnected(&error) => self.tx = None,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The connection; a new one if it has gone. Fails if the database has been away for long.
    async fn connection(&mut self) -> Result<&mut Tx, StoreError> {
        let mut pause = Duration::from_millis(20);
        while self.tx.is_none() {
            match self.connect().await {
                Ok(tx) => {
                    self.tx = Some(tx);
                    self.down_since = None;
                    tracing::info!("connected to the database again");
                }
                Err(error) => {
                    let since = *self.down_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > PATIENCE {
                        return Err(error);
                    }
                    sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_millis(500));
                }
            }
        }
        self.tx.as_mut().ok_or(StoreError::Closed)
    }

    async fn connect(&self) -> Result<Tx, StoreError> {
        let (mut connection, server) = self.servers.connect().await?;
        self.servers.lock(&mut connection, self.lock).await?;
        self.readers.switch_to(server);
        Ok(Tx::Postgres(connection))
    }

    pub(crate) async fn close(self) -> Result<(), sqlx::Error> {
        match self.tx {
            Some(Tx::Postgres(connection)) => connection.close().await,
            _ => Ok(()),
        }
    }
}

/// One transaction with all of `batch`.
async fn attempt(tx: &mut Tx, batch: &mut [Box<dyn AnyCommand>]) -> Attempt {
    let mut results = Vec::with_capacity(batch.len());
    let several = batch.len() > 1;
    let ran = async {
        execute(tx, if several { BEGIN_SEVERAL } else { "BEGIN" }).await?;
        for (at, work) in batch.iter_mut().enumerate() {
            if several {
                let savepoint = ["SAVEPOINT command", "RELEASE SAVEPOINT command; SAVEPOINT command"];
                execute(tx, savepoint[usize::from(at > 0)]).await?;
            }
            let result = work.run(tx, Rerun::Maybe).await;
            if let Err(error) = &result {
                if error.is_conflict() || error.is_disconnected() {
                    return Err(error.clone());
                }
                if several {
                    execute(tx, "ROLLBACK TO SAVEPOINT command").await?;
                }
            }
            results.push(result);
        }
        Ok(postgres::transaction_id(connection(tx)?).await?)
    }
    .await;
    // Without an id nothing was written; a single command that failed has ended the transaction.
    let failed = !several && results.iter().any(Result::is_err);
    let id = match ran {
        _ if failed => None,
        Ok(id) => Some(id),
        Err(error) if error.is_disconnected() => return Attempt::Lost(error),
        Err(error) => {
            let conflict = error.is_conflict();
            return match execute(tx, "ROLLBACK").await {
                Err(error) => Attempt::Lost(error),
                Ok(()) if conflict => Attempt::Conflict,
                Ok(()) => Attempt::Ended(results, Err(error)),
            };
        }
    };
    let Some(id) = id else {
        return match execute(tx, "ROLLBACK").await {
            // The command's own error says what happened; the next one connects.
            Err(_) | Ok(()) => Attempt::Ended(results, Ok(())),
        };
    };
    match execute(tx, "COMMIT").await {
        Ok(()) => Attempt::Ended(results, Ok(())),
        Err(error) if error.is_disconnected() => Attempt::Unknown { id, results },
        Err(error) if error.is_conflict() => Attempt::Conflict,
        Err(error) => Attempt::Ended(results, Err(error)),
    }
}

async fn execute(tx: &mut Tx, sql: &'static str) -> Result<(), StoreError> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection(tx)?).await?;
    Ok(())
}

fn connection(tx: &mut Tx) -> Result<&mut PgConnection, StoreError> {
    match tx {
        Tx::Postgres(connection) => Ok(connection),
        Tx::Sqlite(_) => Err(StoreError::Closed),
    }
}
