//! The service as its clients see it: the real binary on free ports, driven by HTTP and AMQP.
#![allow(unreachable_pub)] // nothing here is reached from outside
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, clippy::print_stdout)] // a test says no by panicking

mod admin;
mod administrators;
mod bad_input;
mod bad_oauth;
mod containers;
mod database;
mod disabled_accounts;
mod disk;
mod doctor;
mod earlier_data;
mod endpoints;
mod functions;
mod http;
mod identity;
mod kill;
mod limits;
mod load;
mod operation;
mod path;
mod payloads;
mod people;
mod resent;
mod resource_servers;
mod rest;
mod retention;
mod shares;
mod sharing;
mod sign_in;
mod support;
mod terminal;
mod tls;
mod user_endpoint_life;
mod user_endpoints;
mod visitor;
