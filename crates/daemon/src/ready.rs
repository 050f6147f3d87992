//! Notifies the service manager (systemd) of this process's state. Without one (no `NOTIFY_SOCKET`) every call does nothing.

use sd_notify::NotifyState;

/// This process serves now.
pub fn serving() {
    notify(&[NotifyState::Ready]);
}

/// This process has begun to stop.
pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Feeds the service manager's watchdog while `healthy` returns true. A service manager whose watchdog is not fed restarts
/// this process. Does nothing if there is no watchdog.
pub async fn feed_watchdog<H: Future<Output = bool>>(healthy: impl Fn() -> H) {
    let Some(timeout) = sd_notify::watchdog_enabled() else { return };
    loop {
        tokio::time::sleep(timeout / 3).await;
        if healthy().await {
            notify(&[NotifyState::Watchdog]);
        }
    }
}

fn notify(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager could not be notified");
    }
}
