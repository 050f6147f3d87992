//! The command line: commands, options and messages, those of upstream's 3.8 where it has them.

mod check;
mod configure;
mod delete;
mod diagnostic;
mod doctor;
mod identity_validator;
mod list;
mod login;
mod migrate;
mod node;
mod on_boot;
mod render_user_config;
mod stop;
mod table;
mod unsupported;

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use serde::Serialize;
use wire::EndpointId;

use crate::console::{complain, say};
use crate::directory::Base;
use crate::exit::{CommandResult, Failure};
use crate::{environment, manage, run, start, version};

/// The name under which the SDK's package installs the command that is `self-diagnostic` here.
const DIAGNOSTIC: &str = "globus-compute-diagnostic";
/// The name under which upstream's package for identity mapping installs its validator.
const IDENTITY_VALIDATOR: &str = "globus-idm-validator";

/// Runs functions on this computer for the users of a Globus Compute service.
#[derive(Debug, Parser)]
#[command(
    name = "globus-compute-endpoint",
    version = concat!(env!("CARGO_PKG_VERSION"), " (Globus Compute endpoint version: 3.8.0)"),
    arg_required_else_help = true,
    after_help = "An endpoint's life:\n  \
        globus-compute-endpoint configure my_first_endpoint\n  \
        globus-compute-endpoint start my_first_endpoint\n  \
        globus-compute-endpoint list\n  \
        globus-compute-endpoint stop my_first_endpoint\n\n\
        When a start fails, `globus-compute-endpoint doctor my_first_endpoint` says what is wrong."
)]
struct Cli {
    /// Where endpoints are kept [default: $GLOBUS_COMPUTE_USER_DIR, else ~/.globus_compute]
    #[arg(short, long, value_name = "DIR", global = true)]
    config_dir: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// The options that most of upstream's commands accept.
#[derive(Clone, Copy, Debug, Default, Args)]
struct Common {
    /// Emit extra information generally only helpful for developers
    #[arg(long, global = true)]
    debug: bool,
    /// Emit log lines to console as well as log
    #[arg(long, global = true)]
    log_to_console: bool,
    /// Do not colorize the (console) log lines
    #[arg(long, global = true)]
    no_color: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create an endpoint's directory and a configuration to start from
    Configure(Box<configure::Options>),
    /// Start an endpoint: register it, and run it in the background unless configured otherwise
    ///
    /// The first start asks for a login: it prints a link, and waits for the code that the page behind it shows. A
    /// client identity in the environment (GLOBUS_COMPUTE_CLIENT_ID and GLOBUS_COMPUTE_CLIENT_SECRET) needs none.
    Start(StartOptions),
    /// Stop an endpoint that runs on this machine
    Stop(stop::Options),
    /// Stop an endpoint, then start it
    Restart(StartOptions),
    /// List the endpoints on this machine
    ///
    /// Initialized: never started. Running. Stopped: it ended in an orderly way. Disconnected: it ended
    /// unexpectedly, and the next start cleans up.
    List(Form),
    /// Delete an endpoint and its configuration, here and at the service
    Delete(delete::Options),
    /// Log in to the service
    Login(login::LoginOptions),
    /// Log out: revoke and forget all tokens
    Logout(login::LogoutOptions),
    /// Show the currently logged-in identity
    Whoami(login::WhoamiOptions),
    /// Print the version
    Version,
    /// Start an endpoint when the machine starts, by a systemd unit
    EnableOnBoot(Named),
    /// Say how to disable what enable-on-boot did
    DisableOnBoot(Named),
    /// Collect what a helper needs to know into one file
    SelfDiagnostic(diagnostic::Options),
    /// Run a Python module
    PythonExec(PythonExec),
    /// Say whether a configuration will do, and where it won't
    Check(check::Options),
    /// Print a configuration with every default filled in
    Render(check::Options),
    /// Make an endpoint's configuration the template of user endpoints
    ///
    /// The endpoint becomes a manager that serves its owner: it starts a user endpoint for each user_endpoint_config.
    MigrateToTemplateCapable(migrate::Options),
    /// Print what a template makes of a user's options
    RenderUserConfig(Box<render_user_config::Options>),
    /// Explain why an endpoint would not start
    Doctor(doctor::Options),
    /// Print a completion script for a shell
    ///
    /// For bash: source <(globus-compute-endpoint completion bash)
    Completion { shell: clap_complete::Shell },
    /// Run one node of a block (batch jobs call this)
    #[command(hide = true)]
    Node(node::Options),
    /// Start a user endpoint with the credentials on standard input (managers call this)
    #[command(name = "_start-user-endpoint", hide = true)]
    StartUserEndpoint(Named),
    /// Run a registered endpoint with the document on standard input (`start` becomes this)
    #[command(name = "_run", hide = true)]
    Run {
        /// Room for a longer title
        #[arg(hide = true)]
        room: Option<String>,
    },
    /// Run a registered manager with the document on standard input (`start` becomes this)
    #[command(name = "_manage", hide = true)]
    Manage(manage::Options),
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
    /// Stay in the foreground, whatever the configuration says
    #[arg(long, hide = true)]
    foreground: bool,
    /// Run in the background, whatever the configuration says
    #[arg(long, conflicts_with_all = ["foreground", "die_with_parent"])]
    detach: bool,
    /// Tell on this descriptor whether the endpoint runs
    #[arg(long, hide = true)]
    report_fd: Option<i32>,
    /// The path by which the `start` that waits was called
    #[arg(long, hide = true)]
    started_as: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct PythonExec {
    /// The module, as for `python3 -m`
    module: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// The option for the output format of a table.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Form {
    /// How to print it
    #[arg(long, value_enum, default_value_t = Output::Table, value_name = "FORM")]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Table,
    Json,
}

impl Form {
    fn json(self) -> bool {
        self.output == Output::Json
    }
}

/// Runs the command line; returns the exit status.
pub(crate) fn main() -> ExitCode {
    let name = environment::called_as();
    let name = name.as_deref().and_then(|name| Path::new(name).file_name()?.to_str());
    if name == Some(DIAGNOSTIC) {
        let words = environment::arguments().into_iter().skip(1);
        let words = ["globus-compute-endpoint".into(), "self-diagnostic".into()].into_iter().chain(words);
        return finish(command(Cli::parse_from(words)));
    }
    if name == Some(IDENTITY_VALIDATOR) {
        return finish(identity_validator::main());
    }
    let words = environment::called_as().into_iter().chain(environment::arguments().into_iter().skip(1));
    finish(command(Cli::parse_from(configure::join_multi_user(words.collect()))))
}

fn finish(outcome: CommandResult) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { status, text, .. }) => {
            if !text.is_empty() {
                complain(text);
            }
            ExitCode::from(status)
        }
    }
}

fn command(cli: Cli) -> CommandResult {
    let common = cli.common;
    let base = || Base::choose(cli.config_dir.clone());
    match cli.command {
        Command::Configure(options) => configure::run(&base()?, &options),
        Command::Start(options) => start::start(&base()?, options.request(common), manage::begin),
        Command::Restart(options) => {
            let base = base()?;
            stop::local(&base.find(&options.named.name)?)?;
            start::start(&base, options.request(common), manage::begin)
        }
        Command::StartUserEndpoint(Named { name }) => {
            let request = start::Request {
                name,
                endpoint_uuid: None,
                die_with_parent: true,
                foreground: true,
                detach: false,
                report_fd: None,
                started_as: None,
                debug: common.debug,
                log_to_console: common.log_to_console,
                no_color: common.no_color,
            };
            start::start(&base()?, request, manage::begin)
        }
        Command::Stop(options) => stop::run(&base()?, &options),
        Command::List(form) => list::run(&base()?, form),
        Command::Delete(options) => delete::run(&base()?, &options),
        Command::Login(options) => login::login(&base()?, &options),
        Command::Logout(options) => login::logout(&base()?, &options),
        Command::Whoami(options) => login::whoami(&base()?, &options),
        Command::Version => {
            say(format_args!("Globus Compute endpoint version: {}", version::UPSTREAM));
            Ok(())
        }
        Command::EnableOnBoot(Named { name }) => on_boot::enable(&base()?, &name),
        Command::DisableOnBoot(Named { name }) => on_boot::disable(&base()?, &name),
        Command::SelfDiagnostic(options) => diagnostic::run(&base()?, &options),
        Command::PythonExec(options) => {
            let error = std::process::Command::new("python3")
                .arg("-m")
                .arg(&options.module)
                .args(&options.arguments)
                .exec();
            Err(Failure::error(format!("python3: {error}")))
        }
        Command::Check(options) => check::check(&base()?, &options),
        Command::Render(options) => check::render(&base()?, &options),
        Command::MigrateToTemplateCapable(options) => migrate::run(&base()?, &options),
        Command::RenderUserConfig(options) => render_user_config::run(&base()?, &options),
        Command::Doctor(options) => doctor::run(&base()?, &options),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "globus-compute-endpoint", &mut script);
            say(String::from_utf8_lossy(&script).trim_end());
            Ok(())
        }
        Command::Node(options) => node::run(&options),
        Command::Run { .. } => run::main(),
        Command::Manage(options) => manage::main(&options),
        Command::Other(words) => {
            let known = Cli::command();
            let known: Vec<_> = known.get_subcommands().map(|it| it.get_name().to_owned()).collect();
            unsupported::run(&words, &known)
        }
    }
}

impl StartOptions {
    fn request(self, common: Common) -> start::Request {
        start::Request {
            name: self.named.name,
            endpoint_uuid: self.endpoint_uuid,
            die_with_parent: self.die_with_parent,
            foreground: self.foreground,
            detach: self.detach,
            report_fd: self.report_fd,
            started_as: self.started_as,
            debug: common.debug,
            log_to_console: common.log_to_console,
            no_color: common.no_color,
        }
    }
}

/// Prints the content of a table as JSON.
fn say_json(value: &impl Serialize) -> CommandResult {
    say(serde_json::to_string_pretty(value).map_err(Failure::error)?);
    Ok(())
}
