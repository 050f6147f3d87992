//! A temporary directory for a node that does not see the endpoint's files.
//!
//! The node removes it at its end. A killed node can't, so the next node on the machine does: each node holds a lock
//! on its directory, which the system releases with the process. A directory without a lock is abandoned.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg, OFlag};

const PREFIX: &str = "farcall-node-";

/// Another node that cleans up may lock or remove the directory between its creation and its locking.
const TRIES: u32 = 1000;
const BETWEEN_TRIES: Duration = Duration::from_millis(1);

pub(super) fn path(uid: &str) -> PathBuf {
    std::env::temp_dir().join(format!("{PREFIX}{uid}"))
}

/// Removes the directories of killed nodes of this user on this machine.
pub(crate) fn remove_abandoned() {
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with(PREFIX)
            && let Some(held) = lock(&path)
            // Its node may have removed it since it was opened, and another may have created one of the same name.
            && is_named(&held, &path)
        {
            let _ = fs::remove_dir_all(&path); // what can't be removed is the machine's to clean
        }
    }
}

/// Locks one of this user's directories, if nobody has.
fn lock(path: &Path) -> Option<Flock<File>> {
    let flags = (OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW).bits();
    let directory = File::options().read(true).custom_flags(flags).open(path).ok()?;
    let ours = directory.metadata().is_ok_and(|it| it.uid() == nix::unistd::geteuid().as_raw());
    Flock::lock(directory, FlockArg::LockExclusiveNonblock).ok().filter(|_| ours)
}

/// Whether `path` still names the locked directory. Only who has locked a directory removes it.
fn is_named(held: &File, path: &Path) -> bool {
    let inode = held.metadata().ok().map(|it| it.ino());
    fs::symlink_metadata(path).is_ok_and(|it| Some(it.ino()) == inode)
}

pub(super) struct NodeDirectory {
    path: PathBuf,
    _lock: Flock<File>,
}

impl NodeDirectory {
    pub(super) fn create(path: PathBuf) -> io::Result<Self> {
        for _ in 0..TRIES {
            match DirBuilder::new().mode(0o700).create(&path) {
                // Left by an earlier try, while another node had locked it.
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            if let Some(held) = lock(&path)
                && is_named(&held, &path)
            {
                return Ok(Self { path, _lock: held });
            }
            std::thread::sleep(BETWEEN_TRIES);
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }
}

impl Drop for NodeDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path); // what can't be removed is the machine's to clean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directories_without_a_lock_are_removed() {
        let path = |name: &str| super::path(&format!("test-{name}-{}", std::process::id()));
        let held = NodeDirectory::create(path("held")).unwrap();
        fs::write(held.path.join("log"), "words").unwrap();
        let abandoned = path("abandoned");
        fs::create_dir(&abandoned).unwrap();
        fs::write(abandoned.join("log"), "words").unwrap();
        let link = path("link");
        std::os::unix::fs::symlink("/", &link).unwrap();
        remove_abandoned();
        assert!(held.path.join("log").exists());
        // Another test's node may be at it.
        while abandoned.exists() {
            std::thread::yield_now();
            remove_abandoned();
        }
        fs::remove_file(link).unwrap();
        let path = held.path.clone();
        drop(held);
        assert!(!path.exists());
    }

    #[test]
    fn creating_and_removing_directories_at_the_same_time_is_safe() {
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || {
                    for _ in 0..50 {
                        let uid = format!("race-{thread}-{}", std::process::id());
                        let own = NodeDirectory::create(super::path(&uid)).unwrap();
                        fs::write(own.path.join("log"), "words").unwrap();
                        remove_abandoned();
                        assert!(own.path.join("log").exists());
                    }
                });
            }
        });
    }
}
