//! Carries tasks out and results back: what ties the store to the broker.
//!
//! ```text
//! submitted --> assignments (store) --feeder--> <ep>.tasks --> endpoint
//!                    |  ^ acknowledged                            |
//!                    v                                            v
//! client <-- client.<id>.<group> <--feeder-- deliveries (store) <-- results   heartbeats --> presence
//! ```
//!
//! The store is the truth and the queues are windows on it: nothing here is lost with the process. This module decides
//! no access for people (see [`rules`](crate::permissions)) and speaks no HTTP.

mod access;
mod admission;
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
use crate::tasks::ending::TaskEnder;
use crate::tasks::presence::Presence;
use admission::Admissions;
use broker_user::User;
use deliveries::Deliveries;
use functions::Functions;
use heartbeats::Heartbeats;
use identity::audit::{self, By};
use identity::end_reason::Reasons;
pub use observer::EndpointObserver;
use outbox::Feeder;
use results::ResultSink;
use store::{Ended, Holder, Store, StoreError, Which};
use tasks::Tasks;

/// The dispatch, for the routes. Clones share it.
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
    /// Sets everything up, with all that is unfinished in the store; the returned broker is to be run.
    pub async fn open(
        store: Store,
        presence: Presence,
        observer: Arc<dyn EndpointObserver>,
        metrics: Metrics,
        limits: &Limits,
    ) -> Result<(Dispatch, Broker), DispatchError> {
        store.settle_all().await?;
        let (tasks, task_feeding) = Feeder::new();
        let (deliveries, delivery_feeding) = Feeder::new();
        let admissions = Admissions::default();
        let functions = Functions::new(store.clone());
        let waking = deliveries.clone();
        let ender = TaskEnder::new(store.clone(), metrics, move |queue| waking.wake(queue));
        let rules = access::Rules {
            store: store.clone(),
            admissions: admissions.clone(),
            deliveries: deliveries.clone(),
            observer: observer.clone(),
            open: access::Open::new(limits),
            reasons: Reasons::new(store.clone()),
        };
        let defaults = broker::Config::default();
        let handshakes = defaults.handshakes.min(limits.amqp_connections / 4);
        let settings = broker::Config { handshakes, ..defaults };
        let (server, broker) = Broker::new(settings, Arc::new(rules));
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

    /// Tasks for `endpoint` have been committed.
    pub fn submitted(&self, endpoint: EndpointId) {
        self.tasks.wake(queue::task_queue(endpoint));
    }

    /// Whether `endpoint` consumes its tasks, or a manager its commands, at this moment.
    pub fn consumes(&self, endpoint: EndpointId) -> bool {
        consumes(&self.broker, endpoint)
    }

    /// What ends tasks.
    pub fn ender(&self) -> &TaskEnder {
        &self.ender
    }

    /// Ends the tasks that `endpoint` has not acknowledged with an error that says `why`. Answers how many those were.
    pub async fn end_waiting(&self, endpoint: EndpointId, why: &str) -> Result<usize, StoreError> {
        self.ender.end_open(endpoint, Which::Waiting, why).await
    }

    /// `endpoints` have been locked: their connections end with `why`, their tasks wait.
    pub fn endpoints_locked(&self, endpoints: Vec<EndpointId>, why: &str, by: By) {
        self.shut_out(&Ended { holders: Vec::new(), endpoints }, why, by);
    }

    /// Whether `endpoint` was heard of lately.
    pub fn online(&self, endpoint: EndpointId) -> bool {
        self.presence.online(endpoint, clock::now())
    }

    /// Whether `manager` reads its commands at this moment.
    pub fn reads_commands(&self, manager: EndpointId) -> bool {
        self.broker.queue(&queue::command_queue(manager)).is_some_and(|queue| queue.consumers > 0)
    }

    /// The broker, for connections that the listeners accept.
    pub fn broker(&self) -> &Handle {
        &self.broker
    }

    /// What the broker counts.
    pub fn broker_stats(&self) -> Stats {
        self.broker.stats()
    }

    /// Publishes a message of our own.
    pub fn publish(&self, message: Message) -> Confirm {
        self.broker.publish(message)
    }

    /// A user endpoint has got a credential. One that still runs keeps its connections: its manager knows best.
    pub fn user_endpoint_made(&self, endpoint: EndpointId) -> Result<(), DeclareError> {
        self.admissions.made(endpoint);
        self.declare(endpoint)
    }

    /// `function` is no more: what was remembered of it is forgotten, and tasks of it end instead of being sent.
    pub fn function_deleted(&self, function: FunctionId) {
        self.functions.forget(function);
    }

    /// `endpoint` has got credential `number`: its queues exist from now on, and its ghosts are gone.
    pub fn endpoint_registered(&self, endpoint: EndpointId, number: i64) -> Result<(), DeclareError> {
        for number in self.admissions.registered(endpoint, number) {
            let user = User { holder: Holder::Endpoint(endpoint), number };
            let ended = self.broker.disconnect_user(&user.to_string(), "the endpoint was registered again");
            if ended > 0 {
                tracing::info!(%endpoint, ended, "connections of an endpoint's earlier credentials were ended");
            }
        }
        self.declare(endpoint)
    }

    /// `endpoint` is no more: its connections end, nothing of it is remembered, and its open tasks end.
    pub async fn endpoint_deleted(&self, endpoint: EndpointId, by: By) -> Result<(), StoreError> {
        self.admissions.deleted(endpoint);
        self.cut(&[Holder::Endpoint(endpoint)], &format!("Endpoint {endpoint} was deleted"), by);
        self.heartbeats.forget(endpoint);
        self.broker.delete_queue(&queue::task_queue(endpoint));
        self.broker.delete_queue(&queue::command_queue(endpoint));
        self.tasks.gone(queue::task_queue(endpoint));
        self.ender.end_orphans_of(endpoint).await
    }

    /// Waits until what endpoints and clients have acknowledged is in the store. For when the broker has stopped.
    pub async fn finish(&self) {
        self.tasks.finish().await;
        self.deliveries.finish().await;
    }

    /// Ends, with `why`, the connections of somebody who was shut out, and of the endpoints that were theirs, which may do
    /// nothing until they are registered again. Log-ins that are under way come to nothing, too.
    pub fn shut_out(&self, ended: &Ended, why: &str, by: By) {
        for &client in &ended.holders {
            self.admissions.client_shut_out(client, clock::now());
        }
        for &endpoint in &ended.endpoints {
            self.admissions.barred(endpoint);
        }
        let clients = ended.holders.iter().copied().map(Holder::Client);
        let endpoints = ended.endpoints.iter().copied().map(Holder::Endpoint);
        self.cut(&clients.chain(endpoints).collect::<Vec<_>>(), why, by);
        for &endpoint in &ended.endpoints {
            self.presence.forget(endpoint);
        }
    }

    /// Ends all connections of these, with `why`, and writes down of each how many those were.
    fn cut(&self, holders: &[Holder], why: &str, by: By) {
        let connections: HashMap<Holder, Cell<usize>> =
            holders.iter().map(|&holder| (holder, Cell::default())).collect();
        // They are looked for once, however many holders there are: the broker's state is locked meanwhile.
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
