//! Waits for children, and yields their status as the kernel words it.
//!
//! The functions of the crate `nix` know the 31 named signals only. For a process that one of the others ended (real-time
//! signals; any user may send one to their own processes) they answer EINVAL, after they have reaped it. Whoever takes
//! that for "not yet" waits for ever, and signals a number that is somebody else's by then. So every wait is here.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use nix::errno::Errno;
use nix::unistd::Pid;

/// The child's status, if it has ended. It stays a zombie, so that its number is not given to another process.
pub fn look(child: Pid) -> Result<Option<ExitStatus>, Errno> {
    let number = libc::id_t::try_from(child.as_raw()).map_err(|_| Errno::ESRCH)?;
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: all bits zero is a value of this structure of numbers.
    let mut answer: libc::siginfo_t = unsafe { std::mem::zeroed() };
    again(|| {
        // SAFETY: the structure lives through the call, which fills it.
        unsafe { libc::waitid(libc::P_PID, number, &raw mut answer, flags) }
    })?;
    // SAFETY: `waitid` sets these fields when it finds a process, and leaves zeros when it doesn't.
    let (found, status) = unsafe { (answer.si_pid(), answer.si_status()) };
    Ok((found != 0).then(|| {
        ExitStatus::from_raw(match answer.si_code {
            libc::CLD_EXITED => (status & 0xff) << 8,
            libc::CLD_DUMPED => status | CORE_FILE,
            _ => status,
        })
    }))
}

/// The child's status, if it has ended. Its number is free afterwards.
pub fn reap(child: Pid) -> Result<Option<ExitStatus>, Errno> {
    wait_with(child, libc::WNOHANG)
}

/// Waits for the end of the child, and reaps it.
pub fn wait(child: Pid) -> Result<ExitStatus, Errno> {
    loop {
        if let Some(status) = wait_with(child, 0)? {
            return Ok(status);
        }
    }
}

/// In a status: the process left a core file.
const CORE_FILE: libc::c_int = 0x80;

fn wait_with(child: Pid, flags: libc::c_int) -> Result<Option<ExitStatus>, Errno> {
    if child.as_raw() <= 0 {
        // These would wait for any child, or for a group.
        return Err(Errno::ESRCH);
    }
    let mut status = 0;
    // SAFETY: the number lives through the call, which sets it.
    let found = again(|| unsafe { libc::waitpid(child.as_raw(), &raw mut status, flags) })?;
    Ok((found != 0).then(|| ExitStatus::from_raw(status)))
}

/// Repeats a call that a signal interrupts.
fn again(mut call: impl FnMut() -> libc::c_int) -> Result<libc::c_int, Errno> {
    loop {
        match Errno::result(call()) {
            Err(Errno::EINTR) => {}
            answer => return answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{Duration, Instant};

    use super::*;

    #[expect(clippy::zombie_processes, reason = "each test reaps it by the functions that it tests")]
    fn start(script: &str) -> Pid {
        let child = Command::new("sh").args(["-c", script]).spawn().unwrap();
        Pid::from_raw(child.id().cast_signed())
    }

    fn until_ended(child: Pid) -> ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = look(child).unwrap() {
                return status;
            }
            assert!(begin.elapsed() < Duration::from_secs(10), "{child} does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Those that end a process: all but the ones that are ignored by default, stop a process, or let it go on; and but
    /// for the two of the C library, which what runs the tests may ignore.
    fn ending_signals() -> impl Iterator<Item = i32> {
        use libc::{SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH};
        let others = [SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH];
        (1..=64).filter(move |signal| !others.contains(signal) && ![32, 33].contains(signal))
    }

    #[test]
    fn every_signal_ends_a_child() {
        for signal in ending_signals() {
            let child = start("ulimit -c 0; echo; exec sleep 1000");
            assert_eq!(look(child), Ok(None));
            assert_eq!(reap(child), Ok(None));
            // SAFETY: it takes numbers; the child is not reaped yet.
            unsafe { libc::kill(child.as_raw(), signal) };
            let seen = until_ended(child);
            assert_eq!(seen.signal(), Some(signal));
            assert_eq!(until_ended(child), seen);
            let reaped = if signal % 2 == 0 { reap(child).unwrap().unwrap() } else { wait(child).unwrap() };
            assert_eq!(reaped.signal(), Some(signal));
            assert_eq!(look(child), Err(Errno::ECHILD));
        }
    }

    #[test]
    fn exit_statuses() {
        for code in [0, 1, 88, 255] {
            let child = start(&format!("exit {code}"));
            assert_eq!(until_ended(child).code(), Some(code));
            assert_eq!(wait(child).unwrap().code(), Some(code));
            assert_eq!(reap(child), Err(Errno::ECHILD));
        }
    }

    #[test]
    fn only_single_children() {
        for number in [0, -1, -5] {
            assert!(reap(Pid::from_raw(number)).is_err(), "{number}");
            assert!(wait(Pid::from_raw(number)).is_err(), "{number}");
            assert!(look(Pid::from_raw(number)).is_err(), "{number}");
        }
    }
}
