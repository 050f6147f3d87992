//! Who may change a file. The configuration, the mapping and its programs decide who gets which account, so nobody but root
//! and the manager's own user may change them: whoever else may is every mapped user.
//!
//! This module looks at owners and modes of the file, of all directories above it, and of the links on the way. An access
//! control list that lets others write shows in the mode as a group that may.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

/// Links in a path that are followed, as the kernel does.
const LINKS: usize = 40;

/// A file that others may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposed {
    /// The file.
    pub file: PathBuf,
    /// What others may change: the file itself, or a directory or link on the way to it.
    pub place: PathBuf,
    pub by: Others,
}

/// Who may change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    Owner(u32),
    Group(u32),
    Everybody,
}

impl Exposed {
    /// Whether it is certain that people who don't administer this machine may change it. A group may be the
    /// administrators'.
    pub fn is_certain(&self) -> bool {
        !matches!(self.by, Others::Group(_))
    }
}

impl fmt::Display for Exposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, place) = (self.file.display(), self.place.display());
        let (who, change) = match self.by {
            Others::Owner(uid) => (format!("user {uid}, the owner of '{place}',"), "chown -h root"),
            Others::Group(gid) => (format!("group {gid}, which may write '{place}',"), "chmod g-w"),
            Others::Everybody => {
                (format!("everybody, because '{place}' may be written by all,"), "chmod o-w")
            }
        };
        write!(
            f,
            "'{file}' can be changed by {who} and it decides about others' accounts; do: {change} '{place}'"
        )
    }
}

/// Whether others than root and this user may change the file, or put another in its place. A file that does not exist is
/// judged by its directories.
pub fn exposed(file: &Path, own: u32) -> io::Result<Option<Exposed>> {
    let found = |place: &Path, by| Ok(Some(Exposed { file: file.to_owned(), place: place.to_owned(), by }));
    let mut place = PathBuf::from("/");
    let mut rest: VecDeque<OsString> = std::path::absolute(file)?.components().filter_map(part).collect();
    let mut links = 0;
    if let Some(by) = others(&place.metadata()?, own) {
        return found(&place, by);
    }
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            place.pop();
            continue;
        }
        let next = place.join(name);
        let data = match next.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        if let Some(by) = others(&data, own) {
            return found(&next, by);
        }
        if !data.is_symlink() {
            place = next;
            continue;
        }
        links += 1;
        if links > LINKS {
            return Err(io::Error::from_raw_os_error(libc::ELOOP));
        }
        let target = next.read_link()?;
        if target.is_absolute() {
            place = PathBuf::from("/");
        }
        for part in target.components().filter_map(part).rev() {
            rest.push_front(part);
        }
    }
    Ok(None)
}

fn part(component: Component<'_>) -> Option<OsString> {
    match component {
        Component::Normal(_) | Component::ParentDir => Some(component.as_os_str().to_owned()),
        _ => None,
    }
}

/// Who else may change what has this owner and mode.
fn others(data: &Metadata, own: u32) -> Option<Others> {
    let mode = data.mode();
    if data.uid() != 0 && data.uid() != own {
        return Some(Others::Owner(data.uid()));
    }
    // In a directory with the sticky bit, everybody may add names, and only owners change them. A link has no mode.
    if data.is_symlink() || data.is_dir() && mode & libc::S_ISVTX != 0 {
        return None;
    }
    if mode & libc::S_IWOTH != 0 {
        return Some(Others::Everybody);
    }
    (mode & libc::S_IWGRP != 0 && data.gid() != 0).then_some(Others::Group(data.gid()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, chown, lchown, symlink};

    use nix::unistd::Uid;

    use super::*;

    const STRANGER: u32 = 54_321;

    /// A file in a directory below `place`.
    fn file(place: &Path, name: &str) -> PathBuf {
        let directory = place.join(name);
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
        let path = directory.join("mapping.json");
        fs::write(&path, "[]").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        path
    }

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn by(path: &Path, own: u32) -> Option<(PathBuf, Others)> {
        exposed(path, own).unwrap().map(|it| (it.place, it.by))
    }

    #[test]
    fn who_may_write() {
        let scratch = tempfile::tempdir().unwrap();
        let own = Uid::effective().as_raw();
        let path = file(scratch.path(), "own");
        let directory = path.parent().unwrap().to_owned();
        assert_eq!(by(&path, own), None);
        assert_eq!(by(&directory.join("missing"), own), None);
        mode(&path, 0o666);
        assert_eq!(by(&path, own), Some((path.clone(), Others::Everybody)));
        mode(&path, 0o600);
        mode(&directory, 0o777);
        assert_eq!(by(&path, own), Some((directory.clone(), Others::Everybody)));
        assert_eq!(by(&directory.join("missing"), own), Some((directory.clone(), Others::Everybody)));
        mode(&directory, 0o1777);
        assert_eq!(by(&path, own), None, "the sticky bit");
        // By links, also relative ones, and `..`.
        mode(&directory, 0o777);
        let other = file(scratch.path(), "other");
        let link = other.with_file_name("link");
        symlink("../own/mapping.json", &link).unwrap();
        assert_eq!(by(&link, own), Some((directory.clone(), Others::Everybody)));
        let roundabout = other.parent().unwrap().join("../own/mapping.json");
        assert_eq!(by(&roundabout, own), Some((directory, Others::Everybody)));
        let circle = other.with_file_name("circle");
        symlink("circle", &circle).unwrap();
        assert_eq!(exposed(&circle, own).unwrap_err().raw_os_error(), Some(libc::ELOOP));
    }

    #[test]
    fn other_owners_and_groups() {
        if !Uid::effective().is_root() {
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let path = file(scratch.path(), "own");
        let directory = path.parent().unwrap().to_owned();
        chown(&path, Some(STRANGER), None).unwrap();
        assert_eq!(by(&path, 0), Some((path.clone(), Others::Owner(STRANGER))));
        assert_eq!(by(&path, STRANGER), None, "the manager's own user");
        chown(&path, Some(0), Some(STRANGER)).unwrap();
        mode(&path, 0o664);
        let found = exposed(&path, 0).unwrap().unwrap();
        assert_eq!(found.by, Others::Group(STRANGER));
        assert!(!found.is_certain());
        chown(&path, Some(0), Some(0)).unwrap();
        assert_eq!(by(&path, 0), None, "root's group");
        chown(&directory, Some(STRANGER), None).unwrap();
        let found = exposed(&path, 0).unwrap().unwrap();
        assert!(found.is_certain());
        assert_eq!(
            found.to_string(),
            format!(
                "'{}' can be changed by user {STRANGER}, the owner of '{1}', and it decides about others' accounts; do: \
                 chown -h root '{1}'",
                path.display(),
                directory.display()
            )
        );
        chown(&directory, Some(0), None).unwrap();
        // A link that somebody put into a directory where everybody may put names.
        mode(&directory, 0o1777);
        let link = directory.join("link");
        symlink(&path, &link).unwrap();
        assert_eq!(by(&link, 0), None);
        lchown(&link, Some(STRANGER), None).unwrap();
        assert_eq!(by(&link, 0), Some((link, Others::Owner(STRANGER))));
    }
}
