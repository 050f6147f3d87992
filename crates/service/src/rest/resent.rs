//! When a submit has been answered: until its answer has been handed to its connection, it may come again.
//!
//! ```text
//! begin --> written, committed --> answer handed to the connection --> forgotten
//!              |                         ^
//!              +-- the connection ended -+--> stays known: its twin gets the same ids
//! ```

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use tokio::sync::mpsc;
use wire::RequestId;

use store::{Answered, AnswersInFlight, Store};

/// Answers that are recorded together at most, and how long they gather: each record costs a transaction of its own.
const TOGETHER: usize = 512;
const GATHERING: Duration = Duration::from_millis(100);

/// The submits whose answers are in flight. Clones share it.
#[derive(Clone, Debug, Default)]
struct InFlight(Arc<Mutex<HashSet<RequestId>>>);

impl InFlight {
    fn begin(&self, request: RequestId) {
        self.set().insert(request);
    }

    fn end(&self, request: RequestId) {
        self.set().remove(&request);
    }

    fn set(&self) -> MutexGuard<'_, HashSet<RequestId>> {
        // A panic while it was held cannot have left it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AnswersInFlight for InFlight {
    fn contains(&self, request: RequestId) -> bool {
        self.set().contains(&request)
    }
}

/// Follows answers to their connections. Clones share it.
#[derive(Clone, Debug)]
pub struct Answers {
    in_flight: InFlight,
    // Not bounded by itself: each request in flight sends one at most.
    written: mpsc::UnboundedSender<RequestId>,
}

impl Answers {
    pub fn new(store: Store) -> Answers {
        let (written, mut requests) = mpsc::unbounded_channel();
        let in_flight = InFlight::default();
        let answers = Answers { in_flight: in_flight.clone(), written };
        tokio::spawn(async move {
            let mut together = Vec::with_capacity(TOGETHER);
            while let Some(first) = requests.recv().await {
                tokio::time::sleep(GATHERING).await;
                together.push(first);
                while together.len() < TOGETHER
                    && let Ok(request) = requests.try_recv()
                {
                    together.push(request);
                }
                // Should it fail, an equal submit within two minutes gets these ids: late, not lost.
                if let Err(error) = store.write(Answered(together.clone())).await {
                    tracing::warn!(%error, "answered submits could not be forgotten");
                }
                together.drain(..).for_each(|request| in_flight.end(request));
            }
        });
        answers
    }

    pub(super) fn in_flight(&self) -> Arc<dyn AnswersInFlight> {
        Arc::new(self.in_flight.clone())
    }

    /// `request` is being answered from now on.
    pub(super) fn begin(&self, request: RequestId) -> Ticket {
        self.in_flight.begin(request);
        Ticket { answers: self.clone(), request, written: false }
    }
}

/// One request on its way to its answer. Dropped before that, the request stays known.
#[derive(Debug)]
pub(super) struct Ticket {
    answers: Answers,
    request: RequestId,
    written: bool,
}

impl Ticket {
    /// Follows the answer to its connection.
    pub(super) fn follow(self, answer: Response) -> Response {
        answer.map(|body| Body::new(Followed { body, ticket: self }))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.written || self.answers.written.send(self.request).is_err() {
            self.answers.in_flight.end(self.request);
        }
    }
}

struct Followed {
    body: Body,
    ticket: Ticket,
}

impl HttpBody for Followed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.ticket.written |= matches!(frame, Poll::Ready(_)) && self.body.is_end_stream();
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
