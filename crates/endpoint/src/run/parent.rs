//! Notices that the process which started us has gone.

use std::time::Duration;

use nix::unistd::getppid;

/// How often to look; nothing wakes a process whose parent goes, if the parent was not its direct one at fork.
const LOOKING: Duration = Duration::from_secs(1);

/// Waits until `parent` is our parent no more; for ever without one.
pub(super) async fn gone(parent: Option<i32>) {
    let Some(parent) = parent else { return std::future::pending().await };
    while getppid().as_raw() == parent {
        tokio::time::sleep(LOOKING).await;
    }
    tracing::warn!("Parent ({parent}) has gone away; initiating shut down");
}
