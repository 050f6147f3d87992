//! Waits for room for a large body before the connection receives it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::Connection;
use crate::clock;
use crate::driver::body_quota::Permit;

/// Bytes of a connection's incomplete bodies that need no permit.
const WITHOUT_PERMIT: u64 = 256 << 10;

type Waiting = Pin<Box<dyn Future<Output = Option<Permit>> + Send>>;

/// The large bodies that a connection is receiving.
#[derive(Default)]
pub(super) struct Arrival {
    /// Room for what has been announced, in kilobytes.
    permit: Option<Permit>,
    /// The wait for more room.
    waiting: Option<Waiting>,
    /// How long the body may take to arrive once there is room,
    pub(super) allowed: Duration,
    /// and when that time is over.
    pub(super) deadline: Option<Instant>,
}

impl Arrival {
    /// Whether a body waits for room. The connection is not read until then.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    fn add(&mut self, permit: Option<Permit>) {
        match (&mut self.permit, permit) {
            (Some(held), Some(more)) => held.merge(more),
            (held, more) => *held = more,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Takes room for the bodies that have been announced, and waits for it when there is none.
    pub(super) fn poll_arrival(&mut self, context: &mut Context<'_>) {
        if let Some(waiting) = &mut self.arrival.waiting {
            let Poll::Ready(permit) = waiting.as_mut().poll(context) else { return };
            self.arrival.waiting = None;
            self.arrival.deadline = Some(clock::now() + self.arrival.allowed);
            self.arrival.add(permit);
        }
        let beyond = self.assembly.incomplete().saturating_sub(WITHOUT_PERMIT);
        if beyond == 0 {
            if self.arrival.permit.is_some() {
                self.arrival = Arrival::default();
            }
            return;
        }
        let most = self.shared.body_quota.most();
        let need = usize::try_from(beyond.div_ceil(1024)).unwrap_or(usize::MAX).min(most);
        let held = self.arrival.permit.as_ref().map_or(0, |it| it.amount);
        if need > held {
            let owner = self.session.quota_owner().clone();
            let mut waiting: Waiting = Box::pin(self.shared.body_quota.clone().take(owner, need - held));
            let allowed = self.shared.config.arrival_timeout + Duration::from_secs(beyond / (64 << 10));
            self.arrival.allowed = allowed;
            // A connection that waits for its first permit keeps no room from others, so its wait has no deadline.
            self.arrival.deadline = (held > 0).then(|| clock::now() + allowed);
            match waiting.as_mut().poll(context) {
                Poll::Ready(permit) => {
                    self.arrival.deadline = Some(clock::now() + allowed);
                    self.arrival.add(permit);
                }
                Poll::Pending => self.arrival.waiting = Some(waiting),
            }
        }
    }
}
