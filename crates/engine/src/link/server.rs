//! The engine's end of the link: accepts connections of nodes that have this run's keys.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::frame::{self, Frame, FrameReader};
use super::message::{self, Hello, ToEngine};
use crate::core::NodeKey;

/// A connection that has not shown its keys and sent its hello by then is closed.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(20);

/// At most so many connections may be in their handshake at once.
const MAX_HANDSHAKES: usize = 1024;

/// What happens on the connections of nodes.
#[derive(Debug)]
pub(crate) enum NodeEvent {
    Connected { node: NodeKey, hello: Hello, link: NodeLink },
    Message { node: NodeKey, message: ToEngine },
    Disconnected(NodeKey),
}

/// Sends frames to a connected node; dropping it closes the connection.
#[derive(Debug)]
pub(crate) struct NodeLink {
    frames: mpsc::UnboundedSender<Frame>,
    _open: oneshot::Sender<()>,
}

impl NodeLink {
    /// Sends a frame. If the node is gone, [`NodeEvent::Disconnected`] follows.
    pub(crate) fn send(&self, frame: Frame) {
        let _ = self.frames.send(frame);
    }
}

/// Accepts connections of nodes that belong to `run`.
pub(crate) async fn accept_nodes(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    run: String,
    events: mpsc::UnboundedSender<NodeEvent>,
    period: Duration,
) {
    let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    let run: Arc<str> = run.into();
    let mut next = 0;
    loop {
        let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else { return };
        let (stream, host) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or the node has left: the engine goes on.
                tracing::warn!(%error, "cannot accept a node's connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        next += 1;
        let node = NodeKey(next);
        let (acceptor, events, run) = (acceptor.clone(), events.clone(), Arc::clone(&run));
        tokio::spawn(async move {
            match timeout(HANDSHAKE_LIMIT, handshake(stream, acceptor, &run)).await {
                Ok(Ok(accepted_node)) => {
                    drop(permit);
                    serve_node(node, accepted_node, events, period).await;
                }
                Ok(Err(error)) => {
                    tracing::warn!(%host, %error, "refused a connection that is no node of this run")
                }
                Err(_) => tracing::warn!(%host, "connection sent no hello within 20 s"),
            }
        });
    }
}

type AcceptedNode = (Hello, FrameReader<ReadHalf<TlsStream<TcpStream>>>, WriteHalf<TlsStream<TcpStream>>);

async fn handshake(stream: TcpStream, acceptor: TlsAcceptor, run: &str) -> io::Result<AcceptedNode> {
    stream.set_nodelay(true)?;
    let (reading, mut writing) = tokio::io::split(acceptor.accept(stream).await?);
    let mut reader = FrameReader::new(reading);
    let frame = reader.next().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let why = match ToEngine::read(&frame) {
        Ok(ToEngine::Hello(hello)) if hello.run == run => return Ok((hello, reader, writing)),
        Ok(ToEngine::Hello(_)) => OTHER_RUN.to_owned(),
        Ok(ToEngine::OtherVersion(version)) => {
            message::describe_mismatch(&version, message::VERSION).unwrap_or_default()
        }
        _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "the first frame is not a hello")),
    };
    writing.write_all(message::refused(&why).as_bytes()).await?;
    writing.shutdown().await?;
    Err(io::Error::new(io::ErrorKind::InvalidData, why))
}

/// The answer to a node that another run of the endpoint has started.
const OTHER_RUN: &str = "this node belongs to another run of its endpoint, and that run has ended";

/// Carries one node's frames until the link ends or is closed.
async fn serve_node(
    node: NodeKey,
    (hello, mut reader, writer): AcceptedNode,
    events: mpsc::UnboundedSender<NodeEvent>,
    period: Duration,
) {
    let (frames, inbox) = mpsc::unbounded_channel();
    let (open, mut closed) = oneshot::channel();
    let mut writing = tokio::spawn(frame::write(writer, inbox));
    let heartbeat = frames.clone();
    if events.send(NodeEvent::Connected { node, hello, link: NodeLink { frames, _open: open } }).is_err() {
        return;
    }
    let mut heartbeats = interval(period);
    heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut received = 0;
    loop {
        tokio::select! {
            frame = reader.next() => {
                let message = match frame {
                    Ok(Some(frame)) => ToEngine::read(&frame),
                    Ok(None) | Err(_) => break,
                };
                let Ok(message) = message else { break };
                if events.send(NodeEvent::Message { node, message }).is_err() {
                    break;
                }
            }
            _ = heartbeats.tick() => {
                let _ = heartbeat.send(message::heartbeat());
                if reader.received() > received {
                    received = reader.received();
                    // The node's heartbeats may be queued behind a long frame.
                    let _ = events.send(NodeEvent::Message { node, message: ToEngine::Heartbeat });
                }
            }
            _ = &mut closed => break,
            _ = &mut writing => break,
        }
    }
    writing.abort();
    let _ = events.send(NodeEvent::Disconnected(node)); // the engine has stopped
}

#[cfg(test)]
mod tests {
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::link::keys;
    use crate::link::message::ToNode;

    /// The engine's answers to a first frame, and the event if it accepts the node.
    async fn answers_to(first: &Frame) -> (Vec<ToNode>, Option<NodeEvent>) {
        let (engine, node) = keys::generate().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(engine.server().unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (events, mut received) = mpsc::unbounded_channel();
        let engine =
            tokio::spawn(accept_nodes(listener, acceptor, "run".into(), events, Duration::from_secs(60)));
        let connector = TlsConnector::from(Arc::new(node.client().unwrap()));
        let stream = TcpStream::connect(address).await.unwrap();
        let stream = connector.connect(keys::server_name(), stream).await.unwrap();
        let (reading, mut writing) = tokio::io::split(stream);
        writing.write_all(first.as_bytes()).await.unwrap();
        let mut reader = FrameReader::new(reading);
        let mut answers = Vec::new();
        let joined = loop {
            tokio::select! {
                frame = reader.next() => match frame {
                    Ok(Some(frame)) => answers.push(ToNode::read(frame).unwrap()),
                    Ok(None) | Err(_) => break None,
                },
                event = received.recv() => break event,
            }
        };
        engine.abort();
        (answers, joined)
    }

    #[tokio::test]
    async fn only_nodes_of_this_run_and_version_are_accepted() {
        let hello = Hello {
            version: message::VERSION.into(),
            run: "run".into(),
            uid: "0123456789ab".into(),
            host: "vm".into(),
            block: 0,
            slots: 1,
        };
        let (_, joined) = answers_to(&message::hello(&hello)).await;
        assert!(
            matches!(&joined, Some(NodeEvent::Connected { hello: it, .. }) if *it == hello),
            "{joined:?}"
        );
        let version =
            format!("this node is of version 0.0.9 and its endpoint runs version {}: ", message::VERSION);
        for (hello, words) in [
            (Hello { version: "0.0.9".into(), ..hello.clone() }, version.as_str()),
            (
                Hello { run: "yesterday's".into(), ..hello },
                "this node belongs to another run of its endpoint",
            ),
        ] {
            let (answers, joined) = answers_to(&message::hello(&hello)).await;
            let [ToNode::Refused(why)] = answers.as_slice() else { panic!("{answers:?}") };
            assert!(why.starts_with(words), "{why}");
            assert!(joined.is_none(), "{joined:?}");
        }
        let (answers, joined) = answers_to(&message::heartbeat()).await;
        assert!(answers.is_empty() && joined.is_none(), "{answers:?} {joined:?}");
    }
}
