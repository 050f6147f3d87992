//! How values lie in columns: ids as 16 bytes, times as microseconds of UTC, JSON as text.

use std::borrow::Borrow;

use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::StoreError;

/// An id as it is bound to a statement.
pub(super) fn key(id: impl Borrow<Uuid>) -> Vec<u8> {
    id.borrow().as_bytes().to_vec()
}

pub(super) fn id(row: &SqliteRow, column: &'static str) -> Result<Uuid, StoreError> {
    Uuid::from_slice(row.try_get::<&[u8], _>(column)?).map_err(|_| StoreError::Corrupt(column))
}

pub(super) fn time(row: &SqliteRow, column: &'static str) -> Result<Timestamp, StoreError> {
    instant(row.try_get(column)?, column)
}

pub(super) fn instant(micros: i64, column: &'static str) -> Result<Timestamp, StoreError> {
    Timestamp::from_microsecond(micros).map_err(|_| StoreError::Corrupt(column))
}

pub(super) fn json<T: DeserializeOwned>(text: &str, column: &'static str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Corrupt(column))
}

pub(super) fn text(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|_| StoreError::Corrupt("a value that JSON cannot hold"))
}
