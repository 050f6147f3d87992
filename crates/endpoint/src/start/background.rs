//! Starts the background process, which sets up and runs the endpoint, and waits for its report.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::pipe;
use wire::start_document::{Report, StartDocument};

use super::Request;
use crate::console::note;
use crate::directory::EndpointDir;
use crate::exit::{CommandResult, Failure, status};

/// Sends the report to the `start` that waits: a failure, or a note to print. That process may be gone; the endpoint runs anyway.
pub(crate) fn report(outcome: Result<&str, &Failure>, to: OwnedFd) {
    let report = match outcome {
        Ok(note) => Report { status: 0, text: note.to_owned() },
        Err(failure) => Report { status: failure.status, text: failure.text.clone() },
    };
    if let Ok(bytes) = serde_json::to_vec(&report) {
        let _ = File::from(to).write_all(&bytes);
    }
}

/// Sets whether programs that this process executes inherit the descriptor.
pub(crate) fn inherit(descriptor: &OwnedFd, inherit: bool) -> nix::Result<()> {
    inherit_number(descriptor.as_raw_fd(), inherit)
}

/// The same for a descriptor that is known by its number.
pub(crate) fn inherit_number(number: RawFd, inherit: bool) -> nix::Result<()> {
    // SAFETY: only its flags are read and changed; a number that is not open is an error.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = if inherit { FdFlag::empty() } else { FdFlag::FD_CLOEXEC };
    fcntl(descriptor, FcntlArg::F_SETFD(flags)).map(drop)
}

/// A file in memory with this content, to be used as standard input.
pub(crate) fn memory_file(content: &[u8]) -> std::io::Result<File> {
    let mut file = File::from(memfd_create(c"start", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(content)?;
    file.rewind()?;
    Ok(file)
}

/// Starts the background process and waits until it runs or has failed.
pub(super) fn spawn(
    endpoint: &EndpointDir,
    request: &Request,
    document: Option<&StartDocument>,
) -> CommandResult {
    let failed = |error: std::io::Error| Failure::new(status::SOFTWARE, format!("Error: {error}"));
    let input = match document {
        Some(document) => Stdio::from(memory_file(&document.encode()).map_err(failed)?),
        None => Stdio::null(),
    };
    // Without close-on-exec, so that the child inherits its end. No other thread could spawn a process in between.
    let (ours, theirs) = pipe().map_err(|error| failed(error.into()))?;
    let mut command = Command::new("/proc/self/exe");
    let base = endpoint.path().parent().unwrap_or(endpoint.path());
    // The name by which upstream's tools recognize an endpoint's process.
    command.arg0("globus-compute-endpoint");
    command.arg("--config-dir").arg(base).arg("start").arg(endpoint.name());
    if let Some(id) = request.endpoint_uuid {
        command.arg("--endpoint-uuid").arg(id.to_string());
    }
    if request.debug {
        command.arg("--debug");
    }
    if let Some(path) = &request.started_as {
        command.arg("--started-as").arg(path);
    }
    command.arg("--report-fd").arg(theirs.as_raw_fd().to_string()).stdin(input);
    let mut child = command.spawn().map_err(failed)?;
    drop(theirs);
    let mut report = Vec::new();
    File::from(ours).read_to_end(&mut report).map_err(failed)?;
    match serde_json::from_slice(&report) {
        Ok(Report { status: 0, text }) => {
            if !text.is_empty() {
                note(text);
            }
            Ok(())
        }
        Ok(Report { status, text }) => Err(Failure::new(status, text)),
        Err(_) => {
            let ended = child.wait().map_err(failed)?;
            let status = ended.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(status::SOFTWARE);
            Err(Failure::new(status, ""))
        }
    }
}
