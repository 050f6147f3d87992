//! One connection's task: reads when it may, performs what it read, and writes what its outbox holds.
//!
//! A connection is not read while its own output waits to be written, while it is paused for memory, while the embedder
//! checks its log-in, and while a large body waits for room. An idle connection holds no buffers. A busy one yields to the
//! others after every [`TURN`].

mod arrival;
mod reading;
mod timing;
mod writing;

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use self::arrival::Arrival;
use self::timing::Timing;
use self::writing::MAX_UNREAD;
use super::outbox::Outbox;
use super::shared::Shared;
use crate::access_control::{LoggedIn, Login, Refusal};
use crate::clock;
use crate::core::{ConnectionKey, Output};
use crate::frame::UNTUNED;
use crate::frame::decode::Decoder;
use crate::session::assembly::{Assembly, Request};
use crate::session::encode::Outgoing;
use crate::session::{RequestContext, Session, Step};

/// Bytes read and written in one turn of this task, before others have theirs.
const TURN: usize = 256 << 10;
/// How long a client may take to reply to a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

type LogIn = Pin<Box<dyn Future<Output = Result<LoggedIn, Refusal>> + Send>>;

/// Where the stream came from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) peer: Option<std::net::SocketAddr>,
    pub(crate) tls: bool,
}

pub(crate) struct Connection<S> {
    stream: S,
    origin: Origin,
    shared: Arc<Shared>,
    key: ConnectionKey,
    outbox: Arc<Outbox>,
    session: Session,
    decoder: Decoder,
    assembly: Assembly,
    /// Bytes read and not yet decoded.
    pending: Vec<u8>,
    /// Requests decoded and not yet performed.
    requests: VecDeque<Request>,
    /// Paused because the queues that it publishes into hold too much memory.
    paused: bool,
    /// A frame was malformed: whatever follows can't be decoded and is ignored.
    out_of_step: bool,
    /// The first eight bytes have been read.
    header_read: bool,
    log_in: Option<LogIn>,
    arrival: Arrival,
    /// What was taken from the outbox and not yet encoded.
    batch: std::vec::IntoIter<Output>,
    /// Weight of what is left in `batch`.
    batched: usize,
    outgoing: Outgoing,
    /// Weight of the deliveries in `outgoing`, and of the replies.
    encoded: usize,
    replies: usize,
    /// Bytes read and written since this task was polled.
    turn_bytes: usize,
    unflushed: bool,
    frame_max: u32,
    timing: Timing,
    end: End,
}

/// Whether the connection ends, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Not yet.
    Open,
    /// After what is left has been written.
    Flush,
    Now,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(crate) fn new(stream: S, origin: Origin, shared: Arc<Shared>) -> Connection<S> {
        let (key, outbox) = shared.lock().open_connection(false);
        shared.begin_handshake(&outbox, origin.peer);
        let now = clock::now();
        Connection {
            stream,
            origin,
            key,
            outbox,
            session: Session::new(key, shared.secret),
            decoder: Decoder::default(),
            assembly: Assembly::default(),
            pending: Vec::new(),
            requests: VecDeque::new(),
            paused: false,
            out_of_step: false,
            header_read: false,
            log_in: None,
            arrival: Arrival::default(),
            batch: Vec::new().into_iter(),
            batched: 0,
            outgoing: Outgoing::default(),
            encoded: 0,
            replies: 0,
            turn_bytes: 0,
            unflushed: false,
            frame_max: UNTUNED,
            timing: Timing::new(now, shared.config.handshake_timeout),
            end: End::Open,
            shared,
        }
    }

    /// Runs `act` under the lock and dispatches the actions that it decided.
    fn decide<T>(&mut self, act: impl FnOnce(&mut Session, &mut RequestContext<'_>) -> T) -> T {
        let mut locked = self.shared.lock();
        let result = act(&mut self.session, &mut locked.request_context());
        locked.dispatch(Some(self.key));
        result
    }

    /// Does what the session asked for.
    fn follow(&mut self, step: Step) {
        match step {
            Step::Continue => {}
            Step::LogIn(login) => self.begin_log_in(login),
            Step::Tuned { frame_max, channel_max, heartbeat, largest_body } => {
                self.frame_max = frame_max;
                self.decoder.set_max(frame_max);
                self.assembly.set_limits(largest_body, channel_max);
                let interval = Duration::from_secs(heartbeat.into());
                self.timing.interval = (!interval.is_zero()).then_some(interval);
            }
            Step::Opened => {
                self.outbox.leave_handshake();
                self.timing.limit = None;
            }
            Step::Close => self.end = End::Flush,
        }
        if self.session.is_closing() || self.end != End::Open {
            let limit = clock::now() + CLOSE_TIMEOUT;
            self.timing.limit = Some(self.timing.limit.map_or(limit, |it| it.min(limit)));
        }
    }

    fn begin_log_in(&mut self, login: Login) {
        let login = Login { peer: self.origin.peer, tls: self.origin.tls, ..login };
        let shared = self.shared.clone();
        self.log_in = Some(Box::pin(async move {
            let answer = {
                let Ok(_permit) = shared.log_ins.acquire().await else {
                    return Err(Refusal::Unavailable);
                };
                shared.access.log_in(login).await
            };
            if let Err(Refusal::Denied | Refusal::Ended(_)) = answer {
                // Slows down guessing.
                tokio::time::sleep(shared.config.refusal_delay).await;
            }
            answer
        }));
    }

    fn poll_log_in(&mut self, context: &mut Context<'_>) {
        if let Some(log_in) = &mut self.log_in
            && let Poll::Ready(answer) = log_in.as_mut().poll(context)
        {
            self.log_in = None;
            let step = self.decide(|session, context| session.logged_in(answer, context));
            self.follow(step);
            self.decode_pending();
        }
    }

    fn poll_once(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outbox.waker.register(context.waker());
        self.turn_bytes = 0;
        loop {
            if self.turn_bytes >= TURN {
                give_way(context);
                return Poll::Pending;
            }
            self.poll_signals(context);
            if self.end == End::Now {
                return Poll::Ready(Ok(()));
            }
            self.poll_log_in(context);
            let written = self.write(context)?;
            if self.end == End::Flush {
                ready!(written);
                return Poll::Ready(Ok(()));
            }
            if self.paused {
                self.paused = self.shared.lock().core().is_paused(self.key);
            }
            if !self.paused && !self.requests.is_empty() && self.unread() < MAX_UNREAD && self.perform() {
                continue;
            }
            self.poll_arrival(context);
            if !self.may_read() {
                if self.outbox.is_empty() || written.is_pending() {
                    return Poll::Pending;
                }
                continue;
            }
            match self.read(context)? {
                Poll::Ready(true) => {}
                Poll::Ready(false) => return Poll::Ready(Ok(())),
                Poll::Pending if self.outbox.is_empty() || written.is_pending() => return Poll::Pending,
                Poll::Pending => {}
            }
        }
    }
}

/// Ends a turn: the task is woken again after other tasks have run and sockets have been polled.
fn give_way(context: &mut Context<'_>) {
    let mut others = pin!(tokio::task::yield_now());
    // One poll of it is enough to ask for that.
    let _ = others.as_mut().poll(context);
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Connection<S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        match ready!(this.poll_once(context)) {
            Ok(()) => {}
            Err(error) => tracing::debug!(peer = ?this.origin.peer, %error, "connection lost"),
        }
        Poll::Ready(())
    }
}

impl<S> Drop for Connection<S> {
    fn drop(&mut self) {
        self.outbox.leave_handshake();
        self.shared.lock().remove_connection(self.key, false);
    }
}
