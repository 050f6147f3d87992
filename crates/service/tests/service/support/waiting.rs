//! Waits for what must happen, up to a limit.

use std::time::Duration;

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// Calls `condition` until it returns a value, and returns that. Fails after a while and says `what` was awaited.
pub async fn until<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    within(what, async {
        loop {
            if let Some(value) = condition().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

/// Waits for `happening`; fails after a while and says `what` was awaited.
pub async fn within<T>(what: &str, happening: impl Future<Output = T>) -> T {
    let outcome = tokio::time::timeout(PATIENCE, happening).await;
    outcome.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}
