//! Large payloads and results: files beside the database, named by the row that they belong to.
//!
//! ```text
//! keep: write file, fsync file, fsync directory --> the row that names it is committed
//! remove: the row is committed without it --> the file is removed
//! ```
//!
//! A crash in between leaves at most a file that no row names. Its name is an id that holds the time at which it was
//! made, and `Store::remove_unreferenced_before` removes those that are too old to belong to a running request.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use uuid::Uuid;
use wire::TaskId;

use crate::columns::key;
use crate::database::query;
use crate::random;
use crate::{Store, StoreError};

/// The name of a file: an id that sorts by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(Uuid);

impl FileId {
    pub(crate) fn from_uuid(id: Uuid) -> FileId {
        FileId(id)
    }

    pub(crate) fn as_uuid(&self) -> &Uuid {
        &self.0
    }

    /// What the file is called.
    pub fn name(self) -> String {
        self.0.as_simple().to_string()
    }

    /// When it was made.
    fn made(self) -> Option<Timestamp> {
        let (seconds, nanos) = self.0.get_timestamp()?.to_unix();
        Timestamp::new(seconds.try_into().ok()?, nanos.try_into().ok()?).ok()
    }
}

/// Bytes, and where they are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredContent {
    /// In the row.
    Inline(Bytes),
    /// In a file that is already on disk.
    File { id: FileId, bytes: usize },
}

impl StoredContent {
    pub fn len(&self) -> usize {
        match self {
            StoredContent::Inline(content) => content.len(),
            StoredContent::File { bytes, .. } => *bytes,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn file(&self) -> Option<FileId> {
        match self {
            StoredContent::Inline(_) => None,
            StoredContent::File { id, .. } => Some(*id),
        }
    }
}

/// An unnamed temporary file in `directory`: nothing is left of it when it is closed.
pub fn scratch(directory: &Path) -> io::Result<File> {
    // Should we die before it has lost its name, it is collected like any file that no row names.
    let path = directory.join(random::ordered_id().as_simple().to_string());
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// Payloads and results from this size on lie in files of their own, unless the operator says otherwise.
pub const FILE_FROM_BYTES: usize = 64 << 10;

/// The directory of the files. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct PayloadFiles {
    directory: Arc<Path>,
    /// Content of at least this size gets a file.
    pub(crate) from: usize,
}

impl PayloadFiles {
    pub(crate) fn open(directory: &Path) -> Result<PayloadFiles, StoreError> {
        let payloads = PayloadFiles { directory: directory.into(), from: FILE_FROM_BYTES };
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map(|()| payloads).map_err(|error| StoreError::File(Arc::new(error)))
    }

    /// Writes large contents to files; small ones stay in memory. Returns them in the same order. After an error no file is left.
    pub(crate) async fn store_contents(
        &self,
        contents: Vec<Bytes>,
    ) -> Result<Vec<StoredContent>, StoreError> {
        if contents.iter().all(|content| content.len() < self.from) {
            return Ok(contents.into_iter().map(StoredContent::Inline).collect());
        }
        self.blocking(move |payloads| {
            let mut kept = Vec::with_capacity(contents.len());
            let mut written = Vec::new();
            let all = (|| {
                for content in contents {
                    if content.len() < payloads.from {
                        kept.push(StoredContent::Inline(content));
                        continue;
                    }
                    let id = FileId(random::ordered_id());
                    written.push(id);
                    let mut file = OpenOptions::new()
                        .write(true)
                        .create_new(true)
                        .mode(0o600)
                        .open(payloads.path(id))?;
                    file.write_all(&content)?;
                    file.sync_data()?;
                    kept.push(StoredContent::File { id, bytes: content.len() });
                }
                File::open(&payloads.directory)?.sync_all()
            })();
            if all.is_err() {
                payloads.remove_now(&written);
            }
            all.map(|()| kept)
        })
        .await
    }

    /// Who has it from a row asks [`Store::content`].
    pub(crate) async fn read(&self, kept: StoredContent) -> Result<Vec<u8>, StoreError> {
        let (id, bytes) = match kept {
            StoredContent::Inline(content) => return Ok(content.into()),
            StoredContent::File { id, bytes } => (id, bytes),
        };
        let content = self.blocking(move |payloads| std::fs::read(payloads.path(id))).await?;
        if content.len() == bytes { Ok(content) } else { Err(StoreError::Corrupt("a payload's file")) }
    }

    /// Removes files that no row names any more.
    pub(crate) async fn remove(&self, files: Vec<FileId>) {
        if files.is_empty() {
            return;
        }
        let removed = self.blocking(move |payloads| {
            payloads.remove_now(&files);
            Ok(())
        });
        if let Err(error) = removed.await {
            tracing::warn!(%error, "cannot remove payload files now; retention removes them later");
        }
    }

    /// The files that were made before `before`.
    pub(crate) async fn made_before(&self, before: Timestamp) -> Result<Vec<FileId>, StoreError> {
        self.blocking(move |payloads| {
            let mut found = Vec::new();
            for entry in std::fs::read_dir(&payloads.directory)? {
                let name = entry?.file_name();
                let id = name.to_str().and_then(|name| Uuid::try_parse(name).ok()).map(FileId);
                found.extend(id.filter(|id| id.made().is_some_and(|made| made < before)));
            }
            Ok(found)
        })
        .await
    }

    fn path(&self, id: FileId) -> PathBuf {
        self.directory.join(id.name())
    }

    fn remove_now(&self, files: &[FileId]) {
        let directory = File::open(&self.directory);
        if let Ok(directory) = &directory
            && matches!(directory.try_lock_shared(), Err(TryLockError::WouldBlock))
        {
            // A backup is being made, and is going to copy them: they are collected later.
            return;
        }
        for &id in files {
            match std::fs::remove_file(self.path(id)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(%error, "cannot remove a payload file now; retention removes it later");
                }
                _ => {}
            }
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        act: impl FnOnce(&PayloadFiles) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let payloads = self.clone();
        tokio::task::spawn_blocking(move || act(&payloads))
            .await
            .map_err(|_| StoreError::Closed)?
            .map_err(|error| StoreError::File(Arc::new(error)))
    }
}

impl Store {
    /// What `kept` stands for, which a row of `task` names; `row` selects that. Nothing, if the row has gone since it was read,
    /// and its file with it.
    pub(crate) async fn content(
        &self,
        kept: StoredContent,
        row: &'static str,
        task: TaskId,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let error = match self.payloads.read(kept).await {
            Ok(content) => return Ok(Some(content)),
            Err(error) => error,
        };
        let named = query(row).bind(key(task.as_uuid())).fetch_optional(&self.readers).await?;
        if named.is_some() { Err(error) } else { Ok(None) }
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    async fn payloads() -> (tempfile::TempDir, PayloadFiles) {
        let directory = tempfile::tempdir().unwrap();
        let payloads = PayloadFiles { from: 10, ..PayloadFiles::open(directory.path()).unwrap() };
        (directory, payloads)
    }

    #[tokio::test]
    async fn what_is_large_lies_in_a_file_and_comes_back() {
        let (directory, payloads) = payloads().await;
        let contents = [vec![1; 9], vec![2; 10], vec![3; 1000], Vec::new()].map(Bytes::from);
        let kept = payloads.store_contents(contents.to_vec()).await.unwrap();
        let files: Vec<_> = kept.iter().map(|it| it.file().is_some()).collect();
        assert_eq!(files, [false, true, true, false]);
        assert_eq!(kept.iter().map(StoredContent::len).collect::<Vec<_>>(), [9, 10, 1000, 0]);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
        for (kept, content) in kept.iter().zip(&contents) {
            assert_eq!(payloads.read(kept.clone()).await.unwrap(), *content);
        }
        payloads.remove(kept.iter().filter_map(StoredContent::file).collect()).await;
        assert!(matches!(payloads.read(kept[1].clone()).await, Err(StoreError::File(_))));
    }

    #[tokio::test]
    async fn nothing_is_removed_while_a_backup_holds_the_directory() {
        let (directory, payloads) = payloads().await;
        let kept = payloads.store_contents(vec![vec![2; 10].into()]).await.unwrap().remove(0);
        let backup = File::open(directory.path()).unwrap();
        backup.lock().unwrap();
        payloads.remove(vec![kept.file().unwrap()]).await;
        assert_eq!(payloads.read(kept.clone()).await.unwrap(), [2; 10]);
        drop(backup);
        payloads.remove(vec![kept.file().unwrap()]).await;
        assert!(payloads.read(kept).await.is_err());
    }

    #[tokio::test]
    async fn a_file_that_was_cut_short_is_not_taken_for_whole() {
        let (directory, payloads) = payloads().await;
        let kept = payloads.store_contents(vec![vec![2; 10].into()]).await.unwrap().remove(0);
        let path = std::fs::read_dir(directory.path()).unwrap().next().unwrap().unwrap().path();
        std::fs::write(path, b"short").unwrap();
        assert!(matches!(payloads.read(kept).await, Err(StoreError::Corrupt(_))));
    }

    #[tokio::test]
    async fn files_tell_when_they_were_made_and_others_are_left_alone() {
        let (directory, payloads) = payloads().await;
        let kept = payloads.store_contents(vec![vec![2; 10].into()]).await.unwrap().remove(0);
        std::fs::write(directory.path().join("somebody's"), b"notes").unwrap();
        let now = kept.file().unwrap().made().unwrap();
        let hour = SignedDuration::from_hours(1);
        assert_eq!(payloads.made_before(now - hour).await.unwrap(), []);
        assert_eq!(payloads.made_before(now + hour).await.unwrap(), [kept.file().unwrap()]);
    }

    #[tokio::test]
    async fn what_could_not_be_kept_whole_leaves_nothing() {
        let (directory, payloads) = payloads().await;
        let gone = PayloadFiles { directory: directory.path().join("gone").into(), from: 10 };
        assert!(matches!(gone.store_contents(vec![vec![2; 10].into()]).await, Err(StoreError::File(_))));
        assert_eq!(payloads.made_before(Timestamp::MAX).await.unwrap(), []);
    }
}
