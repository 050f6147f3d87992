//! The store: everything that the service keeps on disk.
//!
//! One concrete [`Store`] over SQLite or PostgreSQL: a pool of readers, and one [`writer`] whose transactions many requests
//! share. Each table's commands live in the file of its noun, in SQL that both databases read.
//!
//! A command decides nothing: it reads and writes what it is told, in one transaction, or changes nothing.

mod columns;
#[cfg(test)]
mod concurrency_tests;
mod copy;
mod counts;
mod database;
pub mod identity;
mod locks;
mod migrations;
pub mod outage_log;
mod payload_files;
mod payload_references;
pub mod private_file;
#[cfg(test)]
mod query_plan_tests;
mod random;
#[cfg(test)]
mod schema_parity_tests;
pub mod secret;
#[cfg(test)]
mod statement_cost_tests;
pub mod tasks;
#[cfg(any(test, feature = "test-database"))]
pub mod test_database;
#[cfg(test)]
mod tests;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sqlx::ConnectOptions as _;
use sqlx::sqlite::SqliteConnectOptions;

pub use copy::{
    ColumnKind, CopiedTable, CopyError, DatabaseAddress, EmptyDatabase, Source, back_up, count_tasks_in,
    migrate_backup, payload_files_in,
};
pub use counts::StoreCounts;
pub use database::Tx;
pub use database::inspection::{Inspection, Schema};
pub use database::postgres::{CONNECTIONS, Servers, UrlError};
pub use identity::*;
pub use payload_files::{FILE_FROM_BYTES, FileId, StoredContent, scratch};
pub use tasks::*;
pub use writer::Command;

use database::{NulCharacter, Readers, postgres, postgres_errors, sqlite};
use payload_files::PayloadFiles;
use writer::Connection;

/// Why the store failed. A command that answers with an error has written nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the database failed: {0}")]
    Database(#[source] Arc<sqlx::Error>),
    #[error("a file of the store failed: {0}")]
    File(#[source] Arc<std::io::Error>),
    #[error("the database {} is read-only for this user: make it the service's user's own", .0.display())]
    ReadOnly(PathBuf),
    #[error("the database holds what this program cannot have written: {0}")]
    Corrupt(&'static str),
    #[error("the store is closed")]
    Closed,
    #[error(
        "the database was written by a newer version of farcall (it has change {version}, this version knows {known}): run \
         that version or a later one, or restore a backup that was made before the upgrade"
    )]
    Newer { version: i64, known: i64 },
    #[error("others were changing the same; nothing was written: try again")]
    TryAgain,
    #[error("the database at {0} cannot be reached: {1}")]
    Unreachable(String, #[source] Arc<sqlx::Error>),
    #[error("the database at {0} has stopped answering")]
    Silent(String),
    #[error(
        "the database server at {0} is in recovery and takes no writes: it is a standby, or has not started yet"
    )]
    InRecovery(String),
    #[error("the database at {0} takes no writes: default_transaction_read_only is on")]
    ReadOnlyServer(String),
    #[error(
        "the database at {0} was the primary before another server took over; it is not used: make it a standby, or leave only \
         the primary in store.url"
    )]
    Superseded(String),
    #[error("the database server at {0} has no connection left: {1}")]
    NoConnections(String, String),
    #[error("the database server at {0} does not let this user in: {1}")]
    Refused(String, String),
    #[error("the database server at {0} has no such database: {1}")]
    NoDatabase(String, String),
    #[error("the database user lacks a right: {0}")]
    NoRight(String),
    #[error("the database's encoding is {0}, and has to be UTF8")]
    Encoding(String),
    #[error("PostgreSQL {0} is too old: farcall needs 13 or later")]
    OldServer(i32),
    #[error("the database has tables of another origin: its change {0} is not the one of this program")]
    OtherSchema(i64),
    #[error("another farcall service uses the database at {0}")]
    InUse(String),
    #[error("the path of a copy of the database has to be UTF-8")]
    Path,
    #[error("a text holds the character NUL (U+0000), which PostgreSQL cannot store; none is stored")]
    Nul,
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Encode(error) if error.is::<NulCharacter>() => StoreError::Nul,
            error => StoreError::Database(Arc::new(error)),
        }
    }
}

impl StoreError {
    /// Others' transactions were in the way.
    fn is_conflict(&self) -> bool {
        match self {
            StoreError::Database(error) => postgres_errors::is_conflict(error),
            // A command that finds only at its end that another was faster.
            StoreError::TryAgain => true,
            _ => false,
        }
    }

    /// The connection to the database has gone.
    fn is_disconnected(&self) -> bool {
        matches!(self, StoreError::Database(error) if postgres_errors::is_disconnected(error))
    }

    /// Whether the database is away: restarted, failing over, not to be reached, or without a connection for us. It may come
    /// back at any time, and this process goes on then.
    pub fn is_outage(&self) -> bool {
        match self {
            StoreError::Unreachable(..)
            | StoreError::InRecovery(_)
            | StoreError::ReadOnlyServer(_)
            | StoreError::Silent(_)
            | StoreError::Superseded(_)
            | StoreError::NoConnections(..)
            | StoreError::Refused(..)
            | StoreError::NoDatabase(..)
            | StoreError::InUse(_) => true,
            StoreError::Database(error) => {
                matches!(**error, sqlx::Error::PoolTimedOut)
                    || postgres_errors::is_refused(error)
                    || self.is_disconnected()
            }
            _ => false,
        }
    }
}

/// The open store. Clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    readers: Readers,
    writer: writer::Handle,
    /// The number of this process, if others may use the database.
    process: Option<i64>,
    payloads: PayloadFiles,
}

/// Whether other processes may use the same database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// This is the only service: a second one is refused.
    Alone,
    /// Others use it as well: a backup of a running service, and tests of what happens if several write.
    Shared,
}

impl Store {
    /// Opens the SQLite database in `file`, making and migrating it as needed, with the files of payloads in the directory
    /// `payloads` beside it. The caller holds the data directory's lock.
    pub async fn open(file: &Path) -> Result<Store, StoreError> {
        Store::open_with(file, |options| options.disable_statement_logging()).await
    }

    /// The same, with further options.
    async fn open_with(
        file: &Path,
        further: fn(SqliteConnectOptions) -> SqliteConnectOptions,
    ) -> Result<Store, StoreError> {
        let (tx, readers) = sqlite::open(file, further).await?;
        let payloads = PayloadFiles::open(&file.with_file_name("payloads"))?;
        Ok(Store { readers, writer: writer::start(Connection::Sqlite(tx)), process: None, payloads })
    }

    /// Opens the PostgreSQL database at `servers`, migrating it as needed, with the files of payloads in the directory
    /// `payloads`.
    pub async fn open_postgres(
        servers: &Servers,
        payloads: &Path,
        sharing: Sharing,
    ) -> Result<Store, StoreError> {
        let process = match sharing {
            Sharing::Alone => None,
            Sharing::Shared => Some(random::process_number()),
        };
        let lock = process.unwrap_or(postgres::INSTALLATION);
        let (session, readers) = postgres::open(servers, lock).await?;
        let payloads = PayloadFiles::open(payloads)?;
        let session = writer::postgres::Writer::new(servers.clone(), lock, session, readers.clone());
        let writer = writer::start(Connection::Postgres(Box::new(session)));
        let readers = Readers::Postgres(readers);
        Ok(Store { readers, writer, process, payloads })
    }

    /// Whether the database is on a server, which may be away while this process is well.
    pub fn is_on_server(&self) -> bool {
        matches!(self.readers, Readers::Postgres(_))
    }

    /// Keeps payloads and results of at least `bytes` in files of their own.
    pub fn with_files_from(mut self, bytes: usize) -> Store {
        self.payloads.from = bytes;
        self
    }

    /// Runs `command` in a transaction that others may share. Returns once it is on disk.
    pub async fn write<C: Command>(&self, command: C) -> Result<C::Output, StoreError> {
        self.writer.write(command).await
    }

    /// How many commands the writer has received since the store was opened.
    pub fn commands(&self) -> u64 {
        self.writer.commands.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// The most steps of SQLite's virtual machine that one command has taken.
    #[cfg(test)]
    fn most_steps(&self) -> u64 {
        self.writer.watch.most.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Closes the readers, then the writer once it has run the commands it has. The writer closes last because the last
    /// connection checkpoints the log, and readers may not write.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}
