//! The shell: sockets, timers, and nothing that decides.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

use crate::access::Access;
use crate::config::Config;
use crate::handle::Handle;

/// A place to listen, with TLS or without.
pub struct Listener {
    pub socket: TcpListener,
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

/// The server, to be [`run`](Broker::run). What is declared through the [`Handle`] before it runs is there for the
/// first client.
pub struct Broker {}

impl Broker {
    pub fn new(config: Config, access: Arc<dyn Access>) -> (Broker, Handle) {
        let _ = (config, access);
        todo!("interface first")
    }

    /// Serves until `stop` is ready, then ends every connection (320 CONNECTION_FORCED), gives the clients a few
    /// seconds to read that, and returns.
    pub async fn run(self, listeners: Vec<Listener>, stop: impl Future<Output = ()>) {
        let _ = (listeners, stop);
        todo!("interface first")
    }
}

impl Handle {
    /// Serves one stream that somebody else accepted (a port shared with another protocol). Returns when it ends.
    pub async fn serve<S>(&self, stream: S, peer: Option<SocketAddr>, tls: bool)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let _ = (stream, peer, tls);
        todo!("interface first")
    }
}
