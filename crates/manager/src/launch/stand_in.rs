//! The stand-in of [`session`](super::session): closes the session if the holder is killed, after it ended the user endpoint.

use std::fs::File;
use std::io::Read as _;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::unistd::{Pid, Uid, setsid};

use super::ending::{exit, log};
use super::pam::Session;
use super::rights::{as_user, kill_group};
use super::signals::{self, ENDING};

/// How long a user endpoint that lost its holder has.
const GRACE: Duration = Duration::from_millis(1500);

/// How long the process that ends it has after that: the user can stop this process.
const SLACK: Duration = Duration::from_millis(300);

/// The holder's first message, if there is no user endpoint: in the place of its number.
pub(super) const NOBODY: [u8; 4] = [0; 4];

/// The holder's second message: it closes the session.
pub(super) const CLOSING: u8 = b'c';

/// Waits for the holder's message that it closes the session, or for the end of the holder.
pub(super) fn stand_in(session: Session, uid: Uid, mut messages: File) -> ! {
    // Out of the holder's process group: a signal to that group must not take both.
    let _ = setsid();
    let blocked: SigSet = ENDING.into_iter().collect();
    let _ = sigprocmask(SigmaskHow::SIG_BLOCK, Some(&blocked), None);
    let mut number = [0; 4];
    let told = messages.read_exact(&mut number).is_ok();
    if messages.read_exact(&mut [0]).is_ok() {
        exit(0);
    }
    if told && number != NOBODY {
        end_orphan(Pid::from_raw(i32::from_ne_bytes(number)), uid);
    }
    signals::note_requests_to_end();
    for failure in session.close() {
        log(&failure);
    }
    exit(0)
}

/// Ends the user endpoint whose holder was killed. Its number may belong to another process by now, or any moment later.
fn end_orphan(leader: Pid, uid: Uid) {
    as_user(uid, GRACE + SLACK, || {
        let group = Pid::from_raw(-leader.as_raw());
        let gone = || kill(leader, None).is_err() && kill(group, None).is_err();
        let _ = kill(leader, Signal::SIGTERM);
        let begin = Instant::now();
        while begin.elapsed() < GRACE && !gone() {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = kill_group(leader);
    });
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
    use std::process::{Child, Command};

    use super::*;

    /// Nobody's number.
    const SOMEBODY: u32 = 54_321;

    fn sleep(uid: u32) -> Child {
        Command::new("sleep").arg("1000").uid(uid).process_group(0).spawn().unwrap()
    }

    fn pid(child: &Child) -> Pid {
        Pid::from_raw(child.id().cast_signed())
    }

    #[test]
    fn ends_the_users_process_and_no_other() {
        if !Uid::effective().is_root() {
            return;
        }
        for others in [0, SOMEBODY + 1] {
            let mut other = sleep(others);
            end_orphan(pid(&other), Uid::from_raw(SOMEBODY));
            assert_eq!(other.try_wait().unwrap(), None, "{others}");
            other.kill().unwrap();
            other.wait().unwrap();
        }
        let mut theirs = sleep(SOMEBODY);
        end_orphan(pid(&theirs), Uid::from_raw(SOMEBODY));
        assert_eq!(theirs.wait().unwrap().signal(), Some(libc::SIGTERM));
    }
}
