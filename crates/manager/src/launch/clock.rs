//! Reads the time of day, for the one line of the user endpoint's log that the launcher writes.
#![allow(clippy::disallowed_methods)]

/// The local time as upstream's log has it.
pub(super) fn log_time() -> String {
    jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S,%6f").to_string()
}
