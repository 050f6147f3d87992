//! Listens on the service's sockets and tells protocols apart: HTTP, AMQP, either of them inside TLS, or several on one port.
//!
//! In each of these protocols the client sends first, and its first byte is enough: a TLS handshake begins with 0x16, an AMQP
//! greeting with `A`, and no HTTP method that is served does. A listener closes connections of protocols it doesn't serve.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use broker::Handle;
use daemon::stop::Stop;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::http::connections::{ConnectionSlot, Connections};
use crate::http::quick_ack::QuickAckStream;
use crate::http::server::Server;
use crate::limits::Limits;
use identity::http::arrival::Arrival;

/// Connections at a time whose protocol isn't known yet.
const UNDECIDED: usize = 1_024;
/// How long a connection may take to show its protocol, TLS handshake included.
const PATIENCE: Duration = Duration::from_secs(10);

/// The protocols of a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protocols {
    pub http: bool,
    pub amqp: bool,
    pub https: bool,
    pub amqps: bool,
    /// Health and metrics only.
    pub metrics: bool,
}

/// The protocol that a client's first byte shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Tls,
    Amqp,
    Http,
}

impl Protocols {
    /// The protocol of a connection whose first byte is `byte`, inside TLS or outside. None if it isn't served here.
    pub fn protocol_of(self, byte: u8, inside_tls: bool) -> Option<Protocol> {
        let (http, amqp) =
            if inside_tls { (self.https, self.amqps) } else { (self.http || self.metrics, self.amqp) };
        match byte {
            0x16 if !inside_tls => (self.https || self.amqps).then_some(Protocol::Tls),
            b'A' if amqp => Some(Protocol::Amqp),
            // The broker answers a wrong greeting with the right one.
            _ if amqp && !http => Some(Protocol::Amqp),
            _ => http.then_some(Protocol::Http),
        }
    }
}

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    pub address: SocketAddr,
    pub spoken: Protocols,
    socket: TcpListener,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {error}")]
pub struct ListenError {
    pub address: SocketAddr,
    pub error: io::Error,
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Opens all sockets of `plan`, or none.
pub async fn open(plan: Vec<(SocketAddr, Protocols)>) -> Result<Vec<Listener>, ListenError> {
    let mut listeners = Vec::new();
    for (address, spoken) in plan {
        let refused = |error| ListenError { address, error };
        let socket = TcpListener::bind(address).await.map_err(refused)?;
        listeners.push(Listener { address: socket.local_addr().map_err(refused)?, spoken, socket });
    }
    Ok(listeners)
}

/// Accepts connections and passes them to the HTTP server or the broker. Clones share it.
#[derive(Clone)]
pub struct Acceptor {
    pub server: Server,
    pub broker: Handle,
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Connections whose protocol isn't known yet. HTTP and AMQP have limits of their own.
    undecided: Connections,
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acceptor").finish_non_exhaustive()
    }
}

impl Acceptor {
    pub fn new(
        server: Server,
        broker: Handle,
        tls: Option<Arc<rustls::ServerConfig>>,
        limits: &Limits,
    ) -> Acceptor {
        let undecided = Connections::new(UNDECIDED.min(limits.http_connections / 4));
        Acceptor { server, broker, tls, undecided }
    }

    /// Accepts connections until `stop` begins.
    pub async fn serve(&self, listener: Listener, stop: Stop) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.socket.accept() => accepted,
                () = stop.begun() => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let Some(slot) = self.undecided.enter(peer.ip()) else { continue };
                    let (acceptor, spoken, stop) = (self.clone(), listener.spoken, stop.clone());
                    tokio::spawn(async move { acceptor.enter(stream, peer, spoken, slot, stop).await });
                }
                Err(error) => {
                    // Mostly there are no file descriptors left: wait for connections to close.
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    async fn enter(
        self,
        stream: TcpStream,
        peer: SocketAddr,
        spoken: Protocols,
        slot: ConnectionSlot,
        stop: Stop,
    ) {
        // Most frames and answers are small, and Nagle's algorithm would delay each by a round trip.
        let (Ok(at), Ok(())) = (stream.local_addr(), stream.set_nodelay(true)) else { return };
        let arrival = Arrival::new(at, peer, spoken.metrics);
        let decided = timely(&slot, async {
            let mut byte = [0];
            if stream.peek(&mut byte).await? == 0 {
                return Ok(None);
            }
            Ok::<_, io::Error>(spoken.protocol_of(byte[0], false))
        });
        match decided.await {
            Ok(Some(Protocol::Tls)) => self.enter_tls(stream, arrival, spoken, slot, stop).await,
            Ok(Some(Protocol::Http)) => {
                self.admit(QuickAckStream::new(stream), Protocol::Http, arrival, slot, stop).await;
            }
            Ok(Some(Protocol::Amqp)) => self.admit(stream, Protocol::Amqp, arrival, slot, stop).await,
            Ok(None) => {}
            Err(error) => tracing::debug!(%peer, %error, "connection closed before its protocol was known"),
        }
    }

    async fn enter_tls(
        self,
        stream: TcpStream,
        arrival: Arrival,
        spoken: Protocols,
        slot: ConnectionSlot,
        stop: Stop,
    ) {
        let Some(tls) = self.tls.clone() else { return };
        let decided = timely(&slot, async {
            let mut stream = TlsAcceptor::from(tls).accept(stream).await?;
            let first = stream.fill_buf().await?.first().and_then(|byte| spoken.protocol_of(*byte, true));
            Ok::<_, io::Error>(first.map(|first| (stream, first)))
        });
        let arrival = Arrival { tls: true, ..arrival };
        match decided.await {
            Ok(Some((stream, first))) => self.admit(stream, first, arrival, slot, stop).await,
            Ok(None) => {}
            Err(error) => tracing::debug!(peer = %arrival.peer, %error, "TLS handshake failed"),
        }
    }

    async fn admit<S>(self, stream: S, first: Protocol, arrival: Arrival, slot: ConnectionSlot, stop: Stop)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        match first {
            Protocol::Amqp => {
                drop(slot);
                self.broker.serve(stream, Some(arrival.peer), arrival.tls).await;
            }
            Protocol::Http => self.server.serve(stream, arrival, slot, stop).await,
            Protocol::Tls => {}
        }
    }
}

/// Waits for `decided` until the time is up or `slot` has to make room.
async fn timely<T>(slot: &ConnectionSlot, decided: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::select! {
        decided = tokio::time::timeout(PATIENCE, decided) => decided.unwrap_or_else(|_| {
            Err(io::Error::new(io::ErrorKind::TimedOut, "the client sent nothing for 10 s, or its TLS handshake took longer"))
        }),
        () = slot.evicted() => Err(io::Error::other("too many connections of this address whose protocol is not known")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_shows_the_protocol() {
        use Protocol::{Amqp, Http, Tls};
        let all = Protocols { http: true, amqp: true, https: true, amqps: true, metrics: false };
        let only = |edit: fn(&mut Protocols)| {
            let mut spoken = Protocols::default();
            edit(&mut spoken);
            spoken
        };
        let http = only(|it| it.http = true);
        let amqp = only(|it| it.amqp = true);
        let https = only(|it| it.https = true);
        let amqps = only(|it| it.amqps = true);
        let metrics = only(|it| it.metrics = true);
        let table = [
            (all, 0x16, false, Some(Tls)),
            (all, b'A', false, Some(Amqp)),
            (all, b'G', false, Some(Http)),
            (all, b'A', true, Some(Amqp)),
            (all, b'P', true, Some(Http)),
            (all, 0x16, true, Some(Http)),
            (http, b'G', false, Some(Http)),
            (http, b'A', false, Some(Http)),
            (http, 0x16, false, None),
            (amqp, b'A', false, Some(Amqp)),
            (amqp, b'G', false, Some(Amqp)),
            (amqp, 0x16, false, None),
            (https, 0x16, false, Some(Tls)),
            (https, b'G', false, None),
            (https, b'A', false, None),
            (https, b'G', true, Some(Http)),
            (amqps, b'A', false, None),
            (amqps, b'A', true, Some(Amqp)),
            (amqps, b'G', true, Some(Amqp)),
            (metrics, b'G', false, Some(Http)),
        ];
        for (spoken, byte, inside, expected) in table {
            assert_eq!(spoken.protocol_of(byte, inside), expected, "{spoken:?} {byte} {inside}");
        }
    }
}
