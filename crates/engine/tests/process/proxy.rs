//! A proxy between node and engine whose connections fail as networks do.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How the open connections fail; later ones work again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkFault {
    /// Both sides are reset.
    Reset,
    /// Nothing crosses any more, and neither side sees an error.
    Blackhole,
    /// The node sees its connection closed, the engine does not.
    NodeOnly,
    /// The engine sees its connection closed, the node does not.
    EngineOnly,
    /// The direction to the engine is closed; the other one works.
    HalfClosed,
    /// A part of the next data arrives; then both sides are closed.
    Torn,
    /// Everything arrives, at this many bytes per second.
    Slow(u64),
}

/// Forwards connections to the engine that has written `node_file`.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    cuts: watch::Sender<Option<LinkFault>>,
}

impl Proxy {
    pub(crate) async fn start(node_file: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cuts, mut cut) = watch::channel(None);
        tokio::spawn(async move {
            while let Ok((node, _)) = listener.accept().await {
                let config: serde_json::Value =
                    serde_json::from_slice(&std::fs::read(&node_file).unwrap()).unwrap();
                let engine: SocketAddr = config["engines"][0].as_str().unwrap().parse().unwrap();
                let Ok(engine) = TcpStream::connect(engine).await else { continue };
                cut.mark_unchanged();
                tokio::spawn(forward(node, engine, cut.clone()));
            }
        });
        Self { address, cuts }
    }

    pub(crate) fn inject(&self, how: LinkFault) {
        self.cuts.send_replace(Some(how));
    }
}

async fn forward(mut node: TcpStream, mut engine: TcpStream, mut cut: watch::Receiver<Option<LinkFault>>) {
    let speed = AtomicU64::new(u64::MAX);
    let how = {
        let ((mut node, mut to_node), (mut engine, mut to_engine)) = (node.split(), engine.split());
        let mut there = std::pin::pin!(carry(&mut node, &mut to_engine, &speed));
        let mut back = std::pin::pin!(carry(&mut engine, &mut to_node, &speed));
        loop {
            tokio::select! {
                () = &mut there => return,
                () = &mut back => return,
                changed = cut.changed() => match (changed, *cut.borrow_and_update()) {
                    (Ok(()), Some(LinkFault::Slow(bytes))) => speed.store(bytes, Ordering::Relaxed),
                    (Ok(()), Some(how)) => break how,
                    _ => return,
                },
            }
        }
    };
    match how {
        LinkFault::Reset => {
            for stream in [node, engine] {
                stream.set_zero_linger().unwrap();
            }
        }
        LinkFault::Blackhole => {
            let _kept = (node, engine);
            std::future::pending::<()>().await;
        }
        LinkFault::NodeOnly => {
            drop(node);
            swallow(engine).await;
        }
        LinkFault::EngineOnly => {
            drop(engine);
            swallow(node).await;
        }
        LinkFault::HalfClosed => {
            let _ = engine.shutdown().await; // it may be closed already
            carry(&mut engine, &mut node, &speed).await;
        }
        LinkFault::Torn => {
            let mut piece = [0; 4096];
            let (from, to) = (&mut node, &mut engine);
            if let Ok(count) = from.read(&mut piece).await {
                let _ = to.write_all(&piece[..count / 2]).await; // it may be closed already
            }
        }
        LinkFault::Slow(_) => unreachable!("it goes on"),
    }
}

/// Carries everything one way until either end is closed.
async fn carry(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, speed: &AtomicU64) {
    const BEAT: Duration = Duration::from_millis(10);
    let mut buffer = vec![0; 1 << 16];
    loop {
        let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            let speed = speed.load(Ordering::Relaxed);
            let at_once = if speed == u64::MAX { rest.len() } else { rest.len().min((speed / 100) as usize) };
            if to.write_all(&rest[..at_once]).await.is_err() {
                return;
            }
            rest = &rest[at_once..];
            if speed < u64::MAX {
                tokio::time::sleep(BEAT).await;
            }
        }
    }
}

/// Reads what is sent and answers nothing, like a host that has lost the connection.
async fn swallow(mut stream: TcpStream) {
    let mut nothing = [0; 4096];
    while stream.read(&mut nothing).await.is_ok_and(|count| count > 0) {}
}
