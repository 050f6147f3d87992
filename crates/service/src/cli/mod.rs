//! The command line of `farcall`, one file per command. Only `console` prints.

mod administer;
mod backup;
mod client;
mod config;
mod connect;
mod console;
mod doctor;
mod endpoint;
mod env;
mod group;
mod guard;
mod key;
mod password;
mod serve;
mod store;
mod up;
mod user;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::operate::config::{Config, ConfigError, Loaded, Setting, from_environment};

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
    /// Check or print the configuration.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Open a safe way from this machine to a service elsewhere, for oneself or for one command.
    Connect(connect::Connect),
    /// Print what a client must set to reach a service on this machine, for eval.
    Env(env::Env),
    /// Look for what is wrong with an installation, and say how to mend it.
    Doctor(doctor::Doctor),
    /// Copy a service's data to another directory, while it runs or not.
    Backup(backup::Backup),
    /// Make a data directory of a backup.
    Restore(backup::Restore),
    /// Move a service's data to another database.
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Manage people, who log in with a password.
    #[command(subcommand)]
    User(user::UserCommand),
    /// Manage clients: programs that log in with an id and a secret, and applications for people.
    #[command(subcommand)]
    Client(client::ClientCommand),
    /// Manage groups, with which functions can be shared.
    #[command(subcommand)]
    Group(group::GroupCommand),
    /// See and manage every endpoint of the service, whoever owns it.
    #[command(subcommand)]
    Endpoint(endpoint::EndpointCommand),
    /// Manage the keys that sign id tokens.
    #[command(subcommand)]
    Key(key::KeyCommand),
    #[command(hide = true)]
    Guard(guard::Guard),
    /// Print a completion script for a shell.
    ///
    /// For bash: source <(farcall completion bash).
    Completion { shell: clap_complete::Shell },
}

/// Where the service keeps everything.
#[derive(Debug, clap::Args)]
struct DataDirectory {
    /// The service's data directory.
    #[arg(long, env = "FARCALL_DATA_DIR", value_name = "DIR")]
    data_dir: PathBuf,
}

/// What goes before the environment and the configuration file.
#[derive(Debug, clap::Args)]
struct Settings {
    /// Set any key of the configuration; `farcall config print` lists them. Goes before FARCALL_SECTION__KEY in the
    /// environment, which goes before the file.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

impl Settings {
    fn load(&self, file: &Path) -> Result<Loaded, ConfigError> {
        let mut settings = from_environment(std::env::vars());
        for text in &self.set {
            settings.push(Setting::from_flag(text)?);
        }
        Config::load(file, settings)
    }
}

/// Runs the command line. Exit codes: 0 success, 1 failure, 2 unknown arguments.
pub fn main() -> ExitCode {
    let done = |ran: anyhow::Result<()>| ran.map(|()| ExitCode::SUCCESS);
    let ended = match Farcall::parse().command {
        Command::Up(up) => up.run(),
        Command::Serve(serve) => done(serve.run()),
        Command::Config(config) => done(config.run()),
        Command::Connect(connect) => connect.run(),
        Command::Guard(guard) => guard.run(),
        Command::Env(env) => done(env.run()),
        Command::Doctor(doctor) => doctor.run(),
        Command::Backup(backup) => done(backup.run()),
        Command::Restore(restore) => done(restore.run()),
        Command::Store(store) => done(store.run()),
        Command::User(user) => done(user.run()),
        Command::Client(client) => done(client.run()),
        Command::Group(group) => done(group.run()),
        Command::Endpoint(endpoint) => done(endpoint.run()),
        Command::Key(key) => done(key.run()),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Farcall::command(), "farcall", &mut script);
            done(console::write(String::from_utf8_lossy(&script)).map_err(anyhow::Error::from))
        }
    };
    match ended {
        Ok(code) => code,
        Err(error) => {
            console::complain(format_args!("farcall: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
