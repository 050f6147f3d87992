//! Performs `farcall key …`: the keys that sign id tokens.

use super::request::{KeyDetails, KeyRequest, Reply};
use super::{AdminError, Administration};
use crate::clock;
use identity::audit;

impl Administration {
    pub(super) async fn key(&self, request: KeyRequest) -> Result<Reply, AdminError> {
        let now = clock::now();
        let ring = match request {
            KeyRequest::List => self.identity.keys().ring().await?,
            KeyRequest::Rotate => {
                let ring = self.identity.keys().rotate(now).await?;
                audit::administered("key rotate", ring.kid(), self.by);
                ring
            }
        };
        let old = ring
            .old(now)
            .map(|(kid, until)| KeyDetails { kid: kid.to_owned(), published_until: Some(until.to_string()) });
        let current = KeyDetails { kid: ring.kid().to_owned(), published_until: None };
        Ok(Reply::Keys(std::iter::once(current).chain(old).collect()))
    }
}
