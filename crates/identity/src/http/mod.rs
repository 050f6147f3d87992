//! Reads from a request what all routes need: how it arrived, under which name, and who sends it.
//!
//! The routes of the service use these, too.

pub mod arrival;
pub mod authorization_header;
pub mod caller_log;
pub mod host_names;
