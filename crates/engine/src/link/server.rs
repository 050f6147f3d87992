//! The engine's end of the link: takes calls, and lets those that hold this run's keys become nodes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::frame::{self, Frame, Reader};
use super::message::{self, Hello, ToEngine};
use crate::core::NodeKey;

/// A call must have shown its keys and said who it is by then.
const HANDSHAKE: Duration = Duration::from_secs(20);

/// So many calls may be in their handshake at once.
const HANDSHAKES: usize = 1024;

/// What comes over the link.
#[derive(Debug)]
pub(crate) enum News {
    Joined { node: NodeKey, hello: Hello, line: Line },
    Said { node: NodeKey, message: ToEngine },
    HungUp(NodeKey),
}

/// Speaks to a connected node; dropping it cuts the connection.
#[derive(Debug)]
pub(crate) struct Line {
    frames: mpsc::UnboundedSender<Frame>,
    _cut: oneshot::Sender<()>,
}

impl Line {
    /// Sends a frame; a node that is gone will be told as such.
    pub(crate) fn send(&self, frame: Frame) {
        let _ = self.frames.send(frame);
    }
}

/// Takes calls, and lets each become a node or nothing.
pub(crate) async fn answer_calls(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    news: mpsc::UnboundedSender<News>,
    period: Duration,
) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    let mut next = 0;
    loop {
        let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else { return };
        let (stream, host) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or the caller left: neither is ours to end for.
                tracing::warn!(%error, "cannot take a node's call");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        next += 1;
        let node = NodeKey(next);
        let (acceptor, news) = (acceptor.clone(), news.clone());
        tokio::spawn(async move {
            match timeout(HANDSHAKE, greet(stream, acceptor)).await {
                Ok(Ok(greeted)) => {
                    drop(permit);
                    converse(node, greeted, news, period).await;
                }
                Ok(Err(error)) => tracing::warn!(%host, %error, "a call was not a node of this run"),
                Err(_) => tracing::warn!(%host, "a call never said who it is"),
            }
        });
    }
}

type Greeted = (Hello, Reader<ReadHalf<TlsStream<TcpStream>>>, WriteHalf<TlsStream<TcpStream>>);

async fn greet(stream: TcpStream, acceptor: TlsAcceptor) -> io::Result<Greeted> {
    stream.set_nodelay(true)?;
    let (reading, writing) = tokio::io::split(acceptor.accept(stream).await?);
    let mut reader = Reader::new(reading);
    let frame = reader.next().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    match ToEngine::read(&frame) {
        Ok(ToEngine::Hello(hello)) => Ok((hello, reader, writing)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the first frame is not a hello")),
    }
}

/// Carries one node's frames until the link ends or is cut.
async fn converse(
    node: NodeKey,
    (hello, mut reader, writer): Greeted,
    news: mpsc::UnboundedSender<News>,
    period: Duration,
) {
    let (frames, inbox) = mpsc::unbounded_channel();
    let (cut, mut is_cut) = oneshot::channel();
    let mut writing = tokio::spawn(frame::write(writer, inbox));
    let beat = frames.clone();
    if news.send(News::Joined { node, hello, line: Line { frames, _cut: cut } }).is_err() {
        return;
    }
    let mut beats = interval(period);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut received = 0;
    loop {
        tokio::select! {
            frame = reader.next() => {
                let message = match frame {
                    Ok(Some(frame)) => ToEngine::read(&frame),
                    Ok(None) | Err(_) => break,
                };
                let Ok(message) = message else { break };
                if news.send(News::Said { node, message }).is_err() {
                    break;
                }
            }
            _ = beats.tick() => {
                let _ = beat.send(message::beat());
                if reader.received() > received {
                    received = reader.received();
                    // Its own beats may stand behind a frame that fills the link.
                    let _ = news.send(News::Said { node, message: ToEngine::Beat });
                }
            }
            _ = &mut is_cut => break,
            _ = &mut writing => break,
        }
    }
    writing.abort();
    let _ = news.send(News::HungUp(node)); // nobody left to tell is as good
}
