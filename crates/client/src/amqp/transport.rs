//! Connects to the broker: TCP or TLS as the AMQP library opens it, with a [`FrameCheck`] between the socket and the library.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_rs::traits::{Executor, Reactor, RuntimeKit};
use async_rs::util::Task;
use async_rs::{Runtime, Tokio};
use futures_io::{AsyncRead, AsyncWrite};
use futures_util::Stream;
use futures_util::future::{Either, select};
use lapin::tcp::{AMQPUriTcpExt as _, AsyncTcpStream, OwnedTLSConfig};
use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties};

use super::backlog::Backlog;
use super::frame_check::FrameCheck;
/// How long opening a connection or a session may take.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// Opens a connection.
pub(super) async fn connect(
    uri: AMQPUri,
    tls: OwnedTLSConfig,
    properties: ConnectionProperties,
    backlog: Backlog,
) -> lapin::Result<Connection> {
    let tokio = Tokio::current();
    let checked = Runtime::new(CheckedTokio(tokio.clone()));
    let stream = async move |uri: AMQPUri, _| {
        let runtime = Runtime::new(tokio.clone());
        let connecting = pin!(uri.connect_with_config_async(tls.as_ref(), &runtime));
        // The library has no time limit for the TLS handshake. The caller of this function has given up by then.
        let Either::Left((stream, _)) = select(connecting, pin!(tokio.sleep(OPEN_TIMEOUT))).await else {
            return Err(io::Error::from(io::ErrorKind::TimedOut).into());
        };
        Ok(AsyncTcpStream::Plain(CheckedStream::new(stream?, backlog.clone())))
    };
    Connection::connector(uri, checked, stream, properties).await
}

/// Tokio, with every connection checked.
#[derive(Clone, Debug)]
struct CheckedTokio(Tokio);

impl RuntimeKit for CheckedTokio {}

impl Executor for CheckedTokio {
    type Task<T: Send + 'static> = <Tokio as Executor>::Task<T>;

    fn block_on<T, F: Future<Output = T>>(&self, work: F) -> T {
        self.0.block_on(work)
    }

    fn spawn<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        work: F,
    ) -> Task<Self::Task<T>> {
        self.0.spawn(work)
    }

    fn spawn_blocking<T: Send + 'static, F: FnOnce() -> T + Send + 'static>(
        &self,
        work: F,
    ) -> Task<Self::Task<T>> {
        self.0.spawn_blocking(work)
    }
}

impl Reactor for CheckedTokio {
    type TcpStream = CheckedStream;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: io::Read + io::Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.0.register(socket)
    }

    fn sleep(&self, time: Duration) -> Self::Sleep {
        self.0.sleep(time)
    }

    fn interval(&self, time: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(time)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        let connecting = self.0.tcp_connect_addr(address);
        async move {
            let stream = AsyncTcpStream::Plain(connecting.await?);
            Ok(CheckedStream::new(stream, Backlog::default()))
        }
    }
}

/// A connection that checks every octet from the broker before the library gets it.
struct CheckedStream {
    stream: AsyncTcpStream<<Tokio as Reactor>::TcpStream>,
    check: FrameCheck,
    backlog: Backlog,
}

impl CheckedStream {
    fn new(stream: AsyncTcpStream<<Tokio as Reactor>::TcpStream>, backlog: Backlog) -> Self {
        Self { stream, check: FrameCheck::default(), backlog }
    }
}

impl AsyncRead for CheckedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let full = self.backlog.is_full(context.waker());
        if self.backlog.is_over() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if full {
            return Poll::Pending;
        }
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        self.check.inspect(&buffer[..read])?;
        let bodies = self.check.bodies();
        self.backlog.add(bodies);
        Poll::Ready(Ok(read))
    }
}

impl AsyncWrite for CheckedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    /// A broker that sends nothing but these octets.
    async fn says(octets: Vec<u8>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let broker = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut greeting = [0; 8];
            stream.read_exact(&mut greeting).await.unwrap();
            stream.write_all(&octets).await.unwrap();
            // Until it is hung up on.
            let _ = stream.read(&mut greeting).await;
        });
        let address = super::super::Address::parse(&format!("amqp://{address}/"), None).unwrap();
        let (tls, properties) = (OwnedTLSConfig::default(), ConnectionProperties::default());
        let refused = connect(address.uri(), tls, properties, Backlog::default()).await;
        broker.await.unwrap();
        refused.map(|_| "connected").unwrap_err().to_string()
    }

    /// Without the check, this ends the process: the library's parser runs out of stack.
    #[tokio::test]
    async fn a_hostile_broker_only_ends_the_connection() {
        let mut value = Vec::new();
        for _ in 0..6_000 {
            value = [b"A".as_slice(), &u32::try_from(value.len()).unwrap().to_be_bytes(), &value].concat();
        }
        let table = [b"\x01x", value.as_slice()].concat();
        let table = [&u32::try_from(table.len()).unwrap().to_be_bytes(), table.as_slice()].concat();
        let start = [&[0, 10, 0, 10, 0, 9][..], &table].concat();
        let length = u32::try_from(start.len()).unwrap().to_be_bytes();
        let frame = [&[1, 0, 0][..], &length, &start, &[0xce]].concat();
        let said = says(frame).await;
        assert!(said.contains("nested deeper"), "{said}");
        let said = says(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()).await;
        assert!(said.contains("not AMQP"), "{said}");
    }
}
