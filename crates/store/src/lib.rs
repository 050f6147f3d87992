//! The store: everything that the service keeps on disk.
//!
//! One concrete [`Store`] over SQLite: a pool of readers, and one [`writer`] whose transactions many requests share.
//! Each table's commands live in the file of its noun. The SQL is kept to what PostgreSQL reads too.
//!
//! A command decides nothing: it reads and writes what it is told, in one transaction, or changes nothing.

mod columns;
mod copy;
mod counts;
pub mod identity;
mod migrations;
mod payload_files;
mod payload_references;
pub mod private_file;
#[cfg(test)]
mod query_plan_tests;
mod random;
pub mod secret;
#[cfg(test)]
mod statement_cost_tests;
pub mod tasks;
#[cfg(test)]
mod tests;
mod writer;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::MigrateError;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection};

pub use copy::{copy_database, count_tasks_in, payload_files_in};
pub use counts::StoreCounts;
pub use identity::*;
pub use payload_files::{FILE_FROM_BYTES, FileId, StoredContent, scratch};
pub use tasks::*;
pub use writer::{Command, Tx};

use migrations::{MIGRATIONS, migrator};
use payload_files::PayloadFiles;

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
        "the database was written by a newer version of farcall (it has change {0}, this version knows {known}): run that \
         version or a later one, or restore a backup that was made before the upgrade",
        known = MIGRATIONS.last().map_or(0, |(version, ..)| *version)
    )]
    Newer(i64),
    #[error("the path of a copy of the database has to be UTF-8")]
    Path,
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        StoreError::Database(Arc::new(error))
    }
}

/// How long a statement waits for another connection's lock before it fails.
const BUSY: Duration = Duration::from_secs(10);

/// The open store. Clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    readers: SqlitePool,
    writer: writer::Handle,
    payloads: PayloadFiles,
}

impl Store {
    /// Opens the database in `file`, making and migrating it as needed, with the files of payloads in the directory
    /// `payloads` beside it. The caller holds the data directory's lock.
    pub async fn open(file: &Path) -> Result<Store, StoreError> {
        Store::open_with(file, |options| options.disable_statement_logging()).await
    }

    /// The same, with further options.
    async fn open_with(
        file: &Path,
        further: fn(SqliteConnectOptions) -> SqliteConnectOptions,
    ) -> Result<Store, StoreError> {
        private_file::restrict_database(file).map_err(|error| match error.kind() {
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                StoreError::ReadOnly(file.to_owned())
            }
            _ => StoreError::File(Arc::new(error)),
        })?;
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY);
        let options = further(options);
        // Each migration commits. Without an fsync at each a new database is ready sooner; a power failure undoes some, and
        // the next start runs them again. The first commit after this makes them durable with itself.
        let unsynced = options.clone().synchronous(SqliteSynchronous::Normal);
        let mut connection = sqlx::SqliteConnection::connect_with(&unsynced).await?;
        migrator(MIGRATIONS).run_direct(None, &mut connection, false).await.map_err(|error| match error {
            MigrateError::VersionMissing(version) => StoreError::Newer(version),
            error => sqlx::Error::Migrate(Box::new(error)).into(),
        })?;
        sqlx::raw_sql("PRAGMA synchronous = FULL").execute(&mut connection).await?;
        // A database that can only be read serves nobody: better not to start than to refuse everything.
        sqlx::raw_sql("PRAGMA user_version = 0").execute(&mut connection).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(4)
            .connect_lazy_with(options.create_if_missing(false).read_only(true));
        let payloads = PayloadFiles::open(&file.with_file_name("payloads"))?;
        Ok(Store { readers, writer: writer::start(connection), payloads })
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
