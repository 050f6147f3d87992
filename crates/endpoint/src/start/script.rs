//! Runs the scripts of a configuration: `endpoint_setup` and `endpoint_teardown`.

use std::io;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getpgrp, getpid, getppid};

use crate::exit::{CommandResult, Failure, status};

/// How often to look whether the manager is still there.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// Runs a script of the configuration. The failure quotes the end of its output. When `parent` ends, so do the script and this
/// process.
pub(super) fn run(what: &str, script: &str, parent: Option<i32>) -> CommandResult {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(script).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    daemon::stop::deliver_signals_to(&mut command);
    let output = command
        .spawn()
        .and_then(|child| match parent {
            Some(parent) => wait_below(parent, child),
            None => child.wait_with_output(),
        })
        .map_err(|error| Failure::new(status::CONFIG, format!("Error: {what} could not be run: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let bytes = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(20)..].join("\n  ");
    Err(Failure::new(status::CONFIG, format!("Error: {what} failed ({}):\n  {last}", output.status)))
}

/// Waits for a script, while the manager lives that started this user endpoint.
fn wait_below(parent: i32, child: Child) -> io::Result<Output> {
    let script = i32::try_from(child.id()).map(Pid::from_raw).map_err(io::Error::other)?;
    let (ended, waiting) = channel::<()>();
    let watch = std::thread::Builder::new().spawn(move || {
        while waiting.recv_timeout(CHECK_INTERVAL) == Err(RecvTimeoutError::Timeout) {
            if getppid().as_raw() != parent {
                end_with(script);
                return;
            }
        }
    })?;
    let output = child.wait_with_output();
    drop(ended);
    let _ = watch.join();
    output
}

/// Kills the script. A user endpoint of a manager is the first process of its group: the whole group is killed then, this process
/// with it.
fn end_with(script: Pid) {
    let group = getpgrp();
    // The script may have ended at this moment.
    let _ = if group == getpid() { killpg(group, Signal::SIGKILL) } else { kill(script, Signal::SIGKILL) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_failure_of_a_script_quotes_its_output() {
        assert_eq!(run("endpoint_setup", "exit 0", None), Ok(()));
        let failure = run("endpoint_setup", "echo out; echo err >&2; exit 3", None).unwrap_err();
        assert_eq!(failure.status, 78);
        assert_eq!(failure.text, "Error: endpoint_setup failed (exit status: 3):\n  out\n  err");
    }
}
