//! Feeds results to clients' queues, `client.<identity>.<group>`.

use broker::{DropReason, Message, Properties};
use wire::queue::Name;
use wire::{IdentityId, TaskGroupId};

use super::outbox::{BYTES, Loaded, Outbox, Row};
use store::{AcknowledgeDeliveries, Store, StoreError};

/// The outbox of results.
#[derive(Debug)]
pub(super) struct Deliveries {
    pub(super) store: Store,
}

impl Outbox for Deliveries {
    async fn load(&self, queue: &str, after: i64, count: usize) -> Result<Loaded, StoreError> {
        let Some((identity, group)) = group_of(queue) else { return Ok(Loaded::default()) };
        let page = self.store.undelivered(identity, group, after, count, BYTES).await?;
        let mut rows = Vec::with_capacity(page.rows.len());
        for delivery in page.rows {
            let properties = Properties::default()
                .with_delivery_mode(2)
                .with_timestamp(delivery.ended.as_second().unsigned_abs());
            // Nothing is published to these queues: the exchange is the default one, as a queue's own name.
            let message = Message::new("", queue, &properties, delivery.message)
                .map_err(|_| StoreError::Corrupt("a result's properties"))?;
            rows.push(Row { seq: delivery.seq, message });
        }
        Ok(Loaded { rows, more: page.more })
    }

    async fn acknowledged(&self, queue: &str, _user: &str, seqs: &[i64]) -> Result<(), StoreError> {
        let Some((_, group)) = group_of(queue) else { return Ok(()) };
        self.store.write(AcknowledgeDeliveries { group, seqs: seqs.to_vec() }).await
    }

    async fn refused(&self, queue: &str, seqs: &[i64], why: DropReason) -> Result<(), StoreError> {
        match why {
            // A client that cannot use a result here still finds it over REST.
            DropReason::Rejected | DropReason::DeliveryLimit => self.acknowledged(queue, "", seqs).await,
            DropReason::Expired | DropReason::Overflow | DropReason::Purged | DropReason::Deleted => Ok(()),
        }
    }
}

fn group_of(queue: &str) -> Option<(IdentityId, TaskGroupId)> {
    match Name::parse(queue) {
        Some(Name::Client(identity, group)) => Some((identity, group)),
        _ => None,
    }
}
