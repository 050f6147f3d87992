//! The environment variables, the command line and the program file of this process.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use manager::ownership::exposed;

use crate::host;

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

/// The path by which this program was started, its links not followed: a site may upgrade by moving a link. For whoever may
/// become other users only if nobody else can change where it leads; otherwise, and if it leads elsewhere by now,
/// [`own_path`]. A background process is told by what path the one before it was started.
pub(crate) fn path_as_started(told: Option<&Path>) -> std::io::Result<PathBuf> {
    let own = own_path()?;
    let called = || called_as().map(PathBuf::from);
    let Some(name) = told.map(Path::to_owned).or_else(called) else { return Ok(own) };
    let places: Vec<PathBuf> = if name.components().count() > 1 || name.has_root() {
        vec![std::env::current_dir()?]
    } else {
        std::env::var_os("PATH")
            .iter()
            .flat_map(std::env::split_paths)
            .filter(|it| it.is_absolute())
            .collect()
    };
    Ok(started_as(&name, &places, &own, host::changes_user()).unwrap_or(own))
}

/// The path below one of these places that leads to this program, if it can be relied on.
fn started_as(name: &Path, places: &[PathBuf], own: &Path, changes_user: bool) -> Option<PathBuf> {
    let found = places.iter().map(|place| place.join(name)).find(|path| leads_to(path, own))?;
    let is_reliable = !changes_user || matches!(exposed(&found, nix::unistd::geteuid().as_raw()), Ok(None));
    is_reliable.then_some(found)
}

/// Whether both paths are of the same file.
fn leads_to(path: &Path, file: &Path) -> bool {
    match (std::fs::metadata(path), std::fs::metadata(file)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_path_through_links_counts_if_it_leads_here_and_others_cannot_change_it() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        for (directory, mode) in [("1", 0o755), ("links", 0o755), ("open", 0o777)] {
            fs::create_dir(at(directory)).unwrap();
            fs::set_permissions(at(directory), fs::Permissions::from_mode(mode)).unwrap();
            symlink("../1", at(directory).join("current")).unwrap();
        }
        let own = at("1/program");
        fs::write(&own, "").unwrap();
        fs::set_permissions(&own, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(at("program"), "another").unwrap();
        let program = Path::new("program");
        let through = |place: &str| started_as(program, &[at(place)], &own, true);
        assert_eq!(through("1"), Some(own.clone()));
        assert_eq!(through("links/current"), Some(at("links/current/program")));
        assert_eq!(through("open/current"), None, "whoever may write there could become other users");
        let of_one_user = started_as(program, &[at("open/current")], &own, false);
        assert_eq!(of_one_user, Some(at("open/current/program")));
        assert_eq!(through("."), None, "another program of this name");
        // As in PATH: the first one that leads here.
        let places = [at("missing"), at("."), at("links/current"), at("1")];
        assert_eq!(started_as(program, &places, &own, true), Some(at("links/current/program")));
        assert_eq!(started_as(&own, &[at(".")], &own, true), Some(own.clone()), "an absolute one");
    }
}
