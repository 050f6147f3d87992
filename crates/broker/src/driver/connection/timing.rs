//! Timeouts, heartbeats and signals of a connection: when it ends by itself, and when the broker or the embedder ends it.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};

use super::arrival::Arrival;
use super::writing::MAX_UNREAD;
use super::{Connection, End};
use crate::clock;
use crate::core::Output;
use crate::driver::outbox::{ENDED_BY_EMBEDDER, EVICT, STOP};
use crate::session::violation::{Code, Violation};

/// When a connection did what, and what is due.
pub(super) struct Timing {
    sleep: Option<Pin<Box<Sleep>>>,
    /// Between heartbeats; `None` without them.
    pub(super) interval: Option<Duration>,
    /// When the handshake must be over, or the client must have replied to a close.
    pub(super) limit: Option<Instant>,
    /// When the client was last heard.
    pub(super) read: Instant,
    /// When bytes were last written, or a heartbeat was due.
    pub(super) wrote: Instant,
    /// When the socket last took bytes.
    pub(super) taken: Instant,
}

impl Timing {
    pub(super) fn new(now: Instant, limit: Duration) -> Timing {
        Timing { sleep: None, interval: None, limit: Some(now + limit), read: now, wrote: now, taken: now }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Obeys the signals of the broker and of the embedder, ends what has timed out, and sends heartbeats.
    pub(super) fn poll_signals(&mut self, context: &mut Context<'_>) {
        let signals = self.outbox.signals();
        if signals & EVICT != 0 {
            self.end = End::Now;
        }
        if signals & (STOP | ENDED_BY_EMBEDDER) != 0 && !self.session.is_closing() && self.end == End::Open {
            let outbox = self.outbox.clone();
            let text = if signals & ENDED_BY_EMBEDDER != 0 {
                outbox.close_text()
            } else {
                "broker forced connection closure with reason 'shutdown'"
            };
            self.requests.clear();
            self.log_in = None;
            let step = self.decide(|session, context| session.force_close(text, context));
            self.follow(step);
        }
        loop {
            let now = clock::now();
            if self.paused && self.arrival.deadline.is_some() {
                // The body can't arrive while the connection is not read.
                self.arrival.deadline = Some(now + self.arrival.allowed);
            }
            if self.timing.limit.is_some_and(|it| it <= now)
                || self.arrival.deadline.is_some_and(|it| it <= now)
            {
                if self.arrival.deadline.is_some_and(|it| it <= now) && !self.session.is_closing() {
                    let violation = Violation::new(Code::ResourceError, "the content does not arrive");
                    self.arrival = Arrival::default();
                    let step = self.decide(|session, context| session.fail(&violation, context));
                    self.follow(step);
                    continue;
                }
                self.end = End::Now;
                return;
            }
            let mut next = [self.timing.limit, self.arrival.deadline].into_iter().flatten().min();
            if let Some(interval) = self.timing.interval
                && !self.session.is_closing()
            {
                if self.timing.wrote + interval / 2 <= now {
                    self.timing.wrote = now;
                    if self.outgoing.is_empty() {
                        self.outgoing.write(&Output::Heartbeat, self.frame_max);
                    }
                }
                // A client can't be heard while it is not read. When that is because it does not read, it must at least
                // take bytes.
                if self.paused || self.log_in.is_some() || self.arrival.is_waiting() {
                    self.timing.read = now;
                } else if self.unread() >= MAX_UNREAD {
                    self.timing.read = self.timing.read.max(self.timing.taken);
                }
                if self.timing.read + 2 * interval <= now {
                    self.end = End::Now;
                    return;
                }
                let beat = (self.timing.wrote + interval / 2).min(self.timing.read + 2 * interval);
                next = Some(next.map_or(beat, |it| it.min(beat)));
            }
            let Some(next) = next else {
                self.timing.sleep = None;
                return;
            };
            let sleep = self.timing.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(next)));
            // A sleep that ends too early wakes this task once for nothing; one that ends too late is reset.
            if sleep.is_elapsed() || sleep.deadline() > next {
                sleep.as_mut().reset(next);
            }
            if sleep.as_mut().poll(context).is_pending() {
                return;
            }
        }
    }
}
