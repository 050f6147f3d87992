//! What a request says of itself before any route reads it: how it arrived, under which name, who sends it.
//!
//! The routes of the service read requests with these too.

pub mod arrival;
pub mod authorization_header;
pub mod caller_log;
pub mod host_names;
