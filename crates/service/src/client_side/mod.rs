//! What runs on a client's machine: the forwarder to a service elsewhere, the environment of the SDK, a command that runs
//! meanwhile and the guard between.

pub mod attended_command;
pub mod connect;
pub mod environment;
pub mod guard;
