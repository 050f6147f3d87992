//! Cuts off slow clients: the head of a request, its body and the reading of an answer each have a deadline or a lowest rate.
//!
//! Only the time in which the service waits for the client counts, never the time that the service itself takes.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::http::in_progress::{BufferedAnswer, Progress, RequestInProgress};
use crate::limits::Limits;
use identity::http::interrupted_body::InterruptedBody;

const BODY_WINDOW: Duration = Duration::from_secs(10);
/// Longer than that of a body: what the system buffers for a slow client, up to 4 MiB, it takes in portions of more than a
/// mebibyte, so that nothing seems to pass for a minute at 20 KiB a second.
const ANSWER_WINDOW: Duration = Duration::from_secs(120);
/// A connection counts as idle if its client has read nothing for so long of an answer that is complete in the buffer: as long
/// as it takes one who reads slowly to be seen reading.
const UNREAD: Duration = Duration::from_secs(60);

/// The deadlines and rates that clients have to keep.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    head: Duration,
    /// How long all of a body may take,
    body: Duration,
    /// and how fast it has to come.
    receiving: Rate,
    /// How fast an answer has to be read.
    sending: Rate,
    unread: Duration,
}

/// So many bytes have to pass in each window of time in which the service waits for the client.
#[derive(Clone, Copy, Debug)]
struct Rate {
    least: u64,
    window: Duration,
}

/// What has passed in the current window.
#[derive(Debug, Default)]
struct Window {
    /// While the client is waited for: since when, and until when at most.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
    /// How long it has been waited for.
    waited: Duration,
    passed: u64,
}

impl Window {
    /// So many bytes have passed.
    fn pass(&mut self, bytes: usize) {
        if let Some((since, _)) = self.waiting.take() {
            self.waited += Instant::now().saturating_duration_since(since);
        }
        self.passed += bytes as u64;
    }

    /// Whether the client has been waited for.
    fn has_begun(&self) -> bool {
        self.waiting.is_some() || !self.waited.is_zero()
    }

    /// Waits for the client. Ready when too little has passed in a window, or at `end`.
    fn poll_too_slow(&mut self, rate: Rate, end: Option<Instant>, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let now = Instant::now();
            let (since, sleep) = self.waiting.get_or_insert_with(|| {
                let until = now + rate.window.saturating_sub(self.waited);
                (now, Box::pin(tokio::time::sleep_until(end.map_or(until, |end| until.min(end)))))
            });
            ready!(sleep.as_mut().poll(context));
            let now = Instant::now();
            self.waited += now.saturating_duration_since(*since);
            self.waiting = None;
            let ended = end.is_some_and(|end| now >= end);
            if ended || self.waited >= rate.window {
                if ended || self.passed < rate.least {
                    return Poll::Ready(());
                }
                (self.waited, self.passed) = (Duration::ZERO, 0);
            }
        }
    }
}

impl Pace {
    pub fn new(limits: &Limits) -> Pace {
        let bytes_per_second = u64::from(limits.body_bytes_per_second);
        let rate = |window: Duration| Rate { least: bytes_per_second * window.as_secs(), window };
        Pace {
            head: Duration::from_secs(limits.head_seconds.into()),
            body: Duration::from_secs(limits.body_seconds.into()),
            receiving: rate(BODY_WINDOW),
            // Half of it, because one portion more or less falls into a window. Who reads nothing at all is gone.
            sending: Rate { least: (rate(ANSWER_WINDOW).least / 2).max(1), ..rate(ANSWER_WINDOW) },
            unread: UNREAD,
        }
    }
}

/// The stream of a connection. It fails if the client doesn't complete a head, or reads its answer too slowly.
#[derive(Debug)]
pub struct PacedStream<S> {
    stream: S,
    pace: Pace,
    progress: Arc<Progress>,
    /// Once a head has begun to arrive: when it must be complete, and how many requests were before it.
    head: Option<(Pin<Box<Sleep>>, u64)>,
    /// What the client has taken of answers since it was first waited for.
    sent: Window,
    /// It ends when everything is written, or the client reads nothing.
    buffered: BufferedAnswer,
    /// While the client reads nothing: until when that is work.
    unread: Option<Pin<Box<Sleep>>>,
}

impl<S> PacedStream<S> {
    pub fn new(stream: S, pace: Pace, progress: Arc<Progress>, buffered: BufferedAnswer) -> PacedStream<S> {
        PacedStream { stream, pace, progress, head: None, sent: Window::default(), buffered, unread: None }
    }

    /// The result of a write, of which `bytes` were taken; an error if the client reads too slowly.
    fn check_sent<T>(
        &mut self,
        result: Poll<io::Result<T>>,
        bytes: impl FnOnce(&T) -> usize,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(result) = &result
            && self.sent.has_begun()
        {
            self.sent.pass(result.as_ref().map_or(0, bytes));
        }
        if result.is_ready() {
            self.unread = None;
        } else {
            let unread = self.pace.unread;
            let sleep = self.unread.get_or_insert_with(|| Box::pin(tokio::time::sleep(unread)));
            if sleep.as_mut().poll(context).is_ready() {
                self.buffered.end();
            }
            ready!(self.sent.poll_too_slow(self.pace.sending, None, context));
            let error = io::Error::new(io::ErrorKind::TimedOut, "the client reads its answer too slowly");
            return Poll::Ready(Err(error));
        }
        result
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PacedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let begun = this.progress.begun();
        let working = this.progress.is_working();
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
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the head of the request did not arrive in time",
            )));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PacedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.check_sent(result, |bytes| *bytes, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.check_sent(result, |bytes| *bytes, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The HTTP library flushes the stream only after it has written all that it had buffered.
        let result = Pin::new(&mut self.stream).poll_flush(context);
        if result.is_ready() {
            self.buffered.end();
        }
        self.check_sent(result, |()| 0, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_shutdown(context);
        self.check_sent(result, |()| 0, context)
    }
}

/// A request's body. It fails if it arrives too slowly. While it is awaited, the service does nothing for its connection, so the
/// connection counts as idle and may have to make room for another one.
#[derive(Debug)]
pub struct PacedBody<B> {
    body: B,
    pace: Pace,
    working: RequestInProgress,
    /// Whether the connection counts as idle.
    idle: bool,
    /// When all of the body must have arrived; set when the body is first read.
    end: Option<Instant>,
    received: Window,
}

impl<B> PacedBody<B> {
    pub(super) fn new(body: B, pace: Pace, working: RequestInProgress) -> PacedBody<B> {
        PacedBody { body, pace, working, idle: false, end: None, received: Window::default() }
    }

    fn pause(&mut self) {
        if !self.idle {
            self.working.pause();
            self.idle = true;
        }
    }

    /// False if the connection had to make room.
    fn resume(&mut self) -> bool {
        !std::mem::take(&mut self.idle) || self.working.resume()
    }
}

impl<B> Drop for PacedBody<B> {
    /// Whatever is done without the rest of the body is work again.
    fn drop(&mut self) {
        self.resume();
    }
}

impl<B> Body for PacedBody<B>
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
            if !this.resume() {
                return Poll::Ready(Some(Err(InterruptedBody::MadeRoom.into())));
            }
            let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()).and_then(Frame::data_ref);
            this.received.pass(data.map_or(0, Bytes::len));
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        this.pause();
        if this.working.is_evicted() {
            this.resume();
            return Poll::Ready(Some(Err(InterruptedBody::MadeRoom.into())));
        }
        let end = *this.end.get_or_insert_with(|| Instant::now() + this.pace.body);
        ready!(this.received.poll_too_slow(this.pace.receiving, Some(end), context));
        this.resume();
        Poll::Ready(Some(Err(InterruptedBody::TooSlow.into())))
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
    const ANY: Rate = Rate { least: 0, window: LONG };
    const PATIENT: Pace = Pace { head: LONG, body: LONG, receiving: ANY, sending: ANY, unread: LONG };

    /// A request in progress on the only connection of its address, where two may have one each.
    fn working() -> (Connections, RequestInProgress) {
        let connections = Connections::new(2);
        let slot = connections.enter(ADDRESS).unwrap();
        (connections, RequestInProgress::begin(Arc::new(slot), Arc::default()).unwrap())
    }

    /// Whether a body arrives whole of which `bytes` come each `each`, `times` times.
    async fn arrives(pace: Pace, bytes: usize, each: Duration, times: usize) -> bool {
        let sent = stream::iter(0..times).then(move |_| async move {
            tokio::time::sleep(each).await;
            Ok::<_, axum::Error>(Bytes::from(vec![0; bytes]))
        });
        let (_, working) = working();
        let body = PacedBody::new(AxumBody::from_stream(sent.boxed()), pace, working);
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
        let pace = Pace { receiving: Rate { least: 1_000, window: 300 * MILLI }, ..PATIENT };
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
        let mut body = AxumBody::new(PacedBody::new(body, PATIENT, working)).into_data_stream();
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
        let mut watched = PacedStream::new(server, pace, progress.clone(), BufferedAnswer::default());
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

    /// Whether an answer of 500 bytes is sent whole of which the client reads `bytes` each `each`.
    async fn is_sent(pace: Pace, bytes: usize, each: Duration) -> bool {
        let (mut client, server) = tokio::io::duplex(10);
        let mut watched = PacedStream::new(server, pace, Arc::default(), BufferedAnswer::default());
        let reading = async {
            let mut read = 0;
            while read < 500 {
                tokio::time::sleep(each).await;
                client.read_exact(&mut vec![0; bytes]).await.unwrap();
                read += bytes;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            written = watched.write_all(&[0; 500]) => written.is_ok(),
            () = reading => unreachable!("it does not end"),
        }
    }

    #[tokio::test]
    async fn an_answer_is_read() {
        let pace = Pace { sending: Rate { least: 20, window: 300 * MILLI }, ..PATIENT };
        assert!(is_sent(pace, 10, 5 * MILLI).await);
        assert!(!is_sent(pace, 10, LONG).await, "nothing is read");
        assert!(!is_sent(pace, 1, 50 * MILLI).await, "too little");
    }

    #[tokio::test]
    async fn a_connection_whose_client_reads_nothing_of_its_buffered_answer_makes_room() {
        let (connections, working) = working();
        let (mut client, server) = tokio::io::duplex(10);
        let buffered = BufferedAnswer::default();
        buffered.hold(working);
        let pace = Pace { unread: 1_000 * MILLI, ..PATIENT };
        let mut stream = PacedStream::new(server, pace, Arc::default(), buffered);
        let writing = tokio::spawn(async move { stream.write_all(&[0; 500]).await });
        for _ in 0..20 {
            client.read_exact(&mut [0; 10]).await.unwrap();
            tokio::time::sleep(20 * MILLI).await;
        }
        assert!(connections.enter(ADDRESS).is_none(), "it is read");
        let makes_room = async {
            while connections.enter(ADDRESS).is_none() {
                tokio::time::sleep(20 * MILLI).await;
            }
        };
        tokio::time::timeout(LONG / 20, makes_room).await.expect("nothing is read any more");
        writing.abort();
    }
}
