//! The environment variables, the command line and the program file of this process.

use std::ffi::OsString;
use std::path::PathBuf;

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

/// The path of this program's file.
pub(crate) fn own_path() -> std::io::Result<PathBuf> {
    std::env::current_exe()
}
