//! Backs up a data directory and its database, while the service runs or not, and restores them.
//!
//! A backup is a data directory itself, with the database in a SQLite file whichever database the service uses. So it can be
//! restored into either. It shows a single moment, because:
//!
//! ```text
//! hold removals  -->  copy the database (in one transaction that reads)  -->  copy the files that the copy names
//! ```
//!
//! Files of payloads are on disk before a row names them, never change, and are not removed while somebody holds
//! `payloads/`: so each file that the copied database names is there to be copied. It lies under its final name only when
//! it is whole.
//!
//! This module may never write into the data directory that it copies.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::operate::config::StoreSettings;
use crate::operate::data_directory::{Directory, DirectoryError};
use crate::operate::database;
use store::{self, CopyError, DatabaseAddress, EmptyDatabase, FileId, Sharing, StoreError, UrlError};

#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("{0} exists already: give each backup a name of its own")]
    Exists(PathBuf),
    #[error("{0} is no backup: it has no farcall.db")]
    NoBackup(PathBuf),
    #[error("{0} holds a service's data already: restore into an empty directory")]
    Occupied(PathBuf),
    #[error(
        "{0} is there already and differs from the backup's, and nothing is overwritten: restore into an empty directory"
    )]
    Overwritten(PathBuf),
    #[error("the backup {backup} lacks the payload {missing}")]
    Incomplete { backup: PathBuf, missing: String },
    #[error("cannot use {path}: {error}")]
    File { path: PathBuf, error: io::Error },
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error("store.url: {0}")]
    Url(#[from] UrlError),
    #[error(transparent)]
    Copy(#[from] CopyError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    pub tasks: u64,
    pub files: usize,
}

/// Copies the data directory and the database that `settings` name to `to`, which must not exist.
pub async fn make(data: &Directory, settings: &StoreSettings, to: &Path) -> Result<Copied, BackupError> {
    let address = database::address(data, settings)?;
    if to.symlink_metadata().is_ok() {
        return Err(BackupError::Exists(to.to_owned()));
    }
    let mut name = to.as_os_str().to_owned();
    name.push(".unfinished");
    let unfinished = PathBuf::from(name);
    if let Err(error) = fs::remove_dir_all(&unfinished)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(BackupError::File { path: unfinished, error });
    }
    let copied = fill(data, &address, &unfinished).await;
    if copied.is_err() {
        // Half a backup is of no use. If removing it fails, the first error matters more.
        let _ = fs::remove_dir_all(&unfinished);
        return copied;
    }
    at(to, fs::rename(&unfinished, to))?;
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    at(parent, synced(parent))?;
    copied
}

async fn fill(data: &Directory, address: &DatabaseAddress, backup: &Path) -> Result<Copied, BackupError> {
    let payloads = data.payloads();
    private(backup)?;
    let database = backup.join("farcall.db");
    let files = {
        let held = at(&payloads, File::open(&payloads))?;
        at(&payloads, held.lock())?;
        store::back_up(address, &database).await?;
        let files = store::payload_files_in(&database).await?;
        private(&backup.join("payloads"))?;
        for file in &files {
            let (from, to) = (within(&payloads, *file), within(&backup.join("payloads"), *file));
            // Payload files never change, so a hard link will do; on another disk it is a copy.
            if fs::hard_link(&from, &to).is_err() {
                at(&from, copy(&from, &to))?;
            }
        }
        files
    };
    copy_all(data.root(), backup)?;
    at(&database, synced(&database))?;
    for directory in [backup, &backup.join("payloads")] {
        at(directory, synced(directory))?;
    }
    Ok(Copied { tasks: store::count_tasks_in(&database).await?, files: files.len() })
}

/// Restores the backup `from` into `root` and the database that `settings` name, which must hold no service's data.
pub async fn restore(from: &Path, root: &Path, settings: &StoreSettings) -> Result<Copied, BackupError> {
    let backup = from.join("farcall.db");
    if !backup.is_file() {
        return Err(BackupError::NoBackup(from.to_owned()));
    }
    let data = Directory::prepare(root)?;
    let _lock = data.lock()?;
    let database = data.database();
    if database.symlink_metadata().is_ok() {
        return Err(BackupError::Occupied(data.root().to_owned()));
    }
    refuse_other_keys(from, data.root())?;
    let address = database::address(&data, settings)?;
    let target = match &address {
        DatabaseAddress::Sqlite(_) => None,
        address => Some(EmptyDatabase::open(address).await?),
    };
    // The database comes last: a service that finds it finds everything.
    let unfinished = database.with_extension("restored");
    at(&backup, copy(&backup, &unfinished))?;
    at(&unfinished, store::private_file::restrict_database(&unfinished))?;
    if target.is_some() {
        store::migrate_backup(&unfinished).await?;
    }
    let files = store::payload_files_in(&unfinished).await?;
    for file in &files {
        let (from_file, to) = (within(&from.join("payloads"), *file), within(&data.payloads(), *file));
        match copy(&from_file, &to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let missing = from_file.display().to_string();
                return Err(BackupError::Incomplete { backup: from.to_owned(), missing });
            }
            copied => at(&from_file, copied)?,
        }
    }
    copy_all(from, data.root())?;
    let tasks = store::count_tasks_in(&unfinished).await?;
    match target {
        None => {
            for log in ["farcall.db-wal", "farcall.db-shm"] {
                // Of a database that is gone: it is not for this one.
                let _ = fs::remove_file(data.root().join(log));
            }
            at(&database, fs::rename(&unfinished, &database))?;
        }
        Some(target) => {
            let source = DatabaseAddress::Sqlite(unfinished.clone());
            let mut source = store::Source::open(&source, Sharing::Alone).await?;
            target.fill(&mut source).await?;
            source.close().await?;
            at(&unfinished, fs::remove_file(&unfinished))?;
        }
    }
    database::record(&data, &address)?;
    for directory in [data.root(), &data.payloads()] {
        at(directory, synced(directory))?;
    }
    Ok(Copied { tasks, files: files.len() })
}

/// Fails if a key or certificate of the backup `from` would replace another one in `to`: it may be that of a service whose
/// database is elsewhere. Those of the same content are left from a restore that failed.
fn refuse_other_keys(from: &Path, to: &Path) -> Result<(), BackupError> {
    for directory in BESIDE {
        let (from, to) = (from.join(directory), to.join(directory));
        for name in files_in(&from)? {
            let (from, to) = (from.join(&name), to.join(&name));
            match fs::read(&to) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Ok(content) if content == at(&from, fs::read(&from))? => {}
                Ok(_) => return Err(BackupError::Overwritten(to)),
                Err(error) => return Err(BackupError::File { path: to, error }),
            }
        }
    }
    Ok(())
}

/// The directories of keys and of certificates.
const BESIDE: [&str; 2] = ["keys", "tls"];

/// The names of the files in `directory`; none if it is not there.
fn files_in(directory: &Path) -> Result<BTreeSet<OsString>, BackupError> {
    if !directory.is_dir() {
        return Ok(BTreeSet::new());
    }
    let names: io::Result<Vec<OsString>> =
        fs::read_dir(directory).and_then(|all| all.map(|it| Ok(it?.file_name())).collect());
    Ok(at(directory, names)?.into_iter().filter(|name| directory.join(name).is_file()).collect())
}

/// Copies what lies beside database and payloads: keys, certificates, and the configuration, unless there is one.
fn copy_all(from: &Path, to: &Path) -> Result<(), BackupError> {
    for directory in BESIDE {
        let (from, to) = (from.join(directory), to.join(directory));
        if !from.is_dir() {
            continue;
        }
        private(&to)?;
        for name in files_in(&from)? {
            at(&from, copy(&from.join(&name), &to.join(&name)))?;
        }
        at(&to, synced(&to))?;
    }
    let (from, to) = (from.join("farcall.yaml"), to.join("farcall.yaml"));
    if from.is_file() && !to.exists() {
        at(&from, copy(&from, &to))?;
    }
    Ok(())
}

/// Copies a file with its permissions, onto the disk.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to)?;
    synced(to)
}

fn synced(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn private(directory: &Path) -> Result<(), BackupError> {
    at(directory, DirBuilder::new().recursive(true).mode(0o700).create(directory))
}

fn at<T>(path: &Path, done: io::Result<T>) -> Result<T, BackupError> {
    done.map_err(|error| BackupError::File { path: path.to_owned(), error })
}

fn within(directory: &Path, file: FileId) -> PathBuf {
    directory.join(file.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_keys_of_a_service_whose_database_is_elsewhere_stay() {
        let outside = tempfile::tempdir().unwrap();
        let (backup, data) = (outside.path().join("backup"), outside.path().join("data"));
        // As a service leaves it: without a database, with its keys and its lock.
        let directory = Directory::prepare(&data).unwrap();
        drop(directory.lock().unwrap());
        for (root, content) in [(&backup, "the backup's"), (&data, "the service's")] {
            fs::create_dir_all(root.join("keys")).unwrap();
            fs::write(root.join("keys/id-token.pem"), content).unwrap();
        }
        fs::write(backup.join("farcall.db"), "").unwrap();
        let refused = restore(&backup, &data, &StoreSettings::default()).await.unwrap_err();
        let key = directory.keys().join("id-token.pem");
        assert!(matches!(&refused, BackupError::Overwritten(path) if *path == key), "{refused}");
        assert_eq!(fs::read_to_string(&key).unwrap(), "the service's");
        assert!(!data.join("farcall.db").exists() && !data.join("farcall.restored").exists());

        // What a restore that failed has left is no obstacle.
        fs::write(&key, "the backup's").unwrap();
        refuse_other_keys(&backup, &data).unwrap();
    }
}
