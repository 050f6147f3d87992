//! Signals a child with its user's rights, for a manager that may change users and not signal others' processes: one with the
//! capabilities `CAP_SETUID` and `CAP_SETGID` only.
//!
//! The manager has threads, and a thread that became the user could be killed by that user, and the manager with it. So another
//! process becomes the user for good, sends the signal, and ends. It can hit that user's processes and no others, also if the
//! child was reaped meanwhile. The user may stop or kill it: then it is their own user endpoint that gets no signal.

use std::ffi::OsString;
use std::io;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

use super::ending::exit;
use super::rights::{become_for_good, kill_group};

/// The first argument that makes a process send a signal. `main` must look for it before it does anything else.
pub const SIGNAL: &str = "__signal";

/// Starts a process that sends the signal as this user; SIGKILL also to the process group. The caller reaps it.
///
/// It becomes the user after its `exec` only: a user who stopped it before would keep `spawn` waiting, and the manager with it.
pub fn signal_as(uid: u32, pid: i32, signal: Signal) -> io::Result<Child> {
    if uid == 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Command::new("/proc/self/exe")
        .arg(SIGNAL)
        .args([uid.to_string(), pid.to_string(), (signal as i32).to_string()])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

/// That process. `arguments`: those after [`SIGNAL`].
pub fn signal(arguments: impl Iterator<Item = OsString>) -> ! {
    let numbers: Option<Vec<i32>> = arguments.map(|word| word.to_str()?.parse().ok()).collect();
    let sent = match numbers.as_deref() {
        Some(&[uid, pid, signal]) => send(uid, pid, signal),
        _ => None,
    };
    exit(if sent.is_some() { 0 } else { 1 })
}

fn send(uid: i32, pid: i32, signal: i32) -> Option<()> {
    let uid = Uid::from_raw(uid.try_into().ok()?);
    // 1, 0 and negative numbers mean others.
    let child = (pid > 1).then(|| Pid::from_raw(pid))?;
    if !become_for_good(uid) {
        return None;
    }
    match Signal::try_from(signal).ok()? {
        Signal::SIGKILL => kill_group(child).ok(),
        other => kill(child, other).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The user may stop what has their rights. So nothing has them until `signal_as` has returned.
    #[test]
    fn the_process_is_not_the_users_until_it_runs() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        // This test program takes the arguments for a filter of tests, and ends.
        let mut child = signal_as(54_321, i32::MAX, Signal::SIGTERM).unwrap();
        let owner = std::fs::metadata(format!("/proc/{}", child.id()))
            .map(|it| std::os::unix::fs::MetadataExt::uid(&it));
        assert_eq!(owner.unwrap(), 0);
        child.wait().unwrap();
    }

    #[test]
    fn never_as_root_and_never_to_many() {
        assert!(signal_as(0, 54_321, Signal::SIGTERM).is_err());
        for (uid, pid, signal) in
            [(0, 54_321, 15), (-1, 54_321, 15), (54_321, 1, 9), (54_321, 0, 9), (54_321, -1, 9)]
        {
            assert_eq!(send(uid, pid, signal), None, "{uid} {pid} {signal}");
        }
    }
}
