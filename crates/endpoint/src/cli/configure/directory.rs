//! Creates an endpoint's directory and its files, all or nothing. Permissions do not depend on the umask.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::console::say;
use crate::directory::{Base, EndpointDir, unwritable};
use crate::exit::{CommandResult, Failure};

/// The directory of an endpoint that only its owner reads.
pub(super) const PRIVATE: u32 = 0o700;
/// The directory of a manager: its users may reach the files that they may read.
pub(super) const REACHABLE: u32 = 0o711;

/// A file to write.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    text: String,
    mode: u32,
}

/// A file that only its owner may read.
pub(super) fn private(path: &Path, text: &str) -> File {
    File { path: path.to_owned(), text: text.to_owned(), mode: 0o600 }
}

/// A file that everybody may read.
pub(super) fn readable(path: &Path, text: &str) -> File {
    File { path: path.to_owned(), text: text.to_owned(), mode: 0o644 }
}

/// Creates the directory with these files. An existing one is refused and left as it is.
pub(super) fn make(base: &Base, endpoint: &EndpointDir, mode: u32, files: &[File]) -> CommandResult {
    base.create().map_err(|error| unwritable(endpoint.path(), &error))?;
    if !endpoint.create().map_err(|error| unwritable(endpoint.path(), &error))? {
        say(format_args!("{}", endpoint.path().display()));
        say(format_args!("config dir <{}> already exists", endpoint.name()));
        return Err(Failure::error("ConfigExists"));
    }
    let written = files
        .iter()
        .try_for_each(|file| write(file).map_err(|error| unwritable(&file.path, &error)))
        .and_then(|()| set_mode(endpoint.path(), mode).map_err(|error| unwritable(endpoint.path(), &error)));
    if written.is_err() {
        // The first failure is the one to report.
        let _ = fs::remove_dir_all(endpoint.path());
    }
    written
}

fn write(file: &File) -> io::Result<()> {
    let mut open = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file.path)?;
    open.write_all(file.text.as_bytes())?;
    open.set_permissions(fs::Permissions::from_mode(file.mode))
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}
