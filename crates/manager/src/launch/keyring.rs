//! Leaves the session keyring that the manager's login may have: it can hold keys of root's (Kerberos, NFS, disks), and
//! whoever is in a session possesses its keys.

use nix::errno::Errno;

use super::stage::{Failure, Problem, Stage};

/// Joins a new, empty session keyring, and refuses to go on in the old one. Called as root, so that what a user has stored
/// can't use up the quota that the new one needs. A module of PAM may replace it later (`pam_keyinit`).
pub(super) fn leave() -> Result<(), Failure> {
    left(join_new())
}

/// The same once more, as the user: the new keyring then belongs to them. If their quota is used up, the empty one of
/// [`leave`] stays.
pub(super) fn have_own() {
    let _ = join_new();
}

fn join_new() -> Result<(), Errno> {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: the call takes a number and no name.
    let answer =
        unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>()) };
    Errno::result(answer).map(drop)
}

fn left(answer: Result<(), Errno>) -> Result<(), Failure> {
    match answer {
        // A kernel without keys, or a container in which nobody may ask for keys.
        Ok(()) | Err(Errno::ENOSYS | Errno::EPERM) => Ok(()),
        Err(errno) => {
            let problem = Problem::system(errno, None);
            let private = format!("leaving the manager's session keyring: {}", problem.text);
            Err(problem.privately(private).at(Stage::Privileges))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_without_keys_may_a_launch_go_on_in_the_old_keyring() {
        for answer in [Ok(()), Err(Errno::ENOSYS), Err(Errno::EPERM)] {
            assert_eq!(left(answer), Ok(()), "{answer:?}");
        }
        for errno in [Errno::EDQUOT, Errno::ENOMEM, Errno::EACCES, Errno::EINTR] {
            let failure = left(Err(errno)).unwrap_err();
            assert_eq!(failure.report("alicia", true).status, 74, "{errno}");
            assert!(failure.report("alicia", true).private.contains("session keyring"), "{errno}");
        }
    }
}
