//! Decides who may start what, as which local user, with which configuration.
//!
//! A manager runs as root and parses what strangers send. This crate holds every decision it makes, without AMQP, REST or
//! an async runtime, so that a site's security officer can read it in an afternoon.

pub mod children;
pub mod command;
pub mod core;
pub mod environment;
mod fair_queue;
pub mod launch;
pub mod mapping;
pub mod restart;
pub mod schema;
mod site_files;
pub mod template;
