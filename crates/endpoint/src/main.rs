//! `globus-compute-endpoint`: the agent on the research computer.
//!
//! ```text
//! start ──► setup: configuration, endpoint_setup, registration ──exec──► run: interchange between queues and engine
//!                                                                          │
//!                                                          engine ── launcher ──► node ──► Python workers
//! ```
//!
//! | module | knows |
//! |---|---|
//! | [`cli`] | commands, options, outputs, exit statuses |
//! | [`directory`], [`pid`], [`last_failure`] | files of an endpoint; which process runs it; why the last one failed |
//! | [`account`] | which service, and as whom |
//! | [`config`] | `config.yaml` |
//! | [`log`] | the log file and its rotation |
//! | [`start`] | everything up to the running process: checks, registration, going into the background |
//! | [`run`] | the running process: performs what the interchange decides |
//! | [`interchange`] | decides what happens to tasks and results |
//! | [`journal`], [`spool`] | what must not be lost, on disk |
//!
//! None but `console` prints; none but `ambient` reads a clock, draws an id or looks into the environment.

mod account;
mod certificates;
mod cli;
mod clock;
mod config;
mod console;
mod directory;
mod environment;
mod exit;
mod heartbeat;
mod host;
mod interchange;
mod journal;
mod last_failure;
mod log;
mod login;
mod pid;
mod random;
mod run;
mod spool;
mod start;
mod version;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
