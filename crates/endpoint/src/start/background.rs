//! Going into the background: another process of this program sets up and runs, and this one waits for its word.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::pipe;
use wire::start::Report;

use super::Launch;
use crate::console::note;
use crate::exit::{CommandResult, Failure, status};

/// Says how it went, and, if well, what is still to be said. Whoever waited may have gone; the endpoint runs all the same.
pub(crate) fn report(outcome: Result<&str, &Failure>, to: OwnedFd) {
    let report = match outcome {
        Ok(note) => Report { status: 0, text: note.to_owned() },
        Err(failure) => Report { status: failure.status, text: failure.text.clone() },
    };
    if let Ok(bytes) = serde_json::to_vec(&report) {
        let _ = File::from(to).write_all(&bytes);
    }
}

/// Whether the programs that this process runs shall have the descriptor too.
pub(crate) fn inherit(descriptor: &OwnedFd, inherit: bool) -> nix::Result<()> {
    let flags = if inherit { FdFlag::empty() } else { FdFlag::FD_CLOEXEC };
    fcntl(descriptor, FcntlArg::F_SETFD(flags)).map(drop)
}

/// A file in memory that holds `content`, to be somebody's standard input.
pub(super) fn memory_file(content: &[u8]) -> std::io::Result<File> {
    let mut file = File::from(memfd_create(c"start", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(content)?;
    file.rewind()?;
    Ok(file)
}

/// Starts the background process and waits until it runs or has failed.
pub(super) fn spawn(launch: &Launch) -> CommandResult {
    let failed = |error: std::io::Error| Failure::new(status::SOFTWARE, format!("Error: {error}"));
    let input = match &launch.document {
        Some(document) => Stdio::from(memory_file(&document.encode()).map_err(failed)?),
        None => Stdio::null(),
    };
    // No close-on-exec: the child shall have its end. We have no other threads that could spawn in between.
    let (ours, theirs) = pipe().map_err(|error| failed(error.into()))?;
    let mut command = Command::new("/proc/self/exe");
    let base = launch.endpoint.path().parent().unwrap_or(launch.endpoint.path());
    // The name by which a PID file's process is known as an endpoint.
    command.arg0("globus-compute-endpoint");
    command.arg("--config-dir").arg(base).arg("start").arg(launch.endpoint.name());
    if let Some(id) = launch.request.endpoint_uuid {
        command.arg("--endpoint-uuid").arg(id.to_string());
    }
    if launch.request.debug {
        command.arg("--debug");
    }
    command.arg("--report-fd").arg(theirs.as_raw_fd().to_string()).stdin(input);
    let mut child = command.spawn().map_err(failed)?;
    drop(theirs);
    let mut said = Vec::new();
    File::from(ours).read_to_end(&mut said).map_err(failed)?;
    match serde_json::from_slice(&said) {
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
