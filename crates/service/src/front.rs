//! The front for HTTP: names, request ids, and the answer when a handler breaks.
//!
//! HTTP/1.1, with TLS or without; [`doors`](crate::doors) brings the connections. They are bounded in number, and a
//! client that does not finish its headers is not waited for.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use daemon::stop::Stop;
use futures_util::FutureExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::ServiceExt;
use tracing::{Instrument, field};
use wire::rest::error::Code;
use wire::{ClientId, IdentityId};

use crate::ambient;
use crate::figures::Figures;
use crate::origin::Names;
use crate::post::url::{BROKER, FORWARDER_PORT, Outside};
use crate::rest::Failure;

/// Open connections at a time; further ones wait.
const CONNECTIONS: usize = 8192;
/// How long a client may take for the headers of a request, and may leave a connection idle.
const HEADERS: Duration = Duration::from_secs(120);
/// How long open requests get when the service stops.
const FINISH: Duration = Duration::from_secs(5);

/// How a request arrived.
#[derive(Clone, Copy, Debug)]
pub struct Reached {
    /// The address of ours.
    pub at: SocketAddr,
    pub tls: bool,
    pub peer: SocketAddr,
    /// At a door for health and metrics.
    pub metrics: bool,
    /// The port on the client's own machine where its forwarder takes AMQP (`farcall connect`).
    pub forwarder: Option<NonZeroU16>,
}

/// Answers requests. Clones share it.
#[derive(Clone)]
pub struct Front {
    router: Router,
    /// What is answered at the doors for metrics.
    inside: Router,
    names: Names,
    outside: Outside,
    figures: Figures,
    connections: Arc<Semaphore>,
}

impl std::fmt::Debug for Front {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Front").field("names", &self.names).finish_non_exhaustive()
    }
}

impl Front {
    pub fn new(router: Router, inside: Router, names: Names, outside: Outside, figures: Figures) -> Front {
        let connections = Arc::new(Semaphore::new(CONNECTIONS));
        Front { router, inside, names, outside, figures, connections }
    }

    /// Serves one connection to its end. `waiting` is its place among those that are not served yet.
    pub(crate) async fn serve<S>(self, stream: S, reached: Reached, waiting: OwnedSemaphorePermit, stop: Stop)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Ok(_permit) = self.connections.clone().acquire_owned().await else { return };
        drop(waiting);
        let front = self.clone();
        let service = service_fn(move |request| {
            let front = front.clone();
            async move { Ok::<_, Infallible>(front.answer(request, reached).await) }
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEADERS);
        let serving = http.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(serving);
        let ended = tokio::select! {
            ended = serving.as_mut() => ended,
            () = stop.begun() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended badly");
        }
    }

    /// Waits, once `stop` has begun, until open requests have ended or had their time.
    pub async fn finish(&self, stop: Stop) {
        stop.begun().await;
        // Every permit is back when every connection has ended.
        let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
        tokio::select! {
            ended = tokio::time::timeout(FINISH, self.connections.acquire_many(all)) => {
                if ended.is_err() {
                    tracing::warn!("requests that did not end in time were left");
                }
            }
            () = stop.hurried() => tracing::warn!("the stop was hurried: open requests were left"),
        }
    }

    /// One request, from its name to its logged answer.
    async fn answer(&self, request: Request<Incoming>, reached: Reached) -> Response {
        let began = Instant::now();
        let id = ambient::ordered_id().to_string();
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let forwarder = forwarder(request.headers());
        // What is logged on the way carries the id that the client sees, from where it comes, and, once that is known, whose
        // request it is.
        let span = tracing::info_span!(
            "request", id, peer = %reached.peer.ip(), identity = field::Empty, client = field::Empty
        );
        let response = if self.names.own(&method, request.uri()) {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Reached { forwarder, ..reached });
            let router = if reached.metrics { self.inside.clone() } else { self.router.clone() };
            let answered = router.oneshot(request).instrument(span.clone());
            match AssertUnwindSafe(answered).catch_unwind().await {
                Ok(Ok(response)) => response,
                Ok(Err(never)) => match never {},
                Err(_) => {
                    Failure::new(Code::InternalError, "The service failed at this request").into_response()
                }
            }
        } else {
            misdirected()
        };
        let mut response = match response.extensions().get::<Failure>() {
            Some(failure) => failure.tell(&id),
            None => response,
        };
        if let Ok(value) = HeaderValue::from_str(&id) {
            response.headers_mut().insert("x-request-id", value);
        }
        // A forwarder has to know where the broker really is.
        if forwarder.is_some()
            && let Ok(value) = HeaderValue::from_str(&self.outside.base(reached))
        {
            response.headers_mut().insert(BROKER, value);
        }
        let (status, took) = (response.status().as_u16(), began.elapsed());
        self.figures.answered(status, took);
        let took_ms = took.as_micros() as f64 / 1_000.0;
        span.in_scope(|| tracing::info!(%method, path, status, took_ms, "http"));
        response
    }
}

/// The port that a forwarder names. It is a port of the client's own machine, and nothing else can be named.
fn forwarder(headers: &HeaderMap) -> Option<NonZeroU16> {
    headers.get(FORWARDER_PORT)?.to_str().ok()?.parse().ok()
}

/// The log names `identity` as who sends the request that is being answered.
pub fn sent_by(identity: IdentityId) {
    tracing::Span::current().record("identity", field::display(identity));
}

/// The same for an application that has shown who it is.
pub fn sent_by_client(client: ClientId) {
    tracing::Span::current().record("client", field::display(client));
}

/// We are nobody's proxy.
fn misdirected() -> Response {
    (StatusCode::MISDIRECTED_REQUEST, "This service answers for its own names only.\n").into_response()
}
