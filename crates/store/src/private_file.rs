//! Files that only their owner may read.

use std::fs::{OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Writes a file that only its owner reads, whole or not at all.
pub fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(content)?;
    // Before it takes its name: else a machine that stops in between leaves an empty file of that name.
    file.sync_all()?;
    std::fs::rename(&unfinished, path)
}

/// Restricts a database file and SQLite's files beside it to their owner. Files that SQLite makes later get the same mode.
pub fn restrict_database(file: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(file)?;
    for beside in ["", "-wal", "-shm"] {
        let mut path = file.as_os_str().to_owned();
        path.push(beside);
        match std::fs::set_permissions(&path, Permissions::from_mode(0o600)) {
            // Somebody else's, who lets us write it, is theirs to close.
            Err(error) if ![ErrorKind::NotFound, ErrorKind::PermissionDenied].contains(&error.kind()) => {
                return Err(error);
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_whole_or_not_at_all() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("it.json");
        write(&path, b"a long first content").unwrap();
        write(&path, b"second").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1, "nothing unfinished is left");
        std::fs::create_dir(path.with_extension("new")).unwrap();
        assert!(write(&path, b"third").is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
    }
}
