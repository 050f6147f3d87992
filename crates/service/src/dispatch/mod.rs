//! Carries tasks and results between the store and the broker.
//!
//! ```text
//! submitted --> assignments (store) --feeder--> <ep>.tasks --> endpoint
//!                    |  ^ acknowledged                            |
//!                    v                                            v
//! client <-- client.<id>.<group> <--feeder-- deliveries (store) <-- results   heartbeats --> presence
//! ```
//!
//! The store holds every task and result; a queue in the broker holds a part of its rows, so nothing is lost with the
//! process. This module decides no access to the REST API (see [`permissions`](crate::permissions)) and speaks no HTTP.

mod admission;
mod broker_access;
pub mod broker_user;
mod deliveries;
mod fair_queue;
mod functions;
mod heartbeats;
mod observer;
mod outbox;
mod results;
mod tasks;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use broker::{Broker, Confirm, DeclareError, ExchangeKind, Handle, Message, QueueOptions, Stats};
use wire::queue::{self, HEARTBEAT_BINDING, HEARTBEAT_QUEUE, RESULT_BINDING, RESULT_QUEUE, exchange};
use wire::{EndpointId, FunctionId};

use crate::clock;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::tasks::ending::{NewMessages, TaskEnder};
use crate::tasks::presence::Presence;
use admission::Admissions;
use broker_user::User;
use deliveries::Deliveries;
use functions::Functions;
use heartbeats::Heartbeats;
use identity::audit::{self, Initiator};
use identity::end_reason::EndReasons;
pub use observer::EndpointObserver;
use outbox::Feeder;
use results::ResultSink;
use store::{ConnectionsToClose, Holder, OpenTaskFilter, Store, StoreError};
use tasks::Tasks;

/// The handle of dispatch. Clones share it.
#[derive(Clone)]
pub struct Dispatch {
    broker: Handle,
    admissions: Admissions,
    tasks: Feeder,
    ender: TaskEnder,
    deliveries: Feeder,
    heartbeats: Heartbeats,
    functions: Functions,
    presence: Presence,
}

#[derive(Debug, thiserror::Error)]
pub enum DispatchError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the broker refused: {0}")]
    Broker(#[from] DeclareError),
}

impl Dispatch {
    /// Sets up dispatch and the broker, and resumes what is unfinished in the store. The caller runs the returned broker.
    pub async fn open(
        store: Store,
        presence: Presence,
        observer: Arc<dyn EndpointObserver>,
        metrics: Metrics,
        limits: &Limits,
    ) -> Result<(Dispatch, Broker), DispatchError> {
        store.release_or_drop_all().await?;
        let (tasks, task_feeding) = Feeder::new();
        let (deliveries, delivery_feeding) = Feeder::new();
        let admissions = Admissions::default();
        let functions = Functions::new(store.clone());
        let waking = deliveries.clone();
        let ender = TaskEnder::new(store.clone(), metrics, move |new| match new {
            NewMessages::Of(queue) => waking.wake(queue),
            NewMessages::OfAny => waking.wake_all(),
        });
        let access = broker_access::BrokerAccess {
            store: store.clone(),
            admissions: admissions.clone(),
            deliveries: deliveries.clone(),
            observer: observer.clone(),
            open: broker_access::OpenConnections::new(limits),
            reasons: EndReasons::new(store.clone()),
        };
        let defaults = broker::Config::default();
        let handshakes = defaults.handshakes.min(limits.amqp_connections / 4);
        let settings = broker::Config { handshakes, ..defaults };
        let (server, broker) = Broker::new(settings, Arc::new(access));
        let sink = ResultSink::default();
        let heartbeats = Heartbeats::new(
            store.clone(),
            presence.clone(),
            ender.clone(),
            observer,
            admissions.clone(),
            broker.clone(),
        )
        .await?;
        let dispatch = Dispatch {
            broker: broker.clone(),
            admissions: admissions.clone(),
            tasks,
            ender: ender.clone(),
            deliveries: deliveries.clone(),
            heartbeats: heartbeats.clone(),
            functions: functions.clone(),
            presence,
        };

        broker.declare_exchange(exchange::TASKS, ExchangeKind::Direct, true)?;
        broker.declare_exchange(exchange::COMMANDS, ExchangeKind::Direct, true)?;
        broker.declare_exchange(exchange::RESULTS, ExchangeKind::Topic, true)?;
        broker.declare_exchange(exchange::HEARTBEATS, ExchangeKind::Topic, true)?;
        let durable = QueueOptions { durable: true, ..QueueOptions::default() };
        broker.declare_queue(
            RESULT_QUEUE,
            QueueOptions { sink: Some(Arc::new(sink.clone())), ..durable.clone() },
        )?;
        broker.bind(RESULT_QUEUE, exchange::RESULTS, RESULT_BINDING)?;
        let beats = Arc::new(heartbeats.clone());
        broker.declare_queue(HEARTBEAT_QUEUE, QueueOptions { sink: Some(beats), ..durable })?;
        broker.bind(HEARTBEAT_QUEUE, exchange::HEARTBEATS, HEARTBEAT_BINDING)?;

        let outbox = Tasks { store: store.clone(), ender: ender.clone(), functions };
        tokio::spawn(task_feeding.run(broker.clone(), Arc::new(outbox)));
        tokio::spawn(delivery_feeding.run(broker, Arc::new(Deliveries { store: store.clone() })));
        tokio::spawn(results::run(ender, sink));
        tokio::spawn(heartbeats.run());
        for endpoint in store.endpoint_ids().await? {
            admissions.made(endpoint);
            dispatch.declare(endpoint)?;
        }
        Ok((dispatch, server))
    }

    /// Called when tasks for `endpoint` have been committed: sends them.
    pub fn submitted(&self, endpoint: EndpointId) {
        self.tasks.wake(queue::task_queue(endpoint));
    }

    /// Whether `endpoint` consumes its queue of tasks, or a manager its queue of commands, at this moment.
    pub fn consumes(&self, endpoint: EndpointId) -> bool {
        consumes(&self.broker, endpoint)
    }

    /// Ends tasks.
    pub fn ender(&self) -> &TaskEnder {
        &self.ender
    }

    /// Ends the tasks that `endpoint` has not acknowledged with an error that says `why`. Returns how many.
    pub async fn end_waiting(&self, endpoint: EndpointId, why: &str) -> Result<usize, StoreError> {
        self.ender.end_open(endpoint, OpenTaskFilter::Waiting, why).await
    }

    /// Closes the connections of locked `endpoints`, with `why`. Their tasks wait.
    pub fn endpoints_locked(&self, endpoints: Vec<EndpointId>, why: &str, by: Initiator) {
        self.disconnect(&ConnectionsToClose { holders: Vec::new(), endpoints }, why, by);
    }

    /// Whether `endpoint` has sent a heartbeat lately.
    pub fn online(&self, endpoint: EndpointId) -> bool {
        self.presence.online(endpoint, clock::now())
    }

    /// Whether `manager` consumes its queue of commands at this moment.
    pub fn reads_commands(&self, manager: EndpointId) -> bool {
        self.broker.queue(&queue::command_queue(manager)).is_some_and(|queue| queue.consumers > 0)
    }

    /// The broker, for connections that the listeners accept.
    pub fn broker(&self) -> &Handle {
        &self.broker
    }

    /// The broker's counters.
    pub fn broker_stats(&self) -> Stats {
        self.broker.stats()
    }

    /// Publishes a message of the service.
    pub fn publish(&self, message: Message) -> Confirm {
        self.broker.publish(message)
    }

    /// Called when a user endpoint got a credential: makes its queues. If it still runs, it keeps its connections, because its
    /// manager decides about them.
    pub fn user_endpoint_registered(&self, endpoint: EndpointId) -> Result<(), DeclareError> {
        self.admissions.made(endpoint);
        self.declare(endpoint)
    }

    /// Called when `function` was deleted: removes it from the cache, so that its tasks end instead of being sent.
    pub fn function_deleted(&self, function: FunctionId) {
        self.functions.forget(function);
    }

    /// Called when `endpoint` got credential `number`: makes its queues, and closes connections of earlier credentials.
    pub fn endpoint_registered(&self, endpoint: EndpointId, number: i64) -> Result<(), DeclareError> {
        for number in self.admissions.registered(endpoint, number) {
            let user = User { holder: Holder::Endpoint(endpoint), number };
            let ended = self.broker.disconnect_user(&user.to_string(), "the endpoint was registered again");
            if ended > 0 {
                tracing::info!(%endpoint, ended, "closed connections of an endpoint's earlier credentials");
            }
        }
        self.declare(endpoint)
    }

    /// Called when `endpoint` was deleted: closes its connections, forgets it, and ends its open tasks.
    pub async fn endpoint_deleted(&self, endpoint: EndpointId, by: Initiator) -> Result<(), StoreError> {
        self.admissions.deleted(endpoint);
        self.close_connections(
            &[Holder::Endpoint(endpoint)],
            &format!("Endpoint {endpoint} was deleted"),
            by,
        );
        self.forget(endpoint).await
    }

    /// Called when the service has forgotten `endpoint`, which was not connected.
    pub async fn endpoint_forgotten(&self, endpoint: EndpointId) -> Result<(), StoreError> {
        self.admissions.deleted(endpoint);
        self.forget(endpoint).await
    }

    async fn forget(&self, endpoint: EndpointId) -> Result<(), StoreError> {
        self.heartbeats.forget(endpoint);
        self.broker.delete_queue(&queue::task_queue(endpoint));
        self.broker.delete_queue(&queue::command_queue(endpoint));
        self.tasks.gone(queue::task_queue(endpoint));
        self.ender.end_orphans_of(endpoint).await
    }

    /// Waits until all acknowledgements of endpoints and clients are in the store. Called after the broker has stopped.
    pub async fn finish(&self) {
        self.tasks.finish().await;
        self.deliveries.finish().await;
    }

    /// Closes, with `why`, the connections of a disabled account and of its endpoints, which may do nothing until they are
    /// registered again. Log-ins under way are refused, too.
    pub fn disconnect(&self, ended: &ConnectionsToClose, why: &str, by: Initiator) {
        for &client in &ended.holders {
            self.admissions.block_client(client, clock::now());
        }
        for &endpoint in &ended.endpoints {
            self.admissions.block_endpoint(endpoint);
        }
        let clients = ended.holders.iter().copied().map(Holder::Client);
        let endpoints = ended.endpoints.iter().copied().map(Holder::Endpoint);
        self.close_connections(&clients.chain(endpoints).collect::<Vec<_>>(), why, by);
        for &endpoint in &ended.endpoints {
            self.presence.forget(endpoint);
        }
    }

    /// Closes all connections of these, with `why`, and records in the audit log how many each had.
    fn close_connections(&self, holders: &[Holder], why: &str, by: Initiator) {
        let connections: HashMap<Holder, Cell<usize>> =
            holders.iter().map(|&holder| (holder, Cell::default())).collect();
        // One pass over the connections, however many holders there are: the broker's state is locked meanwhile.
        let own = |user: &str| {
            let count = User::parse(user).and_then(|user| connections.get(&user.holder));
            count.inspect(|count| count.set(count.get() + 1)).is_some()
        };
        self.broker.disconnect_users(own, why);
        for holder in holders {
            let name = match holder {
                Holder::Client(identity) => format!("client.{identity}"),
                Holder::Endpoint(endpoint) => endpoint.to_string(),
            };
            audit::cut_off(&name, connections.get(holder).map_or(0, Cell::get), by);
        }
    }

    fn declare(&self, endpoint: EndpointId) -> Result<(), DeclareError> {
        let (tasks, commands) = (queue::task_queue(endpoint), queue::command_queue(endpoint));
        let durable = QueueOptions { durable: true, ..QueueOptions::default() };
        let backing = Arc::new(self.tasks.clone());
        self.broker.declare_queue(&tasks, QueueOptions { backing: Some(backing), ..durable.clone() })?;
        self.broker.bind(&tasks, exchange::TASKS, &tasks)?;
        self.broker.declare_queue(&commands, durable)?;
        self.broker.bind(&commands, exchange::COMMANDS, &commands)
    }
}

fn consumes(broker: &Handle, endpoint: EndpointId) -> bool {
    [queue::task_queue(endpoint), queue::command_queue(endpoint)]
        .iter()
        .any(|name| broker.queue(name).is_some_and(|queue| queue.consumers > 0))
}

impl std::fmt::Debug for Dispatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispatch").finish_non_exhaustive()
    }
}
