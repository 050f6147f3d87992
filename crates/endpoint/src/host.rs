//! This machine's name, and the user that this process runs as.

use nix::unistd::{User, getuid};

/// This machine's name.
pub(crate) fn host_name() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The name of the user this process runs as; the number, for a user without a name.
pub(crate) fn user_name() -> String {
    let uid = getuid();
    match User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}
