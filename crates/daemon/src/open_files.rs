//! The limit of open files: raises the soft limit of this process to the hard limit, and restores it for users' programs.
//!
//! Every client, endpoint and worker needs descriptors, and the usual soft limit is 1,024. Users' programs may rely on a low
//! limit: some close every possible descriptor, and `select` supports no number above 1,023.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The limit is raised until this is dropped.
#[derive(Debug)]
pub struct RaisedLimit {
    inherited: Option<InheritedLimit>,
}

/// The limit that this process was started with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InheritedLimit {
    soft: u64,
    hard: u64,
}

/// Raises the soft limit to the hard limit.
pub fn raise() -> RaisedLimit {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        Ok(InheritedLimit { soft, hard })
    });
    if let Err(error) = &raised {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
    RaisedLimit { inherited: raised.ok() }
}

impl RaisedLimit {
    /// The limit that this process was started with; `None` if it could not be raised.
    pub fn inherited(&self) -> Option<InheritedLimit> {
        self.inherited
    }
}

impl Drop for RaisedLimit {
    fn drop(&mut self) {
        if let Some(inherited) = self.inherited {
            // Lowering a limit is always allowed.
            let _ = inherited.set();
        }
    }
}

impl InheritedLimit {
    /// The soft limit.
    pub fn soft(self) -> u64 {
        self.soft
    }

    /// The hard limit.
    pub fn hard(self) -> u64 {
        self.hard
    }

    /// Restores the limit for a process that is to be started.
    pub fn restore_for(self, command: &mut Command) {
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
    fn the_limit_is_raised_and_restored_for_a_child() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 200, hard).unwrap();
        let raised = raise();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
        assert_eq!(limits_of(&mut Command::new("/bin/sh")), format!("{hard} {hard}"));
        let inherited = raised.inherited().unwrap();
        assert_eq!((inherited.soft(), inherited.hard()), (200, hard));
        let mut command = Command::new("/bin/sh");
        inherited.restore_for(&mut command);
        assert_eq!(limits_of(&mut command), format!("200 {hard}"));
        drop(raised);
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (200, hard));
    }
}
