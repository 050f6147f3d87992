//! How values lie in columns: ids as 16 bytes, times as microseconds of UTC, JSON as text.

use std::borrow::Borrow;

use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite};
use uuid::Uuid;

use super::StoreError;
use super::payloads::{FileId, Kept};

/// Rows per statement: keeps the number of bound values below what either database allows.
pub(super) const ROWS: usize = 1000;

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

/// Bytes of a row or of its file, from three columns.
pub(super) fn kept(
    row: &SqliteRow,
    here: &'static str,
    file: &'static str,
    bytes: &'static str,
) -> Result<Kept, StoreError> {
    if let Some(content) = row.try_get::<Option<&[u8]>, _>(here)? {
        return Ok(Kept::Here(content.to_vec().into()));
    }
    let Some(id) = row.try_get::<Option<&[u8]>, _>(file)? else { return Err(StoreError::Corrupt(here)) };
    let id = FileId::from_uuid(Uuid::from_slice(id).map_err(|_| StoreError::Corrupt(file))?);
    let bytes: i64 = row.try_get(bytes)?;
    Ok(Kept::File { id, bytes: usize::try_from(bytes).map_err(|_| StoreError::Corrupt(file))? })
}

/// The file named in a column that may be empty.
pub(super) fn file(row: &SqliteRow, column: &'static str) -> Result<Option<FileId>, StoreError> {
    let id: Option<&[u8]> = row.try_get(column)?;
    id.map(|id| Uuid::from_slice(id).map(FileId::from_uuid).map_err(|_| StoreError::Corrupt(column)))
        .transpose()
}

/// Pushes `($1, $2, ...)`.
pub(super) fn among<T>(query: &mut QueryBuilder<Sqlite>, values: impl Iterator<Item = T>)
where
    T: for<'q> sqlx::Encode<'q, Sqlite> + sqlx::Type<Sqlite> + Send,
{
    query.push("(");
    let mut list = query.separated(", ");
    for value in values {
        list.push_bind(value);
    }
    query.push(")");
}
