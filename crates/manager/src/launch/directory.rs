//! The user endpoint's directory and log, below the user's home.
//!
//! Called after privileges are dropped: whatever stands in the way (a symbolic link, a FIFO, a file, another's directory)
//! is followed or refused with the user's own rights, and nothing here waits for it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::stage::{Failure, Problem, Stage};

/// Where endpoints' directories are, if the environment doesn't name another place.
const BELOW_HOME: &str = ".globus_compute";
const PLACE_VARIABLE: &str = "GLOBUS_COMPUTE_USER_DIR";

/// Creates the directory, and those above it that are missing, for the user alone.
pub(super) fn create(
    environment: &std::collections::BTreeMap<String, String>,
    name: &str,
) -> Result<PathBuf, Failure> {
    let fail = |problem: Problem| problem.at(Stage::Render);
    // The manager has checked the name. A second check costs nothing.
    if !matches!(Path::new(name).components().collect::<Vec<_>>()[..], [Component::Normal(only)] if only == name)
    {
        return Err(fail(Problem::new("ValueError", format!("'{name}' is not the name of a directory"))));
    }
    let place = match environment.get(PLACE_VARIABLE).filter(|place| !place.is_empty()) {
        Some(place) => PathBuf::from(place),
        None => Path::new(environment.get("HOME").map_or("", String::as_str)).join(BELOW_HOME),
    };
    if !place.is_absolute() {
        let text = "[Errno 2] No such file or directory: the account has no home directory, so a user endpoint has no place \
                    for its files; the administrator must give the account one, or name another place in \
                    GLOBUS_COMPUTE_USER_DIR of user_environment.yaml";
        return Err(fail(Problem::new("FileNotFoundError", text)));
    }
    let directory = place.join(name);
    create_with_parents(&directory).map_err(|(path, error)| fail(Problem::io(&error, Some(&path))))?;
    Ok(directory)
}

/// As Python's `mkdir(parents=True, exist_ok=True)`: the error names the path that could not be created.
fn create_with_parents(path: &Path) -> Result<(), (PathBuf, io::Error)> {
    let make = || DirBuilder::new().mode(0o700).create(path);
    let error = match make() {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    match (error.kind(), path.parent()) {
        (io::ErrorKind::NotFound, Some(parent)) => {
            create_with_parents(parent)?;
            make()
                .or_else(|error| if path.is_dir() { Ok(()) } else { Err(error) })
                .map_err(|error| (path.to_owned(), error))
        }
        _ if path.is_dir() => Ok(()),
        _ => Err((path.to_owned(), error)),
    }
}

/// Opens `endpoint.log` to append to it.
pub(super) fn open_log(directory: &Path) -> Result<File, Failure> {
    let path = directory.join("endpoint.log");
    let fail = |error: io::Error| Problem::io(&error, Some(&path)).at(Stage::Log);
    // Without waiting: opening a FIFO for writing waits for a reader.
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let log = OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(flags.bits()).open(&path);
    let log = log.map_err(|error| match Errno::from_raw(error.raw_os_error().unwrap_or_default()) {
        Errno::ENXIO => no_file(&path),
        _ => fail(error),
    })?;
    if !log.metadata().map_err(fail)?.is_file() {
        return Err(no_file(&path));
    }
    fcntl(&log, FcntlArg::F_SETFL(OFlag::O_APPEND)).map_err(|errno| fail(errno.into()))?;
    Ok(log)
}

fn no_file(path: &Path) -> Failure {
    let text = format!(
        "'{}' is not a file; remove it, so that the user endpoint can write its log there",
        path.display()
    );
    Problem::new("OSError", text).at(Stage::Log)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn home(path: &Path) -> BTreeMap<String, String> {
        BTreeMap::from([("HOME".to_owned(), path.display().to_string())])
    }

    #[test]
    fn creates_and_finds_again() {
        let place = tempfile::tempdir().unwrap();
        let environment = home(place.path());
        let directory = create(&environment, "uep.a.b").unwrap();
        assert_eq!(directory, place.path().join(".globus_compute/uep.a.b"));
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&directory), 0o700);
        assert_eq!(mode(&place.path().join(".globus_compute")), 0o700);
        assert_eq!(create(&environment, "uep.a.b").unwrap(), directory);
        let log = open_log(&directory).unwrap();
        assert_eq!(log.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
    }

    #[test]
    fn a_link_to_a_large_file_system_is_followed() {
        let place = tempfile::tempdir().unwrap();
        let scratch = place.path().join("scratch");
        std::fs::create_dir(&scratch).unwrap();
        symlink(&scratch, place.path().join(".globus_compute")).unwrap();
        create(&home(place.path()), "x").unwrap();
        assert!(scratch.join("x").is_dir());
    }

    #[test]
    fn what_stands_in_the_way() {
        let place = tempfile::tempdir().unwrap();
        let in_the_way = place.path().join(".globus_compute");
        std::fs::write(&in_the_way, "").unwrap();
        let failure = create(&home(place.path()), "x").unwrap_err();
        assert_eq!(failure.problem.exception, "NotADirectoryError");
        std::fs::remove_file(&in_the_way).unwrap();
        std::fs::create_dir(&in_the_way).unwrap();
        nix::unistd::mkfifo(&in_the_way.join("x"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let failure = create(&home(place.path()), "x").unwrap_err();
        assert_eq!(failure.problem.exception, "FileExistsError");
        assert!(failure.problem.text.ends_with(".globus_compute/x'"), "{failure:?}");
        symlink("x", in_the_way.join("x2")).unwrap();
        assert_eq!(create(&home(place.path()), "x2").unwrap_err().problem.exception, "FileExistsError");
    }

    #[test]
    fn no_home() {
        let failure = create(&BTreeMap::from([("HOME".to_owned(), String::new())]), "x").unwrap_err();
        assert_eq!((failure.stage, failure.problem.exception.as_str()), (Stage::Render, "FileNotFoundError"));
    }

    #[test]
    fn names_that_lead_elsewhere() {
        let place = tempfile::tempdir().unwrap();
        for name in ["", ".", "..", "../x", "a/b", "/etc", "a/", "./a"] {
            assert_eq!(
                create(&home(place.path()), name).unwrap_err().problem.exception,
                "ValueError",
                "{name}"
            );
        }
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_log_that_is_no_file() {
        let place = tempfile::tempdir().unwrap();
        let log = place.path().join("endpoint.log");
        nix::unistd::mkfifo(&log, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(open_log(place.path()).unwrap_err().problem.text.contains("is not a file"));
        // Also one that somebody reads.
        let _reader = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&log).unwrap();
        assert!(open_log(place.path()).unwrap_err().problem.text.contains("is not a file"));
        std::fs::remove_file(&log).unwrap();
        symlink("/dev/zero", &log).unwrap();
        assert!(open_log(place.path()).unwrap_err().problem.text.contains("is not a file"));
        std::fs::remove_file(&log).unwrap();
        std::fs::create_dir(&log).unwrap();
        assert_eq!(open_log(place.path()).unwrap_err().problem.exception, "IsADirectoryError");
    }
}
