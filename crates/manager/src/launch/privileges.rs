//! Gives up the superuser's privileges for good.
//!
//! ```text
//!                           without PAM                         with PAM
//! group ids                 the user's primary group, as real, effective and saved id
//! supplementary groups      those of the group database         those, and what PAM added
//! bounding set              empty                               as inherited
//! secure bits               being root gives no capabilities,   as inherited
//!                           nothing becomes ambient; locked
//! user ids                  the user's, as real, effective and saved id
//! capability sets           empty                               empty, but for what PAM gave (`pam_cap`)
//! no_new_privs              set: setuid programs give nothing   not set: `su`, `newuidmap`, `pbs_iff` work
//! keys                      a new, empty session keyring        the same, or what PAM made (`pam_keyinit`)
//! ```
//! At the end the process tries to become what it was, and refuses to go on if that works.
//!
//! This module may never report success unless each of these steps succeeded.

use std::io;

use caps::{CapSet, CapsHashSet};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::{Gid, Uid, getresgid, getresuid, setgid, setgroups, setresgid, setresuid, setuid};

use super::keyring;
use super::stage::{Failure, Problem, Stage};
use super::user::LocalUser;

/// From `linux/securebits.h`: capabilities don't come from being root, nor from the ambient set, and these bits stay.
const SECURE_BITS: libc::c_ulong = NOROOT | NOROOT_LOCKED | NO_AMBIENT_RAISE | NO_AMBIENT_RAISE_LOCKED;
const NOROOT: libc::c_ulong = 1 << 0;
const NOROOT_LOCKED: libc::c_ulong = 1 << 1;
const NO_AMBIENT_RAISE: libc::c_ulong = 1 << 6;
const NO_AMBIENT_RAISE_LOCKED: libc::c_ulong = 1 << 7;

/// Linux numbers capabilities from 0; a set has 64 bits.
const CAPABILITY_NUMBERS: std::ops::Range<libc::c_ulong> = 0..64;

/// Sets the groups of the group database. Needs root.
pub(super) fn take_groups(user: &LocalUser) -> Result<(), Failure> {
    setgroups(&user.groups).map_err(|errno| {
        let count = user.groups.len();
        Problem::system(errno, None)
            .with(&format!(" (setting {count} supplementary groups)"))
            .at(Stage::SupplementaryGroups)
    })
}

/// Becomes the user and keeps nothing.
pub(super) fn become_user(user: &LocalUser) -> Result<(), Failure> {
    let before = Before::now();
    let nothing = Kept::default();
    set_group(user.gid)?;
    take_groups(user)?;
    give_up_future_capabilities().map_err(|error| error.at(Stage::Privileges))?;
    set_user(user.uid)?;
    give_up_capabilities(&nothing).map_err(|error| error.at(Stage::Privileges))?;
    prctl::set_no_new_privs().map_err(|errno| system(errno, "PR_SET_NO_NEW_PRIVS").at(Stage::Privileges))?;
    keyring::have_own();
    before.check(user, &nothing).map_err(|error| error.at(Stage::Privileges))
}

/// Becomes the user; keeps the groups and the capabilities that PAM gave to this process.
pub(super) fn become_user_with_pam(user: &LocalUser) -> Result<(), Failure> {
    let before = Before::now();
    let given = Kept::of_this_process().map_err(|error| error.at(Stage::Privileges))?;
    set_group(user.gid)?;
    // Ambient capabilities don't survive a change of the user; permitted ones do if this is set.
    prctl::set_keepcaps(!given.ambient.is_empty())
        .map_err(|errno| system(errno, "PR_SET_KEEPCAPS").at(Stage::Privileges))?;
    set_user(user.uid)?;
    give_up_capabilities(&given).map_err(|error| error.at(Stage::Privileges))?;
    before.check(user, &given).map_err(|error| error.at(Stage::Privileges))
}

/// The capabilities that a user endpoint starts with.
#[derive(Default)]
struct Kept {
    /// Given by programs' files.
    inheritable: CapsHashSet,
    /// In effect from the start.
    ambient: CapsHashSet,
}

impl Kept {
    fn of_this_process() -> Result<Self, Problem> {
        let read = |set| caps::read(None, set).map_err(|error| unreadable(&error));
        Ok(Self { inheritable: read(CapSet::Inheritable)?, ambient: read(CapSet::Ambient)? })
    }
}

/// Empties the sets that the programs of a user endpoint would inherit, so that what is in them afterwards comes from PAM,
/// and so that a personal manager's capabilities (to serve a port, for instance) are not its tasks'.
pub(super) fn inherit_nothing() -> Result<(), Failure> {
    let clear = || {
        caps::clear(None, CapSet::Ambient)?;
        caps::clear(None, CapSet::Inheritable)
    };
    clear().map_err(|error| unreadable(&error).at(Stage::HostAuthentication))
}

fn set_group(gid: Gid) -> Result<(), Failure> {
    setresgid(gid, gid, gid).map_err(|errno| system(errno, "setresgid").at(Stage::HostAuthentication))
}

fn set_user(uid: Uid) -> Result<(), Failure> {
    setresuid(uid, uid, uid).map_err(|errno| system(errno, "setresuid").at(Stage::User))
}

/// Empties the bounding set and sets the secure bits. Both need CAP_SETPCAP. A manager with no more than the capabilities
/// to change users lacks it; no_new_privs alone then keeps programs from gaining any.
fn give_up_future_capabilities() -> Result<(), Problem> {
    if !caps::has_cap(None, CapSet::Effective, caps::Capability::CAP_SETPCAP)
        .map_err(|error| unreadable(&error))?
    {
        return Ok(());
    }
    for capability in CAPABILITY_NUMBERS {
        // SAFETY: the call takes numbers.
        match Errno::result(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) }) {
            Ok(_) => {}
            // The kernel has no more capabilities.
            Err(Errno::EINVAL) => break,
            Err(errno) => return Err(system(errno, "PR_CAPBSET_DROP")),
        }
    }
    // SAFETY: as above.
    let set = Errno::result(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, SECURE_BITS, 0, 0, 0) });
    set.map(drop).map_err(|errno| system(errno, "PR_SET_SECUREBITS"))
}

/// Empties the capability sets but for what is kept.
fn give_up_capabilities(kept: &Kept) -> Result<(), Problem> {
    let give_up = || {
        caps::set(None, CapSet::Effective, &CapsHashSet::new())?;
        caps::set(None, CapSet::Permitted, &kept.ambient)?;
        caps::set(None, CapSet::Inheritable, &kept.inheritable)?;
        if kept.ambient.is_empty() {
            return caps::clear(None, CapSet::Ambient);
        }
        caps::set(None, CapSet::Effective, &kept.ambient)?;
        caps::set(None, CapSet::Ambient, &kept.ambient)
    };
    give_up().map_err(|error| unreadable(&error))
}

/// Who the process was.
struct Before {
    uid: Uid,
    gid: Gid,
}

impl Before {
    fn now() -> Self {
        Self { uid: Uid::current(), gid: Gid::current() }
    }

    /// Checks that the process is the user and nothing else, and that it can't be what it was.
    fn check(&self, user: &LocalUser, kept: &Kept) -> Result<(), Problem> {
        let uids = getresuid().map_err(|errno| system(errno, "getresuid"))?;
        if [uids.real, uids.effective, uids.saved] != [user.uid; 3] {
            return Err(regained("the user ids are not the user's"));
        }
        let gids = getresgid().map_err(|errno| system(errno, "getresgid"))?;
        if [gids.real, gids.effective, gids.saved] != [user.gid; 3] {
            return Err(regained("the group ids are not the user's"));
        }
        if setuid(self.uid).is_ok() || setresuid(self.uid, self.uid, self.uid).is_ok() {
            return Err(regained("the process could become the manager's user again"));
        }
        if self.gid != user.gid && setgid(self.gid).is_ok() {
            return Err(regained("the process could get the manager's group again"));
        }
        let expected = [
            (CapSet::Effective, &kept.ambient),
            (CapSet::Permitted, &kept.ambient),
            (CapSet::Ambient, &kept.ambient),
            (CapSet::Inheritable, &kept.inheritable),
        ];
        for (set, expected) in expected {
            if caps::read(None, set).map_err(|error| unreadable(&error))? != *expected {
                return Err(regained("the process has capabilities that it should not have"));
            }
        }
        Ok(())
    }
}

/// Upstream's words: the submitter learns no more.
fn regained(private: &str) -> Problem {
    Problem::new("PermissionError", "failed to start endpoint").privately(private)
}

fn system(errno: Errno, call: &str) -> Problem {
    let problem = Problem::system(errno, None);
    let private = format!("{call}: {}", problem.text);
    problem.privately(private)
}

fn unreadable(error: &dyn std::error::Error) -> Problem {
    Problem::denied(format!("capabilities: {error}"))
}

/// Whether this process has one thread. A change of identity holds for one thread, and after `fork` only one is left.
pub(super) fn single_threaded() -> io::Result<bool> {
    Ok(std::fs::read_dir("/proc/self/task")?.count() == 1)
}
