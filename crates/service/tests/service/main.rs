//! The service as its clients see it: the real binary on free ports, driven by HTTP and AMQP.
#![allow(unreachable_pub)] // nothing here is reached from outside
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, clippy::print_stdout)] // a test says no by panicking

mod admin;
mod bad_oauth;
mod door;
mod endpoints;
mod functions;
mod identity;
mod kill;
mod operation;
mod path;
mod people;
mod resource_servers;
mod rest;
mod support;
mod user_endpoints;
