//! Converts values to and from columns: ids are 16 bytes, times microseconds of UTC, JSON is text.

use std::borrow::Borrow;

use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::StoreError;
use crate::database::Row;

/// Rows per statement: keeps the number of bound values below what either database allows.
pub(crate) const ROWS: usize = 1000;

/// An id as it is bound to a statement.
pub(crate) fn key(id: impl Borrow<Uuid>) -> Vec<u8> {
    id.borrow().as_bytes().to_vec()
}

pub(crate) fn id(row: &Row, column: &'static str) -> Result<Uuid, StoreError> {
    Uuid::from_slice(row.try_get::<&[u8]>(column)?).map_err(|_| StoreError::Corrupt(column))
}

pub(crate) fn time(row: &Row, column: &'static str) -> Result<Timestamp, StoreError> {
    instant(row.try_get(column)?, column)
}

pub(crate) fn instant(micros: i64, column: &'static str) -> Result<Timestamp, StoreError> {
    Timestamp::from_microsecond(micros).map_err(|_| StoreError::Corrupt(column))
}

pub(crate) fn json<T: DeserializeOwned>(text: &str, column: &'static str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Corrupt(column))
}

pub(crate) fn text(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|_| StoreError::Corrupt("a value that JSON cannot hold"))
}
