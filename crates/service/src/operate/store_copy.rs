//! Copies an installation's database to another one, while no service runs. The data directory and its payload files stay.

use std::str::FromStr;

use store::{CopiedTable, CopyError, DatabaseAddress, EmptyDatabase, Servers, Sharing, Source, UrlError};

use super::config::StoreSettings;
use super::data_directory::{Directory, DirectoryError};
use super::database;

/// The database to copy to.
#[derive(Clone, Debug)]
pub enum Destination {
    /// In the data directory.
    Sqlite,
    Postgres(Servers),
}

impl FromStr for Destination {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Destination, UrlError> {
        match text {
            "sqlite" => Ok(Destination::Sqlite),
            url => Ok(Destination::Postgres(Servers::from_str(url)?)),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StoreCopyError {
    #[error(
        "the data is in SQLite already ({0}): to copy it to PostgreSQL, give --to postgres://USER@HOST:PORT/DATABASE"
    )]
    SqliteAlready(String),
    #[error("store.url: {0}")]
    Url(#[from] UrlError),
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(transparent)]
    Copy(#[from] CopyError),
}

/// A copy that was made.
#[derive(Clone, Debug)]
pub struct StoreCopy {
    pub from: DatabaseAddress,
    pub to: DatabaseAddress,
    pub tables: Vec<CopiedTable>,
}

/// Copies the database that `settings` name to `to`, which must be empty.
pub async fn copy(
    directory: &Directory,
    settings: &StoreSettings,
    to: &Destination,
) -> Result<StoreCopy, StoreCopyError> {
    let _lock = directory.lock()?;
    database::check_exists(directory, settings)?;
    let from = database::address(directory, settings)?;
    let to = match to {
        Destination::Sqlite => DatabaseAddress::Sqlite(directory.database()),
        Destination::Postgres(servers) => DatabaseAddress::Postgres(servers.clone()),
    };
    if let (DatabaseAddress::Sqlite(_), DatabaseAddress::Sqlite(_)) = (&from, &to) {
        return Err(StoreCopyError::SqliteAlready(from.shown()));
    }
    let mut source = Source::open(&from, Sharing::Alone).await?;
    let tables = EmptyDatabase::open(&to).await?.fill(&mut source).await?;
    source.close().await?;
    if let DatabaseAddress::Sqlite(_) = to {
        // Without store.url, the service may use this copy now.
        database::record(directory, &to)?;
    }
    Ok(StoreCopy { from, to, tables })
}
