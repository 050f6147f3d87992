//! Writes a connection: encodes what is in its outbox and sends it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite};

use super::{Connection, TURN, give_way};
use crate::clock;
use crate::core::Output;

/// Bytes encoded ahead of the socket.
const WRITE: usize = 64 << 10;
/// Bytes of replies that a client has not read, above which it is not read itself. Deliveries don't count: the core bounds
/// them, and a client that is sent a large one may be sending at the same time.
pub(super) const MAX_UNREAD: usize = 256 << 10;

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Bytes of replies that this client has not read.
    pub(super) fn unread(&self) -> usize {
        self.replies + self.batched + self.outbox.weight()
    }

    /// Encodes what the outbox holds and writes it. `Ready` when everything is written, `Pending` also when this turn is
    /// over.
    pub(super) fn write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
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
                if matches!(output, Output::Blocked(_)) && !self.session.client_capabilities().blocked {
                    continue;
                }
                self.outgoing.write(&output, self.frame_max);
            }
            if self.outgoing.is_empty() {
                self.replies = 0;
                break;
            }
            if self.turn_bytes >= TURN {
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
            self.turn_bytes += written;
            self.timing.wrote = clock::now();
            self.timing.taken = self.timing.wrote;
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
}
