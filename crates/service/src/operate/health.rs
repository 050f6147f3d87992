//! `/healthz`, `/readyz` and `/metrics`: for operators and monitoring.
//!
//! `/healthz` answers while the process runs, `/readyz` says why if a submit would not be accepted. Metrics are for requests from this machine, and for any at the listeners of
//! `metrics.listen`. A request that a proxy forwarded doesn't count as from this machine.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use daemon::stop::{Stage, Stop};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::clock;
use crate::dispatch::Dispatch;
use crate::http::failure::Failure;
use crate::log_throttle::LogThrottle;
use crate::metrics::{Metrics, counted, gauge, gauges};
use crate::tasks::presence::Presence;
use identity::http::arrival::Arrival;
use store::{Store, StoreCounts, StoreError, outage_log};

/// How long the store may take to answer before the service counts as not ready.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long counts from the store are reused: counting a long queue takes a while.
const OLD: Duration = Duration::from_secs(5);

/// What health and metrics are read from. Clones share it.
#[derive(Clone, Debug)]
pub struct Health {
    pub store: Store,
    pub dispatch: Dispatch,
    pub presence: Presence,
    pub metrics: Metrics,
    pub stop: Stop,
    counted: Arc<Mutex<Option<(Instant, StoreCounts)>>>,
    /// Limits the lines about a database that does not answer.
    slow: Arc<LogThrottle>,
}

/// Whether a submit would be accepted, and why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    Stopping,
    /// A database on a server cannot be reached, or does not answer.
    DatabaseAway,
    StoreFailed,
}

impl Health {
    pub fn new(store: Store, dispatch: Dispatch, presence: Presence, metrics: Metrics, stop: Stop) -> Health {
        Health { store, dispatch, presence, metrics, stop, counted: Arc::default(), slow: Arc::default() }
    }

    /// Checks whether a submit would be accepted now: the store reads and writes, and no stop has begun.
    pub async fn readiness(&self) -> Readiness {
        let works = tokio::time::timeout(PATIENCE, self.store.check_works()).await;
        match works {
            Ok(Ok(())) if self.stop.stage() == Stage::Running => Readiness::Ready,
            Ok(Ok(())) => Readiness::Stopping,
            Ok(Err(error)) if self.store.is_on_server() && outage_log::logs(&error) => {
                Readiness::DatabaseAway
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "not ready: the store failed");
                Readiness::StoreFailed
            }
            Err(_) if self.store.is_on_server() => {
                if let Some(count) = self.slow.count(1, clock::now()) {
                    tracing::warn!(count, "not ready: the database did not answer in time");
                }
                Readiness::DatabaseAway
            }
            Err(_) => {
                tracing::warn!("not ready: the store did not answer in time");
                Readiness::StoreFailed
            }
        }
    }

    /// Whether this process does its work. A database on a server that is away is no reason to start it again.
    pub async fn works(&self) -> bool {
        match self.readiness().await {
            Readiness::Ready | Readiness::Stopping | Readiness::DatabaseAway => true,
            Readiness::StoreFailed => false,
        }
    }

    /// The counts, at most a few seconds old.
    async fn counts(&self) -> Result<StoreCounts, StoreError> {
        let mut counted = self.counted.lock().await;
        if let Some((at, counts)) = &*counted
            && at.elapsed() < OLD
        {
            return Ok(counts.clone());
        }
        let counts = self.store.counts().await?;
        *counted = Some((Instant::now(), counts.clone()));
        Ok(counts)
    }

    async fn page(&self) -> Result<String, StoreError> {
        let mut page = String::with_capacity(16 << 10);
        let it = &mut page;
        let version = [(env!("CARGO_PKG_VERSION").to_owned(), 1)];
        gauges(it, "farcall_info", "The version that runs.", "version", version);
        self.metrics.write(it);
        let counts = self.counts().await?;
        let open = [("waiting".to_owned(), counts.waiting), ("taken".to_owned(), counts.taken)];
        let help = "Open tasks: in the queue of their endpoint, or taken by it.";
        gauges(it, "farcall_tasks_open", help, "state", open);
        let outboxes = [("tasks".to_owned(), counts.waiting), ("results".to_owned(), counts.deliveries)];
        let help = "Messages in the store that their receiver has not acknowledged.";
        gauges(it, "farcall_outbox_depth", help, "of", outboxes);
        let now = clock::now();
        let up = counts.endpoints.iter().filter(|endpoint| self.presence.online(**endpoint, now)).count();
        gauge(it, "farcall_endpoints", "Endpoints that are registered.", counts.endpoints.len());
        gauge(it, "farcall_endpoints_online", "Endpoints that were heard of lately.", up);
        let idle = counts.endpoints.iter().filter(|endpoint| {
            self.presence.online(**endpoint, now)
                && !self.dispatch.consumes(**endpoint)
                && !self.dispatch.reads_commands(**endpoint)
        });
        let help = "Endpoints that are online and take nothing.";
        gauge(it, "farcall_endpoints_online_taking_nothing", help, idle.count());
        // Those that managers start come and go with people.
        let states = counts
            .unmanaged
            .iter()
            .map(|endpoint| (endpoint.to_string(), u8::from(self.presence.online(*endpoint, now))));
        let help = "Whether an endpoint was heard of lately; not of those that managers start.";
        gauges(it, "farcall_endpoint_up", help, "endpoint", states);
        self.broker(it);
        Ok(page)
    }

    fn broker(&self, page: &mut String) {
        let it = self.dispatch.broker_stats();
        let gauged = [
            ("connections", "Connections to the broker.", it.connections),
            ("channels", "Channels open in them.", it.channels),
            ("consumers", "Consumers of queues.", it.consumers),
            ("queues", "Queues that exist.", it.queues),
            ("messages_ready", "Messages that could be delivered.", it.ready),
            ("messages_unacknowledged", "Messages delivered and not acknowledged.", it.unacknowledged),
            ("memory_bytes", "Held by messages.", it.memory),
            ("connections_paused", "Connections that may not publish for now.", it.paused),
        ];
        for (name, help, value) in gauged {
            gauge(page, &format!("farcall_broker_{name}"), help, value);
        }
        let totals = [
            ("published", "Messages that clients published.", it.published),
            ("unroutable", "Messages that matched no queue.", it.unroutable),
            ("refused", "Messages that a queue did not take.", it.refused),
            ("fed", "Messages that came from the store.", it.fed),
            ("delivered", "Messages delivered.", it.delivered),
            ("redelivered", "Messages delivered again.", it.redelivered),
            ("acknowledged", "Messages acknowledged.", it.acknowledged),
            ("dropped", "Messages dropped: expired, rejected, given back too often.", it.dropped),
        ];
        for (name, help, value) in totals {
            counted(page, &format!("farcall_broker_{name}_total"), help, value);
        }
    }
}

pub fn router(health: Health) -> Router {
    Router::new()
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(health)
}

async fn ready(State(health): State<Health>) -> Response {
    let text = match health.readiness().await {
        Readiness::Ready => return "ready\n".into_response(),
        Readiness::Stopping => "not ready: the service is stopping\n",
        Readiness::DatabaseAway => "not ready: the database cannot be reached, or does not answer\n",
        Readiness::StoreFailed => "not ready: the store failed; the log says why\n",
    };
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

async fn metrics(
    State(health): State<Health>,
    Extension(arrival): Extension<Arrival>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let passed_on = headers.keys().any(|name| {
        let name = name.as_str();
        name == "forwarded" || name == "via" || name.starts_with("x-forwarded-") || name == "x-real-ip"
    });
    if !arrival.metrics && (passed_on || !arrival.peer.ip().is_loopback()) {
        return Err(crate::rest::nowhere().await);
    }
    let page = health.page().await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page).into_response())
}
