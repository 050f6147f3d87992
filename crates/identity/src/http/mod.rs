//! Reads from a request what all routes need: how it arrived, under which name, who sends it, and why its body is incomplete.
//!
//! The routes of the service use these, too.

pub mod arrival;
pub mod authorization_header;
pub mod caller_log;
pub mod host_names;
pub mod interrupted_body;
