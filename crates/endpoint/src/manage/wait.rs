//! Ends of processes as the kernel tells them, and handles that mean one process for ever.
//!
//! `nix` knows no real-time signals: it fails for a process that one of them killed, after it has reaped it. So the raw
//! status is read here.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;

use manager::core::ExitStatus;
use nix::errno::Errno;
use nix::sys::signal::Signal;

/// Reaps a child if it has ended. `None`: it has not. After `Some`, its number may belong to another process.
pub(super) fn reaped(pid: i32) -> Option<ExitStatus> {
    loop {
        let mut raw = 0;
        // SAFETY: the call writes to a number of this function's own.
        let found = unsafe { libc::waitpid(pid, &raw mut raw, libc::WNOHANG) };
        if found == pid {
            return Some(read(raw));
        }
        match Errno::last() {
            _ if found == 0 => return None,
            Errno::EINTR => {}
            // There is no such child.
            _ => return Some(ExitStatus::Unknown),
        }
    }
}

fn read(raw: i32) -> ExitStatus {
    let status = std::process::ExitStatus::from_raw(raw);
    match (status.code(), status.signal()) {
        (Some(code), _) => ExitStatus::Code(code),
        (None, Some(signal)) => ExitStatus::Signal(signal),
        (None, None) => ExitStatus::Unknown,
    }
}

/// A process that another process has started. Unlike its number, the handle never means another one.
#[derive(Debug)]
pub(super) struct Handle {
    pid: i32,
    descriptor: OwnedFd,
}

impl Handle {
    /// The process with this number, if it is a child of that parent.
    pub(super) fn of_child(pid: i32, parent: i32) -> Option<Self> {
        if pid < 2 {
            return None;
        }
        // SAFETY: the call takes two numbers, and returns a new descriptor that nothing else owns.
        let number = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let number = i32::try_from(number).ok().filter(|number| *number >= 0)?;
        // SAFETY: as above.
        let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
        // After the handle was opened: so it is the handle's process that has this parent.
        (parent_of(pid)? == parent).then_some(Self { pid, descriptor })
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// Kills the process and its group, unless it was reaped: then its number may be another's.
    pub(super) fn kill_group(&self) -> io::Result<()> {
        match self.send(None) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(()),
            other => other?,
        }
        // Before it has a session of its own, there is no such group.
        let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(self.pid), Signal::SIGKILL);
        match self.send(Some(Signal::SIGKILL)) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            other => other,
        }
    }

    fn send(&self, signal: Option<Signal>) -> io::Result<()> {
        let signal = signal.map_or(0, |signal| signal as i32);
        let none = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: the call takes numbers, and no information about the signal.
        let sent = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.descriptor.as_raw_fd(), signal, none, 0)
        };
        if sent == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// Whether the process executes a program that was not given this argument.
pub(super) fn runs_without(pid: i32, argument: &str) -> bool {
    let Ok(command_line) = std::fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    !command_line.is_empty() && command_line.split(|byte| *byte == 0).all(|it| it != argument.as_bytes())
}

/// The parent of a process, which the kernel writes behind the name in parentheses.
fn parent_of(pid: i32) -> Option<i32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::process::{Child, Command};

    use super::*;

    fn start(program: &str, argument: &str) -> (Child, i32) {
        let child = Command::new(program).arg(argument).process_group(0).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        (child, pid)
    }

    fn wait(pid: i32) -> ExitStatus {
        loop {
            match reaped(pid) {
                Some(status) => return status,
                None => std::thread::sleep(std::time::Duration::from_millis(2)),
            }
        }
    }

    #[test]
    fn the_signal_that_ended_a_process_is_told() {
        // Of the common ones, none that whoever runs the tests may have this process ignore.
        for signal in [libc::SIGABRT, libc::SIGKILL, libc::SIGSEGV, libc::SIGTERM].into_iter().chain(34..=64)
        {
            let (_child, pid) = start("sleep", "60");
            assert_eq!(reaped(pid), None);
            // SAFETY: the process is this test's own child, and not reaped.
            let sent = unsafe { libc::kill(pid, signal) };
            // The C library keeps 32 and 33, but sends them.
            assert_eq!(sent, 0, "{signal}");
            assert_eq!(wait(pid), ExitStatus::Signal(signal));
            assert_eq!(reaped(pid), Some(ExitStatus::Unknown), "it is gone");
        }
    }

    #[test]
    fn a_handle_is_of_the_parents_child_and_hits_nobody_else() {
        let own = i32::try_from(std::process::id()).unwrap();
        let (_child, pid) = start("sleep", "60");
        for (number, parent) in [(pid, 1), (own, own), (0, own), (1, 0), (-1, own), (-pid, own)] {
            assert!(Handle::of_child(number, parent).is_none(), "{number} of {parent}");
        }
        let handle = Handle::of_child(pid, own).unwrap();
        assert_eq!(handle.pid(), pid);
        handle.kill_group().unwrap();
        assert_eq!(wait(pid), ExitStatus::Signal(9));
        handle.kill_group().unwrap();
        let (_child, pid) = start("false", "");
        assert_eq!(wait(pid), ExitStatus::Code(1));
    }
}
