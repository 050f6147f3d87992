//! Connects to the service and its broker, with verified TLS, or plainly to a service on this machine. Tells the user when one
//! of them cannot be reached, and when it can again.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::PrintLine;
use crate::client_side::environment::ServiceUrl;
use crate::http::broker_address::{BROKER, FORWARDER_PORT};

/// How long a connection may take, TLS handshake included.
const DIALLING: Duration = Duration::from_secs(10);
/// How long the service may take for the first answer.
const FIRST_ANSWER: Duration = Duration::from_secs(20);

/// Why the service or its broker cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectorError {
    #[error("{at} can't be reached: {why}")]
    Unreachable { at: String, why: String },
    #[error(
        "{at} is not believed: {why}. Nothing was sent to it. If its certificate comes from a private authority, name \
         that authority's own certificate with --ca FILE; otherwise somebody may stand between you and the service"
    )]
    Untrusted { at: String, why: String },
    #[error(
        "{at} answers, but not as a service of this version does ({why}): see that the URL is right, and the service up to date"
    )]
    NotAService { at: String, why: String },
    #[error(
        "{at} says that its broker is at {broker}, without TLS: have its operator set amqp.tls_listen, or \
         amqp.public_tls behind a proxy"
    )]
    BrokerWithoutTls { at: String, broker: String },
}

/// A host and a port of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// A connection to the service or its broker, inside TLS if they are on another machine.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

pub(super) struct ServiceConnector {
    /// The URL of the service, for messages.
    url: String,
    pub(super) service: Address,
    /// The value of the header `Host`.
    pub(super) authority: HeaderValue,
    /// Absent for a service on this machine.
    tls: Option<TlsConnector>,
    /// The broker's address in the service's last answer.
    broker: Mutex<Option<Address>>,
    unreachable: Mutex<UnreachableAddresses>,
    say: PrintLine,
}

impl ServiceConnector {
    pub(super) fn new(
        reach: &ServiceUrl,
        trust: Option<ClientConfig>,
        say: PrintLine,
    ) -> Result<ServiceConnector, ConnectorError> {
        let url = reach.base();
        let authority = url.trim_start_matches("https://").trim_start_matches("http://");
        let authority = HeaderValue::from_str(authority)
            .map_err(|error| ConnectorError::NotAService { at: url.clone(), why: error.to_string() })?;
        Ok(ServiceConnector {
            service: Address { host: reach.host().to_owned(), port: reach.port() },
            authority,
            url,
            tls: trust.map(|trust| TlsConnector::from(Arc::new(trust))),
            broker: Mutex::default(),
            unreachable: Mutex::default(),
            say,
        })
    }

    pub(super) fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Requests the service's version, and learns the address of its broker.
    pub(super) async fn check_service(&self, amqp_port: u16) -> Result<(), ConnectorError> {
        let not_a_service = |why: String| ConnectorError::NotAService { at: self.url.clone(), why };
        let mut sender = self.handshake(self.dial(&self.service).await?).await?;
        let request = Request::get("/v2/version")
            .header(header::HOST, &self.authority)
            .header(FORWARDER_PORT, amqp_port)
            .body(Body::empty())
            .map_err(|error| not_a_service(error.to_string()))?;
        let answer = tokio::time::timeout(FIRST_ANSWER, sender.send_request(request)).await;
        let answer = answer
            .map_err(|_| not_a_service(format!("no answer within {FIRST_ANSWER:?}")))?
            .map_err(|error| not_a_service(error.to_string()))?;
        if answer.status() != StatusCode::OK {
            return Err(not_a_service(format!("GET /v2/version: {}", answer.status())));
        }
        if !answer.headers().contains_key(BROKER) {
            return Err(not_a_service(format!("its answer has no {BROKER}")));
        }
        self.note_broker(answer.headers());
        match answer.headers().get(BROKER).and_then(|at| at.to_str().ok()) {
            Some(at) if broker_address(at, &self.service.host).is_none() => {
                Err(ConnectorError::BrokerWithoutTls { at: self.url.clone(), broker: at.to_owned() })
            }
            _ => Ok(()),
        }
    }

    /// Opens a connection for requests.
    pub(super) async fn connect_for_requests(&self) -> Result<http1::SendRequest<Body>, ConnectorError> {
        let stream = self.dial_and_report(&self.service).await?;
        self.handshake(stream).await
    }

    async fn handshake(&self, stream: Box<dyn Stream>) -> Result<http1::SendRequest<Body>, ConnectorError> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| ConnectorError::Unreachable { at: self.url.clone(), why: error.to_string() })?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the service failed");
            }
        });
        Ok(sender)
    }

    /// Opens a connection to the broker.
    pub(super) async fn connect_to_broker(&self) -> Result<Box<dyn Stream>, ConnectorError> {
        let known = self.broker.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.dial_and_report(&known.unwrap_or_else(|| self.service.clone())).await
    }

    /// Reads the broker's address from an answer of the service.
    pub(super) fn note_broker(&self, headers: &HeaderMap) {
        let said = headers.get(BROKER).and_then(|at| at.to_str().ok());
        if let Some(address) = said.and_then(|at| broker_address(at, &self.service.host)) {
            *self.broker.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
        }
    }

    /// Connects, and tells the user if the result differs from the last one.
    async fn dial_and_report(&self, address: &Address) -> Result<Box<dyn Stream>, ConnectorError> {
        let dialled = self.dial(address).await;
        let message = {
            let mut unreachable = self.unreachable.lock().unwrap_or_else(PoisonError::into_inner);
            unreachable.record_attempt(address, dialled.as_ref().err().map(ToString::to_string))
        };
        if let Some(message) = message {
            (self.say)(&message);
        }
        dialled
    }

    async fn dial(&self, address: &Address) -> Result<Box<dyn Stream>, ConnectorError> {
        let at = if *address == self.service { self.url.clone() } else { format!("amqps://{address}") };
        match tokio::time::timeout(DIALLING, self.reach(address)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(connect_error(at, &error)),
            Err(_) => {
                Err(ConnectorError::Unreachable { at, why: format!("no connection within {DIALLING:?}") })
            }
        }
    }

    async fn reach(&self, address: &Address) -> io::Result<Box<dyn Stream>> {
        let bare = address.host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((bare, address.port)).await?;
        let _ = stream.set_nodelay(true); // without it, connections are only slower
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(bare.to_owned()).map_err(io::Error::other)?;
        Ok(Box::new(tls.connect(name, stream).await?))
    }
}

/// Tells a failed verification from a failed network.
fn connect_error(at: String, error: &io::Error) -> ConnectorError {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(_)) => {
            ConnectorError::Untrusted { at, why: error.to_string() }
        }
        _ => ConnectorError::Unreachable { at, why: error.to_string() },
    }
}

/// The broker's address from the service's answer. If it is an IP address, the name by which the service was reached is
/// used instead. None without TLS.
fn broker_address(said: &str, service: &str) -> Option<Address> {
    let authority: Authority = said.strip_prefix("amqps://")?.parse().ok()?;
    let (host, port) = (authority.host(), authority.port_u16()?);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let nameless = host == "localhost" || bare.parse::<IpAddr>().is_ok();
    Some(Address { host: if nameless { service } else { host }.to_ascii_lowercase(), port })
}

/// The addresses that cannot be reached, so that the user is told once and not at every attempt. Pure.
#[derive(Debug, Default)]
struct UnreachableAddresses(Vec<Address>);

impl UnreachableAddresses {
    /// The message after an attempt; none if the result is that of the last one.
    fn record_attempt(&mut self, address: &Address, failed: Option<String>) -> Option<String> {
        let known = self.0.iter().position(|one| one == address);
        match (known, failed) {
            (None, Some(why)) => {
                // Two at most, unless the service's broker moves about.
                self.0.truncate(8);
                self.0.push(address.clone());
                Some(format!("{why}. It is tried again with each request."))
            }
            (Some(at), None) => {
                self.0.remove(at);
                Some(format!("{address} is reached again"))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str, port: u16) -> Address {
        Address { host: host.into(), port }
    }

    #[test]
    fn where_the_broker_is() {
        let table = [
            ("amqps://compute.example.org:443", Some(at("compute.example.org", 443))),
            ("amqps://AMQP.example.org:5671", Some(at("amqp.example.org", 5671))),
            ("amqps://localhost:5671", Some(at("service", 5671))),
            ("amqps://10.0.0.7:5671", Some(at("service", 5671))),
            ("amqps://[2001:db8::1]:5671", Some(at("service", 5671))),
            ("amqps://compute.example.org", None),
            ("amqp://compute.example.org:5672", None),
            ("amqps://", None),
            ("", None),
        ];
        for (said, expected) in table {
            assert_eq!(broker_address(said, "service"), expected, "{said}");
        }
    }

    #[test]
    fn each_change_is_said_once() {
        let (service, other) = (at("a", 1), at("b", 2));
        let mut unreachable = UnreachableAddresses::default();
        let failed = || Some("a is unreachable".to_owned());
        assert_eq!(unreachable.record_attempt(&service, None), None);
        assert!(
            unreachable
                .record_attempt(&service, failed())
                .is_some_and(|said| said.starts_with("a is unreachable. "))
        );
        assert_eq!(unreachable.record_attempt(&service, failed()), None);
        assert!(unreachable.record_attempt(&other, failed()).is_some());
        assert_eq!(unreachable.record_attempt(&service, None).as_deref(), Some("a:1 is reached again"));
        assert_eq!(unreachable.record_attempt(&service, None), None);
    }
}
