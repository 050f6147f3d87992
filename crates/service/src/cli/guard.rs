//! `farcall guard`: the process between `farcall up` or `farcall connect` and its COMMAND; nobody calls it by hand.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use tokio::process::Command;

use crate::client_side::attended_command::as_a_shell_says;
use crate::client_side::guard;

#[derive(Debug, Args)]
pub(super) struct Guard {
    /// The descriptor of a pipe that closes when the parent ends.
    #[arg(long)]
    pipe: RawFd,
    /// Descriptors of sockets to hold.
    #[arg(long)]
    hold: Vec<RawFd>,
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

impl Guard {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let (program, arguments) = self.command.split_first().context("there is no command")?;
        let mut command = Command::new(program);
        command.args(arguments);
        // On the main thread: the command dies with the thread that starts it.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let ended = runtime.block_on(guard::guard(command, self.pipe, self.hold));
        let status = ended.with_context(|| format!("cannot run {}", program.to_string_lossy()))?;
        Ok(ExitCode::from(as_a_shell_says(status)))
    }
}
