//! Reads what launchers report, each from its pipe, until that closes.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use manager::children::Serial;
use manager::launch::Reports;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::AbortHandle;

use super::process_event::ProcessEvent;

/// Begins to read. The reader ends by itself, after it has told the end of the launch.
pub(super) fn read(
    serial: Serial,
    pipe: OwnedFd,
    outbox: UnboundedSender<ProcessEvent>,
) -> io::Result<AbortHandle> {
    let pipe = nonblocking(pipe)?;
    Ok(tokio::spawn(read_all(serial, pipe, outbox)).abort_handle())
}

fn nonblocking(reports: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    fcntl(&reports, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    // SAFETY: the descriptor is the handle's own, and stays open and the same as long as it lives.
    unsafe { AsyncFd::register(reports) }.map_err(io::Error::other)
}

/// Reads until the pipe closes.
async fn read_all(serial: Serial, pipe: AsyncFd<OwnedFd>, outbox: UnboundedSender<ProcessEvent>) {
    let mut reports = Reports::default();
    let mut buffer = [0; 4096];
    loop {
        let Ok(mut ready) = pipe.readable().await else { break };
        let read = ready.try_io(|pipe| Ok(nix::unistd::read(pipe.get_ref().as_fd(), &mut buffer)?));
        match read {
            Ok(Ok(0)) | Ok(Err(_)) => break,
            Ok(Ok(length)) => {
                for report in reports.push(&buffer[..length]) {
                    let _ = outbox.send(ProcessEvent::Reported { serial, report });
                }
            }
            // It was not readable after all.
            Err(_) => {}
        }
    }
    let _ = outbox.send(ProcessEvent::LaunchEnded { serial, end: reports.end() });
}
