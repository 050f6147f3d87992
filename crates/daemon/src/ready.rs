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

fn tell(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager could not be told our state");
    }
}
