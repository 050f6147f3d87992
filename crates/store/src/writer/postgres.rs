//! One transaction for several commands, on PostgreSQL, beside others' transactions and over a connection that may go.
//!
//! ```text
//! committed ------------------------------------------> answers
//! others were in the way -----------------------------> each command again, in a transaction of its own
//! the connection went before COMMIT was sent ---------> connect again, run again: nothing was written
//! the connection went after ---> connect again, look for the transaction's mark ---> answers, or run again
//! no answer for long ---> ask another connection ---> wait on, or as if the connection had gone
//! ```

use std::future::Future;
use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _};
use tokio::time::{Instant, sleep, timeout};

use super::{AnyCommand, Rerun};
use crate::database::Tx;
use crate::database::commit_mark::CommitMark;
use crate::database::postgres::{Servers, Session, SessionState};
use crate::database::postgres_readers::PostgresReaders;
use crate::database::server_options::ServerOptions;
use crate::{StoreError, random};

/// How long commands wait for a database that has gone before they fail.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a command runs if others are in its way, and for how long it is tried.
const TRIES: u32 = 10;
const LONGEST: Duration = Duration::from_secs(15);
/// Begins a transaction of several commands. Together they may hold locks in an order in which one command never takes them,
/// and wait in a circle with another process: they give up soon, and each runs by itself.
const BEGIN_SEVERAL: &str = "BEGIN; SET LOCAL lock_timeout = '100ms'; SAVEPOINT command";
/// How often a transaction is tried whose connection goes each time: it may be the reason.
const LOSSES: u32 = 20;
/// After how long without an answer another connection is asked whether the session lives.
const SILENCE: Duration = Duration::from_secs(5);
/// After how long a session is given up if no server answers at all. Callers have waited for as long then, and clients give up
/// after a minute: if no server can be connected to at once, the commands fail.
const LOST: Duration = Duration::from_secs(15);
/// How often an idle session is used: it shows others that this service lives, and finds out that its server does not.
const IDLE: Duration = Duration::from_secs(2);
/// How long connecting may take beside the wait for the lock: a server that hangs in the midst of it answers nothing.
const CONNECTING: Duration = Duration::from_secs(6);
/// The longest pause before a transaction is tried again whose connection went.
const PAUSE: Duration = Duration::from_millis(500);
/// How long the lock is waited for after the connection went.
const LOCKED: Duration = Duration::from_secs(2);

/// What writes.
#[derive(Debug)]
pub(crate) struct Writer {
    servers: Servers,
    /// The advisory lock that it holds: the installation's, or its process's own.
    lock: i64,
    session: Option<Open>,
    readers: PostgresReaders,
    down_since: Option<Instant>,
    /// Of the server of the last session: grows when a standby is promoted.
    timeline: i64,
}

#[derive(Debug)]
struct Open {
    tx: Tx,
    server: ServerOptions,
    process: i32,
}

impl From<Session> for Open {
    fn from(session: Session) -> Open {
        Open { tx: Tx::Postgres(session.connection), server: session.server, process: session.process }
    }
}

/// What became of a transaction.
enum Attempt {
    /// It was committed, or failed by itself.
    Ended(Result<(), StoreError>),
    /// Nothing was written; the same may succeed.
    Conflict,
    /// The connection has gone.
    Lost(StoreError),
}

/// How far a transaction came.
#[derive(Default)]
struct Progress {
    results: Vec<Result<(), StoreError>>,
    /// Its mark, once COMMIT is about to be sent.
    mark: Option<CommitMark>,
}

impl Writer {
    pub(crate) fn new(servers: Servers, lock: i64, session: Session, readers: PostgresReaders) -> Writer {
        let timeline = session.timeline;
        Writer { servers, lock, session: Some(session.into()), readers, down_since: None, timeline }
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
        let mut losses = 0;
        let begun = Instant::now();
        loop {
            let (open, servers) = match self.open().await {
                Ok(open) => open,
                Err(error) => {
                    super::answer(batch, Vec::new(), Err(error));
                    return None;
                }
            };
            let mut progress = Progress::default();
            let attempt = attempt(&mut open.tx, servers.name(), &mut batch, &mut progress);
            let attempt = watched(servers, open.process, attempt).await.unwrap_or_else(Attempt::Lost);
            let Progress { results, mark } = progress;
            let error = match attempt {
                Attempt::Ended(whole) => {
                    super::answer(batch, results, whole);
                    return None;
                }
                Attempt::Conflict => return Some(batch),
                Attempt::Lost(error) => error,
            };
            self.session = None;
            if matches!(error, StoreError::Silent(_)) {
                self.down_since.get_or_insert(begun);
                self.readers.reconnect();
            }
            losses += 1;
            sleep((Duration::from_millis(5) * losses * losses).min(PAUSE)).await;
            let committed = match mark {
                None => {
                    tracing::warn!(%error, "connection to the database lost; connecting again");
                    Ok(false)
                }
                Some(mark) => {
                    tracing::warn!(%error, "connection to the database lost at a commit; asking what became of it");
                    self.is_committed(&mark).await
                }
            };
            match committed {
                Ok(true) => super::answer(batch, results, Ok(())),
                Ok(false) if losses < LOSSES => continue,
                Ok(false) if batch.len() > 1 => return Some(batch),
                Ok(false) => super::answer(batch, Vec::new(), Err(error)),
                Err(error) => super::answer(batch, Vec::new(), Err(error)),
            }
            return None;
        }
    }

    async fn is_committed(&mut self, mark: &CommitMark) -> Result<bool, StoreError> {
        loop {
            let (open, servers) = self.open().await?;
            let found = mark.is_committed(connection(&mut open.tx)?);
            match watched(servers, open.process, async { found.await.map_err(StoreError::from) }).await {
                Ok(Ok(committed)) => return Ok(committed),
                Ok(Err(error)) => {
                    // Its transaction failed; a new session has none.
                    self.session = None;
                    if !error.is_conflict() && !error.is_disconnected() {
                        return Err(error);
                    }
                }
                Err(_) => self.session = None,
            }
        }
    }

    /// The session; a new one if it has gone. Fails if the database has been away for long.
    async fn open(&mut self) -> Result<(&mut Open, &Servers), StoreError> {
        let mut pause = Duration::from_millis(20);
        while self.session.is_none() {
            if let Err(error) = self.connect().await {
                if self.down_since.is_some_and(|since| since.elapsed() > PATIENCE) {
                    return Err(error);
                }
                sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(500));
            }
        }
        Ok((self.session.as_mut().ok_or(StoreError::Closed)?, &self.servers))
    }

    /// Tries once to connect, and takes the readers along.
    async fn connect(&mut self) -> Result<(), StoreError> {
        let connecting = async {
            let mut session = self.servers.session(self.lock, LOCKED).await?;
            if session.timeline > self.timeline {
                // This server may never have had the last rows, and would give their numbers to others.
                session.skip_numbers().await?;
            }
            Ok::<_, StoreError>(session)
        };
        let connected = timeout(LOCKED + CONNECTING, connecting).await;
        match connected.unwrap_or_else(|_| Err(StoreError::Silent(self.servers.shown()))) {
            Ok(session) => {
                self.timeline = session.timeline;
                let open = Open::from(session);
                self.readers.switch_to(&open.server);
                self.session = Some(open);
                self.down_since = None;
                tracing::info!("connected to the database again");
                Ok(())
            }
            Err(error) => {
                if self.down_since.is_none() {
                    tracing::warn!(%error, "cannot connect to the database; trying on");
                    self.down_since = Some(Instant::now());
                }
                Err(error)
            }
        }
    }

    /// Waits until the session should be checked: some time has passed, or a reader has lost its connection.
    pub(crate) async fn wait_for_check(&self) {
        tokio::select! {
            () = sleep(IDLE) => {}
            () = self.readers.lost() => {}
        }
    }

    /// Connects again if the session has gone.
    pub(crate) async fn check(&mut self) {
        if let Some(open) = &mut self.session {
            let checked = watched(&self.servers, open.process, execute(&mut open.tx, "SELECT 1")).await;
            if let Err(error) | Ok(Err(error)) = checked {
                tracing::warn!(%error, "connection to the database lost; connecting again");
                self.session = None;
                self.readers.reconnect();
            }
        }
        if self.session.is_none() {
            // The error was logged.
            let _ = self.connect().await;
        }
    }

    pub(crate) async fn close(self) -> Result<(), sqlx::Error> {
        match self.session {
            Some(Open { tx: Tx::Postgres(connection), .. }) => connection.close().await,
            _ => Ok(()),
        }
    }
}

/// Waits for `work` of a session as long as that lives. (A server that hangs, or has gone without a word, answers nothing.)
async fn watched<T>(servers: &Servers, process: i32, work: impl Future<Output = T>) -> Result<T, StoreError> {
    let dead = async {
        let mut answered = Instant::now();
        loop {
            sleep(SILENCE).await;
            match servers.session_state(process).await {
                SessionState::Alive => answered = Instant::now(),
                SessionState::Unknown if answered.elapsed() < LOST => {}
                SessionState::Unknown | SessionState::Gone => return StoreError::Silent(servers.shown()),
            }
        }
    };
    tokio::select! {
        biased;
        done = work => Ok(done),
        error = dead => Err(error),
    }
}

/// One transaction with all of `batch`.
async fn attempt(
    tx: &mut Tx,
    writer: &str,
    batch: &mut [Box<dyn AnyCommand>],
    progress: &mut Progress,
) -> Attempt {
    let error = match run(tx, batch, &mut progress.results).await {
        Ok(true) => {
            let mark = progress.mark.insert(CommitMark::new(writer));
            let committed = match connection(tx) {
                Ok(connection) => mark.commit(connection).await.map_err(StoreError::from),
                Err(error) => Err(error),
            };
            match committed {
                Ok(()) => return Attempt::Ended(Ok(())),
                Err(error) => error,
            }
        }
        Ok(false) => {
            // The command's own error says what happened. If this one says that the connection has gone, the next command
            // finds out.
            let _ = execute(tx, "ROLLBACK").await;
            return Attempt::Ended(Ok(()));
        }
        Err(error) => error,
    };
    if error.is_disconnected() {
        return Attempt::Lost(error);
    }
    // The server refused it, and says so: nothing was written.
    progress.mark = None;
    match execute(tx, "ROLLBACK").await {
        Err(error) => Attempt::Lost(error),
        Ok(()) if error.is_conflict() => Attempt::Conflict,
        Ok(()) => Attempt::Ended(Err(error)),
    }
}

/// Runs the commands of `batch`. Returns whether there is something to commit.
async fn run(
    tx: &mut Tx,
    batch: &mut [Box<dyn AnyCommand>],
    results: &mut Vec<Result<(), StoreError>>,
) -> Result<bool, StoreError> {
    let several = batch.len() > 1;
    if !several {
        execute(tx, "BEGIN").await?;
    }
    for (at, work) in batch.iter_mut().enumerate() {
        if several {
            let savepoint = [BEGIN_SEVERAL, "RELEASE SAVEPOINT command; SAVEPOINT command"];
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
    Ok(several || results.iter().all(Result::is_ok))
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
