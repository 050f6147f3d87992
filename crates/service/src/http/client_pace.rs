//! How slow a client may be: to send the head of a request, to send its body, to read an answer.
//!
//! Only the time in which the service waits for the client counts, never what the service itself takes.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::http::in_progress::Working;
use crate::limits::Limits;

const WINDOW: Duration = Duration::from_secs(10);
const UNREAD: Duration = Duration::from_secs(60);

/// What is asked of clients.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    head: Duration,
    body: Duration,
    /// So many bytes of a body have to come in each such time.
    window: Duration,
    least: u64,
    /// A client that takes nothing of an answer for so long is gone.
    unread: Duration,
}

impl Pace {
    pub fn new(limits: &Limits) -> Pace {
        Pace {
            head: Duration::from_secs(limits.head_seconds.into()),
            body: Duration::from_secs(limits.body_seconds.into()),
            window: WINDOW,
            unread: UNREAD,
            least: u64::from(limits.body_bytes_per_second) * WINDOW.as_secs(),
        }
    }
}

/// The requests of a connection, as its stream has to know them.
#[derive(Debug, Default)]
pub struct Progress {
    begun: AtomicU64,
    working: AtomicBool,
}

impl Progress {
    /// A request's head is complete.
    pub fn begin(&self) {
        self.begun.fetch_add(1, Ordering::AcqRel);
        self.working.store(true, Ordering::Release);
    }

    /// Its answer has been made.
    pub fn end(&self) {
        self.working.store(false, Ordering::Release);
    }
}

/// A connection whose client sends whole heads and reads what it is answered.
#[derive(Debug)]
pub struct Watched<S> {
    stream: S,
    pace: Pace,
    progress: Arc<Progress>,
    /// Until when the head must be complete of which some has come, and how many requests were before it.
    head: Option<(Pin<Box<Sleep>>, u64)>,
    unread: Option<Pin<Box<Sleep>>>,
}

impl<S> Watched<S> {
    pub fn new(stream: S, pace: Pace, progress: Arc<Progress>) -> Watched<S> {
        Watched { stream, pace, progress, head: None, unread: None }
    }

    /// What a write said; or that the client has taken nothing for too long.
    fn taken<T>(&mut self, said: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if said.is_ready() {
            self.unread = None;
            return said;
        }
        let limit = self.pace.unread;
        let unread = self.unread.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(unread.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read its answer")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let begun = this.progress.begun.load(Ordering::Acquire);
        let working = this.progress.working.load(Ordering::Acquire);
        if working || this.head.as_ref().is_some_and(|(_, before)| *before != begun) {
            this.head = None;
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        if buffer.filled().len() > before && !working && this.head.is_none() {
            this.head = Some((Box::pin(tokio::time::sleep(this.pace.head)), begun));
        }
        if read.is_pending()
            && let Some((head, _)) = &mut this.head
        {
            ready!(head.as_mut().poll(context));
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "a head is not completed")));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let said = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.taken(said, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let said = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.taken(said, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let said = Pin::new(&mut self.stream).poll_flush(context);
        self.taken(said, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let said = Pin::new(&mut self.stream).poll_shutdown(context);
        self.taken(said, context)
    }
}

/// A body did not arrive in time.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the request's body did not arrive in time")]
pub struct TooSlow;

/// The connection was closed while its body was awaited, for another connection of the same address.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the connection had to make room before the request's body arrived")]
pub struct MadeRoom;

/// A request's body that has to arrive. While it is awaited, the service does nothing for its connection, so the connection
/// counts as idle and may have to make room for another one.
#[derive(Debug)]
pub struct Arriving<B> {
    body: B,
    pace: Pace,
    working: Working,
    /// Whether the connection counts as idle.
    idle: bool,
    /// Of the whole body; from when it is first asked for.
    end: Option<Instant>,
    /// While it is waited for: since when, and until when something must come.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
    /// How long this window has been waited for, and what it has brought.
    waited: Duration,
    arrived: u64,
}

impl<B> Arriving<B> {
    pub(super) fn new(body: B, pace: Pace, working: Working) -> Arriving<B> {
        Arriving {
            body,
            pace,
            working,
            idle: false,
            end: None,
            waiting: None,
            waited: Duration::ZERO,
            arrived: 0,
        }
    }

    fn pause(&mut self) {
        if !self.idle {
            self.working.pause();
            self.idle = true;
        }
    }

    fn resume(&mut self) {
        if self.idle {
            self.working.resume();
            self.idle = false;
        }
    }
}

impl<B> Drop for Arriving<B> {
    /// Whatever is done without the rest of the body is work again.
    fn drop(&mut self) {
        self.resume();
    }
}

impl<B> Body for Arriving<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<axum::BoxError>,
{
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            this.resume();
            if let Some((since, _)) = this.waiting.take() {
                this.waited += Instant::now().saturating_duration_since(since);
            }
            if let Some(Ok(frame)) = &frame {
                this.arrived += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        this.pause();
        if this.working.is_evicted() {
            this.resume();
            return Poll::Ready(Some(Err(MadeRoom.into())));
        }
        loop {
            let now = Instant::now();
            let end = *this.end.get_or_insert(now + this.pace.body);
            let (since, sleep) = this.waiting.get_or_insert_with(|| {
                let until = (now + this.pace.window.saturating_sub(this.waited)).min(end);
                (now, Box::pin(tokio::time::sleep_until(until)))
            });
            ready!(sleep.as_mut().poll(context));
            this.waited += now.saturating_duration_since(*since);
            this.waiting = None;
            if now >= end || this.waited >= this.pace.window {
                if now >= end || this.arrived < this.pace.least {
                    this.resume();
                    return Poll::Ready(Some(Err(TooSlow.into())));
                }
                (this.waited, this.arrived) = (Duration::ZERO, 0);
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body as AxumBody;
    use futures_util::{FutureExt, StreamExt, stream};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::http::connections::Connections;

    const ADDRESS: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const MILLI: Duration = Duration::from_millis(1);
    const LONG: Duration = Duration::from_secs(600);
    const PATIENT: Pace = Pace { head: LONG, body: LONG, window: LONG, least: 0, unread: LONG };

    /// A request in progress on the only connection of its address, where two may have one each.
    fn working() -> (Connections, Working) {
        let connections = Connections::new(2);
        let place = connections.enter(ADDRESS).unwrap();
        (connections, Working::begin(Arc::new(place), Arc::default()))
    }

    /// Whether a body arrives whole of which `bytes` come each `each`, `times` times.
    async fn arrives(pace: Pace, bytes: usize, each: Duration, times: usize) -> bool {
        let sent = stream::iter(0..times).then(move |_| async move {
            tokio::time::sleep(each).await;
            Ok::<_, axum::Error>(Bytes::from(vec![0; bytes]))
        });
        let (_, working) = working();
        let body = Arriving::new(AxumBody::from_stream(sent.boxed()), pace, working);
        let mut chunks = AxumBody::new(body).into_data_stream();
        while let Some(chunk) = chunks.next().await {
            if chunk.is_err() {
                return false;
            }
        }
        true
    }

    #[tokio::test]
    async fn a_body_brings_its_least_in_each_window_and_all_in_time() {
        let pace = Pace { window: 300 * MILLI, least: 1_000, ..PATIENT };
        assert!(arrives(pace, 1_000, 20 * MILLI, 40).await);
        assert!(!arrives(pace, 10, 20 * MILLI, 1_000).await, "too little");
        assert!(!arrives(pace, 10_000, LONG, 1).await, "it stalls");
        let pace = Pace { body: 300 * MILLI, ..PATIENT };
        assert!(arrives(pace, 1, MILLI, 3).await);
        assert!(!arrives(pace, 1_000_000, 5 * MILLI, 1_000).await, "too long in all");
    }

    #[tokio::test]
    async fn a_connection_whose_body_stalls_makes_room_and_one_that_is_worked_for_does_not() {
        let (connections, working) = working();
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        let sent = stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|bytes| (Ok::<Bytes, axum::Error>(bytes), receiver))
        });
        let body = AxumBody::from_stream(sent.boxed());
        let mut body = AxumBody::new(Arriving::new(body, PATIENT, working)).into_data_stream();
        sender.send(Bytes::from_static(b"a")).unwrap();
        body.next().await.unwrap().unwrap();
        assert!(connections.enter(ADDRESS).is_none(), "its handler works with what has come");
        assert!(body.next().now_or_never().is_none());
        sender.send(Bytes::from_static(b"b")).unwrap();
        body.next().await.unwrap().unwrap();
        assert!(connections.enter(ADDRESS).is_none(), "it goes on");
        assert!(body.next().now_or_never().is_none());
        let other = connections.enter(ADDRESS).expect("the body is awaited");
        assert!(body.next().await.unwrap().is_err(), "its handler learns of it");
        drop((body, other));
        assert!(connections.ended().now_or_never().is_some(), "each is counted once");
    }

    #[tokio::test]
    async fn a_head_is_completed_in_time_and_an_idle_connection_is_not_hurried() {
        let (mut client, server) = tokio::io::duplex(1_000);
        let progress = Arc::new(Progress::default());
        let pace = Pace { head: 300 * MILLI, ..PATIENT };
        let mut watched = Watched::new(server, pace, progress.clone());
        let mut buffer = [0; 100];
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert_eq!(watched.read(&mut buffer).await.unwrap(), 18);
        progress.begin();
        progress.end();
        let idle = tokio::time::timeout(900 * MILLI, watched.read(&mut buffer)).await;
        assert!(idle.is_err(), "it is idle");
        let dripping = async {
            loop {
                client.write_all(b"G").await.unwrap();
                tokio::time::sleep(10 * MILLI).await;
            }
        };
        let reading = async {
            loop {
                if let Err(error) = watched.read(&mut buffer).await {
                    break error;
                }
            }
        };
        tokio::select! {
            error = reading => assert_eq!(error.kind(), io::ErrorKind::TimedOut),
            () = dripping => {}
        }
    }

    #[tokio::test]
    async fn an_answer_is_read() {
        let (mut client, server) = tokio::io::duplex(10);
        let mut watched = Watched::new(server, Pace { unread: 500 * MILLI, ..PATIENT }, Arc::default());
        let reading = async {
            for _ in 0..50 {
                tokio::time::sleep(20 * MILLI).await;
                client.read_exact(&mut [0; 10]).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(watched.write_all(&[0; 500]), reading);
        written.unwrap();
        let error = watched.write_all(&[0; 60]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
