//! Which files of payloads are named by a row, and the end of those that are not.

use std::collections::HashSet;

use bytes::Bytes;
use jiff::Timestamp;
use sqlx::{QueryBuilder, Sqlite};

use super::payloads::{FileId, Kept};
use super::row::{ROWS, among, file, key};
use super::{Store, StoreError};

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
