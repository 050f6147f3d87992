//! The command line, one file per command.
#![allow(clippy::print_stdout, clippy::print_stderr)] // a command's output is what it prints

mod client;
mod serve;
mod up;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Farcall: call Python functions on far computers, self-hosted.
#[derive(Debug, Parser)]
#[command(name = "farcall", version)]
struct Farcall {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a service and an endpoint on this machine, for oneself or for one command.
    Up(up::UpCommand),
    /// Run the service.
    Serve(serve::Serve),
    /// Manage client identities, which log in with an id and a secret.
    #[command(subcommand)]
    Client(client::ClientCommand),
}

/// Where the service keeps everything.
#[derive(Debug, clap::Args)]
struct DataDirectory {
    /// The service's data directory.
    #[arg(long, env = "FARCALL_DATA_DIR", value_name = "DIR")]
    data_dir: PathBuf,
}

/// Reads the command line and does what it says. Exit codes: 0 well, 1 failed, 2 not understood.
pub fn main() -> ExitCode {
    let done = match Farcall::parse().command {
        Command::Up(up) => up.run(),
        Command::Serve(serve) => serve.run().map(|()| ExitCode::SUCCESS),
        Command::Client(client) => client.run().map(|()| ExitCode::SUCCESS),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("farcall: {error:#}");
            ExitCode::FAILURE
        }
    }
}
