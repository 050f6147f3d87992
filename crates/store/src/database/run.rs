//! Runs statements on either database, and reads their rows.

use std::borrow::Cow;
use std::marker::PhantomData;

use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use sqlx::postgres::{PgConnection, PgRow, Postgres};
use sqlx::sqlite::{Sqlite, SqliteConnection, SqlitePool, SqliteRow};
use sqlx::{Connection as _, Decode, Row as _, Type};

use super::postgres;
use super::postgres_readers::PostgresReaders;
use super::statement::{Statement, Value, query};

/// The transaction a command runs in.
#[derive(Debug)]
pub enum Tx {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Tx {
    /// Whether others may write at the same time, so that what was read stays true only while it is locked. If not, statements
    /// that only lock are left out.
    pub(crate) fn needs_locks(&self) -> bool {
        matches!(self, Tx::Postgres(_))
    }

    /// Whether the process with this number lives: it holds a lock as long as it does.
    pub(crate) async fn is_living(&mut self, process: i64) -> Result<bool, sqlx::Error> {
        match self {
            Tx::Postgres(connection) => postgres::is_living(connection, process).await,
            Tx::Sqlite(_) => Ok(false),
        }
    }

    pub(crate) async fn close(self) -> Result<(), sqlx::Error> {
        match self {
            Tx::Sqlite(connection) => connection.close().await,
            Tx::Postgres(connection) => connection.close().await,
        }
    }
}

/// Connections that only read.
#[derive(Clone, Debug)]
pub(crate) enum Readers {
    Sqlite(SqlitePool),
    Postgres(PostgresReaders),
}

impl Readers {
    pub(crate) async fn close(&self) {
        match self {
            Readers::Sqlite(pool) => pool.close().await,
            Readers::Postgres(pool) => pool.close().await,
        }
    }
}

/// What a statement runs on.
#[derive(Debug)]
pub(crate) enum Target<'c> {
    Sqlite(&'c mut SqliteConnection),
    Postgres(&'c mut PgConnection),
    SqliteReaders(&'c SqlitePool),
    PostgresReaders(&'c PostgresReaders),
}

pub(crate) trait Executor<'c>: Send {
    fn target(self) -> Target<'c>;
}

impl<'c> Executor<'c> for &'c mut Tx {
    fn target(self) -> Target<'c> {
        match self {
            Tx::Sqlite(connection) => Target::Sqlite(connection),
            Tx::Postgres(connection) => Target::Postgres(connection),
        }
    }
}

impl<'c> Executor<'c> for &'c Readers {
    fn target(self) -> Target<'c> {
        match self {
            Readers::Sqlite(pool) => Target::SqliteReaders(pool),
            Readers::Postgres(pool) => Target::PostgresReaders(pool),
        }
    }
}

/// A row that a statement returned.
#[derive(Debug)]
pub(crate) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

/// What a column may be read as.
pub(crate) trait Column<'r>:
    Decode<'r, Sqlite> + Type<Sqlite> + Decode<'r, Postgres> + Type<Postgres>
{
}

impl<'r, T> Column<'r> for T where T: Decode<'r, Sqlite> + Type<Sqlite> + Decode<'r, Postgres> + Type<Postgres>
{}

impl Row {
    pub(crate) fn try_get<'r, T: Column<'r>>(&'r self, column: &str) -> Result<T, sqlx::Error> {
        match self {
            Row::Sqlite(row) => row.try_get(column),
            Row::Postgres(row) => row.try_get(column),
        }
    }

    /// The bytes of a column of text or of bytes.
    pub(crate) fn try_get_bytes(&self, column: &str) -> Result<Option<&[u8]>, sqlx::Error> {
        match self {
            Row::Sqlite(row) => row.try_get(column),
            Row::Postgres(row) => row.try_get_unchecked(column),
        }
    }

    fn first<'r, T: Column<'r>>(&'r self) -> Result<T, sqlx::Error> {
        match self {
            Row::Sqlite(row) => row.try_get(0),
            Row::Postgres(row) => row.try_get(0),
        }
    }
}

impl Statement {
    /// Runs it. Returns how many rows it wrote.
    pub(crate) async fn execute<'c>(self, on: impl Executor<'c>) -> Result<u64, sqlx::Error> {
        Ok(match on.target() {
            Target::Sqlite(on) => self.for_sqlite()?.execute(on).await?.rows_affected(),
            Target::SqliteReaders(on) => self.for_sqlite()?.execute(on).await?.rows_affected(),
            Target::Postgres(on) => self.for_postgres()?.execute(on).await?.rows_affected(),
            Target::PostgresReaders(on) => on.execute(&self).await?,
        })
    }

    pub(crate) async fn fetch_all<'c>(self, on: impl Executor<'c>) -> Result<Vec<Row>, sqlx::Error> {
        let sqlite = |rows: Vec<_>| rows.into_iter().map(Row::Sqlite).collect();
        let postgres = |rows: Vec<_>| rows.into_iter().map(Row::Postgres).collect();
        Ok(match on.target() {
            Target::Sqlite(on) => sqlite(self.for_sqlite()?.fetch_all(on).await?),
            Target::SqliteReaders(on) => sqlite(self.for_sqlite()?.fetch_all(on).await?),
            Target::Postgres(on) => postgres(self.for_postgres()?.fetch_all(on).await?),
            Target::PostgresReaders(on) => postgres(on.fetch_all(&self).await?),
        })
    }

    pub(crate) async fn fetch_optional<'c>(self, on: impl Executor<'c>) -> Result<Option<Row>, sqlx::Error> {
        Ok(match on.target() {
            Target::Sqlite(on) => self.for_sqlite()?.fetch_optional(on).await?.map(Row::Sqlite),
            Target::SqliteReaders(on) => self.for_sqlite()?.fetch_optional(on).await?.map(Row::Sqlite),
            Target::Postgres(on) => self.for_postgres()?.fetch_optional(on).await?.map(Row::Postgres),
            Target::PostgresReaders(on) => on.fetch_optional(&self).await?.map(Row::Postgres),
        })
    }

    pub(crate) async fn fetch_one<'c>(self, on: impl Executor<'c>) -> Result<Row, sqlx::Error> {
        self.fetch_optional(on).await?.ok_or(sqlx::Error::RowNotFound)
    }

    /// Its rows one after another, for those who may not want all.
    pub(crate) fn fetch<'c>(self, on: impl Executor<'c>) -> BoxStream<'c, Result<Row, sqlx::Error>> {
        match on.target() {
            Target::Sqlite(on) => match self.for_sqlite() {
                Ok(query) => query.fetch(on).map_ok(Row::Sqlite).boxed(),
                Err(error) => futures_util::stream::iter([Err(error)]).boxed(),
            },
            Target::SqliteReaders(on) => match self.for_sqlite() {
                Ok(query) => query.fetch(on).map_ok(Row::Sqlite).boxed(),
                Err(error) => futures_util::stream::iter([Err(error)]).boxed(),
            },
            Target::Postgres(on) => match self.for_postgres() {
                Ok(query) => query.fetch(on).map_ok(Row::Postgres).boxed(),
                Err(error) => futures_util::stream::iter([Err(error)]).boxed(),
            },
            Target::PostgresReaders(on) => on.fetch(self).map_ok(Row::Postgres).boxed(),
        }
    }
}

/// A statement of which only the first column is read.
#[derive(Debug)]
#[must_use]
pub(crate) struct Scalar<T> {
    statement: Statement,
    reads: PhantomData<fn() -> T>,
}

pub(crate) fn query_scalar<T>(sql: impl Into<Cow<'static, str>>) -> Scalar<T> {
    Scalar { statement: query(sql), reads: PhantomData }
}

impl<T: for<'r> Column<'r>> Scalar<T> {
    pub(crate) fn bind(mut self, value: impl Into<Value>) -> Scalar<T> {
        self.statement = self.statement.bind(value);
        self
    }

    /// See [`Statement::locking`].
    pub(crate) fn locking(mut self, clause: &'static str) -> Scalar<T> {
        self.statement = self.statement.locking(clause);
        self
    }

    pub(crate) async fn fetch_all<'c>(self, on: impl Executor<'c>) -> Result<Vec<T>, sqlx::Error> {
        self.statement.fetch_all(on).await?.iter().map(Row::first).collect()
    }

    pub(crate) async fn fetch_optional<'c>(self, on: impl Executor<'c>) -> Result<Option<T>, sqlx::Error> {
        self.statement.fetch_optional(on).await?.as_ref().map(Row::first).transpose()
    }

    pub(crate) async fn fetch_one<'c>(self, on: impl Executor<'c>) -> Result<T, sqlx::Error> {
        self.statement.fetch_one(on).await?.first()
    }
}
