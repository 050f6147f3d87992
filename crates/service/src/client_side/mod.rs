//! Runs on a client's machine: the forwarder to a remote service, the SDK's environment, a command run with both, and the
//! guard process between forwarder and command.

pub mod attended_command;
pub mod connect;
pub mod environment;
pub mod guard;
