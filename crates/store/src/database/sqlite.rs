//! Opens a SQLite file: its settings, its migrations, and the check that it can be written.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions as _, Connection as _};

use super::{Readers, Tx};
use crate::migrations::{self, SQLITE};
use crate::{StoreError, private_file};

/// How long a statement waits for another connection's lock before it fails.
pub(crate) const BUSY: Duration = Duration::from_secs(10);

/// Opens the database in `file`, making and migrating it as needed. Returns the connection that writes, and those that read.
pub(crate) async fn open(
    file: &Path,
    further: fn(SqliteConnectOptions) -> SqliteConnectOptions,
) -> Result<(Tx, Readers), StoreError> {
    private_file::restrict_database(file).map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => StoreError::ReadOnly(file.to_owned()),
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
    let mut connection = SqliteConnection::connect_with(&unsynced).await?;
    let asks: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'schema_compatibility')")
            .fetch_one(&mut connection)
            .await?;
    let oldest_known = match asks {
        true => sqlx::query_scalar(migrations::OLDEST_KNOWN).fetch_optional(&mut connection).await?,
        false => None,
    };
    migrations::migrate(&mut connection, SQLITE, oldest_known).await?;
    sqlx::raw_sql("PRAGMA synchronous = FULL").execute(&mut connection).await?;
    // A database that can only be read serves nobody: better not to start than to refuse everything.
    sqlx::raw_sql("PRAGMA user_version = 0").execute(&mut connection).await?;
    let readers = SqlitePoolOptions::new()
        .max_connections(4)
        .connect_lazy_with(options.create_if_missing(false).read_only(true));
    Ok((Tx::Sqlite(connection), Readers::Sqlite(readers)))
}

/// Opens one connection to a database that exists, beside others.
pub(crate) async fn connect(file: &Path, read_only: bool) -> Result<SqliteConnection, StoreError> {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(false)
        .read_only(read_only)
        .busy_timeout(BUSY)
        .disable_statement_logging();
    Ok(SqliteConnection::connect_with(&options).await?)
}
