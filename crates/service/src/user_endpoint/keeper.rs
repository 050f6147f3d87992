//! Looks after user endpoints with open tasks: those that are gone are started again, or their tasks are told.
//!
//! What to do is decided in [`restarts`](super::restarts). This looks when something happened (a submit, a farewell, a
//! manager that comes) and, as long as there are open tasks, every few seconds: silence is no event.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use daemon::stop::Stop;
use wire::EndpointId;

use super::core::Outcome;
use super::restarts::{Decision, Restarts, Seen};
use super::{Starter, Wanted};
use crate::clock;
use crate::tasks::presence::Presence;
use store::{StoreError, UserEndpoint, Which};

/// Between two looks, while there are open tasks.
const LOOK: Duration = Duration::from_secs(1);

/// Clones share everything.
#[derive(Clone, Debug)]
pub struct Keeper {
    starter: Starter,
    presence: Presence,
    restarts: Arc<Mutex<Restarts>>,
}

impl Keeper {
    /// `most`: how often in a row a user endpoint is started before its tasks are given up.
    pub fn new(starter: Starter, presence: Presence, most: u32) -> Keeper {
        Keeper { starter, presence, restarts: Arc::new(Mutex::new(Restarts::new(most))) }
    }

    /// Until `stop` begins.
    pub async fn run(&self, stop: Stop) {
        loop {
            let stirred = self.starter.starts.stirred();
            let open = match self.pass().await {
                Ok(open) => open,
                Err(error) => {
                    tracing::warn!(%error, "user endpoints could not be looked after; the next look does it");
                    1
                }
            };
            tokio::select! {
                () = stirred => {}
                () = tokio::time::sleep(LOOK), if open > 0 => {}
                () = stop.begun() => return,
            }
        }
    }

    /// What the owner of `user_endpoint` should know.
    pub fn told(&self, user_endpoint: EndpointId) -> Option<String> {
        self.restarts().told(user_endpoint)
    }

    /// Looks at all that have open tasks. Answers how many those are.
    async fn pass(&self) -> Result<usize, StoreError> {
        let open = self.starter.store.user_endpoints_with_tasks().await?;
        let ids: HashSet<_> = open.iter().map(|it| it.id).collect();
        self.restarts().only(&ids);
        for user_endpoint in open {
            let id = user_endpoint.id;
            let now = clock::now();
            let dispatch = &self.starter.dispatch;
            let seen = Seen {
                first: user_endpoint.first,
                lives: dispatch.consumes(id) || self.presence.online(id, now),
                starting: self.starter.starts.under_way(id),
                manager_connected: dispatch.reads_commands(user_endpoint.manager),
            };
            let decision = self.restarts().look(id, seen, now);
            match decision {
                Decision::Leave => {}
                Decision::Start => self.start(user_endpoint),
                Decision::GiveUp(why) => {
                    tracing::warn!(user_endpoint = %id, why, "the tasks of a user endpoint are given up");
                    dispatch.ender().end_open(id, Which::All, &why).await?;
                }
            }
        }
        Ok(ids.len())
    }

    fn start(&self, it: UserEndpoint) {
        tracing::info!(user_endpoint = %it.id, "a user endpoint is gone and has open tasks: it is started again");
        let keeper = self.clone();
        tokio::spawn(async move {
            let wanted = Wanted { identity: it.owner, choices: it.choices };
            let outcome = match keeper.starter.store.endpoint(it.manager).await {
                Ok(Some(manager)) => match keeper.starter.ready(&manager, wanted).await {
                    Ok(_) => Outcome::Ready,
                    Err((_, outcome)) => outcome,
                },
                // With its manager it goes, too.
                Ok(None) => Outcome::Away,
                Err(_) => Outcome::Broken,
            };
            tracing::info!(user_endpoint = %it.id, ?outcome, "a user endpoint was started again");
            keeper.restarts().tried(it.id, outcome, clock::now());
        });
    }

    fn restarts(&self) -> MutexGuard<'_, Restarts> {
        // A panic while it was held cannot have left it half changed.
        self.restarts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
