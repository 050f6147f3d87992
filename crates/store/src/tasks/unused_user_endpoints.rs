//! User endpoints that nobody has used for long: finds them, and forgets them. Their tasks and results stay.
//!
//! Nothing is lost with one: its id is computed, and the next submit that needs it registers it again.

use jiff::Timestamp;
use wire::EndpointId;

use crate::columns::{id, key};
use crate::database::{query, query_scalar};
use crate::identity::credentials::{self, Holder};
use crate::locks::lock_endpoint;
use crate::{Command, Store, StoreError, Tx};

/// What holds of an unused user endpoint `e` with the counters `t`: no open task, and no use since `$1`. One without counters was
/// registered and never used.
macro_rules! unused {
    () => {
        "e.manager_id IS NOT NULL AND e.locked_until_us IS NULL AND coalesce(t.waiting + t.taken, 0) = 0 \
         AND coalesce(t.used_us, e.created_us) < $1"
    };
}

/// Forgets a user endpoint, unless it has been used since `before`. Returns whether it did.
#[derive(Clone, Copy, Debug)]
pub struct ForgetUserEndpoint {
    pub endpoint: EndpointId,
    pub before: Timestamp,
}

impl Command for ForgetUserEndpoint {
    type Output = bool;

    async fn run(self, tx: &mut Tx) -> Result<bool, StoreError> {
        // A submit that is under way has this lock, and its tasks are counted then.
        lock_endpoint(tx, self.endpoint).await?;
        let unused: Option<i64> = query_scalar(concat!(
            "SELECT CAST(1 AS BIGINT) FROM endpoints e LEFT JOIN endpoint_tasks t ON t.endpoint_id = e.id WHERE ",
            unused!(),
            " AND e.id = $2"
        ))
        .bind(self.before.as_microsecond())
        .bind(key(self.endpoint.as_uuid()))
        .fetch_optional(&mut *tx)
        .await?;
        if unused.is_none() {
            return Ok(false);
        }
        credentials::remove_all(tx, Holder::Endpoint(self.endpoint)).await?;
        query("DELETE FROM endpoints WHERE id = $1").bind(key(self.endpoint.as_uuid())).execute(tx).await?;
        Ok(true)
    }
}

impl Store {
    /// At most `count` user endpoints without open tasks that were not used since `before`: those after `after`, by id.
    pub async fn unused_user_endpoints(
        &self,
        before: Timestamp,
        after: Option<EndpointId>,
        count: usize,
    ) -> Result<Vec<EndpointId>, StoreError> {
        let rows = query(concat!(
            "SELECT e.id FROM endpoints e LEFT JOIN endpoint_tasks t ON t.endpoint_id = e.id WHERE ",
            unused!(),
            " AND e.id > $2 ORDER BY e.id LIMIT $3"
        ))
        .bind(before.as_microsecond())
        .bind(after.map_or_else(Vec::new, |it| key(it.as_uuid()).to_vec()))
        .bind(i64::try_from(count).unwrap_or(i64::MAX))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|row| Ok(EndpointId::from_uuid(id(row, "id")?))).collect()
    }
}
