//! `globus-compute-endpoint`: the agent on the research computer.
//!
//! ```text
//! start ──► setup: configuration, endpoint_setup, registration ──exec──► run: interchange between queues and engine
//!                                                                          │
//!                                                          engine ── launcher ──► node ──► Python workers
//! ```
//!
//! | module | contains |
//! |---|---|
//! | [`cli`] | commands, options, outputs, exit statuses |
//! | [`directory`], [`pid`], [`last_failure`] | an endpoint's files; which process runs it; why its last run failed |
//! | [`account`], [`login`], [`certificates`] | which service, with which identity, and which authorities are trusted |
//! | [`config`] | `config.yaml` |
//! | [`log`] | the log file and its rotation |
//! | [`start`] | everything up to the running process: checks, registration, going into the background |
//! | [`run`] | the running process: performs the interchange's decisions |
//! | [`interchange`] | decides what happens to tasks and results |
//! | [`journal`], [`spool`] | on disk: which tasks began and ended; results that are not confirmed |
//! | [`heartbeat`] | the content of a heartbeat |
//!
//! Only `console` prints, only `clock` reads the clock, only `random` draws ids, and only `environment` reads the environment.

mod account;
mod certificates;
mod cli;
mod clock;
mod colours;
mod config;
mod console;
mod directory;
mod environment;
mod exit;
mod fernet;
mod heartbeat;
mod host;
mod interchange;
mod journal;
mod last_failure;
mod log;
mod login;
mod manage;
mod pid;
mod random;
mod run;
mod spool;
mod start;
mod title;
mod version;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before anything else: a launcher has one thread and a request of its own.
    let mut arguments = std::env::args_os().skip(1);
    let first = arguments.next();
    if first.as_ref().is_some_and(|word| word == manager::launch::LAUNCH) {
        manager::launch::main(arguments);
    }
    if first.as_ref().is_some_and(|word| word == manager::launch::SIGNAL) {
        manager::launch::signal(arguments);
    }
    cli::main()
}
