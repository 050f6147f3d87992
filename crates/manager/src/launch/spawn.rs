//! Starts a launcher: the manager's side.
//!
//! ```text
//! manager ── /proc/self/exe __launch PID [LIMIT] ──► launcher
//!    standard input:  a socket with one message: the request (a sealed memory file), the audit pipe, the credentials
//!    standard output: the report pipe
//!    standard error:  the manager's
//! ```
//! Descriptors travel in the message, so that none of them is ever inheritable in the manager: another program that the
//! manager starts at the same moment can't get them. The launcher's environment is empty.

use std::fs::File;
use std::io::{self, IoSlice, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, sendmsg, socketpair,
};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::pipe2;
use serde::{Deserialize, Serialize};

use super::request::LaunchRequest;
use super::{LAUNCH, title};

/// A launcher that was started.
#[derive(Debug)]
pub struct Launch {
    /// The process that the manager waits for. Without PAM it becomes the user endpoint; with PAM it ends with the user
    /// endpoint's status.
    pub pid: i32,
    /// The read end of the report pipe, for [`Reports`](super::Reports). It closes when the program took over.
    pub reports: OwnedFd,
}

/// The limit of open files that a manager started with, if it raised its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenFiles {
    pub soft: u64,
    pub hard: u64,
}

impl OpenFiles {
    /// The launcher's second argument.
    fn argument(self) -> String {
        format!("{}:{}", self.soft, self.hard)
    }

    pub(super) fn of_argument(text: &str) -> Option<Self> {
        let (soft, hard) = text.split_once(':')?;
        Some(Self { soft: soft.parse().ok()?, hard: hard.parse().ok()? })
    }

    /// Sets the limit for this process.
    pub(super) fn set(self) -> io::Result<()> {
        Ok(setrlimit(Resource::RLIMIT_NOFILE, self.soft, self.hard)?)
    }
}

/// Starts a launcher from the manager's own file. The caller reaps the process. The launcher sets the limit of open files
/// before it does anything else: set from outside, it could come after PAM, and undo the limit of the site.
pub fn start(request: &LaunchRequest, open_files: Option<OpenFiles>) -> io::Result<Launch> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    let document = memory_file(c"launch", &serde_json::to_vec(request)?)?;
    let mut descriptors: Vec<RawFd> = vec![document.as_raw_fd()];
    descriptors.extend(request.audit_descriptor);
    descriptors.extend(request.renewed_credentials.as_ref().map(|(descriptor, _)| *descriptor));
    let message = [IoSlice::new(b"launch")];
    let rights = [ControlMessage::ScmRights(&descriptors)];
    sendmsg::<UnixAddr>(ours.as_raw_fd(), &message, &rights, MsgFlags::empty(), None)?;

    let (reports, report_writer) = pipe2(OFlag::O_CLOEXEC)?;
    let child = Command::new("/proc/self/exe")
        .arg0(title::starting(request))
        .arg(LAUNCH)
        .arg(std::process::id().to_string())
        .args(open_files.map(OpenFiles::argument))
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::from(report_writer))
        .stderr(Stdio::inherit())
        .spawn()?;
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    Ok(Launch { pid, reports })
}

/// A file in memory, closed at `exec`, that nobody can change any more, read from its start.
pub(super) fn memory_file(name: &std::ffi::CStr, content: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?);
    // By default, everybody may read a file in memory who finds a way to it.
    fchmod(file.as_fd(), Mode::S_IRUSR | Mode::S_IWUSR)?;
    file.write_all(content)?;
    let seals =
        SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    fcntl(file.as_fd(), FcntlArg::F_ADD_SEALS(seals))?;
    io::Seek::rewind(&mut file)?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_as_an_argument() {
        let unlimited = OpenFiles { soft: 1024, hard: u64::MAX };
        assert_eq!(OpenFiles::of_argument(&unlimited.argument()), Some(unlimited));
        for text in ["", "1", ":", "1:", ":1", "-1:1", "1:2:3", "x:y", "1:18446744073709551616"] {
            assert_eq!(OpenFiles::of_argument(text), None, "{text}");
        }
    }
}
