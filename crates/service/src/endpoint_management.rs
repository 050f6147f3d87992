//! Locks, unlocks and deletes endpoints, and drops their waiting tasks: over REST, and for `farcall endpoint …` also while the
//! service doesn't run. The audit log gets each act, with who did it.
//!
//! The caller checks the [`permissions`](crate::permissions) first.

use std::time::Duration;

use jiff::Timestamp;
use wire::EndpointId;

use crate::dispatch::Dispatch;
use crate::tasks::ending::end_waiting_at_rest;
use identity::audit::{self, Initiator};
use store::{DeleteEndpoint, LockEndpoint, Store, StoreError, UnlockEndpoint, outage_log};

/// The pause after the database was away.
const PAUSE: Duration = Duration::from_secs(1);

/// The acts, on behalf of one user or operator.
#[derive(Clone, Copy, Debug)]
pub struct EndpointManagement<'a> {
    pub store: &'a Store,
    /// Absent while the service doesn't run: nobody is connected then.
    pub dispatch: Option<&'a Dispatch>,
    pub by: Initiator,
}

impl EndpointManagement<'_> {
    /// Ends the endpoint's connections and credentials, and those of the user endpoints that it started. Nobody can register
    /// it before `until`. Its tasks wait.
    pub async fn lock(&self, endpoint: EndpointId, until: Timestamp) -> Result<(), StoreError> {
        let user_endpoints = self.store.write(LockEndpoint { endpoint, until }).await?;
        audit::administered("endpoint lock", &endpoint.to_string(), self.by);
        if let Some(dispatch) = self.dispatch {
            let locked = user_endpoints.into_iter().chain([endpoint]).collect();
            let why = format!("Endpoint {endpoint} was stopped from afar and is locked until {until:.0}");
            dispatch.endpoints_locked(locked, &why, self.by);
        }
        Ok(())
    }

    /// Deletes the endpoint and ends its connections and open tasks. A manager's user endpoints are deleted with it, because
    /// only the manager could start them.
    pub async fn delete(&self, endpoint: EndpointId) -> Result<(), StoreError> {
        audit::administered("endpoint delete", &endpoint.to_string(), self.by);
        let deletion =
            Deletion { store: self.store.clone(), dispatch: self.dispatch.cloned(), by: self.by, endpoint };
        // A task of its own: it also finishes if the request is cancelled.
        let deleting = tokio::spawn(async move {
            let deleted = deletion.run().await;
            if deleted.as_ref().is_err_and(StoreError::is_outage) {
                // If the database went away at the commit, the endpoint may be deleted, and must not stay connected.
                tokio::spawn(async move {
                    while let Err(error) = deletion.run().await {
                        if !outage_log::logs(&error) {
                            tracing::error!(%error, %endpoint, "cannot delete an endpoint");
                            return;
                        }
                        tokio::time::sleep(PAUSE).await;
                    }
                });
            }
            deleted
        });
        deleting.await.map_err(|_| StoreError::Closed)?
    }

    /// Lifts the lock, so that the owner may start the endpoint again.
    pub async fn unlock(&self, endpoint: EndpointId) -> Result<(), StoreError> {
        self.store.write(UnlockEndpoint(endpoint)).await?;
        audit::administered("endpoint unlock", &endpoint.to_string(), self.by);
        Ok(())
    }

    /// Ends the tasks that the endpoint has not acknowledged, with an error that says who dropped them. Returns how many.
    pub async fn drop_waiting(&self, endpoint: EndpointId) -> Result<usize, StoreError> {
        let text = format!(
            "The task was dropped by {} while it waited for endpoint {endpoint}: it has not run. Submit it again if it is \
             still wanted.",
            self.name_of_actor().await?
        );
        let dropped = match self.dispatch {
            Some(dispatch) => dispatch.end_waiting(endpoint, &text).await?,
            None => end_waiting_at_rest(self.store, endpoint, &text).await?,
        };
        audit::administered("endpoint drop", &format!("{endpoint} tasks={dropped}"), self.by);
        Ok(dropped)
    }

    /// Names who acts, for the error that the owners of dropped tasks get.
    async fn name_of_actor(&self) -> Result<String, StoreError> {
        Ok(match self.by {
            Initiator::Operator { uid } => format!("the operator of the service (uid {uid})"),
            Initiator::Identity(id) => match self.store.profile(id).await? {
                Some(profile) => profile.username,
                None => id.to_string(),
            },
        })
    }
}

/// What it takes to delete one endpoint.
#[derive(Clone, Debug)]
struct Deletion {
    store: Store,
    dispatch: Option<Dispatch>,
    by: Initiator,
    endpoint: EndpointId,
}

impl Deletion {
    /// Deletes it, or what is left of it.
    async fn run(&self) -> Result<(), StoreError> {
        let user_endpoints = self.store.user_endpoints(self.endpoint).await?;
        for id in user_endpoints.into_iter().chain([self.endpoint]) {
            self.store.write(DeleteEndpoint(id)).await?;
            // While the service doesn't run, open tasks are left for its next start.
            if let Some(dispatch) = &self.dispatch {
                dispatch.endpoint_deleted(id, self.by).await?;
            }
        }
        Ok(())
    }
}
