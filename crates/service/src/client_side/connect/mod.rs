//! A forwarder on the client's own machine, between the stock SDK and a service at another address than the SDK's own.
//!
//! The SDK knows one address of a self-hosted service, and reaches any other through `http_proxy`; its HTTP library does not
//! verify a proxy's certificate. So `farcall connect` runs the proxy here, on the loopback, and connects to the service with
//! verified TLS. `farcall up` runs one without TLS and without AMQP to a service on this machine at another port:
//! the service itself is no proxy, so plain requests to other hosts would fail.
//!
//! ```text
//! SDK --http_proxy, this run's password--> http   --TLS, verified--> service      requests for http://localhost:5000
//!                                                 -----------------> other hosts  without the service's credentials
//! SDK --amqp://127.0.0.1:PORT-----------> amqp   --TLS, verified--> its broker   bytes
//! ```
//!
//! It listens on the loopback only. Nobody gets anything from the proxy without the password, which is made anew for each
//! run; neither the password nor an `Authorization` that was sent to the service ever goes to another host. A
//! [guard](super::guard) keeps anybody else from taking the ports while the command that runs meanwhile lives.
//!
//! | file | knows |
//! |---|---|
//! | `trust` | the trusted certificate authorities |
//! | `service_connector` | connections to the service, and reports when it cannot be reached |
//! | `target` | where a request is sent, and which headers are forwarded |
//! | `service_credentials` | the credentials that no other host may get |
//! | `connection_limit` | how many connections are served at a time, and which give way |
//! | `outer_proxy` | the proxy by which this machine reaches other hosts |
//! | `http`, `amqp` | serve one connection |

mod amqp;
mod connection_limit;
mod http;
mod outer_proxy;
mod service_connector;
mod service_credentials;
mod target;
mod trust;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd as _, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

pub use service_connector::ConnectorError;
pub use trust::TrustError;

use crate::client_side::environment::{Proxies, ServiceUrl, Variables};
use connection_limit::{ConnectionLimit, CountedConnection};
use outer_proxy::OuterProxy;
use service_connector::ServiceConnector;
use service_credentials::ServiceCredentials;
use store::secret::{self, Hash};

/// The user in `http_proxy`; only the password is checked.
const USER: &str = "farcall";
/// The most connections at a time.
const HTTP_CONNECTIONS: usize = 512;
const AMQP_CONNECTIONS: usize = 128;
const FREE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("cannot listen on this machine's loopback: {0}")]
    Listen(#[from] io::Error),
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error(transparent)]
    ServiceConnector(#[from] ConnectorError),
}

/// Prints a line for the user.
pub type PrintLine = fn(&str);

/// A forwarder that listens.
pub struct Forwarder {
    http: TcpListener,
    amqp: Option<TcpListener>,
    state: ForwarderState,
    password: String,
    http_address: SocketAddr,
    reach: ServiceUrl,
    proxies: Proxies,
}

/// The state shared by all connections.
#[derive(Clone)]
struct ForwarderState {
    connector: Arc<ServiceConnector>,
    password: Hash,
    /// The port here that leads to the broker. Without it, clients reach the broker by themselves.
    amqp_port: Option<u16>,
    outer: Arc<OuterProxy>,
    credentials: Arc<ServiceCredentials>,
    /// The command that runs it, for messages.
    command: &'static str,
}

impl Forwarder {
    /// Listens for HTTP and AMQP, and reaches the service with TLS: if it does not verify, or can't be reached, this fails.
    /// `proxies` are those of the client's environment.
    pub async fn to_another_machine(
        reach: ServiceUrl,
        authority: Option<&Path>,
        proxies: Proxies,
        say: PrintLine,
    ) -> Result<Forwarder, ConnectError> {
        let connector = ServiceConnector::new(&reach, Some(trust::configuration(authority)?), say)?;
        let amqp = TcpListener::bind(FREE).await?;
        let amqp_port = amqp.local_addr()?.port();
        connector.check_service(amqp_port).await?;
        Forwarder::listen(connector, Some(amqp), reach, proxies, "farcall connect").await
    }

    /// Listens for HTTP; the service is on this machine, and reached without TLS.
    pub async fn to_this_machine(
        reach: ServiceUrl,
        proxies: Proxies,
        say: PrintLine,
    ) -> Result<Forwarder, ConnectError> {
        let connector = ServiceConnector::new(&reach, None, say)?;
        Forwarder::listen(connector, None, reach, proxies, "farcall up").await
    }

    async fn listen(
        connector: ServiceConnector,
        amqp: Option<TcpListener>,
        reach: ServiceUrl,
        proxies: Proxies,
        command: &'static str,
    ) -> Result<Forwarder, ConnectError> {
        let http = TcpListener::bind(FREE).await?;
        let amqp_port = amqp.as_ref().map(TcpListener::local_addr).transpose()?.map(|at| at.port());
        let (password, http_address) = (secret::fresh(), http.local_addr()?);
        let state = ForwarderState {
            connector: Arc::new(connector),
            password: Hash::of(&password),
            amqp_port,
            outer: Arc::new(OuterProxy::of(&proxies)),
            credentials: Arc::default(),
            command,
        };
        Ok(Forwarder { http, amqp, state, password, http_address, reach, proxies })
    }

    /// The environment variables for a client.
    pub fn variables(&self) -> Variables {
        let proxy = format!("http://{USER}:{}@{}", self.password, self.http_address);
        self.reach.through(proxy, &self.proxies)
    }

    /// The sockets that listen, for the command's processes to [hold](crate::client_side::guard).
    pub fn sockets(&self) -> Vec<RawFd> {
        [Some(&self.http), self.amqp.as_ref()]
            .into_iter()
            .flatten()
            .map(|socket| socket.as_raw_fd())
            .collect()
    }

    /// Serves until the process ends.
    pub async fn run(self) {
        let mut serving = JoinSet::new();
        let Forwarder { http, amqp, state, .. } = self;
        let http_state = state.clone();
        serving.spawn(accept(http, HTTP_CONNECTIONS, move |stream, counted| {
            http::serve(stream, counted, http_state.clone())
        }));
        if let Some(amqp) = amqp {
            serving.spawn(accept(amqp, AMQP_CONNECTIONS, move |stream, counted| {
                amqp::serve(stream, counted, state.clone())
            }));
        }
        // If one of them fails, the other is of no use.
        serving.join_next().await;
    }
}

async fn accept<F: Future<Output = ()> + Send + 'static>(
    socket: TcpListener,
    most: usize,
    serve: impl Fn(TcpStream, CountedConnection) -> F,
) {
    let limit = ConnectionLimit::new(most);
    loop {
        match socket.accept().await {
            Ok((stream, _)) => {
                // Small requests must be sent at once.
                let _ = stream.set_nodelay(true);
                tokio::spawn(serve(stream, limit.enter().await));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
