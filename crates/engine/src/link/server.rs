//! The engine's end of the link: takes calls, and lets those that hold this run's keys become nodes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncWriteExt as _, ReadHalf, WriteHalf};
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
                Ok(Err(error)) => tracing::warn!(%host, %error, "a call did not become a node of this run"),
                Err(_) => tracing::warn!(%host, "a call never said who it is"),
            }
        });
    }
}

type Greeted = (Hello, Reader<ReadHalf<TlsStream<TcpStream>>>, WriteHalf<TlsStream<TcpStream>>);

async fn greet(stream: TcpStream, acceptor: TlsAcceptor) -> io::Result<Greeted> {
    stream.set_nodelay(true)?;
    let (reading, mut writing) = tokio::io::split(acceptor.accept(stream).await?);
    let mut reader = Reader::new(reading);
    let frame = reader.next().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    match ToEngine::read(&frame) {
        Ok(ToEngine::Hello(hello)) => Ok((hello, reader, writing)),
        Ok(ToEngine::OtherVersion(version)) => {
            let why = message::mismatch(&version, message::VERSION).unwrap_or_default();
            writing.write_all(message::refused(&why).as_bytes()).await?;
            writing.shutdown().await?;
            Err(io::Error::new(io::ErrorKind::InvalidData, why))
        }
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

#[cfg(test)]
mod tests {
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::link::keys;
    use crate::link::message::ToNode;

    /// What the engine answers to a first frame: how it ends, and the frames that come before.
    async fn answer(first: &Frame) -> (Vec<ToNode>, Option<News>) {
        let (engine, node) = keys::make().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(engine.server().unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (news, mut heard) = mpsc::unbounded_channel();
        let engine = tokio::spawn(answer_calls(listener, acceptor, news, Duration::from_secs(60)));
        let connector = TlsConnector::from(Arc::new(node.client().unwrap()));
        let stream = TcpStream::connect(address).await.unwrap();
        let stream = connector.connect(keys::server_name(), stream).await.unwrap();
        let (reading, mut writing) = tokio::io::split(stream);
        writing.write_all(first.as_bytes()).await.unwrap();
        let mut reader = Reader::new(reading);
        let mut said = Vec::new();
        let joined = loop {
            tokio::select! {
                frame = reader.next() => match frame {
                    Ok(Some(frame)) => said.push(ToNode::read(frame).unwrap()),
                    Ok(None) | Err(_) => break None,
                },
                news = heard.recv() => break news,
            }
        };
        engine.abort();
        (said, joined)
    }

    #[tokio::test]
    async fn a_node_is_let_in_by_its_hello_and_one_of_another_version_is_told_both() {
        let hello = Hello {
            version: message::VERSION.into(),
            uid: "0123456789ab".into(),
            host: "vm".into(),
            block: 0,
            slots: 1,
        };
        let (_, joined) = answer(&message::hello(&hello)).await;
        assert!(matches!(&joined, Some(News::Joined { hello: said, .. }) if *said == hello), "{joined:?}");
        let other = message::hello(&Hello { version: "0.0.9".into(), ..hello });
        let (said, joined) = answer(&other).await;
        let [ToNode::Refused(why)] = said.as_slice() else { panic!("{said:?}") };
        let words =
            format!("this node is of version 0.0.9 and its endpoint runs version {}: ", message::VERSION);
        assert!(why.starts_with(&words), "{why}");
        assert!(joined.is_none(), "{joined:?}");
        let (said, joined) = answer(&message::beat()).await;
        assert!(said.is_empty() && joined.is_none(), "{said:?} {joined:?}");
    }
}
