//! Serves HTTP/1.1 connections: checks the host name, numbers and logs each request, and answers if a handler panics.
//!
//! [`listeners`](super::listeners) accept the connections and do TLS. Connections are limited in number, for each address
//! too ([`connections`](super::connections)), and slow clients are cut off ([`client_pace`](super::client_pace)).

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
use crate::http::client_pace::{Pace, PacedBody, PacedStream};
use crate::http::connections::{ConnectionSlot, Connections};
use crate::http::failure::Failure;
use crate::http::in_progress::{BufferedAnswer, Progress, RequestInProgress};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::random;
use identity::http::host_names::Names;

/// The longest head of a request. A connection holds as much of a body, and buffers as much of an answer.
const LONGEST_HEAD: usize = 64 << 10;
/// How long an evicted connection gets to send what is buffered.
const EVICTION_GRACE: Duration = Duration::from_secs(1);
/// The answer where the service works for too many connections of an address.
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nConnection: close\r\n\
    Content-Type: text/plain\r\nContent-Length: 60\r\n\r\n\
    Too many requests from this address are answered; try again\n";
const TOO_MANY_TEXT: &str = "Too many requests from this address are answered; try again\n";
/// How much of a request's path is logged.
const LOGGED_CHARACTERS: usize = 200;
/// How long open requests get when the service stops.
const FINISH: Duration = Duration::from_secs(5);

/// Answers the requests of connections. Clones share it.
#[derive(Clone)]
pub struct Server {
    router: Router,
    /// The routes of the listeners for metrics.
    metrics_router: Router,
    names: Names,
    broker: BrokerAddress,
    metrics: Metrics,
    connections: Connections,
    pace: Pace,
    /// How long a connection may be idle.
    idle: Duration,
}

/// The body of an answer. When all of it is in the connection's buffer, it is dropped; the request stays in progress until the
/// buffer is written.
struct AnswerBody {
    body: Body,
    in_progress: RequestInProgress,
    buffered: BufferedAnswer,
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        self.buffered.hold(self.in_progress.clone());
    }
}

impl hyper::body::Body for AnswerBody {
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
        metrics_router: Router,
        names: Names,
        broker: BrokerAddress,
        metrics: Metrics,
        limits: &Limits,
    ) -> Server {
        let connections = Connections::new(limits.http_connections);
        let idle = Duration::from_secs(limits.idle_connection_seconds.into());
        Server { router, metrics_router, names, broker, metrics, connections, pace: Pace::new(limits), idle }
    }

    /// Serves one connection to its end. `waiting` is its slot among those that are not served yet.
    pub(crate) async fn serve<S>(self, mut stream: S, arrival: Arrival, waiting: ConnectionSlot, stop: Stop)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let slot = self.connections.enter(arrival.peer.ip());
        drop(waiting);
        let Some(slot) = slot.map(Arc::new) else {
            tracing::debug!(peer = %arrival.peer, "connection refused: the service works for too many of this address");
            let _ = tokio::time::timeout(EVICTION_GRACE, stream.write_all(TOO_MANY)).await;
            return;
        };
        let (progress, buffered) = (Arc::new(Progress::default()), BufferedAnswer::default());
        let stream = PacedStream::new(stream, self.pace, progress.clone(), buffered.clone());
        let server = self.clone();
        let service = {
            let (slot, progress) = (slot.clone(), progress.clone());
            service_fn(move |request| {
                let (server, buffered) = (server.clone(), buffered.clone());
                // Without waiting for the last answer's last bytes, a client may send the next request.
                buffered.end();
                let in_progress = RequestInProgress::begin(slot.clone(), progress.clone());
                async move {
                    Ok::<_, Infallible>(match in_progress {
                        Some(in_progress) => server
                            .answer(request, arrival, in_progress.clone())
                            .await
                            .map(|body| Body::new(AnswerBody { body, in_progress, buffered })),
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
                () = slot.evicted() => {
                    // It counts as idle: the client waits for nothing, or sends no more of its body.
                    serving.as_mut().graceful_shutdown();
                    if let Ok(ended) = tokio::time::timeout(EVICTION_GRACE, serving.as_mut()).await {
                        break ended;
                    }
                    // A request that began meanwhile, or whose body came, may have a slot again.
                    if slot.is_evicted() {
                        return;
                    }
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "connection ended with an error");
        }
    }

    /// Waits, once `stop` has begun, until open requests have ended or have used up their time.
    pub async fn finish(&self, stop: Stop) {
        stop.begun().await;
        tokio::select! {
            ended = tokio::time::timeout(FINISH, self.connections.ended()) => {
                if ended.is_err() {
                    tracing::warn!("stopping with requests still open: they did not end in time");
                }
            }
            () = stop.hurried() => tracing::warn!("second stop signal: abandoned open requests"),
        }
    }

    /// Answers one request and logs it.
    async fn answer(
        &self,
        request: Request<Incoming>,
        arrival: Arrival,
        in_progress: RequestInProgress,
    ) -> Response {
        let began = Instant::now();
        let id = random::ordered_id().to_string();
        let (method, path) = (request.method().clone(), shown(request.uri().path()).to_owned());
        let forwarder = forwarder(request.headers());
        // Every log line of this request carries its id, which the client sees, the peer, and the caller once known.
        let span = tracing::info_span!(
            "request", id, peer = %arrival.peer.ip(), identity = field::Empty, client = field::Empty
        );
        let response = if self.names.own(&method, request.uri()) {
            let mut request =
                request.map(|body| Body::new(PacedBody::new(body, self.pace, in_progress.clone())));
            request.extensions_mut().insert(Arrival { forwarder, ..arrival });
            request.extensions_mut().insert(in_progress.clone());
            let router = if arrival.metrics { self.metrics_router.clone() } else { self.router.clone() };
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
            Some(failure) => failure.response(&id),
            None => response,
        };
        if let Ok(value) = HeaderValue::from_str(&id) {
            response.headers_mut().insert("x-request-id", value);
        }
        // A forwarder needs the broker's real address.
        if forwarder.is_some()
            && let Ok(value) = HeaderValue::from_str(&self.broker.base(arrival))
        {
            response.headers_mut().insert(BROKER, value);
        }
        let (status, took) = (response.status().as_u16(), began.elapsed());
        self.metrics.answered(status, took);
        let took_ms = took.as_micros() as f64 / 1_000.0;
        span.in_scope(|| tracing::info!(%method, path, status, took_ms, "http"));
        response
    }
}

/// As much of a path as is logged: anybody may send 64 KiB of it.
fn shown(path: &str) -> &str {
    path.char_indices().nth(LOGGED_CHARACTERS).map_or(path, |(end, _)| &path[..end])
}

/// The AMQP port of the forwarder that sent the request. It is on the client's own machine: only a number can be named.
fn forwarder(headers: &HeaderMap) -> Option<NonZeroU16> {
    headers.get(FORWARDER_PORT)?.to_str().ok()?.parse().ok()
}

/// The same for a request whose connection had to make room just before.
fn too_many() -> Response {
    let headers = [(header::RETRY_AFTER, "2"), (header::CONNECTION, "close")];
    (StatusCode::SERVICE_UNAVAILABLE, headers, TOO_MANY_TEXT).into_response()
}

/// Refuses a request for another host. Programs whose `http_proxy` names the service for the SDK send it those, too.
fn misdirected() -> Response {
    let text = "This Farcall service answers for its own names only and forwards nothing. If http_proxy names it, that is \
                for the Globus Compute SDK alone: ask other hosts over https://, or without http_proxy.\n";
    (StatusCode::MISDIRECTED_REQUEST, text).into_response()
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};

    use axum::routing::get;
    use daemon::stop::Trigger;
    use tokio::io::{AsyncReadExt, DuplexStream};

    use super::*;

    /// A server on which each of two addresses may have one connection, and that connection's client and address.
    fn serve(router: Router) -> (Server, DuplexStream, IpAddr, Trigger) {
        let broker = BrokerAddress { host: None, port: None, tls: None, plain_port: None, tls_port: None };
        let limits = Limits { http_connections: 2, ..Limits::default() };
        let names = Names::new([], &[]);
        let server = Server::new(router.clone(), router, names, broker, Metrics::default(), &limits);
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let arrival = Arrival { at: peer, tls: false, peer, metrics: false, forwarder: None };
        // So small that what is written has been read.
        let (client, stream) = tokio::io::duplex(10);
        let waiting = Connections::new(2).enter(peer.ip()).unwrap();
        let (trigger, stop) = daemon::stop::channel();
        tokio::spawn(server.clone().serve(stream, arrival, waiting, stop));
        (server, client, peer.ip(), trigger)
    }

    /// What is answered to a request that begins when its connection has had to make room. Its handler takes longer than an
    /// evicted connection has.
    async fn answer_after_eviction(room_again: bool) -> String {
        let slow = async || tokio::time::sleep(EVICTION_GRACE + Duration::from_millis(300)).await;
        let (server, mut client, address, _trigger) = serve(Router::new().route("/slow", get(slow)));
        client.write_all(b"GET /slow HTTP/1.1\r\nHost: localhost:5000\r\n").await.unwrap();
        let other = server.connections.enter(address).unwrap();
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

    #[tokio::test]
    async fn a_connection_is_idle_once_its_answer_is_written_and_not_before() {
        const LENGTH: usize = 10_000;
        let (server, mut client, address, _trigger) =
            serve(Router::new().route("/large", get(async || "x".repeat(LENGTH))));
        client.write_all(b"GET /large HTTP/1.1\r\nHost: localhost:5000\r\n\r\n").await.unwrap();
        let mut answer = vec![0; 17];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, b"HTTP/1.1 200 OK\r\n");
        assert!(server.connections.enter(address).is_none(), "its client reads the answer");
        while !answer.ends_with(&[b'x'; LENGTH]) {
            assert_ne!(client.read_buf(&mut answer).await.unwrap(), 0);
        }
        tokio::task::yield_now().await;
        assert!(server.connections.enter(address).is_some(), "it waits for the next request, and makes room");
    }
}
