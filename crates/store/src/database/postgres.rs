//! Connects to PostgreSQL: which server of several takes writes, what it must be, its migrations; and which errors mean that
//! the same may be tried again.

use std::future::Future;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgRow};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};
use tokio::time::{Instant, sleep, timeout};

use super::{Readers, Tx};
use crate::migrations::{self, POSTGRES};
use crate::{StoreError, random};

/// The oldest version that is supported; the tests run 15.
const OLDEST: i32 = 130_000;
/// How long one server is given to answer.
const CONNECT: Duration = Duration::from_secs(3);
/// How long readers try to reach a server that has gone before they fail.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a reader waits for a free connection.
const ACQUIRE: Duration = Duration::from_secs(5);
const MOST_READERS: u32 = 8;
/// How many connections a service needs: its readers', and the one that writes.
pub const CONNECTIONS: i64 = MOST_READERS as i64 + 1;
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
    ("default_transaction_isolation", "read committed"),
    ("timezone", "UTC"),
];

/// The servers of one installation: one is the primary, the others may become it.
#[derive(Clone)]
pub struct Servers {
    servers: Vec<PgConnectOptions>,
    /// Tells this process's sessions from others'.
    name: String,
}

impl std::fmt::Debug for Servers {
    /// Without the password, which the options would show.
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
            Ok(options
                .application_name(&name)
                .statement_cache_capacity(200)
                .options(SESSION.iter().copied())
                .disable_statement_logging())
        };
        let servers = hosts.split(',').map(server).collect::<Result<Vec<_>, UrlError>>()?;
        Ok(Servers { servers, name })
    }
}

impl Servers {
    /// The servers, for people: without users and passwords.
    pub fn shown(&self) -> String {
        let shown = self.servers.iter().map(|server| match server.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", server.get_host(), server.get_port()),
        });
        shown.collect::<Vec<_>>().join(", ")
    }

    /// Connects to the server that takes writes.
    pub(crate) async fn connect(&self) -> Result<(PgConnection, &PgConnectOptions), StoreError> {
        let mut why = StoreError::Closed;
        for server in &self.servers {
            match connect_to(server).await {
                Ok(connection) => return Ok((connection, server)),
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    /// Takes the installation's lock for the session of `connection`.
    pub(crate) async fn lock_installation(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        self.lock(connection, INSTALLATION).await
    }

    /// Takes the lock `key` for the session of `connection`: the installation's, or the one that says that this process lives.
    /// A session that this process has lost, and that the server has not noticed, is ended.
    pub(crate) async fn lock(&self, connection: &mut PgConnection, key: i64) -> Result<(), StoreError> {
        for attempt in 0..20 {
            let locked: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
                .bind(key)
                .fetch_one(&mut *connection)
                .await?;
            if locked {
                return Ok(());
            }
            let ended = sqlx::query(
                "SELECT pg_terminate_backend(a.pid) FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid \
                 WHERE l.locktype = 'advisory' AND l.granted AND a.application_name = $1 AND a.pid <> pg_backend_pid()",
            )
            .bind(&self.name)
            .fetch_all(&mut *connection)
            .await?;
            // A service that was killed a moment ago: its server ends the session once it reads the closed connection.
            if ended.is_empty() && attempt > 4 {
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
        Err(StoreError::InUse(self.shown()))
    }
}

async fn connect_to(server: &PgConnectOptions) -> Result<PgConnection, StoreError> {
    let mut connection = match timeout(CONNECT, PgConnection::connect_with(server)).await {
        Ok(connected) => connected.map_err(|error| unreachable_or(error, server))?,
        Err(_) => {
            let error = std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer within 3 s");
            return Err(unreachable_or(error.into(), server));
        }
    };
    let row = sqlx::query(
        "SELECT pg_is_in_recovery() AS recovery, current_setting('server_encoding') AS encoding, \
         current_setting('server_version_num')::int AS version",
    )
    .fetch_one(&mut connection)
    .await?;
    if row.try_get("recovery")? {
        return Err(StoreError::InRecovery(format!("{}:{}", server.get_host(), server.get_port())));
    }
    let encoding: String = row.try_get("encoding")?;
    if encoding != "UTF8" {
        return Err(StoreError::Encoding(encoding));
    }
    let version: i32 = row.try_get("version")?;
    if version < OLDEST {
        return Err(StoreError::OldServer(version / 10_000));
    }
    Ok(connection)
}

/// The database did not answer, or said why it does not serve.
fn unreachable_or(error: sqlx::Error, server: &PgConnectOptions) -> StoreError {
    let at = format!("{}:{}", server.get_host(), server.get_port());
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

/// Lets readers connect to another server from now on.
#[derive(Clone, Debug)]
pub(crate) struct ReaderSwitch {
    pool: PgPool,
    /// Connections that were made before this are not used any more.
    since: Arc<Mutex<Instant>>,
}

impl ReaderSwitch {
    pub(crate) fn switch_to(&self, server: &PgConnectOptions) {
        self.pool.set_connect_options(server.clone());
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

/// Connects, takes the lock `lock`, migrates the schema, and opens readers.
pub(crate) async fn open(servers: &Servers, lock: i64) -> Result<(Tx, ReaderSwitch, Readers), StoreError> {
    let (mut connection, server) = servers.connect().await?;
    servers.lock(&mut connection, lock).await?;
    let asks: bool = sqlx::query_scalar("SELECT to_regclass('schema_compatibility') IS NOT NULL")
        .fetch_one(&mut connection)
        .await?;
    let oldest_known = match asks {
        true => sqlx::query_scalar(migrations::OLDEST_KNOWN).fetch_optional(&mut connection).await?,
        false => None,
    };
    migrations::migrate(&mut connection, POSTGRES, oldest_known).await?;
    let since = Arc::new(Mutex::new(Instant::now()));
    let switched = since.clone();
    let pool = PgPoolOptions::new()
        .max_connections(MOST_READERS)
        .acquire_timeout(ACQUIRE)
        // A connection that has ended is noticed by its use, and the read is repeated.
        .test_before_acquire(false)
        .before_acquire(move |_, about| {
            let since = *switched.lock().unwrap_or_else(PoisonError::into_inner);
            Box::pin(async move { Ok(about.age <= since.elapsed()) })
        })
        .connect_lazy_with(server.clone());
    let readers = Readers::Postgres(pool.clone());
    Ok((Tx::Postgres(connection), ReaderSwitch { pool, since }, readers))
}

/// Reads with a connection of `pool`. A connection that has gone is replaced, for a bounded time: a read can be repeated.
pub(crate) async fn read<T, F>(pool: &PgPool, mut fetch: impl FnMut() -> F) -> Result<T, sqlx::Error>
where
    F: Future<Output = Result<T, sqlx::Error>>,
{
    let until = Instant::now() + PATIENCE;
    let mut pause = Duration::ZERO;
    loop {
        match fetch().await {
            Err(error) if is_disconnected(&error) && !pool.is_closed() && Instant::now() < until => {
                sleep(pause).await;
                pause = (pause * 2).clamp(Duration::from_millis(20), Duration::from_millis(500));
            }
            done => return done,
        }
    }
}

/// Whether the connection has gone, so that nothing is known of what it was asked last.
pub(crate) fn is_disconnected(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => true,
        // Ended by an administrator, a crash or a failover; not accepting connections; a standby now.
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            code.starts_with("08")
                || matches!(&*code, "57P01" | "57P02" | "57P03" | "57P05" | "25006" | "25P03")
        }),
        _ => false,
    }
}

/// Whether others' transactions were in the way: the same may succeed a moment later.
pub(crate) fn is_conflict(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    // Serialization failure, deadlock, lock not available.
    code.is_some_and(|code| matches!(&*code, "40001" | "40P01" | "55P03"))
}

/// Whether some session holds the lock of `process`.
pub(crate) async fn is_living(connection: &mut PgConnection, process: i64) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT NOT pg_try_advisory_xact_lock_shared($1)")
        .bind(process)
        .fetch_one(connection)
        .await
}

/// The id of the transaction that is open: what became of it can be asked for later.
pub(crate) async fn transaction_id(connection: &mut PgConnection) -> Result<String, sqlx::Error> {
    sqlx::query_scalar("SELECT pg_current_xact_id()::text").fetch_one(connection).await
}

/// Whether that transaction was committed. One that this server does not know was lost with another.
pub(crate) async fn is_committed(connection: &mut PgConnection, id: &str) -> Result<bool, sqlx::Error> {
    loop {
        let status: Result<Option<PgRow>, sqlx::Error> =
            sqlx::query("SELECT pg_xact_status($1::xid8) AS status")
                .bind(id)
                .fetch_optional(&mut *connection)
                .await;
        let status: Option<String> = match status {
            Ok(Some(row)) => row.try_get("status")?,
            Ok(None) => None,
            // It lies in the future of this server.
            Err(error) if !is_disconnected(&error) => {
                tracing::warn!(%error, "this server does not know the last transaction: it was lost with another server");
                None
            }
            Err(error) => return Err(error),
        };
        match status.as_deref() {
            Some("committed") => return Ok(true),
            Some("in progress") => sleep(Duration::from_millis(50)).await,
            _ => return Ok(false),
        }
    }
}
