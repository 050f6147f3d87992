//! The server: accepts connections, with TLS or without, and stops in an orderly way.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::access_control::AccessControl;
use crate::config::Config;
use crate::driver::connection::{Connection, Origin};
use crate::driver::outbox::{EVICT, Outbox};
use crate::driver::shared::{CallReceiver, Shared, perform};
use crate::handle::Handle;

/// How long clients may take to read that the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// A socket to accept connections on, with TLS or without.
pub struct Listener {
    pub socket: TcpListener,
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

/// The server, until it is [`run`](Broker::run). What the [`Handle`] declares before that is there for the first client.
/// Times to live pass only while it runs.
pub struct Broker {
    shared: Arc<Shared>,
    calls: CallReceiver,
}

impl Broker {
    pub fn new(config: Config, access: Arc<dyn AccessControl>) -> (Broker, Handle) {
        let (sender, calls) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::new(config, access, sender));
        let handle = Handle::new(shared.clone());
        (Broker { shared, calls }, handle)
    }

    /// Serves until `stop` is ready, then ends every connection (320 CONNECTION_FORCED), gives the clients a few
    /// seconds to read that, and returns.
    pub async fn run(self, listeners: Vec<Listener>, stop: impl Future<Output = ()>) {
        let Broker { shared, mut calls } = self;
        let mut tasks = JoinSet::new();
        for listener in listeners {
            tasks.spawn(accept(listener, shared.clone()));
        }
        let timer = shared.clone();
        tasks.spawn(async move { timer.keep_time().await });
        let (finish, mut finished) = oneshot::channel::<()>();
        let caller = tokio::spawn(async move {
            while let Some((shared, several)) = tokio::select! {
                some = calls.recv() => some,
                _ = &mut finished => None,
            } {
                perform(&shared, several);
            }
            while let Ok((shared, several)) = calls.try_recv() {
                perform(&shared, several);
            }
        });
        stop.await;
        tasks.abort_all();
        while tasks.join_next().await.is_some() {}
        shared.lock().stop();
        let all_ended = async {
            loop {
                let ended = shared.ended.notified();
                if shared.remote_connections() == 0 {
                    return;
                }
                ended.await;
            }
        };
        if tokio::time::timeout(STOP_TIMEOUT, all_ended).await.is_err() {
            tracing::warn!(
                left = shared.remote_connections(),
                "clients did not close their connections in time"
            );
        }
        drop(finish);
        // An error is a panic in a callback of the embedder's, which ends only this task.
        let _ = caller.await;
    }
}

async fn accept(listener: Listener, shared: Arc<Shared>) {
    let tls = listener.tls.map(TlsAcceptor::from);
    loop {
        match listener.socket.accept().await {
            Ok((stream, peer)) => {
                // Most frames are small; waiting to join them would cost a round trip.
                let _ = stream.set_nodelay(true);
                match &tls {
                    None => {
                        let origin = Origin { peer: Some(peer), tls: false };
                        tokio::spawn(Connection::new(stream, origin, shared.clone()));
                    }
                    Some(tls) => {
                        tokio::spawn(serve_tls(tls.clone(), stream, peer, shared.clone()));
                    }
                }
            }
            Err(error) => {
                // Most likely there are no descriptors left. Open connections go on, and some will end.
                tracing::warn!(%error, "can't accept connections");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_tls(tls: TlsAcceptor, stream: TcpStream, peer: SocketAddr, shared: Arc<Shared>) {
    // It counts among the handshakes from the first byte on: when there are too many, the oldest is closed.
    let handshake = Arc::new(Outbox::default());
    shared.begin_handshake(&handshake, Some(peer));
    let evicted = poll_fn(|context| {
        handshake.waker.register(context.waker());
        if handshake.signals() & EVICT == 0 { Poll::Pending } else { Poll::Ready(()) }
    });
    let accepted = tokio::select! {
        () = evicted => return,
        accepted = tokio::time::timeout(shared.config.handshake_timeout, tls.accept(stream)) => accepted,
    };
    handshake.leave_handshake();
    match accepted {
        Ok(Ok(mut stream)) => {
            let origin = Origin { peer: Some(peer), tls: true };
            Connection::new(&mut stream, origin, shared).await;
            let _ = stream.shutdown().await;
        }
        Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
        Err(_) => tracing::debug!(%peer, "TLS handshake timed out"),
    }
}

impl Handle {
    /// Serves one stream that the embedder accepted (on a port shared with another protocol). Returns when it ends.
    pub async fn serve<S>(&self, mut stream: S, peer: Option<SocketAddr>, tls: bool)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        Connection::new(&mut stream, Origin { peer, tls }, self.shared().clone()).await;
        let _ = stream.shutdown().await;
    }
}
