//! What those who manage an endpoint do with it: lock and unlock it, drop its waiting tasks, delete it. Over REST and by `farcall endpoint …`, while the
//! service runs and when it doesn't. Each act is written down with who did it.
//!
//! Whether somebody may is asked before (see [`rules`](crate::permissions)).

use jiff::Timestamp;
use wire::EndpointId;

use crate::dispatch::Dispatch;
use crate::tasks::ending::end_waiting_at_rest;
use identity::audit::{self, By};
use store::{DeleteEndpoint, LockEndpoint, Store, StoreError, UnlockEndpoint};

#[derive(Clone, Copy, Debug)]
pub struct Management<'a> {
    pub store: &'a Store,
    /// Absent while the service doesn't run: nobody is connected then.
    pub dispatch: Option<&'a Dispatch>,
    pub by: By,
}

impl Management<'_> {
    /// Ends its connections and credentials, and those of the user endpoints that it started, and keeps it from coming
    /// back before `until`. Its tasks wait.
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

    /// Ends its connections and its open tasks, and forgets it. With a manager go the endpoints that only it could start.
    pub async fn delete(&self, endpoint: EndpointId) -> Result<(), StoreError> {
        audit::administered("endpoint delete", &endpoint.to_string(), self.by);
        let (store, dispatch, by) = (self.store.clone(), self.dispatch.cloned(), self.by);
        // Whoever asked may leave: it comes to its end.
        let deleting = tokio::spawn(async move {
            for id in store.user_endpoints(endpoint).await?.into_iter().chain([endpoint]) {
                store.write(DeleteEndpoint(id)).await?;
                // While the service doesn't run, open tasks are left for its next start.
                if let Some(dispatch) = &dispatch {
                    dispatch.endpoint_deleted(id, by).await?;
                }
            }
            Ok(())
        });
        deleting.await.map_err(|_| StoreError::Closed)?
    }

    /// Its owner may start it again.
    pub async fn unlock(&self, endpoint: EndpointId) -> Result<(), StoreError> {
        self.store.write(UnlockEndpoint(endpoint)).await?;
        audit::administered("endpoint unlock", &endpoint.to_string(), self.by);
        Ok(())
    }

    /// Ends the tasks that the endpoint has not acknowledged, with an error that says who dropped them. Answers how many
    /// those were.
    pub async fn drop_waiting(&self, endpoint: EndpointId) -> Result<usize, StoreError> {
        let text = format!(
            "The task was dropped by {} while it waited for endpoint {endpoint}: it has not run. Submit it again if it is \
             still wanted.",
            self.who().await?
        );
        let dropped = match self.dispatch {
            Some(dispatch) => dispatch.end_waiting(endpoint, &text).await?,
            None => end_waiting_at_rest(self.store, endpoint, &text).await?,
        };
        audit::administered("endpoint drop", &format!("{endpoint} tasks={dropped}"), self.by);
        Ok(dropped)
    }

    /// As the owners of tasks are told.
    async fn who(&self) -> Result<String, StoreError> {
        Ok(match self.by {
            By::Operator { uid } => format!("the operator of the service (uid {uid})"),
            By::Identity(id) => match self.store.profile(id).await? {
                Some(profile) => profile.username,
                None => id.to_string(),
            },
        })
    }
}
