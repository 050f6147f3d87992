//! Ends the user endpoints of a manager that can't go on: they would end with it anyway, but without the time to do so in order.

use std::time::Duration;

use manager::waiting;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::clock;

/// How long they may take: the holder of a PAM session gives its user endpoint 10 s.
const GRACE: Duration = Duration::from_secs(12);
const PAUSE: Duration = Duration::from_millis(20);

/// Ends these children and waits for them. Nothing else may reap children of this process any more: so no number is
/// signalled that could be another process's.
pub(super) fn end_in_order(children: &[i32]) {
    end_within(GRACE, children);
}

fn end_within(grace: Duration, children: &[i32]) {
    let running = || {
        let children = children.iter().map(|child| Pid::from_raw(*child));
        children.filter(|child| waiting::look(*child) == Ok(None)).collect::<Vec<_>>()
    };
    let all = |signal| {
        for child in running() {
            // One that has ended meanwhile is not reaped: the number is still its own.
            let _ = kill(child, signal);
        }
    };
    all(Signal::SIGTERM);
    let since = clock::now();
    while !running().is_empty() {
        if clock::now().duration_since(since) >= grace {
            return all(Signal::SIGKILL);
        }
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Child, Command};

    use super::*;

    fn start(script: &str) -> (Child, i32) {
        let child = Command::new("sh").args(["-c", script]).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        (child, pid)
    }

    #[test]
    fn own_children_are_ended_and_nobody_else() {
        let (mut willing, first) = start("exec sleep 60");
        let (mut deaf, second) = start("trap '' TERM; while :; do sleep 0.02; done");
        let ignores = || {
            let status = std::fs::read_to_string(format!("/proc/{second}/status")).unwrap();
            let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap().trim();
            u64::from_str_radix(mask, 16).unwrap() & (1 << (Signal::SIGTERM as u32 - 1)) != 0
        };
        while !ignores() {
            std::thread::sleep(PAUSE);
        }
        // 1 is no child of this process, and the last one is reaped.
        let (mut gone, third) = start("exit 0");
        gone.wait().unwrap();
        end_within(Duration::from_millis(300), &[first, second, third, 1]);
        assert_eq!(willing.wait().unwrap().signal(), Some(libc::SIGTERM));
        assert_eq!(deaf.wait().unwrap().signal(), Some(libc::SIGKILL));
    }
}
