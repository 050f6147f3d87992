//! Finds the Python interpreter that runs the workers.

use std::path::{Path, PathBuf};

use super::error::NodeError;

/// The first interpreter on the PATH.
pub(super) fn find_interpreter(wanted: Option<&str>) -> Result<PathBuf, NodeError> {
    let names: &[&str] = match &wanted {
        Some(name) if name.contains('/') => return Ok(PathBuf::from(name)),
        Some(name) => &[name],
        None => &["python3", "python"],
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = names.iter().find_map(|name| {
        std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| is_executable(file))
    });
    found.ok_or_else(|| NodeError::NoPython(names.join(" or ")))
}

fn is_executable(file: &Path) -> bool {
    nix::unistd::access(file, nix::unistd::AccessFlags::X_OK).is_ok() && file.is_file()
}
