//! Signals processes with a user's rights instead of root's.
//!
//! A number that was the user endpoint's may be another process's by now, and a user can have numbers come round quickly.
//! An effective user id is no help, since `kill` goes by the real one, too. So a new process becomes the user for good and
//! sends the signals: it can hit that user's processes and no others.

use std::time::{Duration, Instant};

use caps::CapSet;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{ForkResult, Pid, Uid, fork, setresuid};

use super::ending::exit;
use crate::waiting;

/// How often to look whether the process has ended.
const CHECK_INTERVAL: Duration = Duration::from_millis(5);

/// Does something in a new process that is the user and nothing else. The user can stop that process or end it, so after
/// `limit` it is ended and no longer waited for. Callers have one thread.
pub(super) fn as_user(uid: Uid, limit: Duration, act: impl FnOnce()) {
    // SAFETY: the caller has one thread, and the child never returns from here.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => {
            if become_for_good(uid) {
                act();
            }
            exit(0)
        }
        Ok(ForkResult::Parent { child }) => {
            if !ends_within(child, limit) {
                // Not reaped, so the number is still the child's.
                let _ = kill(child, Signal::SIGKILL);
                ends_within(child, limit);
            }
        }
        // Without a process there is no signal; a user endpoint ends by itself when its parent is gone.
        Err(_) => {}
    }
}

/// The leader too: before its `setsid` it leads no group.
pub(super) fn kill_group(leader: Pid) -> Result<(), Errno> {
    let answer = kill(leader, Signal::SIGKILL);
    let _ = kill(Pid::from_raw(-leader.as_raw()), Signal::SIGKILL);
    answer
}

pub(super) fn become_for_good(uid: Uid) -> bool {
    let cleared = |set| caps::clear(None, set).is_ok();
    !uid.is_root()
        && setresuid(uid, uid, uid).is_ok()
        && cleared(CapSet::Effective)
        && cleared(CapSet::Permitted)
        && cleared(CapSet::Inheritable)
}

fn ends_within(child: Pid, limit: Duration) -> bool {
    let begin = Instant::now();
    loop {
        match waiting::reap(child) {
            Ok(None) if begin.elapsed() < limit => std::thread::sleep(CHECK_INTERVAL),
            Ok(None) => return false,
            Ok(Some(_)) | Err(_) => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;

    use super::*;

    const SOMEBODY: Uid = Uid::from_raw(54_321);

    #[test]
    fn a_process_that_is_stopped_holds_nobody() {
        if !Uid::effective().is_root() {
            return;
        }
        let begin = Instant::now();
        as_user(SOMEBODY, Duration::from_millis(100), || {
            let _ = kill(Pid::this(), Signal::SIGSTOP);
        });
        assert!(begin.elapsed() >= Duration::from_millis(100));
        assert!(begin.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn is_never_root() {
        let mut child = Command::new("sleep").arg("1000").process_group(0).spawn().unwrap();
        let number = Pid::from_raw(child.id().cast_signed());
        as_user(Uid::from_raw(0), Duration::from_secs(5), || {
            let _ = kill_group(number);
        });
        assert_eq!(child.try_wait().unwrap(), None);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
