//! What runs on a client's machine: the forwarder to a service elsewhere, the environment of the SDK, a command that runs
//! meanwhile.

pub mod attended_command;
pub mod connect;
pub mod environment;
