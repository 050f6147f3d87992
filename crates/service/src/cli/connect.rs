//! The command `farcall connect`: runs a forwarder to a service elsewhere.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use super::console::{complain, say};
use crate::client_side::attended_command::{Signals, as_a_shell_says};
use crate::client_side::connect::Forwarder;
use crate::client_side::environment::{Proxies, ServiceUrl, quoted};
use crate::client_side::guard::Guarded;
use store::private_file;

#[derive(Debug, Args)]
pub(super) struct Connect {
    /// The service, such as `https://compute.example.org`.
    url: String,
    /// The certificate of the private authority that has signed the service's.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Run this with the way to the service open, and end with its status.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Connect {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let mut reach = ServiceUrl::parse(&self.url)?;
        if !reach.tls() {
            anyhow::bail!(
                "{} has no TLS, and a forwarder would make it no safer. Give its https:// URL; for a service on this \
                 machine use `farcall env`",
                reach.base()
            );
        }
        reach.authority = self.ca.map(std::path::absolute).transpose()?;
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
            let mut signals = Signals::catch()?;
            let authority = reach.authority.clone();
            let forwarder = tokio::select! {
                forwarder = Forwarder::to_another_machine(reach.clone(), authority.as_deref(), Proxies::here(), tell) => forwarder?,
                () = signals.any() => return Ok(ExitCode::FAILURE),
            };
            match self.command.first() {
                Some(_) => run(forwarder, signals, &self.command, home.as_deref()).await,
                None => {
                    let home = home.context("HOME is not set: say what to run after `--`")?;
                    wait(forwarder, signals, &home.join(reach.user_directory())).await
                }
            }
        })
    }
}

fn tell(text: &str) {
    complain(format_args!("farcall connect: {text}"));
}

async fn run(
    forwarder: Forwarder,
    mut signals: Signals,
    command: &[OsString],
    home: Option<&Path>,
) -> anyhow::Result<ExitCode> {
    let mut guarded = Guarded::new(command, forwarder.sockets())?;
    forwarder.variables().apply(&mut guarded.command, home);
    let forwarding = tokio::spawn(forwarder.run());
    let broken = async {
        let _ = forwarding.await;
        tell("the forwarder broke, and what was run ends with it");
    };
    let status = guarded.run(&mut signals, None, broken).await.context("cannot run farcall guard")?;
    Ok(ExitCode::from(as_a_shell_says(status)))
}

/// Says what to evaluate, and forwards until somebody stops us.
async fn wait(forwarder: Forwarder, mut signals: Signals, directory: &Path) -> anyhow::Result<ExitCode> {
    let path = directory.join("connect");
    let script = forwarder.variables().script();
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .and_then(|()| private_file::write(&path, script.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))?;
    say(format_args!("eval \"$(cat {})\"", quoted(&path.display().to_string())))?;
    complain(
        "That holds for as long as this runs. A shell that has evaluated it is of no use afterwards: leave it.",
    );
    let ended = tokio::select! {
        () = signals.any() => Ok(ExitCode::SUCCESS),
        () = forwarder.run() => Err(anyhow::anyhow!("the forwarder broke")),
    };
    remove(&path, &script).with_context(|| format!("cannot remove {}", path.display()))?;
    ended
}

/// Another forwarder to the same service may have written its own since.
fn remove(path: &Path, script: &str) -> io::Result<()> {
    if fs::read_to_string(path).is_ok_and(|text| text == script) {
        fs::remove_file(path)?;
    }
    Ok(())
}
