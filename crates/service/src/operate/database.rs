//! Opens the database that the configuration names: PostgreSQL at `store.url`, else SQLite in the data directory. Finds what
//! would keep the service from doing so.

use std::fmt;
use std::io;
use std::path::Path;
use std::str::FromStr as _;

use jiff::SignedDuration;
use store::{DatabaseAddress, Inspection, Schema, Servers, Sharing, Store, StoreError, UrlError};

use super::config::StoreSettings;
use super::data_directory::{DatabaseElsewhere, Directory, DirectoryError};
use crate::clock;

/// Why the database cannot be used. What to do about it is said with it.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    #[error("{}", with_remedy(.0))]
    Store(StoreError),
    #[error("store.url: {0}")]
    Url(UrlError),
}

// Written by hand: with `#[from]` the error would be its own source as well, and be printed twice.
impl From<StoreError> for DatabaseError {
    fn from(error: StoreError) -> DatabaseError {
        DatabaseError::Store(error)
    }
}

impl From<UrlError> for DatabaseError {
    fn from(error: UrlError) -> DatabaseError {
        DatabaseError::Url(error)
    }
}

/// A server's clock may differ from ours by so much without being worth a word.
const CLOCK_APART: SignedDuration = SignedDuration::from_secs(5);

/// What would keep the service from starting with its database, or disturb it later.
#[derive(Debug)]
pub enum DatabaseProblem {
    Store(StoreError),
    /// Its user may not make the tables.
    NoRight {
        user: String,
    },
    FewConnections {
        at: String,
        left: i64,
    },
    /// By so much the server's clock is ahead of ours; behind, if negative.
    Clock(SignedDuration),
    /// `fsync` is off.
    NoFsync {
        at: String,
    },
    /// `synchronous_commit` is off.
    AsynchronousCommit {
        user: String,
    },
}

/// Looks at the PostgreSQL database at `url`, and changes nothing. A service that `runs` holds its lock and its connections.
pub async fn inspect(url: &str, runs: bool) -> Result<(Inspection, Vec<DatabaseProblem>), DatabaseProblem> {
    // The configuration was checked: the URL has the right form.
    let servers =
        Servers::from_str(url).map_err(|_| DatabaseProblem::Store(StoreError::Corrupt("store.url")))?;
    let found = servers.inspect(clock::now).await.map_err(DatabaseProblem::Store)?;
    let mut problems = Vec::new();
    if !runs && found.in_use {
        problems.push(DatabaseProblem::Store(StoreError::InUse(found.at.clone())));
    }
    if found.schema == Schema::Missing && !found.may_create {
        problems.push(DatabaseProblem::NoRight { user: found.user.clone() });
    }
    if !runs && found.connections_left < store::CONNECTIONS {
        let left = found.connections_left;
        problems.push(DatabaseProblem::FewConnections { at: found.at.clone(), left });
    }
    problems.extend(warnings(&found));
    Ok((found, problems))
}

/// What does not keep the service from starting.
fn warnings(found: &Inspection) -> Vec<DatabaseProblem> {
    let mut warnings = Vec::new();
    if found.clock_ahead.abs() > CLOCK_APART {
        warnings.push(DatabaseProblem::Clock(found.clock_ahead));
    }
    if !found.fsync {
        warnings.push(DatabaseProblem::NoFsync { at: found.at.clone() });
    }
    if !found.synchronous_commit {
        warnings.push(DatabaseProblem::AsynchronousCommit { user: found.user.clone() });
    }
    warnings
}

impl DatabaseProblem {
    /// Whether the service starts all the same.
    pub fn is_warning(&self) -> bool {
        match self {
            DatabaseProblem::Clock(_)
            | DatabaseProblem::NoFsync { .. }
            | DatabaseProblem::AsynchronousCommit { .. } => true,
            DatabaseProblem::Store(_)
            | DatabaseProblem::NoRight { .. }
            | DatabaseProblem::FewConnections { .. } => false,
        }
    }

    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            DatabaseProblem::Store(error) => {
                remedy_of(error).unwrap_or_else(|| "look into the database server's log".to_owned())
            }
            DatabaseProblem::NoRight { user } => own(user),
            DatabaseProblem::FewConnections { .. } => MORE_CONNECTIONS.to_owned(),
            DatabaseProblem::Clock(_) => {
                "run a time service, such as chrony, on both machines: ends of logins and of tasks go by this machine's clock"
                    .to_owned()
            }
            DatabaseProblem::NoFsync { .. } => {
                "set fsync = on in the server's postgresql.conf, and reload it".to_owned()
            }
            DatabaseProblem::AsynchronousCommit { user } => format!(
                "ALTER ROLE {user} RESET synchronous_commit, the same with ALTER DATABASE, or set it to on in the server's \
                 postgresql.conf, and reload it"
            ),
        }
    }
}

impl fmt::Display for DatabaseProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DatabaseProblem::Store(error) => error.fmt(f),
            DatabaseProblem::NoRight { user } => {
                write!(f, "the database user {user} may not make tables, and there are none yet")
            }
            DatabaseProblem::FewConnections { at, left } => write!(
                f,
                "the database server at {at} has {} connections left for this user, and farcall needs {}",
                left.max(&0),
                store::CONNECTIONS
            ),
            DatabaseProblem::Clock(ahead) => {
                let direction = if ahead.is_negative() { "behind" } else { "ahead of" };
                write!(
                    f,
                    "the database server's clock is {} s {direction} this machine's",
                    ahead.abs().as_secs()
                )
            }
            DatabaseProblem::NoFsync { at } => write!(
                f,
                "fsync is off on the database server at {at}: if its machine crashes, tasks and results that the service has \
                 accepted are lost, or the whole database"
            ),
            DatabaseProblem::AsynchronousCommit { user } => write!(
                f,
                "synchronous_commit is off for the database user {user}: farcall turns it on in its own sessions, because tasks \
                 and results that it has accepted could be lost"
            ),
        }
    }
}

const MORE_CONNECTIONS: &str = "close other programs' connections, or raise max_connections in postgresql.conf, or the CONNECTION LIMIT of the \
     role or the database: farcall needs 10";
const CREATE: &str = "CREATE DATABASE farcall OWNER farcall ENCODING 'UTF8' TEMPLATE template0";

/// For a database that is there and belongs to another user.
fn own(user: &str) -> String {
    format!("make the service's user the owner of its database: ALTER DATABASE name OWNER TO {user}")
}

fn with_remedy(error: &StoreError) -> String {
    match remedy_of(error) {
        Some(remedy) => format!("{error}\n    -> {remedy}"),
        None => error.to_string(),
    }
}

/// What to do about an error of the database; absent if its text says it already.
fn remedy_of(error: &StoreError) -> Option<String> {
    Some(match error {
        StoreError::Unreachable(..) => "start the database server, or correct store.url; from this machine, \
             `psql URL` has to connect"
            .to_owned(),
        StoreError::InRecovery(_) => "wait until it has started, or name the primary in store.url: all servers, separated by commas, \
             if one can take over from another"
            .to_owned(),
        StoreError::ReadOnlyServer(_) => "end the server's maintenance, free its disk, or reset default_transaction_read_only for the server, \
             the database or the role"
            .to_owned(),
        StoreError::NoConnections(..) => MORE_CONNECTIONS.to_owned(),
        StoreError::Refused(..) => "correct the user and the password in store.url, or in .pgpass (mode 0600, of the user who runs \
             farcall), and look whether the server's pg_hba.conf lets this machine connect"
            .to_owned(),
        StoreError::NoDatabase(..) => {
            format!("correct the name in store.url, or make it: {CREATE}")
        }
        StoreError::NoRight(_) => own("user"),
        StoreError::Encoding(_) => "create another one and name it in store.url: CREATE DATABASE another OWNER farcall ENCODING 'UTF8' \
             TEMPLATE template0"
            .to_owned(),
        StoreError::OldServer(_) => "upgrade the database server".to_owned(),
        StoreError::OtherSchema(_) => "give farcall a database of its own, or run the version that made this one".to_owned(),
        StoreError::InUse(_) => "stop that service first, or give this one a database of its own: one database serves one service \
             process"
            .to_owned(),
        _ => return None,
    })
}

/// Checks that the database exists, if it is a file: only the service makes one.
pub fn check_exists(directory: &Directory, settings: &StoreSettings) -> Result<(), DirectoryError> {
    check_recorded(directory.root(), settings)?;
    let file = directory.database();
    if settings.url.is_some()
        || file.try_exists().map_err(|error| DirectoryError::File { path: file, error })?
    {
        return Ok(());
    }
    let why = "it has no farcall.db, and neither store.url in its farcall.yaml nor FARCALL_STORE__URL names a PostgreSQL database";
    Err(DirectoryError::NotThere { path: directory.root().to_owned(), why })
}

/// The file of the data directory that says which database the service used last.
const RECORD: &str = "database";
/// What it says of a database in the data directory.
const SQLITE: &str = "farcall.db";

/// Refuses the own database of the data directory `root` if the service used PostgreSQL last: a `farcall.db` is old then. The
/// URL may be in the environment of the service alone.
pub fn check_recorded(root: &Path, settings: &StoreSettings) -> Result<(), DirectoryError> {
    match elsewhere(root, settings)? {
        None => Ok(()),
        Some(elsewhere) => Err(DirectoryError::DatabaseElsewhere { found: elsewhere }),
    }
}

/// Where the service used PostgreSQL last, if `settings` name no database there.
pub fn elsewhere(root: &Path, settings: &StoreSettings) -> Result<Option<DatabaseElsewhere>, DirectoryError> {
    let record = root.join(RECORD);
    let recorded = match std::fs::read_to_string(&record) {
        Ok(recorded) => recorded,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DirectoryError::File { path: record, error }),
    };
    let address = recorded.trim().to_owned();
    if settings.url.is_some() || address == SQLITE {
        return Ok(None);
    }
    Ok(Some(DatabaseElsewhere { root: root.to_owned(), record, address }))
}

/// Records which database the service of `directory` uses, for commands that do not know its settings.
pub fn record(directory: &Directory, address: &DatabaseAddress) -> Result<(), DirectoryError> {
    let line = match address {
        DatabaseAddress::Sqlite(_) => format!("{SQLITE}\n"),
        DatabaseAddress::Postgres(servers) => format!("{}\n", servers.shown()),
    };
    let path = directory.root().join(RECORD);
    store::private_file::write(&path, line.as_bytes()).map_err(|error| DirectoryError::File { path, error })
}

/// Opens it as its only service. The caller holds the data directory's lock.
pub async fn open(directory: &Directory, settings: &StoreSettings) -> Result<Store, DatabaseError> {
    match &settings.url {
        None => Ok(Store::open(&directory.database()).await?),
        Some(url) => {
            let servers = Servers::from_str(url)?;
            let store = Store::open_postgres(&servers, &directory.payloads(), Sharing::Alone).await?;
            // If it cannot be inspected, whoever uses the store learns why.
            let found = servers.inspect(clock::now).await;
            for problem in found.iter().flat_map(warnings) {
                match problem {
                    DatabaseProblem::Clock(ahead) => tracing::warn!(
                        ahead_s = ahead.as_secs(),
                        "the database server's clock differs from this machine's: run a time service on both"
                    ),
                    problem => tracing::warn!(
                        remedy = problem.remedy(),
                        "the database is not set up to keep what is committed: {problem}"
                    ),
                }
            }
            Ok(store)
        }
    }
}

/// Where it is.
pub fn address(directory: &Directory, settings: &StoreSettings) -> Result<DatabaseAddress, UrlError> {
    Ok(match &settings.url {
        None => DatabaseAddress::Sqlite(directory.database()),
        Some(url) => DatabaseAddress::Postgres(Servers::from_str(url)?),
    })
}
