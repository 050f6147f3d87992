//! Who may change a file. The configuration, the mapping and its programs decide who gets which account, so nobody but root
//! and the manager's own user may change them: whoever else may is every mapped user.
//!
//! This module looks at owners, modes and access control lists of the file, of all directories above it, and of the links on
//! the way.

mod access_list;
mod finding;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use nix::sys::statvfs::{FsFlags, statvfs};

use self::access_list::Writer;
use self::finding::Doubt;
pub use self::finding::{Exposed, Others};

/// Links in a path that are followed, as the kernel does.
const LINKS: usize = 40;

/// Whether others than root and this user may change the file, or put another in its place. A file that does not exist is
/// judged by its directories. What is certain is told before what is not.
pub fn exposed(file: &Path, own: u32) -> io::Result<Option<Exposed>> {
    let mut doubtful = None;
    match certainly_exposed(file, own, &mut doubtful) {
        Ok(Some(found)) => Ok(Some(found)),
        other => doubtful.map_or(other, |found| Ok(Some(found))),
    }
}

/// The first place where others may certainly change the file; the first where they perhaps may is put into `doubtful`.
fn certainly_exposed(file: &Path, own: u32, doubtful: &mut Option<Exposed>) -> io::Result<Option<Exposed>> {
    let mut is_certain = |place: &Path, data: &Metadata| {
        let found = look(file, place, data, own)?;
        if found.is_certain() {
            return Some(found);
        }
        doubtful.get_or_insert(found);
        None
    };
    let mut place = PathBuf::from("/");
    let mut rest: VecDeque<OsString> = std::path::absolute(file)?.components().filter_map(part).collect();
    let mut links = 0;
    if let Some(found) = is_certain(&place, &place.metadata()?) {
        return Ok(Some(found));
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
        if let Some(found) = is_certain(&next, &data) {
            return Ok(Some(found));
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

/// Whether others may change this place, which is on the way to the file.
fn look(file: &Path, place: &Path, data: &Metadata, own: u32) -> Option<Exposed> {
    let by = others(place, data, own)?;
    let is_read_only =
        || !data.is_symlink() && statvfs(place).is_ok_and(|it| it.flags().contains(FsFlags::ST_RDONLY));
    let doubt = match by {
        Others::Owner(uid) | Others::User(uid) if is_unmapped(uid) => Some(Doubt::Unmapped),
        // Not of a user: what one user owns here is likely to be mounted writable elsewhere.
        Others::Everybody | Others::Group(_) if is_read_only() => Some(Doubt::ReadOnly),
        _ => None,
    };
    let is_directory = data.is_dir();
    Some(Exposed { file: file.to_owned(), place: place.to_owned(), is_directory, by, doubt })
}

/// Who else may change what has this owner, mode and access control list.
fn others(place: &Path, data: &Metadata, own: u32) -> Option<Others> {
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
    if mode & libc::S_IWGRP == 0 {
        return None;
    }
    // With a list, the group's part of the mode is the list's mask: what anybody whom the list names may do at most.
    let writers = match access_list::writers(place) {
        Ok(writers) => writers.unwrap_or_else(|| vec![Writer::OwningGroup]),
        // There may be a list, and nobody knows whom it names.
        Err(_) => return Some(Others::Group(data.gid())),
    };
    let user = writers.iter().find_map(|writer| match writer {
        Writer::User(uid) if *uid != 0 && *uid != own => Some(Others::User(*uid)),
        _ => None,
    });
    let groups = writers.iter().filter_map(|writer| match writer {
        Writer::User(_) => None,
        Writer::Group(gid) => Some(*gid),
        Writer::OwningGroup => Some(data.gid()),
    });
    user.or_else(|| groups.filter(|gid| *gid != 0).map(Others::Group).next())
}

/// Whether the user of this number may be one who has none in this process's user namespace.
fn is_unmapped(uid: u32) -> bool {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    stands_for_unmapped(uid, &read("/proc/self/uid_map"), &read("/proc/sys/kernel/overflowuid"))
}

/// The same, by the namespace's map and the number that stands for users without one.
fn stands_for_unmapped(uid: u32, map: &str, overflow: &str) -> bool {
    let counts = map.lines().map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok());
    // A map that can't be read is that of all users: then nobody is excused.
    let mapped = counts.sum::<Option<u64>>().filter(|mapped| *mapped > 0);
    mapped.is_some_and(|mapped| mapped < u64::from(u32::MAX)) && overflow.trim().parse() == Ok(uid)
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
        let found = exposed(&path, 0).unwrap().unwrap();
        assert_eq!((&found.place, found.by), (&path, Others::Owner(STRANGER)));
        assert!(found.to_string().ends_with(&format!("; do: chown -h root '{}'", path.display())), "{found}");
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
                "'{}' decides about others' accounts, and can be changed by user {STRANGER}, the owner of '{}'; do: keep it \
                 where only root may write, such as below /etc or /root",
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

    #[test]
    fn what_is_certain_is_told_before_what_is_not() {
        if !Uid::effective().is_root() {
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let path = file(scratch.path(), "own");
        let directory = path.parent().unwrap().to_owned();
        chown(&directory, None, Some(STRANGER)).unwrap();
        mode(&directory, 0o775);
        assert_eq!(by(&path, 0), Some((directory.clone(), Others::Group(STRANGER))));
        let missing = directory.join("missing");
        assert_eq!(by(&missing, 0), Some((directory, Others::Group(STRANGER))));
        mode(&path, 0o646);
        assert_eq!(by(&path, 0), Some((path.clone(), Others::Everybody)));
    }

    #[test]
    fn access_control_lists() {
        const ALL: u32 = u32::MAX;
        let scratch = tempfile::tempdir().unwrap();
        let own = Uid::effective().as_raw();
        let path = file(scratch.path(), "own");
        let directory = path.parent().unwrap().to_owned();
        if Uid::effective().is_root() {
            chown(&path, Some(0), Some(0)).unwrap();
            chown(&directory, Some(0), Some(0)).unwrap();
        }
        let list = |path: &Path, further: (u16, u16, u32), mask: u16| {
            // Of owner, owning group and everybody, the last entry.
            let mut entries =
                vec![(0x01, 7, ALL), (0x04, 5, ALL), further, (0x10, mask, ALL), (0x20, 5, ALL)];
            entries.sort_by_key(|entry| entry.0);
            access_list::set(path, &entries)
        };
        if !list(&path, (0x02, 6, STRANGER), 7) {
            return;
        }
        let found = exposed(&path, own).unwrap().unwrap();
        assert_eq!((&found.place, found.by), (&path, Others::User(STRANGER)));
        assert!(found.is_certain());
        assert!(found.to_string().ends_with(&format!("; do: setfacl -x u:{STRANGER} '{}'", path.display())));
        for (entry, mask, expected) in [
            ((0x02, 6, STRANGER), 5, None),
            ((0x02, 5, STRANGER), 7, None),
            ((0x02, 7, own), 7, None),
            ((0x02, 7, 0), 7, None),
            ((0x08, 7, 0), 7, None),
            ((0x08, 7, STRANGER), 7, Some(Others::Group(STRANGER))),
        ] {
            assert!(list(&path, entry, mask));
            assert_eq!(by(&path, own).map(|it| it.1), expected, "{entry:?} {mask}");
        }
        assert!(list(&directory, (0x02, 7, STRANGER), 7));
        assert_eq!(by(&path, own), Some((directory, Others::User(STRANGER))));
    }

    #[test]
    fn a_file_system_that_is_mounted_read_only_leaves_a_doubt() {
        let scratch = tempfile::tempdir().unwrap();
        // Of this thread alone, which ends with the test. Not everybody may have one.
        if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).is_err() {
            return;
        }
        let mount = |words: &[&str]| {
            std::process::Command::new("mount").args(words).stderr(std::process::Stdio::null()).status()
        };
        let is_mounted = |words: &[&str]| mount(words).is_ok_and(|status| status.success());
        let place = scratch.path().to_str().unwrap();
        if !is_mounted(&["--make-rprivate", "/"])
            || !is_mounted(&["-t", "tmpfs", "-o", "mode=0777", "none", place])
        {
            return;
        }
        let path = scratch.path().join("config.yaml");
        fs::write(&path, "").unwrap();
        mode(&path, 0o644);
        assert!(exposed(&path, 0).unwrap().unwrap().is_certain());
        assert!(is_mounted(&["-o", "remount,ro", place]));
        let found = exposed(&path, 0).unwrap().unwrap();
        assert_eq!((found.by, found.is_certain()), (Others::Everybody, false));
        let text = found.to_string();
        assert!(
            text.contains("; its file system is mounted read-only here") && !text.contains("chmod"),
            "{text}"
        );
    }

    #[test]
    fn users_without_a_number_in_this_namespace() {
        let rootless = "0 1000 1\n1 100000 65536\n";
        for (uid, map, is_unmapped) in [
            (65534, rootless, true),
            (1000, rootless, false),
            (65534, "         0          0 4294967295\n", false),
            (65534, "", false),
            (65534, "nonsense\n", false),
        ] {
            assert_eq!(stands_for_unmapped(uid, map, "65534\n"), is_unmapped, "{uid} {map}");
        }
        let found = |doubt| Exposed {
            file: "/etc/config.yaml".into(),
            place: "/etc".into(),
            is_directory: true,
            by: Others::Owner(65534),
            doubt,
        };
        assert!(found(None).is_certain() && !found(Some(Doubt::Unmapped)).is_certain());
        assert!(!found(Some(Doubt::Unmapped)).to_string().contains("do:"));
    }
}
