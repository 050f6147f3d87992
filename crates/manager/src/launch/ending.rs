//! How the processes of root's that stay with a user endpoint end.

use std::io::Write as _;

use crate::printable;

/// Ends at once, without what other code registered for the end of the process.
pub(super) fn exit(code: i32) -> ! {
    // SAFETY: it ends the process.
    unsafe { libc::_exit(code) }
}

/// A text for the manager's standard error: the report pipe is closed by now. PAM's modules may have put a user's words into it.
pub(super) fn log(text: &str) {
    let _ = std::io::stderr().write_all(format!("{}\n", printable::lines(text)).as_bytes());
}
