//! Who the user endpoint runs as: looks the local user up, and refuses those who may never be started.
//!
//! A look-up may ask a directory server on the network and hang: the caller runs it under an alarm.

use std::ffi::CString;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::unistd::{Gid, Uid, User, getgrouplist};

use super::request::{LaunchFailure, LaunchRequest};
use super::stage::{Problem, Stage};

/// A local user, as the name service knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LocalUser {
    pub(super) name: String,
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    pub(super) gecos: String,
    pub(super) shell: PathBuf,
    /// May be empty, or no directory.
    pub(super) home: PathBuf,
    /// The groups of the group database; PAM may add others.
    pub(super) groups: Vec<Gid>,
}

/// Why nobody was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoUser {
    /// The name service has no such user.
    Unknown,
    Failed(Problem),
}

/// Looks up the requested user; without one, this process's own.
pub(super) fn look_up(request: &LaunchRequest) -> Result<LocalUser, NoUser> {
    let found = match &request.local_user {
        Some(name) if plausible(name) => User::from_name(name),
        Some(_) => Ok(None),
        None => User::from_uid(Uid::current()),
    };
    let user = match found {
        Ok(Some(user)) => user,
        // As getpwnam(3) says: some systems report an unknown user as an error.
        Ok(None) | Err(Errno::ENOENT | Errno::ESRCH) => return Err(not_found(request)),
        Err(errno) => return Err(failed(errno)),
    };
    let name = CString::new(user.name.as_str()).map_err(|_| NoUser::Unknown)?;
    let groups = getgrouplist(&name, user.gid).map_err(failed)?;
    Ok(LocalUser {
        name: user.name,
        uid: user.uid,
        gid: user.gid,
        gecos: user.gecos.to_string_lossy().into_owned(),
        shell: user.shell,
        home: user.dir,
        groups,
    })
}

fn not_found(request: &LaunchRequest) -> NoUser {
    match request.local_user {
        Some(_) => NoUser::Unknown,
        None => {
            let text = format!("getpwuid(): uid not found: {}", Uid::current());
            NoUser::Failed(Problem::new("KeyError", text))
        }
    }
}

fn failed(errno: Errno) -> NoUser {
    NoUser::Failed(Problem::new(
        "OSError",
        format!("the name service failed to look up the local user: {}", errno.desc()),
    ))
}

/// Names that no name service is asked for. Modules of the name service are old C code: they get no control characters,
/// no separators of their own files, and nothing longer than a user name can be.
fn plausible(name: &str) -> bool {
    (1..=256).contains(&name.len()) && !name.contains(|c: char| c.is_control() || c == ':' || c == '/')
}

/// Refuses the superuser, by whichever name, and the manager's own user: a mapping may not lead to them.
///
/// `own`: the user of the manager and the launcher.
pub(super) fn refuse(user: &LocalUser, own: Uid) -> Option<&'static str> {
    if user.uid.is_root() {
        Some("the local user is the superuser")
    } else if user.name == "root" {
        Some("the local user is named root")
    } else if user.uid == own {
        Some("the local user is the manager's own user")
    } else {
        None
    }
}

/// The report that nobody has that name.
pub(super) fn unknown(request: &LaunchRequest) -> LaunchFailure {
    let name = request.local_user.as_deref().unwrap_or_default();
    let notice = format!(
        "(KeyError)\n  Identity mapped to a local user name, but local user does not exist.\n  Local user name: {name}{}",
        identity(request)
    );
    LaunchFailure { status: Stage::Read as u8, private: notice.clone(), notice }
}

/// The report that this user may not be started.
pub(super) fn refused(request: &LaunchRequest, user: &LocalUser, reason: &str) -> LaunchFailure {
    let private = format!(
        "(InvalidUserError) {reason}: no user endpoint is started as this user. Correct the identity mapping.\
         \n  Local user name: {} (uid {}){}",
        user.name,
        user.uid,
        identity(request)
    );
    LaunchFailure { status: Stage::Read as u8, notice: INVALID_USER.to_owned(), private }
}

const INVALID_USER: &str = "(InvalidUserError) unexpected error; this is due to either an endpoint misconfiguration or a \
     programming error.  If you are able to recreate this error message at will, consider reaching out to the endpoint \
     administrator or the Globus Compute team.";

fn identity(request: &LaunchRequest) -> String {
    match &request.identity {
        Some(identity) => format!(
            "\n  Globus effective identity: {}\n  Globus username: {}",
            identity.effective, identity.username
        ),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, uid: u32) -> LocalUser {
        LocalUser {
            name: name.to_owned(),
            uid: uid.into(),
            gid: uid.into(),
            gecos: String::new(),
            shell: "/bin/sh".into(),
            home: "/home/x".into(),
            groups: Vec::new(),
        }
    }

    #[test]
    fn who_is_refused() {
        let root = Uid::from_raw(0);
        let service = Uid::from_raw(400);
        for (who, own, refused) in [
            (user("alicia", 1000), root, false),
            (user("root", 0), root, true),
            (user("toor", 0), root, true),
            (user("root", 1000), root, true),
            (user("toor", 0), service, true),
            (user("gce", 400), service, true),
            (user("gce2", 400), service, true),
            (user("alicia", 1000), service, false),
        ] {
            assert_eq!(refuse(&who, own).is_some(), refused, "{who:?} {own}");
        }
    }

    #[test]
    fn names_that_are_never_looked_up() {
        for name in ["", "a\0b", "a:b", "../x", "a\nb", &"x".repeat(300)] {
            assert!(!plausible(name), "{name:?}");
        }
        for name in ["alicia", "alicia@example.edu", "DOMAIN\\alicia", "x.y-z_1$", "0", "jürgen"] {
            assert!(plausible(name), "{name:?}");
        }
    }
}
