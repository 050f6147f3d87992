//! Copies the database into a file of SQLite for a backup, and lists the files that the copy names. It opens connections of its
//! own beside the open [`Store`](crate::Store), because another process than the service makes the backup.

use std::path::Path;
use std::sync::Arc;

use sqlx::Connection as _;

use super::{CopyError, DatabaseAddress, EmptyDatabase, Source};
use crate::database::{Row, sqlite::connect};
use crate::migrations::{self, SQLITE};
use crate::payload_files::FileId;
use crate::payload_references::file_id;
use crate::{Sharing, StoreError, private_file};

/// Writes a snapshot of the database to the file `to`, which must not exist or be empty. Others may write meanwhile.
pub async fn back_up(from: &DatabaseAddress, to: &Path) -> Result<(), CopyError> {
    match from {
        DatabaseAddress::Sqlite(file) => Ok(vacuum_into(file, to).await?),
        DatabaseAddress::Postgres(_) => {
            let mut source = Source::open(from, Sharing::Shared).await?;
            let target = EmptyDatabase::open(&DatabaseAddress::Sqlite(to.to_owned())).await?;
            target.fill(&mut source).await?;
            source.close().await
        }
    }
}

async fn vacuum_into(from: &Path, to: &Path) -> Result<(), StoreError> {
    // SQLite fills a file that is empty.
    private_file::restrict_database(to).map_err(|error| StoreError::File(Arc::new(error)))?;
    let to = to.to_str().ok_or(StoreError::Path)?;
    let mut connection = connect(from, false).await?;
    sqlx::query("VACUUM INTO $1").bind(to).execute(&mut connection).await?;
    connection.close().await?;
    Ok(())
}

/// Gives a copy of a backup that an earlier version made the schema of this one.
pub async fn migrate_backup(database: &Path) -> Result<(), CopyError> {
    let mut connection = connect(database, false).await?;
    migrations::migrate(&mut connection, SQLITE, None).await?;
    Ok(connection.close().await?)
}

/// The files of payloads that a copied database names.
pub async fn payload_files_in(database: &Path) -> Result<Vec<FileId>, StoreError> {
    let mut connection = connect(database, true).await?;
    let rows = sqlx::query(
        "SELECT payload_file AS file FROM assignments WHERE payload_file IS NOT NULL \
         UNION SELECT file FROM results WHERE file IS NOT NULL \
         UNION SELECT payload_file FROM staged_tasks WHERE payload_file IS NOT NULL",
    )
    .fetch_all(&mut connection)
    .await?;
    connection.close().await?;
    let mut files = Vec::with_capacity(rows.len());
    for row in rows {
        files.extend(file_id(&Row::Sqlite(row), "file")?);
    }
    Ok(files)
}

/// How many tasks a copied database holds. Fails if it is damaged.
pub async fn count_tasks_in(database: &Path) -> Result<u64, StoreError> {
    let mut connection = connect(database, true).await?;
    let checked: String = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&mut connection).await?;
    if checked != "ok" {
        return Err(StoreError::Corrupt("pages that SQLite cannot read"));
    }
    let tasks: i64 = sqlx::query_scalar("SELECT count(*) FROM tasks").fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(tasks.unsigned_abs())
}
