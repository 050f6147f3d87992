//! Connects to PostgreSQL: which server of several takes writes, what it must be, its locks and its migrations.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};
use tokio::time::{Instant, sleep, timeout};

use super::commit_mark::CommitMark;
use super::postgres_readers::{self, CONNECT, PostgresReaders, silent};
use super::server_options::ServerOptions;
use crate::migrations::{self, POSTGRES};
use crate::{StoreError, random};

/// The oldest version that is supported; the tests run 15.
const OLDEST: i32 = 130_000;
/// How much longer the other servers are given once one answers that takes writes.
const FURTHER: Duration = Duration::from_millis(500);
/// How long a service that starts waits for what another left locked: longer than a server takes to notice that a client has
/// gone.
const LOCKED_AT_START: Duration = Duration::from_secs(35);
/// How many connections a service needs: its readers', the one that writes, and one that takes over from it while the server has
/// not noticed that the old one is gone, or that asks the server for its clock.
pub const CONNECTIONS: i64 = postgres_readers::MOST as i64 + 2;
/// How many numbers of outbox rows are left out when another server takes over: more than one that was behind can have missed.
const SKIPPED: i64 = 1_000_000;
/// The advisory lock of an installation: the service that holds it is the only one. (The bytes of `farcall` as a number.)
pub(crate) const INSTALLATION: i64 = 0x0066_6172_6361_6c6c;
/// What bounds a session, whatever the server's own settings: a lock or a statement that takes too long fails, and a client
/// that went silently is noticed.
const SESSION: &[(&str, &str)] = &[
    ("lock_timeout", "10s"),
    ("statement_timeout", "60s"),
    ("idle_in_transaction_session_timeout", "60s"),
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
    // An answer that does not arrive ends the session as well.
    ("tcp_user_timeout", "25s"),
    ("default_transaction_isolation", "read committed"),
    ("timezone", "UTC"),
];

/// The servers of one installation: one is the primary, the others may become it.
#[derive(Clone)]
pub struct Servers {
    servers: Vec<ServerOptions>,
    /// Tells this process's sessions from others'.
    name: String,
    /// The newest that was seen: a server that is behind has been superseded by another.
    timeline: Arc<AtomicI64>,
}

impl std::fmt::Debug for Servers {
    /// Only what tells servers apart.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Servers").field(&self.shown()).finish()
    }
}

/// Why a `postgres://` URL cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error(
        "it has to look like postgres://USER@HOST:PORT/DATABASE, with several HOST:PORT separated by commas if one can take over from another"
    )]
    Form,
    #[error(
        "the parameter {0} is unknown; there are sslmode, sslrootcert, sslcert, sslkey, host, port, user, password, dbname"
    )]
    Parameter(String),
    #[error("{0}")]
    Value(String),
}

const PARAMETERS: &[&str] =
    &["sslmode", "sslrootcert", "sslcert", "sslkey", "host", "port", "user", "password", "dbname"];

impl FromStr for Servers {
    type Err = UrlError;

    fn from_str(url: &str) -> Result<Servers, UrlError> {
        let rest = url
            .strip_prefix("postgres://")
            .or_else(|| url.strip_prefix("postgresql://"))
            .ok_or(UrlError::Form)?;
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.is_empty() && !path.contains("host=") {
            return Err(UrlError::Form);
        }
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (format!("{user}@"), hosts),
            None => (String::new(), authority),
        };
        if let Some((_, parameters)) = path.split_once('?') {
            let names = parameters.split('&').map(|pair| pair.split('=').next().unwrap_or(pair));
            for name in names.filter(|name| !name.is_empty()) {
                // What is no name may be a part of a password with a question mark in it: it is not shown.
                let is_name = name.len() < 40 && name.bytes().all(|it| it.is_ascii_lowercase() || it == b'_');
                match PARAMETERS.contains(&name) {
                    true => {}
                    false if is_name => return Err(UrlError::Parameter(name.to_owned())),
                    false => return Err(UrlError::Form),
                }
            }
        }
        let name = format!("farcall {}", random::ordered_id().as_simple());
        let server = |host: &str| {
            let options = PgConnectOptions::from_str(&format!("postgres://{user}{host}{path}"))
                .map_err(|error| UrlError::Value(error.to_string()))?;
            Ok(ServerOptions::new(
                options
                    .application_name(&name)
                    .statement_cache_capacity(200)
                    .options(SESSION.iter().copied())
                    .disable_statement_logging(),
            ))
        };
        let servers = hosts.split(',').map(server).collect::<Result<Vec<_>, UrlError>>()?;
        Ok(Servers { servers, name, timeline: Arc::default() })
    }
}

impl Servers {
    /// What this process's sessions are called.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The servers, for people: without users and passwords.
    pub fn shown(&self) -> String {
        self.servers.iter().map(ServerOptions::shown).collect::<Vec<_>>().join(", ")
    }

    /// Connects to the server that takes writes: of several, the one that was promoted last.
    pub(crate) async fn connect(&self) -> Result<(PgConnection, &ServerOptions), StoreError> {
        let found = self.primary().await?;
        Ok((found.connection, found.server))
    }

    async fn primary(&self) -> Result<Primary<'_>, StoreError> {
        let connecting = self.servers.iter().map(|server| self.connect_to(server));
        let mut connecting: FuturesUnordered<_> = connecting.collect();
        let mut found: Option<Primary<'_>> = None;
        let mut why = StoreError::Closed;
        loop {
            let next = match found {
                None => connecting.next().await,
                Some(_) => timeout(FURTHER, connecting.next()).await.unwrap_or(None),
            };
            match next {
                None => break,
                Some(Ok(other)) => match &found {
                    Some(found) if found.timeline >= other.timeline => {}
                    _ => found = Some(other),
                },
                // That a standby is one says less than what the primary's error is.
                Some(Err(StoreError::InRecovery(_))) if !matches!(why, StoreError::Closed) => {}
                Some(Err(error)) => why = error,
            }
        }
        let found = found.ok_or(why)?;
        let newest = self.timeline.fetch_max(found.timeline, Ordering::Relaxed);
        if found.timeline < newest {
            return Err(StoreError::Superseded(found.server.shown()));
        }
        Ok(found)
    }

    /// Opens the session of a writer, with a lock (see [`Servers::lock`]).
    pub(crate) async fn session(&self, lock: i64, patience: Duration) -> Result<Session, StoreError> {
        let Primary { mut connection, server, process, timeline } = self.primary().await?;
        self.lock(&mut connection, lock, patience).await?;
        // A session whose client has gone ends soon, also in the middle of a statement. (New in 14; not on every system.)
        let _ = sqlx::raw_sql("SET client_connection_check_interval = '5s'").execute(&mut connection).await;
        Ok(Session { connection, server: server.clone(), process, timeline })
    }

    /// Takes the installation's lock for the session of `connection`, for a program that starts.
    pub(crate) async fn lock_installation(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        self.lock(connection, INSTALLATION, LOCKED_AT_START).await
    }

    /// Takes the lock `key` for the session of `connection`: the installation's, or the one that says that this process lives.
    /// A session that this process has lost, and that the server has not noticed, is ended. Waits for one that may be left over
    /// from a process that died, and is refused by one that shows that it lives.
    async fn lock(
        &self,
        connection: &mut PgConnection,
        key: i64,
        patience: Duration,
    ) -> Result<(), StoreError> {
        let until = Instant::now() + patience;
        let mut seen: Option<(i32, Option<String>)> = None;
        loop {
            let locked: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
                .bind(key)
                .fetch_one(&mut *connection)
                .await?;
            if locked {
                return Ok(());
            }
            let holder = sqlx::query(
                "SELECT a.pid, a.state_change::text AS changed, \
                 CASE WHEN a.application_name = $1 THEN pg_terminate_backend(a.pid) END AS ended \
                 FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid \
                 WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 \
                 AND l.classid::bigint << 32 | l.objid::bigint = $2 AND a.datname = current_database() AND a.pid <> pg_backend_pid()",
            )
            .bind(&self.name)
            .bind(key)
            .fetch_optional(&mut *connection)
            .await?;
            let mut lives = false;
            if let Some(holder) = holder {
                let holder = (holder.try_get("pid")?, holder.try_get("changed")?);
                lives = matches!(&seen, Some((pid, changed)) if *pid == holder.0 && *changed != holder.1);
                seen = Some(holder);
            }
            // Also if nobody holds it that could be seen.
            if lives || Instant::now() > until {
                return Err(StoreError::InUse(self.shown()));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Whether the session of the server's process `process` lives, as another session sees it.
    pub(crate) async fn session_state(&self, process: i32) -> SessionState {
        let alive = async {
            let (mut connection, _) = self.connect().await?;
            let alive: bool = sqlx::query_scalar(
                "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE pid = $1 AND application_name = $2)",
            )
            .bind(process)
            .bind(&self.name)
            .fetch_one(&mut connection)
            .await?;
            connection.close().await?;
            Ok(alive)
        };
        match timeout(CONNECT * 2, alive).await {
            Ok(Ok(true)) => SessionState::Alive,
            Ok(Ok(false)) => SessionState::Gone,
            Ok(Err(StoreError::Unreachable(..))) | Err(_) => SessionState::Unknown,
            // Something answers.
            Ok(Err(_)) => SessionState::Alive,
        }
    }

    async fn connect_to<'s>(&'s self, server: &'s ServerOptions) -> Result<Primary<'s>, StoreError> {
        let connecting = async {
            let mut connection = server.connect().await?;
            let row = sqlx::query(
                "SELECT pg_is_in_recovery() AS recovery, current_setting('server_encoding') AS encoding, \
                 current_setting('synchronous_commit') = 'off' AS asynchronous, \
                 current_setting('server_version_num')::int AS version, pg_backend_pid() AS process, \
                 current_setting('transaction_read_only')::boolean AS read_only, \
                 CASE WHEN NOT pg_is_in_recovery() \
                 THEN ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::bigint END AS timeline",
            )
            .fetch_one(&mut connection)
            .await?;
            // What is answered has to be on disk. Everything but `off` waits for the primary's disk; whether a standby is waited
            // for is the operator's choice.
            if row.try_get("asynchronous")? {
                sqlx::raw_sql("SET synchronous_commit = 'on'").execute(&mut connection).await?;
            }
            Ok((connection, row))
        };
        let connected = timeout(CONNECT, connecting).await.unwrap_or_else(|_| Err(silent()));
        let (connection, row) = connected.map_err(|error| unreachable_or(error, server))?;
        if row.try_get("recovery")? {
            return Err(StoreError::InRecovery(server.shown()));
        }
        if row.try_get("read_only")? {
            return Err(StoreError::ReadOnlyServer(server.shown()));
        }
        let encoding: String = row.try_get("encoding")?;
        if encoding != "UTF8" {
            return Err(StoreError::Encoding(encoding));
        }
        let version: i32 = row.try_get("version")?;
        if version < OLDEST {
            return Err(StoreError::OldServer(version / 10_000));
        }
        Ok(Primary {
            connection,
            server,
            process: row.try_get("process")?,
            timeline: row.try_get("timeline")?,
        })
    }
}

/// A server that takes writes, and a connection to it.
struct Primary<'s> {
    connection: PgConnection,
    server: &'s ServerOptions,
    /// The server's process for this session.
    process: i32,
    /// Grows when a standby is promoted.
    timeline: i64,
}

/// The session of a writer.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) connection: PgConnection,
    pub(crate) server: ServerOptions,
    /// The server's process for it.
    pub(crate) process: i32,
    /// Of that server: grows when a standby is promoted.
    pub(crate) timeline: i64,
}

impl Session {
    /// Goes on with numbers of outbox rows that no server of this installation has given out.
    pub(crate) async fn skip_numbers(&mut self) -> Result<(), StoreError> {
        for table in ["assignments", "deliveries"] {
            let sql = "SELECT setval(pg_get_serial_sequence($1, 'seq'), \
                 nextval(pg_get_serial_sequence($1, 'seq')) + $2)";
            sqlx::query(sql).bind(table).bind(SKIPPED).execute(&mut self.connection).await?;
        }
        Ok(())
    }
}

/// What is known of a session that does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionState {
    Alive,
    /// It has ended, or another server has taken over.
    Gone,
    /// No server answers.
    Unknown,
}

/// The database did not answer, or said why it does not serve.
fn unreachable_or(error: sqlx::Error, server: &ServerOptions) -> StoreError {
    let at = server.shown();
    match &error {
        sqlx::Error::Database(said) => match said.code().as_deref() {
            Some("53300") => StoreError::NoConnections(at, said.message().to_owned()),
            Some("28P01" | "28000") => StoreError::Refused(at, said.message().to_owned()),
            Some("3D000") => StoreError::NoDatabase(at, said.message().to_owned()),
            Some("42501") => StoreError::NoRight(said.message().to_owned()),
            Some("57P03") => StoreError::Unreachable(at, Arc::new(error)),
            _ => error.into(),
        },
        _ => StoreError::Unreachable(at, Arc::new(error)),
    }
}

/// Connects, takes the lock `lock`, migrates the schema, and opens readers.
pub(crate) async fn open(servers: &Servers, lock: i64) -> Result<(Session, PostgresReaders), StoreError> {
    let mut session = servers.session(lock, LOCKED_AT_START).await?;
    let connection = &mut session.connection;
    let asks: bool = sqlx::query_scalar("SELECT to_regclass('schema_compatibility') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await?;
    let oldest_known = match asks {
        true => sqlx::query_scalar(migrations::OLDEST_KNOWN).fetch_optional(&mut *connection).await?,
        false => None,
    };
    // A change of a large table takes its time, and another process that makes it is waited for.
    sqlx::raw_sql("SET statement_timeout = 0; SET lock_timeout = '10min'").execute(&mut *connection).await?;
    migrations::migrate(connection, POSTGRES, oldest_known).await?;
    sqlx::raw_sql("RESET statement_timeout; RESET lock_timeout").execute(&mut *connection).await?;
    if lock == INSTALLATION {
        CommitMark::delete_all(connection).await?;
    }
    let readers = PostgresReaders::new(session.server.clone());
    Ok((session, readers))
}

/// Whether some session holds the lock of `process`.
pub(crate) async fn is_living(connection: &mut PgConnection, process: i64) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT NOT pg_try_advisory_xact_lock_shared($1)")
        .bind(process)
        .fetch_one(connection)
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_shown() {
        let servers: Servers = "postgres://u:secret@h:1,i:2/d".parse().unwrap();
        let shown = format!(
            "{servers:?} {:?} {:#?}",
            servers.servers,
            PostgresReaders::new(servers.servers[0].clone())
        );
        assert!(shown.contains("h:1") && shown.contains("i:2"), "{shown}");
        assert!(!shown.contains("secret"), "{shown}");
    }
}
