//! Notices the end of the parent process.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::time::Duration;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::getppid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How often to check on kernels without process handles (before 5.3).
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// The handle reports the end of a process shortly before its children have another parent.
const REPARENTING: Duration = Duration::from_millis(10);

/// Whether `parent` is no longer our parent.
pub(super) fn is_gone(parent: Option<i32>) -> bool {
    parent.is_some_and(|parent| getppid().as_raw() != parent)
}

/// Waits until `parent` is no longer our parent; for ever if there is none.
pub(super) async fn ended(parent: Option<i32>) {
    let Some(parent) = parent else { return std::future::pending().await };
    // A process that somebody stopped notices nothing. When the parent ends, the kernel lets this one continue.
    if let Err(error) = set_pdeathsig(Signal::SIGCONT) {
        tracing::debug!(%error, "a stopped process will not notice the end of its parent");
    }
    // Opened before the parent is checked, so that it can't belong to a later process with the same PID.
    let handle = handle(parent).and_then(|handle| {
        // SAFETY: the descriptor is the handle's own, and stays open and the same as long as it lives.
        unsafe { AsyncFd::register_with_interest(handle, Interest::READABLE) }.map_err(io::Error::other)
    });
    while !is_gone(Some(parent)) {
        match &handle {
            // It becomes readable when the process ends.
            Ok(handle) if handle.readable().await.is_ok() => tokio::time::sleep(REPARENTING).await,
            _ => tokio::time::sleep(CHECK_INTERVAL).await,
        }
    }
    tracing::warn!("Parent ({parent}) has gone away; initiating shut down");
}

/// A handle that becomes readable when the process ends.
fn handle(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two numbers, and returns a new descriptor that nothing else owns.
    let number = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let number = i32::try_from(number).unwrap_or(-1);
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
