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
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
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
use crate::http::client_pace::{Arriving, Pace, Watched};
use crate::http::connections::{Connections, Place};
use crate::http::failure::Failure;
use crate::http::in_progress::Progress;
use crate::http::in_progress::Working;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::random;
use identity::http::host_names::Names;

/// The longest head of a request. A connection holds as much of a body, and buffers as much of an answer.
const LONGEST_HEAD: usize = 64 << 10;
/// How long an evicted connection may take to be flushed.
const FAREWELL: Duration = Duration::from_secs(1);
/// The answer where the service works for too many connections of an address.
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nConnection: close\r\n\
    Content-Type: text/plain\r\nContent-Length: 60\r\n\r\n\
    Too many requests from this address are answered; try again\n";
const TOO_MANY_TEXT: &str = "Too many requests from this address are answered; try again\n";
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
                async move {
                    Ok::<_, Infallible>(match working {
                        Some(working) => server.answer(request, arrival, working).await,
                        None => too_many(),
                    })
                }
            })
        };
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(self.idle);
        http.max_header_size(LONGEST_HEAD).max_buf_size(LONGEST_HEAD);
        let serving = http.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(serving);
        let ended = loop {
            tokio::select! {
                ended = serving.as_mut() => break ended,
                () = stop.begun() => {
                    serving.as_mut().graceful_shutdown();
                    break serving.await;
                }
                () = place.evicted() => {
                    // It is idle: at most the end of an answer is on its way, or that its body is not waited for.
                    serving.as_mut().graceful_shutdown();
                    if let Ok(ended) = tokio::time::timeout(FAREWELL, serving.as_mut()).await {
                        break ended;
                    }
                    // A request that began meanwhile, or whose body came, may have a place again.
                    if place.is_evicted() {
                        return;
                    }
                }
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

/// The same for a request whose connection had to make room just before.
fn too_many() -> Response {
    let headers = [(header::RETRY_AFTER, "2"), (header::CONNECTION, "close")];
    (StatusCode::SERVICE_UNAVAILABLE, headers, TOO_MANY_TEXT).into_response()
}

/// We are nobody's proxy. Programs whose `http_proxy` leads here for the SDK's sake ask us for other hosts, too.
fn misdirected() -> Response {
    let text = "This Farcall service answers for its own names only and forwards nothing. If http_proxy names it, that is \
                for the Globus Compute SDK alone: ask other hosts over https://, or without http_proxy.\n";
    (StatusCode::MISDIRECTED_REQUEST, text).into_response()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use axum::routing::get;
    use tokio::io::AsyncReadExt;

    use super::*;

    /// What is answered to a request that begins when its connection has had to make room. Its handler takes longer than an
    /// evicted connection has.
    async fn answer_after_eviction(room_again: bool) -> String {
        let slow = async || tokio::time::sleep(FAREWELL + Duration::from_millis(300)).await;
        let router = Router::new().route("/slow", get(slow));
        let broker = BrokerAddress { host: None, port: None, tls: None, plain_port: None, tls_port: None };
        let limits = Limits { http_connections: 2, ..Limits::default() };
        let names = Names::new([], &[]);
        let server = Server::new(router.clone(), router, names, broker, Metrics::default(), &limits);
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let arrival = Arrival { at: peer, tls: false, peer, metrics: false, forwarder: None };
        // So small that what is written has been read.
        let (mut client, stream) = tokio::io::duplex(10);
        let waiting = Connections::new(2).enter(peer.ip()).unwrap();
        let (_trigger, stop) = daemon::stop::channel();
        tokio::spawn(server.clone().serve(stream, arrival, waiting, stop));
        client.write_all(b"GET /slow HTTP/1.1\r\nHost: localhost:5000\r\n").await.unwrap();
        let other = server.connections.enter(peer.ip()).unwrap();
        other.begin();
        let other = Some(other).filter(|_| !room_again);
        client.write_all(b"\r\n").await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        drop(other);
        answer
    }

    #[tokio::test]
    async fn a_request_that_begins_while_its_connection_makes_room_is_answered_or_refused_and_never_cut() {
        let answer = answer_after_eviction(true).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
        let answer = answer_after_eviction(false).await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer:?}");
    }
}
