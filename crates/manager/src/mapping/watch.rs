//! Reads the mapping file again when it changes, while the manager runs.
//!
//! A new mapping takes the place of the old one as a whole, or not at all. A file that can't be used is read once more at
//! the next look before it is refused: it may be half-written. This module never waits and starts nothing; the caller
//! calls [`Watched::changed`] every [`INTERVAL`], on a thread that may block.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::Uid;

use super::{FILE_LIMIT, Mapping, MappingError, Settings, Warning};
use crate::ownership::{Exposed, exposed};

/// How often to look for changes. An unusable file is refused at the second look, still within upstream's 5 s.
pub const INTERVAL: Duration = Duration::from_secs(2);

/// A file that changes at every look and can never be used is refused at this one.
const DOUBTS_LIMIT: u8 = 3;

/// Why a mapping file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("{}: {error}", path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("{} is no regular file", path.display())]
    NotAFile { path: PathBuf },
    #[error("{} is larger than {FILE_LIMIT} bytes", path.display())]
    TooLarge { path: PathBuf },
    #[error("{}: ({}) {error}", path.display(), error.exception())]
    Invalid { path: PathBuf, error: MappingError },
    /// Others may change the file, or a program that it names.
    #[error("{0}")]
    Exposed(Exposed),
}

impl LoadError {
    /// The exit status of a manager that can't start for this error: 72, 77 or 78 of `sysexits.h`, as upstream's.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Unreadable { error, .. } => match error.kind() {
                io::ErrorKind::NotFound => 72,
                io::ErrorKind::PermissionDenied => 77,
                _ => 78,
            },
            Self::NotAFile { .. } | Self::TooLarge { .. } | Self::Invalid { .. } => 78,
            Self::Exposed(_) => 77,
        }
    }
}

/// A mapping from a file, and what the administrator should know about it.
#[derive(Debug)]
pub struct Loaded {
    pub mapping: Mapping,
    pub warnings: Vec<Warning>,
}

/// What a look at the file found.
#[derive(Debug)]
pub enum Change {
    /// Use the new mapping from now on.
    Replaced(Loaded),
    /// Keep the old mapping.
    Refused(LoadError),
}

impl Change {
    /// What the manager's log says.
    pub fn text(&self, path: &Path) -> String {
        match self {
            Self::Replaced(_) => {
                format!(
                    "Identity mapping configuration change detected; reread and applied: {}",
                    path.display()
                )
            }
            Self::Refused(error) => format!(
                "Unable to update identity configuration -- {error}. The previous identity mapping stays in force; \
                 mend the file, and it is read again"
            ),
        }
    }
}

/// A mapping file that is watched.
#[derive(Debug)]
pub struct Watched {
    path: PathBuf,
    settings: Settings,
    seen: Sight,
    /// How often the file could not be used since something was said about it.
    doubts: u8,
}

/// What distinguishes one content of the file from another, without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sight {
    /// Device, inode, size, and the times of change of the inode and of the content, in nanoseconds.
    File(u64, u64, u64, (i64, i64), (i64, i64)),
    Error(io::ErrorKind),
}

impl Watched {
    /// Reads the file for the first time.
    pub fn open(path: &Path, settings: Settings) -> Result<(Self, Loaded), LoadError> {
        let seen = Sight::of(path);
        let loaded = load(path, &settings)?;
        Ok((Self { path: path.to_owned(), settings, seen, doubts: 0 }, loaded))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Looks at the file, and reads it if it changed. `None`: nothing new, or nothing that is certain.
    pub fn changed(&mut self) -> Option<Change> {
        let seen = Sight::of(&self.path);
        let settled = seen == self.seen;
        if settled && self.doubts == 0 {
            return None;
        }
        self.seen = seen;
        let change = load(&self.path, &self.settings);
        self.doubts = if change.is_ok() { 0 } else { self.doubts + 1 };
        match change {
            Ok(loaded) => Some(Change::Replaced(loaded)),
            Err(error) if settled || self.doubts == DOUBTS_LIMIT => {
                self.doubts = 0;
                Some(Change::Refused(error))
            }
            Err(_) => None,
        }
    }
}

impl Sight {
    fn of(path: &Path) -> Self {
        match std::fs::metadata(path) {
            Ok(it) => Self::File(
                it.dev(),
                it.ino(),
                it.size(),
                (it.ctime(), it.ctime_nsec()),
                (it.mtime(), it.mtime_nsec()),
            ),
            Err(error) => Self::Error(error.kind()),
        }
    }
}

/// Reads a mapping file. Never waits: a FIFO in its place is refused.
pub fn load(path: &Path, settings: &Settings) -> Result<Loaded, LoadError> {
    let unreadable = |error| LoadError::Unreadable { path: path.to_owned(), error };
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(LoadError::NotAFile { path: path.to_owned() });
    }
    let mut text = Vec::new();
    let limit = u64::try_from(FILE_LIMIT).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut text).map_err(unreadable)?;
    if text.len() > FILE_LIMIT {
        return Err(LoadError::TooLarge { path: path.to_owned() });
    }
    let (mapping, mut warnings) = Mapping::parse(&text, settings)
        .map_err(|error| LoadError::Invalid { path: path.to_owned(), error })?;
    let own = Uid::effective().as_raw();
    for file in std::iter::once(path).chain(mapping.programs()) {
        // A program that is missing offers nobody.
        match exposed(file, own) {
            Ok(Some(found)) if found.is_certain() => return Err(LoadError::Exposed(found)),
            Ok(Some(found)) => warnings.push(Warning::Exposed(found)),
            Ok(None) | Err(_) => {}
        }
    }
    Ok(Loaded { mapping, warnings })
}

#[cfg(test)]
mod tests;
