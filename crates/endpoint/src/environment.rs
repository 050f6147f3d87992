//! The environment variables, the command line and the program file of this process.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use manager::ownership::exposed;

/// An environment variable. One that is empty or not UTF-8 counts as absent.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// All environment variables that are UTF-8.
pub(crate) fn variables() -> Vec<(String, String)> {
    let text =
        |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    std::env::vars_os().filter_map(text).collect()
}

/// The arguments of the command line, the program's name first.
pub(crate) fn arguments() -> Vec<OsString> {
    std::env::args_os().collect()
}

/// The name that this program was called by.
pub(crate) fn called_as() -> Option<OsString> {
    std::env::args_os().next()
}

/// The path of this program's file, all links followed.
pub(crate) fn own_path() -> std::io::Result<PathBuf> {
    std::env::current_exe()
}

/// The path by which this program was started, its links not followed: a site may upgrade by moving a link. For the
/// superuser only if nobody else can change where it leads; otherwise, and if it leads elsewhere by now, [`own_path`].
pub(crate) fn path_as_started() -> std::io::Result<PathBuf> {
    let own = own_path()?;
    let Some(name) = called_as().map(PathBuf::from) else { return Ok(own) };
    let places: Vec<PathBuf> = if name.components().count() > 1 || name.has_root() {
        vec![std::env::current_dir()?]
    } else {
        std::env::var_os("PATH")
            .iter()
            .flat_map(std::env::split_paths)
            .filter(|it| it.is_absolute())
            .collect()
    };
    let found = places.into_iter().map(|place| place.join(&name)).find(|path| leads_to(path, &own));
    let trusted = |path: &PathBuf| !nix::unistd::geteuid().is_root() || matches!(exposed(path, 0), Ok(None));
    Ok(found.filter(trusted).unwrap_or(own))
}

/// Whether both paths are of the same file.
fn leads_to(path: &Path, file: &Path) -> bool {
    match (std::fs::metadata(path), std::fs::metadata(file)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}
