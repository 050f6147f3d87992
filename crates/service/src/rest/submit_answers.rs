//! Follows the answer of each submit to its connection, to know which submits a client may have to send again.
//!
//! ```text
//! begin --> tasks committed --> answer handed to the connection --> an equal submit is a new one
//!                |
//!                +-- the connection ended --> an equal submit is a retry, and gets the same ids
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

use store::{AnswersInFlight, DeleteAnsweredSubmits, Store, StoreError, outage_log};

/// Answers that are recorded together at most, and how long they gather: each record costs a transaction of its own.
const TOGETHER: usize = 512;
const GATHERING: Duration = Duration::from_millis(100);
/// How often that is tried, and the pause after the store failed: together as long as a submit may be sent again, at least.
const TRIES: u32 = 120;
const PAUSE: Duration = Duration::from_secs(1);

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

/// Records that these submits were answered. Until then they count as in flight; once they don't and it is not recorded, an equal
/// submit counts as a retry, and its tasks don't run. So it is tried for as long as records of submits matter.
async fn record_answered(store: &Store, requests: &[RequestId]) {
    for _ in 0..TRIES {
        match store.write(DeleteAnsweredSubmits(requests.to_vec())).await {
            Ok(()) | Err(StoreError::Closed) => return,
            Err(error) if outage_log::logs(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "could not record which submits were answered; trying again")
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Follows the answers of submits to their connections. Clones share it.
#[derive(Clone, Debug)]
pub struct SubmitAnswers {
    in_flight: InFlight,
    // Neither is bounded by itself: each request in flight sends one at most.
    written: mpsc::UnboundedSender<RequestId>,
    /// Those whose connection has ended, for other processes.
    given_up: Option<mpsc::UnboundedSender<RequestId>>,
}

impl SubmitAnswers {
    pub fn new(store: Store) -> SubmitAnswers {
        let (written, mut requests) = mpsc::unbounded_channel();
        let in_flight = InFlight::default();
        let given_up = store.has_other_processes().then(|| give_up(store.clone()));
        let answers = SubmitAnswers { in_flight: in_flight.clone(), written, given_up };
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
                record_answered(&store, &together).await;
                together.drain(..).for_each(|request| in_flight.end(request));
            }
        });
        answers
    }

    pub(super) fn in_flight(&self) -> Arc<dyn AnswersInFlight> {
        Arc::new(self.in_flight.clone())
    }

    /// Begins to follow the answer of `request`.
    pub(super) fn begin(&self, request: RequestId) -> AnswerTicket {
        self.in_flight.begin(request);
        AnswerTicket { answers: self.clone(), request, written: false }
    }
}

/// A submit that is being answered. If it is dropped before the answer was sent, an equal submit counts as a retry.
#[derive(Debug)]
pub(super) struct AnswerTicket {
    answers: SubmitAnswers,
    request: RequestId,
    written: bool,
}

impl AnswerTicket {
    /// Follows the answer to its connection.
    pub(super) fn follow(self, answer: Response) -> Response {
        answer.map(|body| Body::new(FollowedBody { body, ticket: self }))
    }
}

impl Drop for AnswerTicket {
    fn drop(&mut self) {
        if !self.written || self.answers.written.send(self.request).is_err() {
            self.answers.in_flight.end(self.request);
            if let Some(given_up) = &self.answers.given_up {
                let _ = given_up.send(self.request);
            }
        }
    }
}

/// Starts to tell other processes which answers this one has given up.
fn give_up(store: Store) -> mpsc::UnboundedSender<RequestId> {
    let (given_up, mut requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut together = Vec::with_capacity(TOGETHER);
        while requests.recv_many(&mut together, TOGETHER).await > 0 {
            if let Err(error) = store.give_up_answers(std::mem::take(&mut together)).await {
                tracing::warn!(%error, "could not record which submits were not answered: if they are sent again to another process, they run twice");
            }
        }
    });
    given_up
}

struct FollowedBody {
    body: Body,
    ticket: AnswerTicket,
}

impl HttpBody for FollowedBody {
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
