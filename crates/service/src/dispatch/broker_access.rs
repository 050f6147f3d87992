//! Decides who may log in to the broker and what they may do there.
//!
//! An endpoint reads its own task and command queues and publishes under its own keys; a client reads the queues of
//! its own task groups. Nothing is declared, bound, deleted or purged from outside, and passive declares only find
//! queues that the caller may use.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use broker::{
    AccessControl, Limits, LogInFuture, LoggedIn, Login, Operation, Principal, QueueOptions, Refusal,
};
use wire::queue::{HEARTBEAT_QUEUE, Name, RESULT_QUEUE, exchange};
use wire::{EndpointId, IdentityId};

use super::admission::{Admissions, LogInOrder};
use super::broker_user::User;
use super::observer::{self, EndpointObserver};
use super::outbox::Feeder;
use crate::clock;
use identity::end_reason::EndReasons;
use identity::fair_shares::{Share, Shares};
use identity::http::arrival::network;
use store::{Holder, RemoveOlderCredentials, Store, StoreError, outage_log};

/// The broker's limits for one credential of an endpoint and of a client. A client's programs share a credential, so its
/// connections are limited per identity instead.
const ENDPOINT: Limits =
    Limits { connections: 20, channels: 16, consumers: 16, body: wire::message::LIMIT as u64 };
const CLIENT: Limits = Limits { connections: usize::MAX, channels: 16, consumers: 200, body: 0 };

/// Counts the logged-in connections by address and by identity; an endpoint's count for its owner. One identity may have
/// half of what one address may have, so that others at the address have room.
#[derive(Debug)]
pub(super) struct OpenConnections {
    by_address: Shares<IpAddr>,
    by_identity: Shares<IdentityId>,
}

impl OpenConnections {
    pub(super) fn new(limits: &crate::limits::Limits) -> OpenConnections {
        let size = limits.amqp_connections;
        OpenConnections { by_address: Shares::new(size), by_identity: Shares::new(size / 2) }
    }
}

/// A logged-in user, with what the connection takes of the shares of its identity and address.
#[derive(Debug)]
struct LoggedInUser {
    user: User,
    identity: IdentityId,
    began: LogInOrder,
    _address: Option<Share<IpAddr>>,
    _identity: Share<IdentityId>,
}

#[derive(Debug)]
pub(super) struct BrokerAccess {
    pub(super) store: Store,
    pub(super) admissions: Admissions,
    pub(super) deliveries: Feeder,
    pub(super) observer: Arc<dyn EndpointObserver>,
    pub(super) open: OpenConnections,
    pub(super) reasons: EndReasons,
}

/// A log-in that cannot be checked now: the caller tries again, and takes it for no wrong password.
fn unavailable(error: &StoreError, user: User) -> Refusal {
    if !outage_log::logs(error) {
        tracing::error!(%error, %user, "cannot check a log-in");
    }
    Refusal::Unavailable
}

impl BrokerAccess {
    /// Admits the log-in of `user` from `peer` that began at `began`, if there is room for one more connection.
    async fn admit_user(
        &self,
        user: User,
        began: LogInOrder,
        peer: Option<SocketAddr>,
    ) -> Result<LoggedInUser, Refusal> {
        let unavailable = |error| unavailable(&error, user);
        let identity = match user.holder {
            Holder::Client(identity) => identity,
            Holder::Endpoint(endpoint) => {
                let owner = self.store.endpoint_owner(endpoint).await.map_err(unavailable)?;
                owner.ok_or(Refusal::Denied)?
            }
        };
        let full = || {
            tracing::warn!(%identity, ?peer, "connection refused: the identity or address has its share of limits.amqp_connections");
            Refusal::Unavailable
        };
        let _identity = self.open.by_identity.take(identity, 1).ok_or_else(full)?;
        let address = peer.map(|peer| self.open.by_address.take(network(peer.ip()), 1).ok_or_else(full));
        Ok(LoggedInUser { user, identity, began, _address: address.transpose()?, _identity })
    }
}

impl AccessControl for BrokerAccess {
    fn log_in<'a>(&'a self, login: Login) -> LogInFuture<'a> {
        Box::pin(async move {
            let user = User::parse(&login.user).ok_or(Refusal::Denied)?;
            let unavailable = |error| unavailable(&error, user);
            let began = self.admissions.moment();
            let known = self.store.credential(user.holder, user.number).await.map_err(unavailable)?;
            let now = clock::now();
            let Some(credential) = known.filter(|it| it.secret.admits(&login.password)) else {
                let peer = login.peer.map_or(IpAddr::from([0; 4]), |peer| peer.ip());
                let why = self.reasons.why(&login.password, peer, now).await.map_err(unavailable)?;
                return Err(why.map_or(Refusal::Denied, |why| Refusal::Ended(why.to_string())));
            };
            if let Some(expired) = credential.expires.filter(|expires| *expires <= now) {
                let text = format!("This connection URL expired at {expired:.0}: get a new one");
                return Err(Refusal::Ended(text));
            }
            let member = self.admit_user(user, began, login.peer).await?;
            if let Holder::Endpoint(endpoint) = user.holder {
                if credential.supersedes {
                    let retire = RemoveOlderCredentials { endpoint, used: user.number };
                    self.store.write(retire).await.map_err(unavailable)?;
                }
                if !self.admissions.record_log_in(endpoint, user.number) {
                    return Err(Refusal::Denied);
                }
            }
            let limits = match user.holder {
                Holder::Endpoint(_) => ENDPOINT,
                Holder::Client(_) => CLIENT,
            };
            let principal = Principal::new(login.user).counted_for(member.identity.to_string());
            Ok(LoggedIn { principal: principal.with(Arc::new(member)), limits })
        })
    }

    fn may(&self, who: &Principal, operation: &Operation<'_>) -> bool {
        let Some(&LoggedInUser { user, began, .. }) = who.get::<LoggedInUser>() else { return false };
        match user.holder {
            Holder::Endpoint(endpoint) => {
                let allowed =
                    self.admissions.admits_endpoint(endpoint, began) && endpoint_may(endpoint, operation);
                if allowed {
                    observer::note(&*self.observer, endpoint, operation);
                }
                allowed
            }
            Holder::Client(identity) => {
                self.admissions.admits_client(identity, began) && client_may(identity, operation)
            }
        }
    }

    fn unknown_queue(&self, who: &Principal, queue: &str) -> Option<QueueOptions> {
        let user = who.get::<LoggedInUser>()?.user;
        match (Name::parse(queue)?, user.holder) {
            // A group without a consumer needs a row and no queue.
            (Name::Client(owner, _), Holder::Client(identity)) if owner == identity => Some(QueueOptions {
                auto_delete: true,
                backing: Some(Arc::new(self.deliveries.clone())),
                ..QueueOptions::default()
            }),
            _ => None,
        }
    }
}

fn endpoint_may(endpoint: EndpointId, operation: &Operation<'_>) -> bool {
    let own = |queue: &str| match Name::parse(queue) {
        Some(Name::Tasks(id) | Name::Commands(id)) => id == endpoint,
        _ => false,
    };
    match *operation {
        Operation::Open { .. } => true,
        Operation::DeclareExchange { exchange, passive: true } => {
            [exchange::TASKS, exchange::COMMANDS, exchange::RESULTS, exchange::HEARTBEATS].contains(&exchange)
        }
        Operation::DeclareQueue { queue, passive: true } => {
            own(queue) || queue == RESULT_QUEUE || queue == HEARTBEAT_QUEUE
        }
        Operation::Consume { queue } => own(queue),
        Operation::Publish { exchange, routing_key } => match Name::parse(routing_key) {
            Some(Name::ResultsOf(id)) => id == endpoint && exchange == exchange::RESULTS,
            Some(Name::HeartbeatsOf(id)) => id == endpoint && exchange == exchange::HEARTBEATS,
            _ => false,
        },
        _ => false,
    }
}

fn client_may(identity: IdentityId, operation: &Operation<'_>) -> bool {
    let own = |queue: &str| matches!(Name::parse(queue), Some(Name::Client(id, _)) if id == identity);
    match *operation {
        Operation::Open { .. } => true,
        Operation::DeclareQueue { queue, passive: true } | Operation::Consume { queue } => own(queue),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;
    use wire::TaskGroupId;

    use super::*;

    const A: Uuid = Uuid::from_u128(1);
    const B: Uuid = Uuid::from_u128(2);

    #[test]
    fn an_endpoint_uses_what_is_its_own() {
        let (own, other) = (EndpointId::from_uuid(A), EndpointId::from_uuid(B));
        let may = |operation: Operation<'_>| endpoint_may(own, &operation);
        for (id, expected) in [(own, true), (other, false)] {
            let (tasks, commands) = (wire::queue::task_queue(id), wire::queue::command_queue(id));
            assert_eq!(may(Operation::Consume { queue: &tasks }), expected);
            assert_eq!(may(Operation::Consume { queue: &commands }), expected);
            assert_eq!(may(Operation::DeclareQueue { queue: &tasks, passive: true }), expected);
            let (results, beats) = (wire::queue::result_key(id), wire::queue::heartbeat_key(id));
            assert_eq!(may(Operation::Publish { exchange: "results", routing_key: &results }), expected);
            assert_eq!(may(Operation::Publish { exchange: "heartbeats", routing_key: &beats }), expected);
            assert!(!may(Operation::Publish { exchange: "tasks", routing_key: &tasks }));
            assert!(!may(Operation::Publish { exchange: "", routing_key: "results" }));
            assert!(!may(Operation::Publish { exchange: "heartbeats", routing_key: &results }));
            assert!(!may(Operation::DeclareQueue { queue: &tasks, passive: false }));
            assert!(!may(Operation::DeleteQueue { queue: &tasks }));
            assert!(!may(Operation::PurgeQueue { queue: &tasks }));
            assert!(!may(Operation::Get { queue: &tasks }));
        }
        assert!(may(Operation::DeclareQueue { queue: "results", passive: true }));
        assert!(!may(Operation::Consume { queue: "results" }));
        assert!(!may(Operation::DeclareExchange { exchange: "results", passive: false }));
        assert!(!may(Operation::Bind { queue: "results", exchange: "results", routing_key: "#" }));
    }

    #[test]
    fn a_client_reads_its_own_groups() {
        let (own, other) = (IdentityId::from_uuid(A), IdentityId::from_uuid(B));
        let may = |operation: Operation<'_>| client_may(own, &operation);
        let group = TaskGroupId::from_uuid(B);
        for (id, expected) in [(own, true), (other, false)] {
            let queue = wire::queue::client_queue(id, group);
            assert_eq!(may(Operation::Consume { queue: &queue }), expected);
            assert_eq!(may(Operation::DeclareQueue { queue: &queue, passive: true }), expected);
            assert!(!may(Operation::DeclareQueue { queue: &queue, passive: false }));
            assert!(!may(Operation::PurgeQueue { queue: &queue }));
            assert!(!may(Operation::Publish { exchange: "", routing_key: &queue }));
        }
        assert!(!may(Operation::Consume { queue: &format!("client.{own}.#") }));
        assert!(!may(Operation::Consume { queue: "results" }));
    }
}
