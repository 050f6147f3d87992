//! Opens a database to copy from: all that is read of it is the state of one moment.

use std::cmp::Ordering;

use super::{CopyError, DatabaseAddress};
use crate::database::{Tx, query_scalar, sqlite};
use crate::migrations::{Migrations, POSTGRES, SQLITE};
use crate::{Sharing, StoreError};

/// A database in a transaction that reads.
#[derive(Debug)]
pub struct Source {
    pub(super) tx: Tx,
}

impl Source {
    /// Opens the database at `address`, which must have the schema of this version. `Sharing::Alone` refuses to run beside a
    /// service on PostgreSQL; on SQLite, the data directory's lock does.
    pub async fn open(address: &DatabaseAddress, sharing: Sharing) -> Result<Source, CopyError> {
        let (mut tx, migrations) = match address {
            DatabaseAddress::Sqlite(file) if !file.exists() => {
                return Err(CopyError::NoInstallation(address.shown()));
            }
            DatabaseAddress::Sqlite(file) => (Tx::Sqlite(sqlite::connect(file, false).await?), SQLITE),
            DatabaseAddress::Postgres(servers) => {
                let (mut connection, _) = servers.connect().await?;
                if sharing == Sharing::Alone {
                    servers.lock_installation(&mut connection).await?;
                }
                (Tx::Postgres(connection), POSTGRES)
            }
        };
        match &mut tx {
            Tx::Sqlite(connection) => sqlx::raw_sql("BEGIN").execute(connection).await.map(drop)?,
            Tx::Postgres(connection) => {
                sqlx::raw_sql(super::UNBOUNDED).execute(&mut *connection).await?;
                let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
                sqlx::raw_sql(begin).execute(connection).await?;
            }
        }
        check_schema(&mut tx, address, migrations).await?;
        Ok(Source { tx })
    }

    /// Ends the transaction, and the connection.
    pub async fn close(mut self) -> Result<(), CopyError> {
        match &mut self.tx {
            Tx::Sqlite(connection) => sqlx::raw_sql("ROLLBACK").execute(connection).await.map(drop)?,
            Tx::Postgres(connection) => sqlx::raw_sql("ROLLBACK").execute(connection).await.map(drop)?,
        }
        Ok(self.tx.close().await?)
    }
}

/// Whether the database has a table of that name.
pub(super) async fn has_table(tx: &mut Tx, name: &'static str) -> Result<bool, CopyError> {
    let sql = match tx {
        Tx::Sqlite(_) => "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = $1",
        Tx::Postgres(_) => {
            "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema() AND tablename = $1"
        }
    };
    Ok(query_scalar::<i64>(sql).bind(name).fetch_one(tx).await? > 0)
}

async fn check_schema(
    tx: &mut Tx,
    address: &DatabaseAddress,
    migrations: Migrations,
) -> Result<(), CopyError> {
    if !has_table(tx, "_sqlx_migrations").await? {
        return Err(CopyError::NoInstallation(address.shown()));
    }
    let sql = "SELECT max(version) FROM _sqlx_migrations WHERE success";
    let version = query_scalar::<Option<i64>>(sql).fetch_one(tx).await?.unwrap_or(0);
    let known = migrations.last().map_or(0, |(known, ..)| *known);
    match version.cmp(&known) {
        Ordering::Less => Err(CopyError::OlderSchema(address.shown())),
        Ordering::Equal => Ok(()),
        Ordering::Greater => Err(StoreError::Newer { version, known }.into()),
    }
}
