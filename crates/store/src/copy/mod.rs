//! Copies all that a store's database holds into an empty database, of the same kind or the other: to move an installation, and
//! to back one up.
//!
//! ```text
//! Source (one snapshot)  -->  rows of each table, in batches  -->  EmptyDatabase (one transaction)
//!            \______________ counts and checksums of both _____________/
//! ```
//!
//! What tables there are is read from the databases. Nothing here may write to the source.

mod backup;
mod catalogue;
mod rows;
mod source;
mod target;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub use backup::{back_up, count_tasks_in, migrate_backup, payload_files_in};
pub use catalogue::ColumnKind;
pub use source::Source;
pub use target::EmptyDatabase;

use crate::{Servers, StoreError};

/// Lifts the bounds of a session: one statement reads a whole table.
const UNBOUNDED: &str = "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0";

/// Where a store's database is.
#[derive(Clone, Debug)]
pub enum DatabaseAddress {
    Sqlite(PathBuf),
    Postgres(Servers),
}

impl DatabaseAddress {
    /// The address, for people: without users and passwords.
    pub fn shown(&self) -> String {
        match self {
            DatabaseAddress::Sqlite(file) => format!("the database {}", file.display()),
            DatabaseAddress::Postgres(servers) => format!("the PostgreSQL database at {}", servers.shown()),
        }
    }
}

/// A table that was copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopiedTable {
    pub name: String,
    pub rows: u64,
}

/// Why a database was not copied. The target is as empty as before.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CopyError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the table {table} could not be copied: {error}")]
    Table { table: String, error: StoreError },
    #[error("{0} holds no data of farcall")]
    NoInstallation(String),
    #[error(
        "{0} was last used by an older version of farcall: do this with that version, or start the service of this version first, \
         which changes the schema"
    )]
    OlderSchema(String),
    #[error(
        "{} is not empty (there are rows in {table}), and nothing is overwritten: {} and try again",
        .database.shown(),
        match .database {
            DatabaseAddress::Sqlite(_) => "move the file away",
            DatabaseAddress::Postgres(_) => "drop and create the database, or give an empty one,",
        }
    )]
    NotEmpty { database: DatabaseAddress, table: String },
    #[error(
        "{database} has tables that are not farcall's ({table} for one): create a database for farcall alone"
    )]
    NotOurs { database: String, table: String },
    #[error(
        "the two databases have different schemas, so something else than farcall has changed one of them:{0}"
    )]
    Schema(String),
    #[error("the column {column} is of the type {kind}, which this version of farcall cannot copy")]
    Kind { column: String, kind: String },
    #[error(
        "the column {column} holds a value that is not {kind}: something else than farcall has written it"
    )]
    Value { column: String, kind: ColumnKind },
    #[error(
        "a text in the column {column} contains the character NUL, which PostgreSQL cannot hold: this data can only be kept in \
         SQLite until that row has gone"
    )]
    Nul { column: String },
    #[error("a row of {table} refers to a row of {parent} that is not there")]
    Reference { table: String, parent: String },
    #[error(
        "the copy of the table {table} differs from the source ({source_rows} rows in the source, {target_rows} in the copy); \
         the copy was undone: try again, and report this if it happens again"
    )]
    Difference { table: String, source_rows: u64, target_rows: u64 },
}

impl From<sqlx::Error> for CopyError {
    fn from(error: sqlx::Error) -> Self {
        CopyError::Store(error.into())
    }
}
