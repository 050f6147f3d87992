//! Supervises user endpoints with open tasks: starts those that have ended again, or ends their tasks with an error.
//!
//! [`restarts`](super::restarts) decides what to do. It is asked after events (a submit, a last heartbeat, a manager that
//! connects) and every second while there are open tasks, because a missing heartbeat causes no event.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use daemon::stop::Stop;
use wire::EndpointId;

use super::restarts::{Decision, Restarts, UserEndpointState};
use super::starts::StartResult;
use super::{Starter, Wanted};
use crate::clock;
use crate::tasks::presence::Presence;
use store::{OpenTaskFilter, StoreError, UserEndpoint, outage_log};

/// The time between two passes while there are open tasks.
const PASS_INTERVAL: Duration = Duration::from_secs(1);

/// The supervisor of user endpoints. Clones share it.
#[derive(Clone, Debug)]
pub struct Supervisor {
    starter: Starter,
    presence: Presence,
    restarts: Arc<Mutex<Restarts>>,
}

impl Supervisor {
    /// `most`: how often in a row a user endpoint is started before its tasks end with an error.
    pub fn new(starter: Starter, presence: Presence, most: u32) -> Supervisor {
        Supervisor { starter, presence, restarts: Arc::new(Mutex::new(Restarts::new(most))) }
    }

    /// Runs until `stop` begins.
    pub async fn run(&self, stop: Stop) {
        loop {
            let woken = self.starter.starts.woken();
            let open = match self.pass().await {
                Ok(open) => open,
                Err(error) => {
                    if !outage_log::logs(&error) {
                        tracing::warn!(%error, "a pass over user endpoints failed; the next one tries again");
                    }
                    1
                }
            };
            tokio::select! {
                () = woken => {}
                () = tokio::time::sleep(PASS_INTERVAL), if open > 0 => {}
                () = stop.begun() => return,
            }
        }
    }

    /// Why `user_endpoint` is not running, for its owner.
    pub fn last_failure(&self, user_endpoint: EndpointId) -> Option<String> {
        self.restarts().last_failure(user_endpoint)
    }

    /// Checks all user endpoints with open tasks. Returns how many there are.
    async fn pass(&self) -> Result<usize, StoreError> {
        let open = self.starter.store.user_endpoints_with_tasks().await?;
        let ids: HashSet<_> = open.iter().map(|it| it.id).collect();
        self.restarts().retain(&ids);
        for user_endpoint in open {
            let id = user_endpoint.id;
            let now = clock::now();
            let dispatch = &self.starter.dispatch;
            let present = UserEndpointState {
                first: user_endpoint.first,
                lives: dispatch.consumes(id) || self.presence.online(id, now),
                starting: self.starter.starts.is_starting(id),
                manager_connected: dispatch.reads_commands(user_endpoint.manager),
            };
            let decision = self.restarts().decide(id, present, now);
            match decision {
                Decision::Leave => {}
                Decision::Start => self.start(user_endpoint),
                Decision::GiveUp(why) => {
                    tracing::warn!(user_endpoint = %id, why, "ending the tasks of a user endpoint that cannot be started");
                    dispatch.ender().end_open(id, OpenTaskFilter::All, &why).await?;
                }
            }
        }
        Ok(ids.len())
    }

    fn start(&self, it: UserEndpoint) {
        tracing::info!(user_endpoint = %it.id, "starting a user endpoint again: it has ended and has open tasks");
        let supervisor = self.clone();
        tokio::spawn(async move {
            let wanted = Wanted { identity: it.owner, choices: it.choices };
            let result = match supervisor.starter.store.endpoint(it.manager).await {
                Ok(Some(manager)) => match supervisor.starter.ready(&manager, it.id, wanted).await {
                    Ok(()) => StartResult::Ready,
                    Err(result) => result,
                },
                // The manager was deleted, and the user endpoint with it.
                Ok(None) => StartResult::Away,
                Err(_) => StartResult::Broken,
            };
            tracing::info!(user_endpoint = %it.id, outcome = ?result, "tried to start a user endpoint again");
            supervisor.restarts().record_attempt(it.id, result, clock::now());
        });
    }

    fn restarts(&self) -> MutexGuard<'_, Restarts> {
        // A panic while it was held cannot have left it half changed.
        self.restarts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
