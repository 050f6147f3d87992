//! Which files of payloads are named by a row, and the end of those that are not.

use std::collections::HashSet;

use bytes::Bytes;
use jiff::Timestamp;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite};
use uuid::Uuid;

use crate::columns::{ROWS, among, key};
use crate::payload_files::{FileId, Kept};
use crate::{Store, StoreError};

/// Bytes of a row or of its file, from three columns.
pub(crate) fn kept(
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
pub(crate) fn file(row: &SqliteRow, column: &'static str) -> Result<Option<FileId>, StoreError> {
    let id: Option<&[u8]> = row.try_get(column)?;
    id.map(|id| Uuid::from_slice(id).map(FileId::from_uuid).map_err(|_| StoreError::Corrupt(column)))
        .transpose()
}

impl Store {
    /// Writes what is large to files of its own, which a row is to name soon. Answers in the same order.
    pub async fn keep(&self, contents: Vec<Bytes>) -> Result<Vec<Kept>, StoreError> {
        self.payloads.keep(contents).await
    }

    /// Removes files that a committed transaction has freed.
    pub async fn remove(&self, freed: Vec<FileId>) {
        self.payloads.remove(freed).await;
    }

    /// Removes those of `files` that no row names: for when it is not known what became of the rows.
    pub async fn collect(&self, files: Vec<FileId>) -> Result<usize, StoreError> {
        let mut collected = 0;
        for files in files.chunks(ROWS) {
            let mut named = HashSet::new();
            for (table, column) in
                [("assignments", "payload_file"), ("results", "file"), ("staged_tasks", "payload_file")]
            {
                let select = format!("SELECT {column} AS file FROM {table} WHERE {column} IN ");
                let mut select = QueryBuilder::<Sqlite>::new(select);
                among(&mut select, files.iter().map(|file| key(file.as_uuid())));
                for row in select.build().fetch_all(&self.readers).await? {
                    named.extend(file(&row, "file")?);
                }
            }
            let unnamed: Vec<_> = files.iter().copied().filter(|file| !named.contains(file)).collect();
            collected += unnamed.len();
            self.payloads.remove(unnamed).await;
        }
        Ok(collected)
    }

    /// Removes the files that were made before `before` and are named by no row. Answers how many those were.
    pub async fn collect_before(&self, before: Timestamp) -> Result<usize, StoreError> {
        self.collect(self.payloads.made_before(before).await?).await
    }
}
