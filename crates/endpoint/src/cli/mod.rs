//! The commands, their options and their words: those of upstream's 3.8 where it has them.

pub(crate) mod configure;
mod later;
mod list;
mod node;
mod stop;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use wire::EndpointId;

use crate::console::{complain, say};
use crate::directory::Base;
use crate::exit::{Failure, Outcome};
use crate::{run, start};

/// What `version` prints and registration sends: the release of upstream's whose ways these are, because services
/// measure it against their minimum. Our own version goes along as `farcall.version`.
pub(crate) const VERSION: &str = "3.8.0";

/// Runs functions on this computer for the users of a Globus Compute service.
#[derive(Debug, Parser)]
#[command(name = "globus-compute-endpoint", disable_version_flag = true, arg_required_else_help = true)]
struct Cli {
    /// Where endpoints are kept [default: $GLOBUS_COMPUTE_USER_DIR, else ~/.globus_compute]
    #[arg(short, long, value_name = "DIR", global = true)]
    config_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create an endpoint's directory and a configuration to start from
    Configure(Box<configure::Options>),
    /// Start an endpoint: register it, and run it in the background unless configured otherwise
    Start(StartOptions),
    /// Stop an endpoint that runs on this machine
    Stop(Named),
    /// List the endpoints on this machine
    List,
    /// Print the version
    Version,
    /// Run one node of a block (batch jobs call this)
    #[command(hide = true)]
    Node(node::Options),
    /// Start a user endpoint with the credentials on standard input (managers call this)
    #[command(name = "_start-user-endpoint", hide = true)]
    StartUserEndpoint(Named),
    /// Run a registered endpoint with the document on standard input (`start` becomes this)
    #[command(name = "_run", hide = true)]
    Run,
    /// Any other word
    #[command(external_subcommand)]
    Other(Vec<String>),
}

#[derive(Debug, Args)]
struct Named {
    /// The endpoint's name, or the ID it is registered under
    #[arg(default_value = "default", value_name = "NAME_OR_UUID")]
    name: String,
}

#[derive(Debug, Args)]
struct StartOptions {
    #[command(flatten)]
    named: Named,
    /// Register under this ID, unless the endpoint has one already
    #[arg(long, value_name = "UUID")]
    endpoint_uuid: Option<EndpointId>,
    /// Stop when the process that started this one goes away; stay in the foreground
    #[arg(long, hide = true)]
    die_with_parent: bool,
    /// Tell on this descriptor whether the endpoint runs
    #[arg(long, hide = true)]
    report_fd: Option<i32>,
}

/// Runs a command line and says how it ended.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    match command(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { status, text }) => {
            if !text.is_empty() {
                complain(text);
            }
            ExitCode::from(status)
        }
    }
}

fn command(cli: Cli) -> Outcome {
    let base = || Base::choose(cli.config_dir.clone());
    match cli.command {
        Command::Configure(options) => configure::run(&base()?, &options),
        Command::Start(options) => {
            let StartOptions { named, endpoint_uuid, die_with_parent, report_fd } = options;
            start::start(
                &base()?,
                start::Request { name: named.name, endpoint_uuid, die_with_parent, report_fd },
            )
        }
        Command::StartUserEndpoint(Named { name }) => {
            let request =
                start::Request { name, endpoint_uuid: None, die_with_parent: true, report_fd: None };
            start::start(&base()?, request)
        }
        Command::Stop(Named { name }) => stop::run(&base()?, &name),
        Command::List => list::run(&base()?),
        Command::Version => {
            say(format_args!("Globus Compute endpoint version: {VERSION}"));
            Ok(())
        }
        Command::Node(options) => node::run(&options),
        Command::Run => run::main(),
        Command::Other(words) => later::run(&words),
    }
}

/// A line of the kind upstream logs to the console.
fn note(text: impl std::fmt::Display) {
    complain(format_args!("> {text}"));
}
