//! The ends of children, and who holds a pipe.

use std::os::unix::process::ExitStatusExt as _;

use manager::core::ExitStatus;
use manager::waiting;
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

/// Whether the process has the pipe with this inode open. A process that cannot be looked at counts as having it.
pub(super) fn holds_pipe(pid: i32, inode: u64) -> bool {
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return true };
    let pipe = format!("pipe:[{inode}]");
    descriptors
        .flatten()
        .any(|it| std::fs::read_link(it.path()).is_ok_and(|target| target.as_os_str() == &*pipe))
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
}
