//! Notices that the process which started us has gone.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::time::Duration;

use nix::unistd::getppid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How often to look, on a kernel that can't wake us: before 5.3.
const LOOKING: Duration = Duration::from_millis(500);

/// The end of a process is known before its children have another parent.
const MOMENT: Duration = Duration::from_millis(10);

/// Waits until `parent` is our parent no more; for ever without one.
pub(super) async fn gone(parent: Option<i32>) {
    let Some(parent) = parent else { return std::future::pending().await };
    // Opened before we look whose child we are: nobody else can have the number by then.
    let handle = handle(parent).and_then(|handle| {
        // SAFETY: the descriptor is the handle's own, and stays open and the same as long as it lives.
        unsafe { AsyncFd::register_with_interest(handle, Interest::READABLE) }.map_err(io::Error::other)
    });
    while getppid().as_raw() == parent {
        match &handle {
            // It can be read once the process has ended.
            Ok(handle) if handle.readable().await.is_ok() => tokio::time::sleep(MOMENT).await,
            _ => tokio::time::sleep(LOOKING).await,
        }
    }
    tracing::warn!("Parent ({parent}) has gone away; initiating shut down");
}

/// What tells the end of a process.
fn handle(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two numbers; what it returns is nobody's but ours.
    let number = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let number = i32::try_from(number).unwrap_or(-1);
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
