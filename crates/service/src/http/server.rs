//! The server for HTTP: names, request ids, and the answer when a handler breaks.
//!
//! HTTP/1.1, with TLS or without; [`listeners`](super::listeners) brings the connections. They are bounded in number, each
//! address has its [share](crate::http::connections), and a client has to keep [pace](crate::http::client_pace).

use std::convert::Infallible;
use std::num::NonZeroU16;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use daemon::stop::Stop;
use futures_util::FutureExt;
use hyper::body::{Bytes, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use identity::http::arrival::Arrival;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tower::ServiceExt;
use tracing::{Instrument, field};
use wire::rest::error::Code;

use crate::http::broker_address::{BROKER, BrokerAddress, FORWARDER_PORT};
use crate::http::client_pace::{Arriving, Pace, Progress, Watched};
use crate::http::connections::{Connections, Place};
use crate::http::failure::Failure;
use crate::http::in_progress::Working;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::random;
use identity::http::host_names::Names;

/// The longest head of a request. A connection holds as much of a body, and buffers as much of an answer.
const LONGEST_HEAD: usize = 64 << 10;
/// How long an evicted connection may take to be flushed.
const FAREWELL: Duration = Duration::from_secs(1);
/// What is told where too many connections of an address are worked for.
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nConnection: close\r\n\
    Content-Type: text/plain\r\nContent-Length: 60\r\n\r\n\
    Too many requests from this address are answered; try again\n";
/// How much of a request's path is logged.
const LOGGED_CHARACTERS: usize = 200;
/// How long open requests get when the service stops.
const FINISH: Duration = Duration::from_secs(5);

/// Answers requests. Clones share it.
#[derive(Clone)]
pub struct Server {
    router: Router,
    /// What is answered at the listeners for metrics.
    inside: Router,
    names: Names,
    outside: BrokerAddress,
    metrics: Metrics,
    connections: Connections,
    pace: Pace,
    /// How long a connection may be idle.
    idle: Duration,
}

/// The body of an answer, with the request that it answers.
struct Answer {
    body: Body,
    _working: Working,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("names", &self.names).finish_non_exhaustive()
    }
}

impl Server {
    pub fn new(
        router: Router,
        inside: Router,
        names: Names,
        outside: BrokerAddress,
        metrics: Metrics,
        limits: &Limits,
    ) -> Server {
        let connections = Connections::new(limits.http_connections);
        let idle = Duration::from_secs(limits.idle_connection_seconds.into());
        Server { router, inside, names, outside, metrics, connections, pace: Pace::new(limits), idle }
    }

    /// Serves one connection to its end. `waiting` is its place among those that are not served yet.
    pub(crate) async fn serve<S>(self, mut stream: S, arrival: Arrival, waiting: Place, stop: Stop)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let place = self.connections.enter(arrival.peer.ip());
        drop(waiting);
        let Some(place) = place.map(Arc::new) else {
            tracing::debug!(peer = %arrival.peer, "too many connections of an address are worked for");
            let _ = tokio::time::timeout(FAREWELL, stream.write_all(TOO_MANY)).await;
            return;
        };
        let progress = Arc::new(Progress::default());
        let stream = Watched::new(stream, self.pace, progress.clone());
        let server = self.clone();
        let service = {
            let (place, progress) = (place.clone(), progress.clone());
            service_fn(move |request| {
                let server = server.clone();
                let working = Working::begin(place.clone(), progress.clone());
                async move { Ok::<_, Infallible>(server.answer(request, arrival, working).await) }
            })
        };
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(self.idle);
        http.max_header_size(LONGEST_HEAD).max_buf_size(LONGEST_HEAD);
        let serving = http.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(serving);
        let ended = tokio::select! {
            ended = serving.as_mut() => ended,
            () = stop.begun() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
            () = place.evicted() => {
                // It is idle: at most the end of an answer is on its way, or that its body is not waited for.
                serving.as_mut().graceful_shutdown();
                let _ = tokio::time::timeout(FAREWELL, serving).await;
                return;
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended badly");
        }
    }

    /// Waits, once `stop` has begun, until open requests have ended or had their time.
    pub async fn finish(&self, stop: Stop) {
        stop.begun().await;
        tokio::select! {
            ended = tokio::time::timeout(FINISH, self.connections.ended()) => {
                if ended.is_err() {
                    tracing::warn!("requests that did not end in time were left");
                }
            }
            () = stop.hurried() => tracing::warn!("the stop was hurried: open requests were left"),
        }
    }

    /// One request, from its name to its logged answer.
    async fn answer(&self, request: Request<Incoming>, arrival: Arrival, working: Working) -> Response {
        let began = Instant::now();
        let id = random::ordered_id().to_string();
        let (method, path) = (request.method().clone(), shown(request.uri().path()).to_owned());
        let forwarder = forwarder(request.headers());
        // What is logged on the way carries the id that the client sees, from where it comes, and, once that is known, whose
        // request it is.
        let span = tracing::info_span!(
            "request", id, peer = %arrival.peer.ip(), identity = field::Empty, client = field::Empty
        );
        let response = if self.names.own(&method, request.uri()) {
            let mut request = request.map(|body| Body::new(Arriving::new(body, self.pace, working.clone())));
            request.extensions_mut().insert(Arrival { forwarder, ..arrival });
            request.extensions_mut().insert(working.clone());
            let router = if arrival.metrics { self.inside.clone() } else { self.router.clone() };
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
            && let Ok(value) = HeaderValue::from_str(&self.outside.base(arrival))
        {
            response.headers_mut().insert(BROKER, value);
        }
        let (status, took) = (response.status().as_u16(), began.elapsed());
        self.metrics.answered(status, took);
        let took_ms = took.as_micros() as f64 / 1_000.0;
        span.in_scope(|| tracing::info!(%method, path, status, took_ms, "http"));
        response.map(|body| Body::new(Answer { body, _working: working }))
    }
}

/// As much of a path as is logged: anybody may send 64 KiB of it.
fn shown(path: &str) -> &str {
    path.char_indices().nth(LOGGED_CHARACTERS).map_or(path, |(end, _)| &path[..end])
}

/// The port that a forwarder names. It is a port of the client's own machine, and nothing else can be named.
fn forwarder(headers: &HeaderMap) -> Option<NonZeroU16> {
    headers.get(FORWARDER_PORT)?.to_str().ok()?.parse().ok()
}

/// We are nobody's proxy. Programs whose `http_proxy` leads here for the SDK's sake ask us for other hosts, too.
fn misdirected() -> Response {
    let text = "This Farcall service answers for its own names only and forwards nothing. If http_proxy names it, that is \
                for the Globus Compute SDK alone: ask other hosts over https://, or without http_proxy.\n";
    (StatusCode::MISDIRECTED_REQUEST, text).into_response()
}
