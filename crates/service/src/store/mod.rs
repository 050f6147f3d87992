//! What the service knows, on disk.
//!
//! One concrete [`Store`] over SQLite: a pool of readers, and one [`writer`] whose transactions many requests share.
//! Each table's commands live in the file of its noun. The SQL is kept to what PostgreSQL reads too.
//!
//! A command decides nothing: it reads and writes what it is told, in one transaction, or changes nothing.

mod census;
mod clients;
mod codes;
mod containers;
mod copy;
#[cfg(test)]
mod cost;
mod counters;
mod credentials;
mod endpoints;
mod files;
mod functions;
mod groups;
mod large_submits;
mod open_tasks;
mod payloads;
mod people;
#[cfg(test)]
mod plans;
mod projects;
mod refresh_tokens;
mod reports;
mod results;
mod row;
mod sessions;
mod shut_out;
mod subjects;
mod submissions;
mod tasks;
#[cfg(test)]
mod tests;
mod tokens;
mod user_groups;
mod writer;

use std::fs::{OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, SqlSafeStr};

pub use census::Census;
pub use clients::{AddClient, Client, NativeApp, PutNativeApp, RemoveNativeApp, SetSecret};
pub use codes::{AddCode, Code, CodeUse, UseCode};
pub use containers::{AddContainer, Container};
pub use copy::{copy_database, files_named, tasks_in};
pub use counters::Counters;
pub use credentials::{Credential, Holder, NewClientCredential, RetireOlder};
pub use endpoints::{
    ChangeEndpoint, Choices, DeleteEndpoint, Endpoint, EndpointLine, ListedEndpoint, LockEndpoint,
    RegisterEndpoint, Registered, Run, Seen, UnlockEndpoint, UserEndpoint,
};
pub use functions::{AddFunction, DeleteFunction, Function, FunctionAccess};
pub use groups::Group;
pub use open_tasks::{OpenTask, Which};
pub use payloads::{FileId, Kept, scratch};
pub use people::{
    AddPerson, Authenticated, Describe, Kind, Link, Profile, RemoveIdentity, SetDisabled, SetPassword, Taken,
};
pub use projects::{AddPolicy, AddProject, Policy, Project, Projects};
pub use refresh_tokens::{AddRefreshToken, RefreshToken, RevokeRefreshToken, Rotate, Rotation};
pub use reports::{Progress, Report};
pub use results::{
    Delivered, Delivery, ExpireResults, ForgetTasks, RecordResults, Recorded, RecordedResults, ReportedResult,
};
pub use sessions::{Authentication, EndSessions, Method, Session, SignIn, SignOut};
pub use shut_out::{EndEverything, Ended};
pub use subjects::BindSubject;
pub use submissions::{Accepted, Answered, Answering, Fingerprint, ForgetSubmissions};
pub use tasks::{Acknowledge, Assignment, NewTask, Page, Submission, Submit, TaskRow};
pub use tokens::{AddTokens, EndTokens, Token};
pub use user_groups::{AddMember, AddUserGroup, RemoveMember, RemoveUserGroup, UserGroup};
pub use writer::{Command, Tx};

use payloads::Payloads;

/// What can go wrong between us and the database. Nothing has been written when a command answers with one.
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

/// The append-only list of migrations. A released one is never edited: sqlx keeps its checksum in the database.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "first", include_str!("migrations/0001_first.sql")),
    (2, "people", include_str!("migrations/0002_people.sql")),
    (3, "sessions", include_str!("migrations/0003_sessions.sql")),
    (4, "life", include_str!("migrations/0004_life.sql")),
    (5, "user endpoints", include_str!("migrations/0005_user_endpoints.sql")),
    (6, "choices", include_str!("migrations/0006_choices.sql")),
    (7, "shut out", include_str!("migrations/0007_shut_out.sql")),
    (8, "load", include_str!("migrations/0008_load.sql")),
    (9, "shares", include_str!("migrations/0009_shares.sql")),
    (12, "large submits", include_str!("migrations/0012_large_submits.sql")),
];

fn migrator(migrations: &[(i64, &'static str, &'static str)]) -> Migrator {
    let migrations = migrations.iter().map(|&(version, name, sql)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    Migrator::with_migrations(migrations.collect())
}

/// How long a statement waits for another connection's lock before it fails.
const BUSY: Duration = Duration::from_secs(10);

/// Makes `file` and what SQLite keeps beside it their owner's only; what SQLite makes later has the mode of `file`.
pub fn private(file: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(file)?;
    for beside in ["", "-wal", "-shm"] {
        let mut path = file.as_os_str().to_owned();
        path.push(beside);
        match std::fs::set_permissions(&path, Permissions::from_mode(0o600)) {
            // Somebody else's, who lets us write it, is theirs to close.
            Err(error) if ![ErrorKind::NotFound, ErrorKind::PermissionDenied].contains(&error.kind()) => {
                return Err(error);
            }
            _ => {}
        }
    }
    Ok(())
}

/// The open store. Clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    readers: SqlitePool,
    writer: writer::Handle,
    payloads: Payloads,
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
        private(file).map_err(|error| match error.kind() {
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
        let mut connection = sqlx::SqliteConnection::connect_with(&options).await?;
        migrator(MIGRATIONS).run_direct(None, &mut connection, false).await.map_err(|error| match error {
            MigrateError::VersionMissing(version) => StoreError::Newer(version),
            error => sqlx::Error::Migrate(Box::new(error)).into(),
        })?;
        // A database that can only be read serves nobody: better not to start than to refuse everything.
        sqlx::raw_sql("PRAGMA user_version = 0").execute(&mut connection).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(4)
            .connect_lazy_with(options.create_if_missing(false).read_only(true));
        let payloads = Payloads::open(&file.with_file_name("payloads"))?;
        Ok(Store { readers, writer: writer::start(connection), payloads })
    }

    /// The same, with files for what has at least so many bytes.
    pub fn with_files_from(mut self, bytes: usize) -> Store {
        self.payloads.from = bytes;
        self
    }

    /// Does `command` in a transaction that others may share; answers when it is on disk.
    pub async fn write<C: Command>(&self, command: C) -> Result<C::Output, StoreError> {
        self.writer.write(command).await
    }

    /// How many commands the writer was given.
    #[cfg(test)]
    pub fn commands(&self) -> u64 {
        self.writer.watch.commands.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// The most steps of SQLite's machine that one of them has made.
    #[cfg(test)]
    fn most_steps(&self) -> u64 {
        self.writer.watch.most.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Closes the readers, and ends the writer when it has finished what was asked before. It goes last: who closes the
    /// database last folds its log into it, and the readers may not write.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}
