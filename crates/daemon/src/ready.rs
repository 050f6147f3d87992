//! Tells the service manager how we are. Without one (no `NOTIFY_SOCKET`) every call does nothing.

use sd_notify::NotifyState;

/// The process serves now.
pub fn serving() {
    tell(&[NotifyState::Ready]);
}

/// The process has begun to stop.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Tells the service manager again and again that we are well, as often as it wants to hear it and while `well` says so;
/// one that hears nothing starts us again. Does nothing for one that does not watch.
pub async fn keep_telling<W: Future<Output = bool>>(well: impl Fn() -> W) {
    let Some(patience) = sd_notify::watchdog_enabled() else { return };
    loop {
        tokio::time::sleep(patience / 3).await;
        if well().await {
            tell(&[NotifyState::Watchdog]);
        }
    }
}

fn tell(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager could not be told our state");
    }
}
