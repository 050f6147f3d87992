//! Locks of rows, which make a command right beside commands of other processes. SQLite has one writer and runs none of these.
//!
//! On PostgreSQL each statement sees what was committed when it began. A command therefore locks what it decides by, and reads
//! it with the lock or after it. Everything that issues or ends something for an account locks the account's row first, so
//! that nothing is issued after the account's end. Everything that adds rows to an outbox locks the outbox's owner first (the
//! endpoint, or the task group), so that the numbers of its rows grow in the order of commits and a reader's cursor skips none.
//!
//! Every command locks in this order, so that two rarely wait for each other in a circle:
//!
//! 1. identities, by id; then the application
//! 2. access and refresh tokens
//! 3. endpoints, by id
//! 4. the key of a submit
//! 5. staged tasks
//! 6. tasks, by id
//! 7. task groups, by id
//! 8. results and rows of outboxes
//! 9. counters, by endpoint
//!
//! Several commands share a transaction, so their locks can still make a circle: the writer lets them wait only briefly then,
//! and runs each of them again in a transaction of its own.

use wire::{ClientId, EndpointId, IdentityId};

use crate::columns::{ROWS, id, key};
use crate::database::{StatementBuilder, query};
use crate::{StoreError, Tx};

/// Locks identities and the first of their sets: what is issued to them waits until this transaction has ended.
pub(crate) async fn lock_identities(tx: &mut Tx, identities: &[IdentityId]) -> Result<(), StoreError> {
    if !tx.needs_locks() {
        return Ok(());
    }
    let mut select = StatementBuilder::new(
        "SELECT id FROM identities WHERE id IN (SELECT coalesce(primary_id, id) FROM identities WHERE id",
    );
    select.push_in(identities.iter().map(|identity| key(identity.as_uuid())));
    select.push(") OR id").push_in(identities.iter().map(|identity| key(identity.as_uuid())));
    select.build().locking(" ORDER BY id FOR UPDATE").fetch_all(tx).await?;
    Ok(())
}

/// Locks an account under either of the meanings of its id: an identity, with the first of its set, and an application.
pub(crate) async fn lock_account(tx: &mut Tx, account: IdentityId) -> Result<(), StoreError> {
    if !tx.needs_locks() {
        return Ok(());
    }
    lock_identities(tx, &[account]).await?;
    lock_native_app(tx, ClientId::from_uuid(*account.as_uuid())).await
}

/// Locks an application that keeps no secret.
pub(crate) async fn lock_native_app(tx: &mut Tx, app: ClientId) -> Result<(), StoreError> {
    if tx.needs_locks() {
        let lock = query("SELECT 1 FROM native_apps WHERE id = $1").for_update();
        lock.bind(key(app.as_uuid())).fetch_optional(tx).await?;
    }
    Ok(())
}

/// Locks an endpoint: it is not registered, locked or deleted, and gets no task, until this transaction has ended.
pub(crate) async fn lock_endpoint(tx: &mut Tx, endpoint: EndpointId) -> Result<(), StoreError> {
    if tx.needs_locks() {
        let lock = query("SELECT 1 FROM endpoints WHERE id = $1").for_update();
        lock.bind(key(endpoint.as_uuid())).fetch_optional(tx).await?;
    }
    Ok(())
}

/// Locks tasks: their states change only by this transaction until it has ended. For those who need it only.
pub(crate) async fn lock_tasks(tx: &mut Tx, mut tasks: Vec<Vec<u8>>) -> Result<(), StoreError> {
    tasks.sort_unstable();
    for tasks in tasks.chunks(ROWS) {
        let mut select = StatementBuilder::new("SELECT 1 FROM tasks WHERE id");
        select.push_in(tasks.iter().cloned());
        select.build().locking(" ORDER BY id FOR UPDATE").fetch_all(&mut *tx).await?;
    }
    Ok(())
}

/// Locks task groups. Returns those that want their results in their queue.
pub(crate) async fn lock_groups(
    tx: &mut Tx,
    groups: impl Iterator<Item = Vec<u8>>,
) -> Result<Vec<uuid::Uuid>, StoreError> {
    let mut groups: Vec<_> = groups.collect();
    groups.sort_unstable();
    groups.dedup();
    let mut queues = Vec::new();
    for groups in groups.chunks(ROWS) {
        let mut select = StatementBuilder::new("SELECT id, queue FROM task_groups WHERE id");
        select.push_in(groups.iter().cloned());
        for row in select.build().locking(" ORDER BY id FOR UPDATE").fetch_all(&mut *tx).await? {
            if row.try_get("queue")? {
                queues.push(id(&row, "id")?);
            }
        }
    }
    Ok(queues)
}
