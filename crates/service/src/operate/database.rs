//! Opens the database that the configuration names: PostgreSQL at `store.url`, else SQLite in the data directory.

use std::str::FromStr as _;

use store::{Servers, Sharing, Store, StoreError, UrlError};

use super::config::StoreSettings;
use super::data_directory::Directory;

#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("store.url: {0}")]
    Url(#[from] UrlError),
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
