//! Opens the database that the configuration names: PostgreSQL at `store.url`, else SQLite in the data directory.

use std::str::FromStr as _;

use store::{DatabaseAddress, Servers, Sharing, Store, StoreError, UrlError};

use super::config::StoreSettings;
use super::data_directory::{Directory, DirectoryError};

#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("store.url: {0}")]
    Url(#[from] UrlError),
}

/// Checks that the database exists, if it is a file: only the service makes one.
pub fn check_exists(directory: &Directory, settings: &StoreSettings) -> Result<(), DirectoryError> {
    let file = directory.database();
    if settings.url.is_some()
        || file.try_exists().map_err(|error| DirectoryError::File { path: file, error })?
    {
        return Ok(());
    }
    let why = "it has no farcall.db, and neither store.url in its farcall.yaml nor FARCALL_STORE__URL names a PostgreSQL database";
    Err(DirectoryError::NotThere { path: directory.root().to_owned(), why })
}

/// Opens it as its only service. The caller holds the data directory's lock.
pub async fn open(directory: &Directory, settings: &StoreSettings) -> Result<Store, DatabaseError> {
    match &settings.url {
        None => Ok(Store::open(&directory.database()).await?),
        Some(url) => {
            let servers = Servers::from_str(url)?;
            Ok(Store::open_postgres(&servers, &directory.payloads(), Sharing::Alone).await?)
        }
    }
}

/// Where it is.
pub fn address(directory: &Directory, settings: &StoreSettings) -> Result<DatabaseAddress, UrlError> {
    Ok(match &settings.url {
        None => DatabaseAddress::Sqlite(directory.database()),
        Some(url) => DatabaseAddress::Postgres(Servers::from_str(url)?),
    })
}
