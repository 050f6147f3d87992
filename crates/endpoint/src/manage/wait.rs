//! The ends of children, handles that mean one process for ever, and who holds a pipe.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;

use manager::core::ExitStatus;
use manager::waiting;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// Reaps a child if it has ended. `None`: it has not. After `Some`, its number may belong to another process.
pub(super) fn reaped(pid: i32) -> Option<ExitStatus> {
    match waiting::reap(Pid::from_raw(pid)) {
        Ok(None) => None,
        Ok(Some(status)) => Some(match (status.code(), status.signal()) {
            (Some(code), _) => ExitStatus::Code(code),
            (None, Some(signal)) => ExitStatus::Signal(signal),
            (None, None) => ExitStatus::Unknown,
        }),
        // There is no such child.
        Err(_) => Some(ExitStatus::Unknown),
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
        let _ = nix::sys::signal::killpg(Pid::from_raw(self.pid), Signal::SIGKILL);
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

/// Whether the process has the pipe with this inode open. A process that cannot be looked at counts as having it.
pub(super) fn holds_pipe(pid: i32, inode: u64) -> bool {
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return true };
    let pipe = format!("pipe:[{inode}]");
    descriptors
        .flatten()
        .any(|it| std::fs::read_link(it.path()).is_ok_and(|target| target.as_os_str() == &*pipe))
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
    fn how_a_process_ended() {
        let (_child, pid) = start("sleep", "60");
        assert_eq!(reaped(pid), None);
        // SAFETY: the process is this test's own child, and not reaped.
        assert_eq!(unsafe { libc::kill(pid, 64) }, 0);
        assert_eq!(wait(pid), ExitStatus::Signal(64));
        assert_eq!(reaped(pid), Some(ExitStatus::Unknown), "it is gone");
    }

    #[test]
    fn who_has_a_pipe_open() {
        let (reader, writer) = std::io::pipe().unwrap();
        let inode = nix::sys::stat::fstat(&reader).unwrap().st_ino;
        let mut child = Command::new("sleep").arg("60").stdout(writer).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert!(holds_pipe(pid, inode));
        let (_other, other) = start("sleep", "60");
        assert!(!holds_pipe(other, inode));
        for pid in [pid, other] {
            // SAFETY: the processes are this test's own children, and not reaped.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        child.wait().unwrap();
        assert_eq!(wait(other), ExitStatus::Signal(9));
        assert!(holds_pipe(pid, inode), "nobody knows");
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
