//! The data directory: its files, its permissions, and the lock of the process that uses it.
//!
//! ```text
//! DIR/  0700
//!   farcall.yaml     configuration, the operator's; may be absent
//!   farcall.db       the store, unless store.url names a PostgreSQL database
//!   database         which of the two the service used last, without secrets
//!   payloads/        large payloads, beside the store
//!   keys/            the key that signs id tokens
//!   tls/             certificates
//!   lock             held while a process uses the store
//!   admin.sock       administration, while the service runs
//!   addresses.json   where the running service listens
//! ```

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    #[error("cannot use {path}: {error}")]
    File { path: PathBuf, error: io::Error },
    #[error("{0} is in use by another farcall: stop it first, or give this one a data directory of its own")]
    InUse(PathBuf),
    #[error("{path} is not the data directory of a service: {why}. {ANOTHER}")]
    NotThere { path: PathBuf, why: &'static str },
    #[error("{found}: {}", .found.remedy())]
    DatabaseElsewhere { found: DatabaseElsewhere },
}

/// The service used PostgreSQL last, and the settings name no database there.
#[derive(Debug, thiserror::Error)]
#[error(
    "the service of {root} keeps its data in PostgreSQL ({address}), and neither store.url in farcall.yaml nor FARCALL_STORE__URL \
     is set"
)]
pub struct DatabaseElsewhere {
    pub root: PathBuf,
    /// The file that says so.
    pub record: PathBuf,
    pub address: String,
}

impl DatabaseElsewhere {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        format!(
            "set FARCALL_STORE__URL as the service's unit does. To go back to farcall.db, copy the data with \
             `farcall store copy --to sqlite`; to begin with an empty one, delete {}",
            self.record.display()
        )
    }
}

/// What the user can do if a directory holds no service's data.
const ANOTHER: &str = "Name the service's directory with --data-dir DIR or in FARCALL_DATA_DIR; `farcall serve` makes a new one";

/// A data directory that exists, readable by its owner only.
#[derive(Clone, Debug)]
pub struct Directory {
    root: PathBuf,
}

/// The lock of a data directory. While it is held, no other process uses the store.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Directory {
    /// Creates `root` and its directories where they are missing.
    pub fn prepare(root: &Path) -> Result<Directory, DirectoryError> {
        let make = |path: PathBuf| {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .and_then(|()| std::fs::set_permissions(&path, Permissions::from_mode(0o700)))
                .map(|()| path.clone())
                .map_err(|error| DirectoryError::File { path, error })
        };
        let root = make(root.to_owned())?;
        let root =
            std::fs::canonicalize(&root).map_err(|error| DirectoryError::File { path: root, error })?;
        for inner in ["payloads", "keys", "tls"] {
            make(root.join(inner))?;
        }
        Ok(Directory { root })
    }

    /// Opens `root`, which a service must have used before. Creates nothing.
    pub fn open(root: &Path) -> Result<Directory, DirectoryError> {
        let root = existing(root)?;
        let directory = Directory { root };
        // A service whose database is elsewhere leaves its lock; a restored backup has had no service yet.
        for mark in [directory.database(), directory.root.join("lock")] {
            match mark.try_exists() {
                Ok(true) => return Ok(directory),
                Ok(false) => {}
                Err(error) => return Err(DirectoryError::File { path: mark, error }),
            }
        }
        Err(DirectoryError::NotThere { path: directory.root, why: "it has no farcall.db" })
    }

    /// Takes the lock. Fails if another process has it.
    pub fn lock(&self) -> Result<Lock, DirectoryError> {
        let path = self.root.join("lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| DirectoryError::File { path: path.clone(), error })?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(DirectoryError::InUse(self.root.clone())),
            Err(TryLockError::Error(error)) => Err(DirectoryError::File { path, error }),
        }
    }

    /// Whether a process holds the lock of the directory in `root`.
    pub fn is_held(root: &Path) -> bool {
        let Ok(file) = File::open(root.join("lock")) else { return false };
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn configuration(&self) -> PathBuf {
        self.root.join("farcall.yaml")
    }

    pub fn database(&self) -> PathBuf {
        self.root.join("farcall.db")
    }

    pub fn payloads(&self) -> PathBuf {
        self.root.join("payloads")
    }

    pub fn keys(&self) -> PathBuf {
        self.root.join("keys")
    }

    pub fn admin_socket(&self) -> PathBuf {
        self.root.join("admin.sock")
    }

    pub fn addresses(&self) -> PathBuf {
        self.root.join("addresses.json")
    }
}

/// `root` in full, if it is a directory: a service may not have used it yet.
pub fn existing(root: &Path) -> Result<PathBuf, DirectoryError> {
    let refused = |error| DirectoryError::File { path: root.to_owned(), error };
    let path = std::path::absolute(root).map_err(refused)?;
    match std::fs::metadata(&path) {
        Ok(known) if known.is_dir() => std::fs::canonicalize(&path).map_err(refused),
        Ok(_) => Err(DirectoryError::NotThere { path, why: "it is no directory" }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(DirectoryError::NotThere { path, why: "it does not exist" })
        }
        Err(error) => Err(DirectoryError::File { path, error }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_private_and_held_by_one() {
        let outside = tempfile::tempdir().unwrap();
        let root = outside.path().join("data");
        let directory = Directory::prepare(&root).unwrap();
        for path in [root.clone(), directory.keys(), root.join("payloads"), root.join("tls")] {
            assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o700);
        }
        let held = directory.lock().unwrap();
        assert!(matches!(directory.lock(), Err(DirectoryError::InUse(_))));
        assert!(Directory::is_held(&root));
        drop(held);
        assert!(!Directory::is_held(&root));
        directory.lock().unwrap();
    }

    #[test]
    fn only_what_a_service_has_used_is_opened_and_nothing_is_made() {
        let outside = tempfile::tempdir().unwrap();
        let (none, empty, file) =
            (outside.path().join("none"), outside.path().join("empty"), outside.path().join("file"));
        std::fs::create_dir(&empty).unwrap();
        std::fs::write(&file, "").unwrap();
        for (root, why) in
            [(&none, "it does not exist"), (&empty, "it has no farcall.db"), (&file, "it is no directory")]
        {
            let refused = Directory::open(root).unwrap_err().to_string();
            let named = format!("{} is not the data directory of a service: {why}. ", root.display());
            assert!(refused.starts_with(&named), "{refused}");
            assert!(refused.contains("--data-dir DIR or in FARCALL_DATA_DIR"), "{refused}");
        }
        assert!(!none.exists() && std::fs::read_dir(&empty).unwrap().count() == 0);
        existing(&empty).unwrap();
        let made = Directory::prepare(&none).unwrap();
        std::fs::write(made.database(), "").unwrap();
        assert_eq!(Directory::open(&none).unwrap().root(), made.root());
    }

    #[test]
    fn a_directory_that_was_open_to_others_is_closed() {
        let root = tempfile::tempdir().unwrap();
        std::fs::set_permissions(root.path(), Permissions::from_mode(0o755)).unwrap();
        Directory::prepare(root.path()).unwrap();
        assert_eq!(std::fs::metadata(root.path()).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
