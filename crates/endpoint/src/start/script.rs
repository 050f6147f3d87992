//! Runs the scripts of a configuration: `endpoint_setup` and `endpoint_teardown`.

use std::io::{self, PipeReader, Read as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getpgrp, getpid, getppid};

use super::last_lines::LastLines;
use crate::exit::{CommandResult, Failure, status};

/// How often to look whether the manager is still there.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);
/// The same once the script has closed its output: it ends now, or goes on without a word.
const SILENT_INTERVAL: Duration = Duration::from_millis(10);
/// How long to read what the script has printed, once it has ended. What it left running may hold the pipe for ever.
const REST: Duration = Duration::from_millis(500);

/// Runs a script of the configuration. The failure quotes the end of its output. When `parent` ends, so do the script and this
/// process.
pub(super) fn run(what: &str, script: &str, parent: Option<i32>) -> CommandResult {
    let last = Arc::new(Mutex::new(LastLines::default()));
    let ended = spawn_and_wait(script, parent, &last)
        .map_err(|error| Failure::new(status::CONFIG, format!("Error: {what} could not be run: {error}")))?;
    if ended.success() {
        return Ok(());
    }
    let last = last.lock().unwrap_or_else(PoisonError::into_inner).joined("\n  ");
    Err(Failure::new(status::CONFIG, format!("Error: {what} failed ({ended}):\n  {last}")))
}

fn spawn_and_wait(script: &str, parent: Option<i32>, last: &Arc<Mutex<LastLines>>) -> io::Result<ExitStatus> {
    let (output, theirs) = io::pipe()?;
    let (open, closed) = channel::<()>();
    let lines = Arc::clone(last);
    // Before the script: where no thread can be had, it must not run.
    std::thread::Builder::new().spawn(move || {
        read(output, &lines);
        drop(open);
    })?;
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(script).stdin(Stdio::null()).stdout(theirs.try_clone()?).stderr(theirs);
    daemon::stop::deliver_signals_to(&mut command);
    let mut child = command.spawn()?;
    // It holds our end of the pipe for writing.
    drop(command);
    let ended = wait(&mut child, parent, &closed)?;
    let _ = closed.recv_timeout(REST);
    Ok(ended)
}

fn read(mut output: PipeReader, last: &Mutex<LastLines>) {
    let mut some = [0; 4096];
    while let Ok(count @ 1..) = output.read(&mut some) {
        last.lock().unwrap_or_else(PoisonError::into_inner).add(&some[..count]);
    }
}

/// Waits for a script; with `parent`, while the manager lives that started this user endpoint. `closed`: disconnected when the
/// script has closed its output.
fn wait(child: &mut Child, parent: Option<i32>, closed: &Receiver<()>) -> io::Result<ExitStatus> {
    loop {
        if let Some(ended) = child.try_wait()? {
            return Ok(ended);
        }
        if parent.is_some_and(|parent| getppid().as_raw() != parent) {
            end_with(child);
        }
        if closed.recv_timeout(CHECK_INTERVAL) == Err(RecvTimeoutError::Disconnected) {
            std::thread::sleep(SILENT_INTERVAL);
        }
    }
}

/// Kills the script. A user endpoint of a manager is the first process of its group: the whole group is killed then, this process
/// with it.
fn end_with(script: &Child) {
    let group = getpgrp();
    // It is not reaped, so the number is still its own.
    let Ok(script) = i32::try_from(script.id()).map(Pid::from_raw) else { return };
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

    #[test]
    fn what_a_script_leaves_running_is_not_waited_for() {
        assert_eq!(run("endpoint_teardown", "sleep 5 & exit 0", None), Ok(()));
        assert_eq!(run("endpoint_teardown", "exec > /dev/null 2>&1; sleep 0.1", None), Ok(()));
    }
}
