//! Identifies a process by PID and start time, so that signals never reach another process with the same PID.

use std::fs;
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use wire::EndpointId;

/// A process, distinguished from all others that have or had its PID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pid: i32,
    started: u64,
}

impl Process {
    /// The process with this PID, if it started at this time and lives.
    pub(super) fn started(pid: i32, started: u64) -> Option<Self> {
        Some(Self { pid, started }).filter(Self::lives)
    }

    /// The process with this PID, if its title is that of this endpoint: `Globus Compute Endpoint (ID, NAME)...`.
    pub(super) fn titled(pid: i32, endpoint: Option<EndpointId>) -> Option<Self> {
        // Read first: if another process gets the PID in between, its start time differs.
        let process = Self { pid, started: start(pid)? };
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let title = format!("Globus Compute Endpoint ({}, ", endpoint?);
        // Upstream's endpoint may show how long it will idle before the title.
        let line = String::from_utf8_lossy(&line);
        let line = match line.strip_prefix('[') {
            Some(idle) => idle.split_once("] ").map_or("", |(_, title)| title),
            None => &line,
        };
        Some(process).filter(|process| line.starts_with(&title) && process.lives())
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.pid)
    }

    /// Whether it lives. A zombie does not count: it reacts to no signal.
    pub(crate) fn lives(&self) -> bool {
        start(self.pid) == Some(self.started)
    }

    /// Sends a signal to this process; does nothing if it has ended.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Errno> {
        let handle = handle(self.pid);
        // The handle refers to the process that had the PID when it was opened; check that this is ours.
        if !self.lives() {
            return Ok(());
        }
        let sent = match &handle {
            Ok(handle) => send(handle, signal),
            // Kernels before 5.3 have no handles.
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
                nix::sys::signal::kill(self.pid(), signal)
            }
            Err(_) => Err(Errno::ESRCH),
        };
        match sent {
            Err(Errno::ESRCH) => Ok(()),
            other => other,
        }
    }
}

/// The start time of a living process, in clock ticks since the boot.
pub(super) fn start(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The process's name may contain parentheses.
    let (_, after) = stat.rsplit_once(')')?;
    let mut fields = after.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    // The state is the 3rd field, the start time the 22nd.
    fields.nth(18)?.parse().ok()
}

fn handle(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two numbers, and returns a new descriptor that nothing else owns.
    let number = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    match RawFd::try_from(number) {
        // SAFETY: as above.
        Ok(number) if number >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(number) }),
        _ => Err(io::Error::last_os_error()),
    }
}

fn send(handle: &OwnedFd, signal: Signal) -> Result<(), Errno> {
    use std::os::fd::AsRawFd as _;
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open as long as `handle` is borrowed, and no information goes along.
    let sent = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, handle.as_raw_fd(), signal as libc::c_int, none, 0)
    };
    if sent == 0 { Ok(()) } else { Err(Errno::last()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;

    #[test]
    fn a_title_matches_only_its_own_endpoint() {
        let id: EndpointId = "e58b2276-b397-4246-b1a2-607d8e3b5838".parse().unwrap();
        let other = "e58b2276-b397-4246-b1a2-607d8e3b5839";
        let table = [
            (format!("Globus Compute Endpoint ({id}, ep) [start]"), true),
            (format!("[idle; shut down in 120s] Globus Compute Endpoint ({id}, ep) [start]"), true),
            (format!("Globus Compute Endpoint ({other}, ep) [start]"), false),
            (format!("less Globus Compute Endpoint ({id}, ep)"), false),
            ("globus-compute-endpoint".to_owned(), false),
        ];
        for (title, expected) in table {
            let mut child = Command::new("sleep").arg0(&title).arg("60").spawn().unwrap();
            let pid = i32::try_from(child.id()).unwrap();
            // The title is there once the program runs.
            while fs::read(format!("/proc/{pid}/cmdline")).unwrap().first() != Some(&title.as_bytes()[0]) {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            assert_eq!(Process::titled(pid, Some(id)).is_some(), expected, "{title}");
            assert_eq!(Process::titled(pid, None), None, "an endpoint that has no id runs nowhere");
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    #[test]
    fn a_signal_reaches_no_other_process_with_the_same_pid() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let started = start(pid).unwrap();
        Process { pid, started: started - 1 }.signal(Signal::SIGKILL).unwrap();
        assert_eq!(child.try_wait().unwrap(), None, "the number is the same, the process another");
        Process { pid, started }.signal(Signal::SIGKILL).unwrap();
        assert!(!child.wait().unwrap().success());
        Process { pid, started }.signal(Signal::SIGKILL).unwrap();
    }
}
