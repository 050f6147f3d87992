//! Installs the worker's Python on disk, in a directory for each version.
//!
//! A running worker imports some modules late, so its files must stay unchanged when another version is installed. A
//! later start removes versions that are not used any more.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::worker::{FILES, PACKAGE};

/// How long a superseded version is kept. No older run of the endpoint lasts so long after the next start.
const KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A marker file in the directory of a version, written by the first start of another one.
const SUPERSEDED: &str = "superseded";

/// Puts the worker's Python below `root`, for every node of this run, and returns the directory that holds the package.
pub(crate) fn install(root: &Path) -> io::Result<PathBuf> {
    install_files(root, &FILES)
}

fn install_files(root: &Path, files: &[(&str, &str)]) -> io::Result<PathBuf> {
    let version = version(files);
    let library = root.join(&version);
    let package = library.join(PACKAGE);
    fs::create_dir_all(&package)?;
    for (name, source) in files {
        let path = package.join(name);
        // An equal file is not written again: its cached byte code stays valid.
        if fs::read(&path).is_ok_and(|present| present == source.as_bytes()) {
            continue;
        }
        // A worker that reads the file never sees half of it.
        let half = package.join(format!("{name}.{}", std::process::id()));
        fs::write(&half, source)?;
        fs::rename(&half, &path)?;
    }
    let _ = fs::remove_file(library.join(SUPERSEDED)); // most often there is none
    for entry in fs::read_dir(root)?.flatten().filter(|entry| entry.file_name() != version.as_str()) {
        let _ = retire(&entry.path(), KEPT); // the next start tries again
    }
    Ok(library)
}

fn version(files: &[(&str, &str)]) -> String {
    let mut hasher = DefaultHasher::new();
    files.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Marks another version as superseded, and removes it when it has been for longer than `kept`.
fn retire(library: &Path, kept: Duration) -> io::Result<()> {
    let mark = library.join(SUPERSEDED);
    match fs::metadata(&mark) {
        // Both times are the file system's.
        Ok(marked) => {
            let now = library.join("now");
            fs::write(&now, "")?;
            let age = fs::metadata(&now)?.modified()?.duration_since(marked.modified()?).unwrap_or_default();
            if age > kept { fs::remove_dir_all(library) } else { fs::remove_file(now) }
        }
        Err(_) => fs::write(&mark, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: [(&str, &str); 1] = [("__init__.py", "old")];
    const NEW: [(&str, &str); 1] = [("__init__.py", "new")];

    fn text(library: &Path) -> String {
        fs::read_to_string(library.join(PACKAGE).join("__init__.py")).unwrap()
    }

    #[test]
    fn another_version_leaves_the_files_of_running_workers_alone() {
        let root = tempfile::tempdir().unwrap();
        let old = install_files(root.path(), &OLD).unwrap();
        let new = install_files(root.path(), &NEW).unwrap();
        assert_ne!(old, new);
        assert_eq!((text(&old).as_str(), text(&new).as_str()), ("old", "new"));
        assert_eq!(install_files(root.path(), &NEW).unwrap(), new, "the same files, the same directory");
        let names: Vec<_> =
            fs::read_dir(new.join(PACKAGE)).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(names, ["__init__.py"]);
    }

    #[test]
    fn a_version_goes_when_it_has_been_superseded_for_long() {
        let root = tempfile::tempdir().unwrap();
        let old = install_files(root.path(), &OLD).unwrap();
        // As it lay before there were versions.
        let unversioned = root.path().join("farcall_worker");
        fs::create_dir(&unversioned).unwrap();
        let new = install_files(root.path(), &NEW).unwrap();
        install_files(root.path(), &NEW).unwrap();
        assert!(old.exists() && unversioned.exists(), "just superseded");
        let long_ago = fs::File::options().write(true).open(old.join(SUPERSEDED)).unwrap();
        let mark = fs::metadata(old.join(SUPERSEDED)).unwrap().modified().unwrap();
        long_ago.set_modified(mark - 2 * KEPT).unwrap();
        install_files(root.path(), &NEW).unwrap();
        assert!(!old.exists() && unversioned.exists());
        let old = install_files(root.path(), &OLD).unwrap();
        assert!(
            new.join(SUPERSEDED).exists() && !old.join(SUPERSEDED).exists(),
            "what is used again is not old"
        );
        assert_eq!(text(&new), "new");
    }
}
