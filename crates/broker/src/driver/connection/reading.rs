//! Reads a connection: decodes the bytes to requests and performs them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::writing::MAX_UNREAD;
use super::{Connection, End};
use crate::clock;
use crate::session::Step;

/// Bytes read at a time.
const READ: usize = 64 << 10;
/// Actions of the core after which this connection gives up the lock, to let others have it.
const ACTIONS_PER_LOCK: usize = 4_096;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ]);
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Decodes `input` to requests. Returns how many bytes were used.
    fn decode_requests(&mut self, input: &[u8]) -> usize {
        let mut used = 0;
        if self.out_of_step {
            return input.len();
        }
        if !self.header_read {
            let Some(header) = input.first_chunk::<8>() else { return 0 };
            self.header_read = true;
            used = 8;
            let step = self.decide(|session, context| session.header(header, context));
            self.follow(step);
        }
        while self.end == End::Open && self.log_in.is_none() {
            let request = match self.decoder.decode(&input[used..]) {
                Ok(None) => break,
                Ok(Some((frame, length))) => {
                    used += length;
                    self.assembly.accept(frame)
                }
                Err(error) => {
                    self.out_of_step = true;
                    Err(error.into())
                }
            };
            match request {
                Ok(None) => {}
                Ok(Some(request)) => {
                    self.requests.push_back(request);
                    // During the handshake, each step may change how the next is read.
                    if !self.session.is_running() {
                        self.perform();
                    }
                }
                // After the broker has closed the connection, only the reply to that matters.
                Err(_) if self.session.is_closing() && !self.out_of_step => {}
                Err(violation) => {
                    self.perform();
                    let step = self.decide(|session, context| session.fail(&violation, context));
                    self.follow(step);
                    if self.out_of_step {
                        return input.len();
                    }
                }
            }
        }
        used
    }

    /// Performs the requests that were decoded, unless this connection is paused. Returns whether it performed any.
    pub(super) fn perform(&mut self) -> bool {
        let mut progress = false;
        while !self.requests.is_empty() && self.end == End::Open {
            let requests = &mut self.requests;
            let key = self.key;
            let mut locked = self.shared.lock();
            let mut context = locked.request_context();
            let mut last = Step::Continue;
            if self.session.is_ended_by_embedder(context.core) {
                requests.clear();
                last = self.session.force_close(self.outbox.close_text(), &mut context);
            }
            let mut paused = context.core.is_paused(key);
            while !paused
                && matches!(last, Step::Continue)
                && context.core.actions.len() < ACTIONS_PER_LOCK
                && let Some(request) = requests.pop_front()
            {
                progress = true;
                last = self.session.perform(request, &mut context);
                paused = context.core.is_paused(key);
            }
            locked.dispatch(Some(key));
            drop(locked);
            let done = matches!(last, Step::Continue);
            self.follow(last);
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

    /// Reads once and performs what was read. `Ready(Ok(false))` at the end of the stream.
    pub(super) fn read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
            let bytes = buffer.filled();
            if bytes.is_empty() {
                return Poll::Ready(Ok(false));
            }
            self.turn_bytes += bytes.len();
            self.timing.read = clock::now();
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

    /// Decodes what was read earlier and could not be used then.
    pub(super) fn decode_pending(&mut self) {
        let mut pending = std::mem::take(&mut self.pending);
        let used = self.decode_requests(&pending);
        if used < pending.len() {
            pending.drain(..used);
            self.pending = pending;
        }
    }

    pub(super) fn may_read(&self) -> bool {
        self.end == End::Open
            && self.requests.is_empty()
            && !self.paused
            && self.log_in.is_none()
            && !self.arrival.is_waiting()
            && self.unread() < MAX_UNREAD
    }
}
