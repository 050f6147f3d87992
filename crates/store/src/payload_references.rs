//! Removes payload files that no row names.

use std::collections::HashSet;

use bytes::Bytes;
use jiff::Timestamp;
use uuid::Uuid;

use crate::columns::{ROWS, key};
use crate::database::{Row, StatementBuilder};
use crate::payload_files::{FileId, StoredContent};
use crate::{Store, StoreError};

/// Reads where content is kept, in the row or in a file, from three columns.
pub(crate) fn stored_content(
    row: &Row,
    here: &'static str,
    file: &'static str,
    bytes: &'static str,
) -> Result<StoredContent, StoreError> {
    if let Some(content) = row.try_get_bytes(here)? {
        return Ok(StoredContent::Inline(content.to_vec().into()));
    }
    let Some(id) = row.try_get::<Option<&[u8]>>(file)? else { return Err(StoreError::Corrupt(here)) };
    let id = FileId::from_uuid(Uuid::from_slice(id).map_err(|_| StoreError::Corrupt(file))?);
    let bytes: i64 = row.try_get(bytes)?;
    Ok(StoredContent::File { id, bytes: usize::try_from(bytes).map_err(|_| StoreError::Corrupt(file))? })
}

/// Reads the file id of a column that may be NULL.
pub(crate) fn file_id(row: &Row, column: &'static str) -> Result<Option<FileId>, StoreError> {
    let id: Option<&[u8]> = row.try_get(column)?;
    id.map(|id| Uuid::from_slice(id).map(FileId::from_uuid).map_err(|_| StoreError::Corrupt(column)))
        .transpose()
}

impl Store {
    /// Writes large contents to files, which a row must name soon. Returns them in the same order.
    pub async fn store_contents(&self, contents: Vec<Bytes>) -> Result<Vec<StoredContent>, StoreError> {
        self.payloads.store_contents(contents).await
    }

    /// Removes files that a committed transaction has freed.
    pub async fn remove_files(&self, freed: Vec<FileId>) {
        self.payloads.remove(freed).await;
    }

    /// Removes those of `files` that no row names. Nothing may be on its way that would name them: a commit whose answer was
    /// lost may be.
    pub async fn remove_unreferenced(&self, files: Vec<FileId>) -> Result<usize, StoreError> {
        let mut collected = 0;
        for files in files.chunks(ROWS) {
            let mut named = HashSet::new();
            // In the order in which a file changes its row, so that one which moves meanwhile is seen.
            for (table, column) in
                [("staged_tasks", "payload_file"), ("assignments", "payload_file"), ("results", "file")]
            {
                let select = format!("SELECT {column} AS file FROM {table} WHERE {column}");
                let mut select = StatementBuilder::new(select);
                select.push_in(files.iter().map(|file| key(file.as_uuid())));
                for row in select.build().fetch_all(&self.readers).await? {
                    named.extend(file_id(&row, "file")?);
                }
            }
            let unnamed: Vec<_> = files.iter().copied().filter(|file| !named.contains(file)).collect();
            collected += unnamed.len();
            self.payloads.remove(unnamed).await;
        }
        Ok(collected)
    }

    /// Removes files older than `before` that no row names. Returns how many.
    pub async fn remove_unreferenced_before(&self, before: Timestamp) -> Result<usize, StoreError> {
        self.remove_unreferenced(self.payloads.made_before(before).await?).await
    }
}
