//! The test's own connection to the service's database: tests change times that they can't wait for, and count rows.

use std::str::FromStr as _;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};

use crate::support::Farcall;

/// A connection to either database.
pub enum Database {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

/// A value of a statement.
pub enum Value {
    Integer(i64),
    Bytes(Vec<u8>),
}

impl From<i64> for Value {
    fn from(value: i64) -> Value {
        Value::Integer(value)
    }
}

impl From<uuid::Uuid> for Value {
    fn from(value: uuid::Uuid) -> Value {
        Value::Bytes(value.as_bytes().to_vec())
    }
}

/// Runs `$call` with the query and the connection of the database at hand.
macro_rules! on {
    ($database:expr, $query:expr, $values:expr, |$bound:ident, $connection:ident| $call:expr) => {
        match $database {
            Database::Sqlite($connection) => {
                let mut $bound = $query;
                for value in $values {
                    $bound = match value {
                        Value::Integer(value) => $bound.bind(value),
                        Value::Bytes(value) => $bound.bind(value),
                    };
                }
                $call
            }
            Database::Postgres($connection) => {
                let mut $bound = $query;
                for value in $values {
                    $bound = match value {
                        Value::Integer(value) => $bound.bind(value),
                        Value::Bytes(value) => $bound.bind(value),
                    };
                }
                $call
            }
        }
    };
}

impl Database {
    /// Connects to the database of `service`, which may run.
    pub async fn of(service: &Farcall) -> Database {
        match service.database_url() {
            Some(url) => {
                let options = PgConnectOptions::from_str(&url).unwrap();
                Database::Postgres(PgConnection::connect_with(&options).await.unwrap())
            }
            None => {
                let options = SqliteConnectOptions::new()
                    .filename(service.data().join("farcall.db"))
                    .busy_timeout(Duration::from_secs(10));
                Database::Sqlite(options.connect().await.unwrap())
            }
        }
    }

    /// Runs a statement; how many rows it changed.
    pub async fn execute(&mut self, sql: impl Into<String>, values: impl IntoIterator<Item = Value>) -> u64 {
        let sql = AssertSqlSafe(sql.into());
        on!(self, sqlx::query(sql), values, |bound, connection| {
            bound.execute(connection).await.unwrap().rows_affected()
        })
    }

    /// The integer that a statement reads; `None` if it reads no row, or NULL.
    pub async fn read(&mut self, sql: impl Into<String>) -> Option<i64> {
        let sql = AssertSqlSafe(sql.into());
        let read: Option<Option<i64>> = on!(self, sqlx::query_scalar(sql), [], |bound, connection| {
            bound.fetch_optional(connection).await.unwrap()
        });
        read.flatten()
    }

    /// Every row of every table, as text, in an order that depends on what they hold; without the tables of the writer and of
    /// the migrations.
    pub async fn everything(&mut self) -> String {
        let mut whole = String::new();
        match self {
            Database::Sqlite(connection) => {
                let tables = "SELECT m.name, group_concat('quote(' || c.name || ')', '||'',''||') \
                              FROM sqlite_master m JOIN pragma_table_info(m.name) c \
                              WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite%' AND m.name NOT LIKE '_sqlx%' \
                              GROUP BY m.name ORDER BY m.name";
                let tables: Vec<(String, String)> =
                    sqlx::query_as(tables).fetch_all(&mut *connection).await.unwrap();
                for (name, columns) in tables {
                    let rows = AssertSqlSafe(format!("SELECT {columns} FROM {name} ORDER BY 1"));
                    let rows: Vec<String> =
                        sqlx::query_scalar(rows).fetch_all(&mut *connection).await.unwrap();
                    whole.extend(rows.iter().map(|row| format!("{name}: {row}\n")));
                }
            }
            Database::Postgres(connection) => {
                let tables = "SELECT tablename::text FROM pg_tables \
                              WHERE schemaname = 'public' AND tablename NOT LIKE '\\_%' ORDER BY 1";
                let tables: Vec<String> =
                    sqlx::query_scalar(tables).fetch_all(&mut *connection).await.unwrap();
                for name in tables {
                    let rows = AssertSqlSafe(format!("SELECT t::text FROM {name} t ORDER BY 1"));
                    let rows: Vec<String> =
                        sqlx::query_scalar(rows).fetch_all(&mut *connection).await.unwrap();
                    whole.extend(rows.iter().map(|row| format!("{name}: {row}\n")));
                }
            }
        }
        whole
    }

    /// Keeps the service from writing until the database is released.
    pub async fn hold(&mut self) {
        let sql = match self {
            Database::Sqlite(_) => "BEGIN IMMEDIATE",
            // What every submit writes.
            Database::Postgres(_) => "BEGIN; LOCK TABLE tasks IN EXCLUSIVE MODE",
        };
        self.run(sql).await;
    }

    pub async fn release(&mut self) {
        self.run("COMMIT").await;
    }

    async fn run(&mut self, sql: &'static str) {
        match self {
            Database::Sqlite(connection) => sqlx::raw_sql(sql).execute(connection).await.map(|_| ()),
            Database::Postgres(connection) => sqlx::raw_sql(sql).execute(connection).await.map(|_| ()),
        }
        .unwrap();
    }

    pub async fn close(self) {
        match self {
            Database::Sqlite(connection) => connection.close().await,
            Database::Postgres(connection) => connection.close().await,
        }
        .unwrap();
    }
}
