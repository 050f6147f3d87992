//! Takes over what the manager passed: the request, the report pipe, the audit pipe, the renewed credentials. Everything
//! else that was inherited is closed.
//!
//! Runs as root, and reads only what the manager itself wrote.

use std::fs::File;
use std::io::{self, IoSliceMut, Read as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl, open};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};
use nix::sys::stat::Mode;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::request::LaunchRequest;

/// The maximum size of a request in bytes: a start command has at most 1 MiB.
const LIMIT: u64 = 8 << 20;

/// Ours are numbered from here, so that the numbers that a user endpoint expects are free.
const FIRST: RawFd = 10;

/// What the manager passed.
pub(super) struct Received {
    pub(super) request: LaunchRequest,
    /// The write end of the user endpoint's audit pipe.
    pub(super) audit: Option<OwnedFd>,
    /// The memory file with the renewed credentials.
    pub(super) credentials: Option<OwnedFd>,
}

/// Moves the report pipe away from standard output and the socket away from standard input; both become `/dev/null`.
/// Closes whatever else was inherited, but for standard error. The first act of the process: nothing else is open yet.
pub(super) fn take_over_descriptors() -> io::Result<(OwnedFd, OwnedFd)> {
    for number in open_descriptors()?.into_iter().filter(|number| *number > libc::STDERR_FILENO) {
        // SAFETY: nothing in this process owns it yet. The number may be closed already (the listing itself).
        unsafe { libc::close(number) };
    }
    let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
    let socket = moved(io::stdin())?;
    let reports = moved(io::stdout())?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    if fcntl(io::stderr(), FcntlArg::F_GETFD).is_err() {
        dup2_stderr(&null)?;
    }
    Ok((socket, reports))
}

/// A duplicate with a high number, closed at `exec`.
pub(super) fn moved(descriptor: impl std::os::fd::AsFd) -> Result<OwnedFd, Errno> {
    let number = fcntl(descriptor, FcntlArg::F_DUPFD_CLOEXEC(FIRST))?;
    // SAFETY: the number was just made and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Reads the manager's message.
pub(super) fn receive(socket: OwnedFd) -> io::Result<Received> {
    let mut text = [0_u8; 64];
    let mut parts = [IoSliceMut::new(&mut text)];
    let mut space = nix::cmsg_space!([RawFd; 8]);
    let message =
        recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut descriptors = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            // SAFETY: the kernel just made these descriptors for this process.
            descriptors.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
        }
    }
    let mut descriptors = descriptors.into_iter();
    let document = descriptors.next().ok_or_else(|| invalid("the manager's message has no request"))?;
    let request = read(File::from(document))?;
    let mut next = |wanted: bool| match wanted {
        true => {
            let passed =
                descriptors.next().ok_or_else(|| invalid("the manager's message lacks a descriptor"))?;
            moved(passed).map(Some).map_err(io::Error::from)
        }
        false => Ok(None),
    };
    let audit = next(request.audit_descriptor.is_some())?;
    let credentials = next(request.renewed_credentials.is_some())?;
    Ok(Received { request, audit, credentials })
}

/// Reads a request from its start, wherever the descriptor's position is.
fn read(mut document: File) -> io::Result<LaunchRequest> {
    io::Seek::rewind(&mut document)?;
    let mut bytes = Vec::new();
    document.take(LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LIMIT {
        return Err(invalid("the request is too large"));
    }
    serde_json::from_slice(&bytes).map_err(io::Error::from)
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// The open descriptors of this process.
pub(super) fn open_descriptors() -> io::Result<Vec<RawFd>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        numbers.extend(name.to_str().and_then(|name| name.parse::<RawFd>().ok()));
    }
    Ok(numbers)
}

/// Has every descriptor from `first` on closed at the next `exec`.
pub(super) fn close_at_exec(first: RawFd) -> io::Result<()> {
    for number in open_descriptors()?.into_iter().filter(|number| *number >= first) {
        // SAFETY: it only sets a flag. The number may be closed already (the listing itself): that is no error.
        unsafe { libc::fcntl(number, libc::F_SETFD, FdFlag::FD_CLOEXEC.bits()) };
    }
    Ok(())
}
