//! One connection's task: reads while it may, performs what it read, writes what it is told.
//!
//! A connection is not read while its own output waits to be written, while it is paused for memory, while the owner
//! thinks about its log-in, and while a large body waits for its turn. An idle connection holds no buffers. A busy one
//! gives way to the others after every [`TURN`].

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::arriving::Share;
use super::outbox::{CUT, EVICT, Outbox, STOP};
use super::shared::Shared;
use crate::access::{LoggedIn, Login, Refusal};
use crate::ambient;
use crate::core::{ConnectionKey, Output};
use crate::frame::UNTUNED;
use crate::frame::decode::Decoder;
use crate::frame::encode::Outgoing;
use crate::session::assembly::{Assembly, Request};
use crate::session::violation::{Code, Violation};
use crate::session::{Session, Step, World};

/// Read at a time.
const READ: usize = 64 << 10;
/// Encoded ahead of the socket.
const WRITE: usize = 64 << 10;
/// A client whose replies wait like this is not read. Deliveries don't count: the core bounds them, and whoever is
/// sent a large one may be sending at the same time.
const UNREAD: usize = 256 << 10;
/// Read and written in one turn of this task; then others have theirs.
const TURN: usize = 256 << 10;
/// Bytes of arriving bodies that need no turn.
const FREE_ARRIVAL: u64 = 256 << 10;
/// Effects after which the lock is given to others.
const FAIR: usize = 4_096;
/// For a client to answer a close.
const FAREWELL: Duration = Duration::from_secs(3);

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ]);
}

type LogIn = Pin<Box<dyn Future<Output = Result<LoggedIn, Refusal>> + Send>>;
type Turn = Pin<Box<dyn Future<Output = Option<Share>> + Send>>;

/// Where the stream came from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    pub(super) peer: Option<std::net::SocketAddr>,
    pub(super) tls: bool,
}

pub(super) struct Connection<S> {
    stream: S,
    origin: Origin,
    shared: Arc<Shared>,
    key: ConnectionKey,
    outbox: Arc<Outbox>,
    session: Session,
    decoder: Decoder,
    assembly: Assembly,
    /// Read and not yet cut into frames.
    pending: Vec<u8>,
    /// Cut and not yet performed.
    requests: VecDeque<Request>,
    /// Too much is held in memory by the queues it publishes into.
    paused: bool,
    /// The stream has lost its frames: nothing that comes means anything.
    lost: bool,
    /// The first eight bytes have been seen.
    greeted: bool,
    log_in: Option<LogIn>,
    arrival: Arrival,
    batch: std::vec::IntoIter<Output>,
    /// Weight of what is left in `batch`.
    batched: usize,
    outgoing: Outgoing,
    /// Weight of the deliveries in `outgoing`, and of the replies.
    encoded: usize,
    replies: usize,
    /// Bytes read and written since this task was polled.
    turn: usize,
    unflushed: bool,
    frame_max: u32,
    pulse: Pulse,
    end: End,
}

/// The turn of bodies that are arriving.
#[derive(Default)]
struct Arrival {
    permits: Option<Share>,
    turn: Option<Turn>,
    /// Whoever holds a turn must use it within this time, and by then.
    allowed: Duration,
    deadline: Option<Instant>,
}

/// What the clock does to a connection.
struct Pulse {
    sleep: Option<Pin<Box<Sleep>>>,
    interval: Option<Duration>,
    /// The end of the handshake or of a farewell.
    limit: Option<Instant>,
    read: Instant,
    /// When the last bytes left, or a heartbeat was due.
    wrote: Instant,
    /// When the client's side last took bytes.
    took: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    /// Write what is left and go.
    Flush,
    Now,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(super) fn new(stream: S, origin: Origin, shared: Arc<Shared>) -> Connection<S> {
        let (key, outbox) = shared.lock().connect(false);
        shared.begin_handshake(&outbox, origin.peer);
        let now = ambient::now();
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
            lost: false,
            greeted: false,
            log_in: None,
            arrival: Arrival::default(),
            batch: Vec::new().into_iter(),
            batched: 0,
            outgoing: Outgoing::default(),
            encoded: 0,
            replies: 0,
            turn: 0,
            unflushed: false,
            frame_max: UNTUNED,
            pulse: Pulse {
                sleep: None,
                interval: None,
                limit: Some(now + shared.config.handshake_timeout),
                read: now,
                wrote: now,
                took: now,
            },
            end: End::Open,
            shared,
        }
    }

    /// Everything under one lock: `act` decides, its effects are handed on.
    fn decide<T>(&mut self, act: impl FnOnce(&mut Session, &mut World<'_>) -> T) -> T {
        let mut locked = self.shared.lock();
        let mut world =
            World { state: locked.state(), access: &*self.shared.access, config: &self.shared.config };
        let result = act(&mut self.session, &mut world);
        locked.hand_on(Some(self.key));
        result
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Continue => {}
            Step::LogIn(login) => self.begin_log_in(login),
            Step::Tuned { frame_max, channel_max, heartbeat, largest_body } => {
                self.frame_max = frame_max;
                self.decoder.set_max(frame_max);
                self.assembly.set_limits(largest_body, channel_max);
                let interval = Duration::from_secs(heartbeat.into());
                self.pulse.interval = (!interval.is_zero()).then_some(interval);
            }
            Step::Opened => {
                self.outbox.settled();
                self.pulse.limit = None;
            }
            Step::Close => self.end = End::Flush,
        }
        if self.session.is_closing() || self.end != End::Open {
            let farewell = ambient::now() + FAREWELL;
            self.pulse.limit = Some(self.pulse.limit.map_or(farewell, |it| it.min(farewell)));
        }
    }

    fn begin_log_in(&mut self, login: Login) {
        let login = Login { peer: self.origin.peer, tls: self.origin.tls, ..login };
        let shared = self.shared.clone();
        self.log_in = Some(Box::pin(async move {
            let answer = {
                let Ok(_one_of_few) = shared.log_ins.acquire().await else {
                    return Err(Refusal::Unavailable);
                };
                shared.access.log_in(login).await
            };
            if let Err(Refusal::Denied | Refusal::Ended(_)) = answer {
                // Guessing is slow work.
                tokio::time::sleep(shared.config.refusal_delay).await;
            }
            answer
        }));
    }

    /// Cuts what was read into requests. How many bytes were used.
    fn decode_requests(&mut self, input: &[u8]) -> usize {
        let mut used = 0;
        if self.lost {
            return input.len();
        }
        if !self.greeted {
            let Some(header) = input.first_chunk::<8>() else { return 0 };
            self.greeted = true;
            used = 8;
            let step = self.decide(|session, world| session.header(header, world));
            self.step(step);
        }
        while self.end == End::Open && self.log_in.is_none() {
            let request = match self.decoder.decode(&input[used..]) {
                Ok(None) => break,
                Ok(Some((frame, length))) => {
                    used += length;
                    self.assembly.accept(frame)
                }
                Err(error) => {
                    self.lost = true;
                    Err(error.into())
                }
            };
            match request {
                Ok(None) => {}
                Ok(Some(request)) => {
                    self.requests.push_back(request);
                    // Until the connection is open, each step may change how the next is read.
                    if !self.session.is_running() {
                        self.perform();
                    }
                }
                // Of a client that was told to go, only the answer counts.
                Err(_) if self.session.is_closing() && !self.lost => {}
                Err(violation) => {
                    self.perform();
                    let step = self.decide(|session, world| session.fail(&violation, world));
                    self.step(step);
                    if self.lost {
                        return input.len();
                    }
                }
            }
        }
        used
    }

    /// Performs what was read, unless this connection is paused.
    fn perform(&mut self) -> bool {
        let mut progress = false;
        while !self.requests.is_empty() && self.end == End::Open {
            let requests = &mut self.requests;
            let key = self.key;
            let mut locked = self.shared.lock();
            let mut world =
                World { state: locked.state(), access: &*self.shared.access, config: &self.shared.config };
            let mut last = Step::Continue;
            if self.session.is_cut(world.state) {
                requests.clear();
                last = self.session.force_close("the connection was ended by the service", &mut world);
            }
            let mut paused = world.state.core.is_paused(key);
            while !paused
                && matches!(last, Step::Continue)
                && world.state.core.effects.len() < FAIR
                && let Some(request) = requests.pop_front()
            {
                progress = true;
                last = self.session.perform(request, &mut world);
                paused = world.state.core.is_paused(key);
            }
            locked.hand_on(Some(key));
            drop(locked);
            let done = matches!(last, Step::Continue);
            self.step(last);
            self.paused = paused;
            if paused || (done && self.requests.is_empty()) {
                break;
            }
        }
        if self.requests.is_empty() && self.requests.capacity() > 0 && self.pending.is_empty() {
            self.requests = VecDeque::new();
        }
        progress
    }

    /// Reads once and performs what came. `Ready(Ok(false))` at the end of the stream.
    fn read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
            let bytes = buffer.filled();
            if bytes.is_empty() {
                return Poll::Ready(Ok(false));
            }
            self.turn += bytes.len();
            self.pulse.read = ambient::now();
            if self.pending.is_empty() {
                let used = self.decode_requests(bytes);
                self.pending.extend_from_slice(&bytes[used..]);
            } else {
                self.pending.extend_from_slice(bytes);
                self.decode_pending();
            }
            self.perform();
            Poll::Ready(Ok(true))
        })
    }

    fn decode_pending(&mut self) {
        let mut pending = std::mem::take(&mut self.pending);
        let used = self.decode_requests(&pending);
        if used < pending.len() {
            pending.drain(..used);
            self.pending = pending;
        }
    }

    fn may_read(&self) -> bool {
        self.end == End::Open
            && self.requests.is_empty()
            && !self.paused
            && self.log_in.is_none()
            && self.arrival.turn.is_none()
            && self.unread() < UNREAD
    }

    /// Bytes of replies that wait for this client to read.
    fn unread(&self) -> usize {
        self.replies + self.batched + self.outbox.weight()
    }

    /// Encodes what the outbox holds and writes it. `Ready` when everything is written; `Pending` also when this turn
    /// is over.
    fn write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while self.outgoing.len() < WRITE {
                let Some(output) = self.batch.next() else {
                    let mut batch = Vec::new();
                    self.outbox.take(&mut batch);
                    if batch.is_empty() {
                        break;
                    }
                    self.batched = batch.iter().map(Output::weight).sum();
                    self.batch = batch.into_iter();
                    continue;
                };
                self.batched -= output.weight();
                self.replies += output.weight();
                if let Output::Deliver { message, .. } = &output {
                    self.encoded += message.weight();
                }
                if matches!(output, Output::Blocked(_)) && !self.session.hears().blocked {
                    continue;
                }
                self.outgoing.write(&output, self.frame_max);
            }
            if self.outgoing.is_empty() {
                self.replies = 0;
                break;
            }
            if self.turn >= TURN {
                give_way(context);
                return Poll::Pending;
            }
            let mut slices = [IoSlice::new(&[]); 32];
            let count = self.outgoing.slices(&mut slices);
            let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, &slices[..count]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outgoing.advance(written);
            self.unflushed = true;
            self.turn += written;
            self.pulse.wrote = ambient::now();
            self.pulse.took = self.pulse.wrote;
            if self.outgoing.is_empty() && self.encoded > 0 {
                let encoded = std::mem::take(&mut self.encoded);
                self.shared.lock().core().written(self.key, encoded);
            }
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(context))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Bodies that arrive wait for their turn when they are large and many.
    fn poll_arrival(&mut self, context: &mut Context<'_>) {
        if let Some(turn) = &mut self.arrival.turn {
            let Poll::Ready(permit) = turn.as_mut().poll(context) else { return };
            self.arrival.turn = None;
            self.arrival.deadline = Some(ambient::now() + self.arrival.allowed);
            match (&mut self.arrival.permits, permit) {
                (Some(held), Some(more)) => held.merge(more),
                (held, more) => *held = more,
            }
        }
        let beyond = self.assembly.arriving().saturating_sub(FREE_ARRIVAL);
        if beyond == 0 {
            if self.arrival.permits.is_some() {
                self.arrival = Arrival::default();
            }
            return;
        }
        let most = self.shared.arriving.most();
        let need = usize::try_from(beyond.div_ceil(1024)).unwrap_or(usize::MAX).min(most);
        let held = self.arrival.permits.as_ref().map_or(0, |it| it.amount);
        if need > held {
            let holder = self.session.holder().clone();
            let mut turn: Turn = Box::pin(self.shared.arriving.clone().take(holder, need - held));
            // Whoever waits for a first turn keeps nobody from theirs, and may wait.
            let allowed = self.shared.config.arrival_timeout + Duration::from_secs(beyond / (64 << 10));
            self.arrival.allowed = allowed;
            self.arrival.deadline = (held > 0).then(|| ambient::now() + allowed);
            match turn.as_mut().poll(context) {
                Poll::Ready(permit) => {
                    self.arrival.deadline = Some(ambient::now() + allowed);
                    match (&mut self.arrival.permits, permit) {
                        (Some(held), Some(more)) => held.merge(more),
                        (held, more) => *held = more,
                    }
                }
                Poll::Pending => self.arrival.turn = Some(turn),
            }
        }
    }

    /// What the clock, the owner and the server ask for.
    fn poll_signals(&mut self, context: &mut Context<'_>) {
        let signals = self.outbox.signals();
        if signals & EVICT != 0 {
            self.end = End::Now;
        }
        if signals & (STOP | CUT) != 0 && !self.session.is_closing() && self.end == End::Open {
            let text = if signals & CUT != 0 {
                "the connection was ended by the service"
            } else {
                "broker forced connection closure with reason 'shutdown'"
            };
            self.requests.clear();
            self.log_in = None;
            let step = self.decide(|session, world| session.force_close(text, world));
            self.step(step);
        }
        loop {
            let now = ambient::now();
            if self.paused && self.arrival.deadline.is_some() {
                // What is not read can't arrive.
                self.arrival.deadline = Some(now + self.arrival.allowed);
            }
            if self.pulse.limit.is_some_and(|it| it <= now)
                || self.arrival.deadline.is_some_and(|it| it <= now)
            {
                if self.arrival.deadline.is_some_and(|it| it <= now) && !self.session.is_closing() {
                    let violation = Violation::new(Code::ResourceError, "the content does not arrive");
                    self.arrival = Arrival::default();
                    let step = self.decide(|session, world| session.fail(&violation, world));
                    self.step(step);
                    continue;
                }
                self.end = End::Now;
                return;
            }
            let mut next = [self.pulse.limit, self.arrival.deadline].into_iter().flatten().min();
            if let Some(interval) = self.pulse.interval
                && !self.session.is_closing()
            {
                if self.pulse.wrote + interval / 2 <= now {
                    self.pulse.wrote = now;
                    if self.outgoing.is_empty() {
                        self.outgoing.write(&Output::Heartbeat, self.frame_max);
                    }
                }
                // A client that is not read can't be heard; one that does not read must at least take bytes.
                if self.paused || self.log_in.is_some() || self.arrival.turn.is_some() {
                    self.pulse.read = now;
                } else if self.unread() >= UNREAD {
                    self.pulse.read = self.pulse.read.max(self.pulse.took);
                }
                if self.pulse.read + 2 * interval <= now {
                    self.end = End::Now;
                    return;
                }
                let beat = (self.pulse.wrote + interval / 2).min(self.pulse.read + 2 * interval);
                next = Some(next.map_or(beat, |it| it.min(beat)));
            }
            let Some(next) = next else {
                self.pulse.sleep = None;
                return;
            };
            let sleep = self.pulse.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(next)));
            // A sleep that is too early wakes once for nothing; one that is too late is set anew.
            if sleep.is_elapsed() || sleep.deadline() > next {
                sleep.as_mut().reset(next);
            }
            if sleep.as_mut().poll(context).is_pending() {
                return;
            }
        }
    }

    fn poll_log_in(&mut self, context: &mut Context<'_>) {
        if let Some(log_in) = &mut self.log_in
            && let Poll::Ready(answer) = log_in.as_mut().poll(context)
        {
            self.log_in = None;
            let step = self.decide(|session, world| session.logged_in(answer, world));
            self.step(step);
            self.decode_pending();
        }
    }

    fn poll_once(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outbox.waker.register(context.waker());
        self.turn = 0;
        loop {
            if self.turn >= TURN {
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
            if !self.paused && !self.requests.is_empty() && self.unread() < UNREAD && self.perform() {
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

/// Ends a turn: the task is woken again after the others, and after the sockets have been looked at.
fn give_way(context: &mut Context<'_>) {
    let mut others = pin!(tokio::task::yield_now());
    // Polled once, it has asked for that.
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
        self.outbox.settled();
        self.shared.lock().disconnect(self.key, false);
    }
}
