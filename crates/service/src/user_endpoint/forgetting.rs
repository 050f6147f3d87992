//! Forgets user endpoints without open tasks some time after their last task (`limits.user_endpoint_days`).
//!
//! Each pass looks at all of them, so that it may be repeated or missed. It keeps no state, and the time is passed in. Nothing is
//! lost with one: the next submit that needs it makes it again, with the same id.

use std::time::Duration;

use daemon::stop::Stop;
use jiff::{SignedDuration, Timestamp};

use super::Starts;
use crate::clock;
use crate::dispatch::Dispatch;
use crate::tasks::presence::Presence;
use store::{ForgetUserEndpoint, Store, StoreError, outage_log};

/// The time between two passes.
const PAUSE: Duration = Duration::from_secs(600);
/// The most that are read at once.
const TOGETHER: usize = 500;

#[derive(Clone, Debug)]
pub struct Forgetting {
    pub store: Store,
    pub dispatch: Dispatch,
    pub starts: Starts,
    pub presence: Presence,
    /// How long one is remembered after its last task.
    pub life: SignedDuration,
}

impl Forgetting {
    /// Runs passes until `stop` begins.
    pub async fn run(self, stop: Stop) {
        loop {
            let pass = tokio::select! {
                pass = self.pass(clock::now()) => pass,
                () = stop.begun() => return,
            };
            match pass {
                Ok(0) => {}
                Ok(forgotten) => tracing::info!(forgotten, "forgot user endpoints that nobody used any more"),
                Err(error) if outage_log::logs(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "forgetting user endpoints failed; the next pass tries again");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = stop.begun() => return,
            }
        }
    }

    /// Runs one pass, at `now`. Returns how many it forgot. One that is online or being started may have no tasks at this moment.
    async fn pass(&self, now: Timestamp) -> Result<usize, StoreError> {
        let before = now - self.life;
        let mut forgotten = 0;
        let mut after = None;
        loop {
            let unused = self.store.unused_user_endpoints(before, after, TOGETHER).await?;
            after = unused.last().copied();
            for &endpoint in &unused {
                let needed = self.presence.online(endpoint, now)
                    || self.dispatch.consumes(endpoint)
                    || self.starts.is_starting(endpoint);
                if !needed && self.store.write(ForgetUserEndpoint { endpoint, before }).await? {
                    self.dispatch.endpoint_forgotten(endpoint).await?;
                    forgotten += 1;
                }
            }
            if unused.len() < TOGETHER {
                return Ok(forgotten);
            }
        }
    }
}
