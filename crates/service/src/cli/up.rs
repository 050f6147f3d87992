//! The command `farcall up`: runs a service and an endpoint on this machine.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use daemon::logging::{self, Destination, Form, Logging};
use daemon::open_files::InheritedLimit;

use super::console::{complain, say};
use crate::client_side::attended_command::{Signals, as_a_shell_says};
use crate::client_side::environment::quoted;
use crate::client_side::guard::Guarded;
use crate::operate::data_directory::Directory;
use crate::up::{self, Up, UpDirectory, UpOptions};

#[derive(Debug, Args)]
pub(super) struct UpCommand {
    /// Where everything is kept [default: farcall in the user's data directory].
    #[arg(long, env = "FARCALL_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where to listen for HTTP [default: 127.0.0.1:5000, or a free port if that is taken].
    #[arg(long, value_name = "ADDRESS")]
    http_listen: Option<SocketAddr>,
    /// Where to listen for AMQP [default: 127.0.0.1:5672, or a free port if that is taken].
    #[arg(long, value_name = "ADDRESS")]
    amqp_listen: Option<SocketAddr>,
    /// The program globus-compute-endpoint [default: the one beside this program, or on the PATH].
    #[arg(long, value_name = "FILE")]
    endpoint_binary: Option<PathBuf>,
    /// Run this with everything up, and end with its status.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl UpCommand {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let data_dir = match self.data_dir {
            Some(directory) => directory,
            None => usual_directory()?,
        };
        let directory = Directory::prepare(&data_dir)?;
        let up_directory = UpDirectory::prepare(&directory)?;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(up_directory.service_log())
            .with_context(|| format!("cannot write {}", up_directory.service_log().display()))?;
        logging::start(Logging {
            form: Form::Text,
            directives: "info",
            destination: Destination::File(Box::new(log)),
        })?;
        let raised = daemon::open_files::raise();
        let options = UpOptions {
            open_files: raised.inherited(),
            http_listen: self.http_listen,
            amqp_listen: self.amqp_listen,
            endpoint_binary: self.endpoint_binary,
            say: report,
        };
        tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
            // From here on no signal ends us without what we started being stopped.
            let mut signals = Signals::catch()?;
            let up = tokio::select! {
                up = up::up(directory, up_directory, options) => up?,
                // Nothing was accepted yet, and the endpoint ends with us.
                () = signals.any() => return Ok(ExitCode::FAILURE),
            };
            match self.command.first() {
                Some(_) => run(up, signals, raised.inherited(), &self.command).await,
                None => wait(up, signals).await,
            }
        })
    }
}

fn report(text: &str) {
    complain(format_args!("farcall up: {text}"));
}

fn usual_directory() -> anyhow::Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("XDG_DATA_HOME")
        .or_else(|| Some(set("HOME")?.join(".local/share")))
        .map(|data| data.join("farcall"))
        .context("neither XDG_DATA_HOME nor HOME is set: say where to keep everything with --data-dir")
}

/// What to do now.
fn tell(up: &Up) -> std::io::Result<()> {
    complain(format_args!(
        "{person} owns what runs here. For a password to log in with: farcall user reset {person} --data-dir {data}",
        person = up.person,
        data = quoted(&up.up_directory.data().display().to_string()),
    ));
    let word = |path: PathBuf| quoted(&path.display().to_string());
    say(format_args!("eval \"$(cat {})\"", word(up.up_directory.environment())))?;
    say(format_args!("python3 {}", word(up.up_directory.hello())))?;
    say(format_args!(
        "tail -f {} {}",
        word(up.up_directory.service_log()),
        word(up.up_directory.endpoint_log())
    ))
}

/// Says what to do, and keeps everything up until somebody stops us.
async fn wait(mut up: Up, mut signals: Signals) -> anyhow::Result<ExitCode> {
    if let Err(error) = tell(&up) {
        up.down().await;
        return Err(error.into());
    }
    if !up.holds_something() {
        return Ok(ExitCode::SUCCESS);
    }
    let ended = tokio::select! {
        () = signals.any() => None,
        why = up.endpoint_ended() => Some(why),
    };
    up.down().await;
    match ended {
        None => Ok(ExitCode::SUCCESS),
        Some(why) => anyhow::bail!(why),
    }
}

/// Runs a command with everything up.
async fn run(
    up: Up,
    mut signals: Signals,
    open_files: Option<InheritedLimit>,
    command: &[OsString],
) -> anyhow::Result<ExitCode> {
    let mut guarded = Guarded::new(command, up.sockets())?;
    up.environment.apply(&mut guarded.command);
    if let Some(open_files) = open_files {
        open_files.restore_for(guarded.command.as_std_mut());
    }
    let ended = guarded.run(&mut signals, up.endpoint_process(), std::future::pending()).await;
    up.down().await;
    let status = ended.context("cannot run farcall guard")?;
    Ok(ExitCode::from(as_a_shell_says(status)))
}
