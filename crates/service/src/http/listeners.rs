//! The sockets we listen on, and what is spoken at each: HTTP, AMQP, either of them inside TLS, or several on one port.
//!
//! Who connects speaks first in every one of them, and one byte is enough to know: a TLS handshake begins with 0x16, an
//! AMQP greeting with `A`, as no method of HTTP that we serve does. What is not spoken at a listener is not answered.

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

use crate::http::connections::{Connections, Place};
use crate::http::quick_ack::Prompt;
use crate::http::server::Server;
use crate::limits::Limits;
use identity::http::arrival::Arrival;

/// Connections at a time that have not said what they speak.
const UNDECIDED: usize = 1_024;
/// How long one of them may take, TLS handshake included.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is spoken at a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protocols {
    pub http: bool,
    pub amqp: bool,
    pub https: bool,
    pub amqps: bool,
    /// Health and metrics only.
    pub metrics: bool,
}

/// What the first byte of a connection says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    Tls,
    Amqp,
    Http,
}

impl Protocols {
    /// What a connection speaks that begins with `byte`, inside TLS or outside; nothing, if not here.
    pub fn first(self, byte: u8, inside_tls: bool) -> Option<First> {
        let (http, amqp) =
            if inside_tls { (self.https, self.amqps) } else { (self.http || self.metrics, self.amqp) };
        match byte {
            0x16 if !inside_tls => (self.https || self.amqps).then_some(First::Tls),
            b'A' if amqp => Some(First::Amqp),
            // A client of AMQP that begins wrongly is told by the broker what is right.
            _ if amqp && !http => Some(First::Amqp),
            _ => http.then_some(First::Http),
        }
    }
}

/// A socket that listens.
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

/// Opens all of them, or none.
pub async fn open(plan: Vec<(SocketAddr, Protocols)>) -> Result<Vec<Listener>, ListenError> {
    let mut listeners = Vec::new();
    for (address, spoken) in plan {
        let refused = |error| ListenError { address, error };
        let socket = TcpListener::bind(address).await.map_err(refused)?;
        listeners.push(Listener { address: socket.local_addr().map_err(refused)?, spoken, socket });
    }
    Ok(listeners)
}

/// What lies behind the listeners. Clones share it.
#[derive(Clone)]
pub struct Acceptor {
    pub front: Server,
    pub broker: Handle,
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Those that have not said what they speak. What they will speak has room of its own.
    undecided: Connections,
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acceptor").finish_non_exhaustive()
    }
}

impl Acceptor {
    pub fn new(
        front: Server,
        broker: Handle,
        tls: Option<Arc<rustls::ServerConfig>>,
        limits: &Limits,
    ) -> Acceptor {
        let undecided = Connections::new(UNDECIDED.min(limits.http_connections / 4));
        Acceptor { front, broker, tls, undecided }
    }

    /// Lets everybody in until `stop` begins.
    pub async fn serve(&self, listener: Listener, stop: Stop) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.socket.accept() => accepted,
                () = stop.begun() => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let Some(place) = self.undecided.enter(peer.ip()) else { continue };
                    let (acceptor, spoken, stop) = (self.clone(), listener.spoken, stop.clone());
                    tokio::spawn(async move { acceptor.enter(stream, peer, spoken, place, stop).await });
                }
                Err(error) => {
                    // Out of descriptors, mostly: give others the time to close some.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    async fn enter(self, stream: TcpStream, peer: SocketAddr, spoken: Protocols, place: Place, stop: Stop) {
        // Small frames and answers are the rule here; waiting to join them costs a round trip.
        let (Ok(at), Ok(())) = (stream.local_addr(), stream.set_nodelay(true)) else { return };
        let arrival = Arrival::new(at, peer, spoken.metrics);
        let decided = timely(&place, async {
            let mut byte = [0];
            if stream.peek(&mut byte).await? == 0 {
                return Ok(None);
            }
            Ok::<_, io::Error>(spoken.first(byte[0], false))
        });
        match decided.await {
            Ok(Some(First::Tls)) => self.enter_tls(stream, arrival, spoken, place, stop).await,
            Ok(Some(First::Http)) => {
                self.admit(Prompt::new(stream), First::Http, arrival, place, stop).await;
            }
            Ok(Some(First::Amqp)) => self.admit(stream, First::Amqp, arrival, place, stop).await,
            Ok(None) => {}
            Err(error) => tracing::debug!(%peer, %error, "a connection did not say what it speaks"),
        }
    }

    async fn enter_tls(
        self,
        stream: TcpStream,
        arrival: Arrival,
        spoken: Protocols,
        place: Place,
        stop: Stop,
    ) {
        let Some(tls) = self.tls.clone() else { return };
        let decided = timely(&place, async {
            let mut stream = TlsAcceptor::from(tls).accept(stream).await?;
            let first = stream.fill_buf().await?.first().and_then(|byte| spoken.first(*byte, true));
            Ok::<_, io::Error>(first.map(|first| (stream, first)))
        });
        let arrival = Arrival { tls: true, ..arrival };
        match decided.await {
            Ok(Some((stream, first))) => self.admit(stream, first, arrival, place, stop).await,
            Ok(None) => {}
            Err(error) => tracing::debug!(peer = %arrival.peer, %error, "a TLS handshake failed"),
        }
    }

    async fn admit<S>(self, stream: S, first: First, arrival: Arrival, place: Place, stop: Stop)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        match first {
            First::Amqp => {
                drop(place);
                self.broker.serve(stream, Some(arrival.peer), arrival.tls).await;
            }
            First::Http => self.front.serve(stream, arrival, place, stop).await,
            First::Tls => {}
        }
    }
}

/// What `decided` says in time, and before `place` has to make room.
async fn timely<T>(place: &Place, decided: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::select! {
        decided = tokio::time::timeout(PATIENCE, decided) => decided.unwrap_or_else(|_| {
            Err(io::Error::new(io::ErrorKind::TimedOut, "it took too long"))
        }),
        () = place.evicted() => Err(io::Error::other("too many of this address have not said what they speak")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_is_enough() {
        use First::{Amqp, Http, Tls};
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
            assert_eq!(spoken.first(byte, inside), expected, "{spoken:?} {byte} {inside}");
        }
    }
}
