//! Serves one connection of a client to the proxy: checks the password of each request and forwards it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use super::connection_limit::CountedConnection;
use super::outer_proxy::Route;
use super::service_connector::{Address, ConnectorError};
use super::target::{Target, for_another, for_the_service, without_hop};
use super::{ForwarderState, USER};
use crate::http::broker_address::FORWARDER_PORT;
use identity::http::authorization_header;

/// How long a client may take for the headers of a request, and how long a connection may be idle.
const HEADERS: Duration = Duration::from_secs(120);
/// How long a connection may be open without having sent the password.
const UNAUTHENTICATED: Duration = Duration::from_secs(10);
const LONGEST_HEADERS: usize = 64 << 10;
/// How long connecting to another host may take, and how long any host may take to begin its answer.
const DIALLING: Duration = Duration::from_secs(10);
const ANSWERING: Duration = Duration::from_secs(300);

/// The state shared by the requests of one connection.
struct ClientConnection {
    forwarder: ForwarderState,
    counted: CountedConnection,
    /// The idle connection to the service, between two requests.
    kept: Mutex<Option<SendRequest<Body>>>,
}

pub(super) async fn serve(stream: TcpStream, counted: CountedConnection, forwarder: ForwarderState) {
    let connection = Arc::new(ClientConnection { forwarder, counted, kept: Mutex::default() });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADERS).max_buf_size(LONGEST_HEADERS);
    let shared = connection.clone();
    let service = service_fn(move |request| {
        let connection = shared.clone();
        async move { Ok::<_, Infallible>(connection.answer(request).await) }
    });
    let serving = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
    let password_overdue = async {
        tokio::time::sleep(UNAUTHENTICATED).await;
        if connection.counted.is_authenticated() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        ended = serving => {
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection failed");
            }
        }
        () = password_overdue => {}
        () = connection.counted.evicted() => {}
    }
}

impl ClientConnection {
    async fn answer(&self, request: Request<Incoming>) -> Response {
        let shown = authorization_header::proxy_basic(request.headers());
        if !shown.is_some_and(|(user, password)| user == USER && self.forwarder.password.admits(&password)) {
            return password_required(self.forwarder.command);
        }
        self.counted.authenticate();
        let connector = &self.forwarder.connector;
        let answered =
            match Target::of(request.method(), request.uri(), &connector.service, connector.has_tls()) {
                Target::Service => self.ask_the_service(request).await,
                Target::Other(address) => self.ask_another(request, &address).await,
                Target::Tunnel(address) => self.tunnel(request, &address).await,
                Target::None => Err(Refused(
                    StatusCode::BAD_REQUEST,
                    "This is a proxy for http:// addresses and CONNECT".to_owned(),
                )),
            };
        answered.unwrap_or_else(|refused| refused.into_response(self.forwarder.command))
    }

    async fn ask_the_service(&self, request: Request<Incoming>) -> Result<Response, Refused> {
        let (mut parts, body) = request.into_parts();
        self.forwarder.credentials.remember(&parts.headers);
        for_the_service(&mut parts.headers);
        parts.headers.insert(header::HOST, self.forwarder.connector.authority.clone());
        if let Some(port) = self.forwarder.amqp_port {
            parts.headers.insert(FORWARDER_PORT, HeaderValue::from(port));
        }
        parts.uri = relative(&parts.uri);
        parts.extensions.clear();
        let mut request = Request::from_parts(parts, Body::new(body));
        let mut kept = self.kept.lock().await;
        // The service closes idle connections. The request is sent again if the service had not begun to read it.
        let answer = loop {
            let (mut sender, fresh) = match kept.take().filter(|sender| !sender.is_closed()) {
                Some(sender) => (sender, false),
                None => (self.forwarder.connector.connect_for_requests().await?, true),
            };
            let sent = tokio::time::timeout(ANSWERING, sender.try_send_request(request));
            match sent.await.map_err(|_| late())? {
                Ok(answer) => {
                    *kept = Some(sender);
                    break answer;
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) if !fresh => request = unsent,
                    _ => return Err(broken(&self.forwarder.connector.service, error.error())),
                },
            }
        };
        self.forwarder.connector.note_broker(answer.headers());
        Ok(passed_on(answer))
    }

    /// Asks another host by plain HTTP, through the proxy by which this machine reaches it, if there is one.
    async fn ask_another(&self, request: Request<Incoming>, target: &Address) -> Result<Response, Refused> {
        let (mut parts, body) = request.into_parts();
        if let Some(authority) = parts.uri.authority().cloned() {
            for_another(&mut parts.headers, &authority);
        }
        self.forwarder.credentials.remove_from(&mut parts.headers);
        let address = match self.forwarder.outer.route_to(target) {
            Route::Direct => {
                parts.uri = relative(&parts.uri);
                target
            }
            Route::Proxy { address, authorization } => {
                if let Some(authorization) = authorization {
                    parts.headers.insert(header::PROXY_AUTHORIZATION, authorization.clone());
                }
                address
            }
            Route::Unsupported(proxy) => return Err(unsupported(target, proxy)),
        };
        parts.extensions.clear();
        let answer = ask(address, Request::from_parts(parts, Body::new(body))).await?;
        Ok(passed_on(answer))
    }

    /// Connects to a host, through the same proxy if there is one, and passes on bytes unchanged.
    async fn tunnel(&self, request: Request<Incoming>, target: &Address) -> Result<Response, Refused> {
        match self.forwarder.outer.route_to(target) {
            Route::Direct => join(request, dial(target).await?),
            Route::Proxy { address, authorization } => {
                let mut opening =
                    Request::connect(target.to_string()).header(header::HOST, target.to_string());
                if let Some(authorization) = authorization {
                    opening = opening.header(header::PROXY_AUTHORIZATION, authorization.clone());
                }
                let opening = opening.body(Body::empty()).map_err(|error| {
                    Refused(StatusCode::BAD_REQUEST, format!("{target} can't be reached: {error}"))
                })?;
                let answer = ask(address, opening).await?;
                if answer.status() != StatusCode::OK {
                    return Ok(passed_on(answer));
                }
                let tunnel = hyper::upgrade::on(answer).await.map_err(|error| broken(address, &error))?;
                join(request, TokioIo::new(tunnel));
            }
            Route::Unsupported(proxy) => return Err(unsupported(target, proxy)),
        }
        Ok(StatusCode::OK.into_response())
    }
}

/// Sends a request on a connection of its own.
async fn ask(address: &Address, request: Request<Body>) -> Result<axum::http::Response<Incoming>, Refused> {
    let stream = dial(address).await?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| broken(address, &error))?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection to another host failed");
        }
    });
    let sent = tokio::time::timeout(ANSWERING, sender.send_request(request));
    sent.await.map_err(|_| late())?.map_err(|error| broken(address, &error))
}

/// Passes on bytes between the client and `target` once the client's request is answered.
fn join(request: Request<Incoming>, mut target: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    tokio::spawn(async move {
        match hyper::upgrade::on(request).await {
            Ok(client) => {
                let ended = copy_bidirectional(&mut TokioIo::new(client), &mut target).await;
                tracing::debug!(?ended, "a tunnel ended");
            }
            Err(error) => tracing::debug!(%error, "a tunnel did not begin"),
        }
    });
}

fn unsupported(target: &Address, proxy: &str) -> Refused {
    let why =
        format!("{target} can't be reached: http_proxy named {proxy}, and only http:// proxies can be used");
    Refused(StatusCode::BAD_GATEWAY, why)
}

async fn dial(address: &Address) -> Result<TcpStream, Refused> {
    let bare = address.host.trim_start_matches('[').trim_end_matches(']');
    let unreachable =
        |why: String| Refused(StatusCode::BAD_GATEWAY, format!("{address} can't be reached: {why}"));
    match tokio::time::timeout(DIALLING, TcpStream::connect((bare, address.port))).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(unreachable(error.to_string())),
        Err(_) => Err(unreachable(format!("no connection within {DIALLING:?}"))),
    }
}

fn relative(uri: &Uri) -> Uri {
    let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    Uri::from(path)
}

fn passed_on(answer: axum::http::Response<Incoming>) -> Response {
    let mut answer = answer.map(Body::new);
    without_hop(answer.headers_mut());
    answer
}

fn password_required(command: &str) -> Response {
    let text = format!("This proxy is `{command}`'s: it serves the programs that were given its password.\n");
    let mut response = (StatusCode::PROXY_AUTHENTICATION_REQUIRED, text).into_response();
    if let Ok(challenge) = HeaderValue::from_str(&format!("Basic realm=\"{command}\"")) {
        response.headers_mut().insert(header::PROXY_AUTHENTICATE, challenge);
    }
    response
}

/// A request that could not be passed on.
struct Refused(StatusCode, String);

impl From<ConnectorError> for Refused {
    fn from(error: ConnectorError) -> Refused {
        Refused(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}

fn broken(address: &Address, error: &hyper::Error) -> Refused {
    Refused(StatusCode::BAD_GATEWAY, format!("the connection to {address} broke: {error}"))
}

fn late() -> Refused {
    Refused(StatusCode::GATEWAY_TIMEOUT, format!("no answer within {ANSWERING:?}"))
}

impl Refused {
    /// In the form of the service's own errors, which all releases of clients show.
    fn into_response(self, command: &str) -> Response {
        let Refused(status, message) = self;
        let message = format!("{command}: {message}");
        let body = json!({
            "status": "Failed", "code": "SERVICE_UNREACHABLE", "message": message, "reason": message,
            "http_status_code": status.as_u16(), "error_args": [],
        });
        (status, axum::Json(body)).into_response()
    }
}
