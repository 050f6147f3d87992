//! The limit of open files: ours is raised as far as the system lets us, and what users run gets back the one they had.
//!
//! Every client, endpoint and worker costs descriptors, and the usual soft limit is 1,024. Programs of users may rely on
//! a low one, for some close every descriptor there may be, and `select` knows no higher number.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The soft limit that this process was started with; it holds again when this is dropped.
#[derive(Debug)]
pub struct Raised {
    inherited: Option<Inherited>,
}

/// The soft limit that users had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inherited {
    soft: u64,
    hard: u64,
}

/// Raises the soft limit to the hard one.
pub fn raise() -> Raised {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        Ok(Inherited { soft, hard })
    });
    if let Err(error) = &raised {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
    Raised { inherited: raised.ok() }
}

impl Raised {
    /// What users had; none when it could not be raised.
    pub fn inherited(&self) -> Option<Inherited> {
        self.inherited
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        if let Some(inherited) = self.inherited {
            let _ = inherited.set(); // lowering a limit is always allowed
        }
    }
}

impl Inherited {
    /// The number of open files.
    pub fn soft(self) -> u64 {
        self.soft
    }

    /// Gives a process that is to be started the limit that users had.
    pub fn give_back(self, command: &mut Command) {
        // SAFETY: between fork and exec one system call is made, on values prepared before.
        unsafe {
            command.pre_exec(move || self.set());
        }
    }

    fn set(self) -> io::Result<()> {
        Ok(setrlimit(Resource::RLIMIT_NOFILE, self.soft, self.hard)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits_of(command: &mut Command) -> String {
        let output = command.args(["-c", "echo $(ulimit -Sn) $(ulimit -Hn)"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    #[test]
    fn ours_is_the_hard_limit_and_theirs_what_they_had() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 200, hard).unwrap();
        let raised = raise();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
        assert_eq!(limits_of(&mut Command::new("/bin/sh")), format!("{hard} {hard}"));
        let inherited = raised.inherited().unwrap();
        assert_eq!(inherited.soft(), 200);
        let mut command = Command::new("/bin/sh");
        inherited.give_back(&mut command);
        assert_eq!(limits_of(&mut command), format!("200 {hard}"));
        drop(raised);
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (200, hard));
    }
}
