//! What those who manage an endpoint do with it: lock it, delete it. Over REST and by `farcall endpoint …`, while the
//! service runs and when it doesn't. Each act is written down with who did it.
//!
//! Whether somebody may is asked before (see [`rules`](crate::rules)).

use jiff::Timestamp;
use wire::EndpointId;

use crate::identity::audit::{self, By};
use crate::post::Post;
use crate::store::{DeleteEndpoint, LockEndpoint, Store, StoreError};

#[derive(Clone, Copy, Debug)]
pub struct Management<'a> {
    pub store: &'a Store,
    /// Absent while the service doesn't run: nobody is connected then.
    pub post: Option<&'a Post>,
    pub by: By,
}

impl Management<'_> {
    /// Ends its connections and credentials, and those of the user endpoints that it started, and keeps it from coming
    /// back before `until`. Its tasks wait.
    pub async fn lock(&self, endpoint: EndpointId, until: Timestamp) -> Result<(), StoreError> {
        let user_endpoints = self.store.write(LockEndpoint { endpoint, until }).await?;
        audit::administered("endpoint lock", &endpoint.to_string(), self.by);
        if let Some(post) = self.post {
            for id in user_endpoints.into_iter().chain([endpoint]) {
                post.endpoint_locked(id, self.by);
            }
        }
        Ok(())
    }

    /// Ends its connections and its open tasks, and forgets it. With a manager go the endpoints that only it could start.
    pub async fn delete(&self, endpoint: EndpointId) -> Result<(), StoreError> {
        audit::administered("endpoint delete", &endpoint.to_string(), self.by);
        let (store, post, by) = (self.store.clone(), self.post.cloned(), self.by);
        // Whoever asked may leave: it comes to its end.
        let deleting = tokio::spawn(async move {
            for id in store.user_endpoints(endpoint).await?.into_iter().chain([endpoint]) {
                store.write(DeleteEndpoint(id)).await?;
                // While the service doesn't run, open tasks are left for its next start.
                if let Some(post) = &post {
                    post.endpoint_deleted(id, by).await?;
                }
            }
            Ok(())
        });
        deleting.await.map_err(|_| StoreError::Closed)?
    }
}
