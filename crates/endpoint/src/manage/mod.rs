//! A manager: starts a user endpoint for each person and configuration that the service asks for.
//!
//! ```text
//! start ──► begin: checks, registration ──exec──► `_manage`: run ──► driver ◄──► commands and heartbeats (AMQP)
//!                                                              │
//!                              manager::core decides ◄─────────┤
//!                                                              ├──► processes: launchers, user endpoints
//!                                     SIGHUP: exec in place ◄──┴──► notices, identity mapping, log, terminal
//! ```
//!
//! This module performs what the crate `manager` decides. It may never look up a user, render a template or read a file
//! of a user: the launcher does that, in a process of its own.

mod audit_budget;
mod audit_log;
mod begin;
mod check;
mod credentials;
mod delivery;
mod document;
mod driver;
mod ending;
mod launcher_reports;
mod mapping;
mod notice;
mod orphans;
mod process_event;
mod processes;
mod recording;
mod registration;
mod restart;
mod run;
mod settings;
mod signals;
mod terminal;
mod wait;

pub(crate) use begin::begin;
pub(crate) use run::{Options, main};
