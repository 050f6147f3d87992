//! The front door for HTTP: sockets, names, request ids, and the answer when a handler breaks.
//!
//! HTTP/1.1 without TLS. Connections are bounded in number, and a client that does not finish its headers is not
//! waited for.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use daemon::stop::Stop;
use futures_util::FutureExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower::ServiceExt;
use wire::rest::error::Code;

use crate::ambient;
use crate::origin::Names;
use crate::rest::Failure;

/// Open connections at a time; further ones wait to be accepted.
const CONNECTIONS: usize = 8192;
/// How long a client may take for the headers of a request, and may leave a connection idle.
const HEADERS: Duration = Duration::from_secs(120);
/// How long open requests get when the service stops.
const FINISH: Duration = Duration::from_secs(5);

/// The address of ours at which a request arrived, and whether that was over TLS.
#[derive(Clone, Copy, Debug)]
pub struct Reached {
    pub at: SocketAddr,
    pub tls: bool,
}

/// Serves `router` on `listener` until `stop` begins and open requests have ended.
pub async fn serve(listener: TcpListener, router: Router, names: Names, stop: Stop) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.begun() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, mostly: give others the time to close some.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (router, names, stop) = (router.clone(), names.clone(), stop.clone());
        tokio::spawn(async move {
            connection(stream, router, names, stop).await;
            drop(permit);
        });
    }
    // Every permit is back when every connection has ended.
    let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
    tokio::select! {
        ended = tokio::time::timeout(FINISH, connections.acquire_many(all)) => {
            if ended.is_err() {
                tracing::warn!("requests that did not end in time were left");
            }
        }
        () = stop.hurried() => {}
    }
}

async fn connection(stream: TcpStream, router: Router, names: Names, stop: Stop) {
    let Ok(reached) = stream.local_addr() else { return };
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection was lost at once");
        return;
    }
    let service = service_fn(move |request| {
        let (router, names) = (router.clone(), names.clone());
        async move { Ok::<_, Infallible>(answer(request, router, &names, reached).await) }
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

/// One request, from its name to its logged answer.
async fn answer(request: Request<Incoming>, router: Router, names: &Names, reached: SocketAddr) -> Response {
    let began = Instant::now();
    let id = ambient::ordered_id().to_string();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = if names.own(&method, request.uri()) {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Reached { at: reached, tls: false });
        match AssertUnwindSafe(router.oneshot(request)).catch_unwind().await {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(_) => Failure::new(Code::InternalError, "The service failed at this request").into_response(),
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
    let (status, took) = (response.status().as_u16(), began.elapsed());
    tracing::info!(%method, path, status, ?took, request = id, "http");
    response
}

/// We are nobody's proxy.
fn misdirected() -> Response {
    (StatusCode::MISDIRECTED_REQUEST, "This service answers for its own names only.\n").into_response()
}
