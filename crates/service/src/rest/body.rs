//! Request bodies: how large one may be, how much of all of them may be in flight, how long one may take.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{BodyDataStream, HttpBody};
use axum::extract::Request;
use axum::http::header;
use futures_util::TryStreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wire::rest::error::Code;

use super::failure::Failure;
use crate::limits::Limits;

/// The semaphore counts in these.
const UNIT: usize = 4 << 10;
/// How much of a refused body is let pass by.
const PASSED: usize = 256 << 20;
/// The room for bodies. Clones share it.
#[derive(Clone, Debug)]
pub struct Room {
    free: Arc<Semaphore>,
    /// A body that has not arrived by then is not waited for.
    arrival: Duration,
}

/// A whole body. Its room is given back when it is dropped.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) bytes: Vec<u8>,
    room: Option<OwnedSemaphorePermit>,
}

impl Room {
    pub fn new(limits: &Limits) -> Room {
        Room {
            free: Arc::new(Semaphore::new(limits.bodies_in_flight_bytes / UNIT)),
            arrival: Duration::from_secs(limits.body_seconds.into()),
        }
    }

    /// Reads the body of `request`, of at most `limit` bytes. Room is taken as it arrives: a promise takes none.
    pub(super) async fn read(&self, request: Request, limit: usize) -> Result<Body, Failure> {
        // What is small on the way and large in memory is not taken: no client of ours compresses.
        let encoded = request.headers().get(header::CONTENT_ENCODING).is_some_and(|it| it != "identity");
        let promised = request.body().size_hint().lower();
        let mut chunks = request.into_body().into_data_stream();
        let received = async {
            let received = if encoded {
                let message = "Content-Encoding: only identity is understood here";
                Err(Failure::new(Code::RequestMalformed, message).with_status(415))
            } else if promised > limit as u64 {
                Err(too_large(limit))
            } else {
                self.receive(&mut chunks, limit).await
            };
            if received.is_err() {
                drain(&mut chunks).await;
            }
            received
        };
        tokio::time::timeout(self.arrival, received).await.unwrap_or_else(|_| {
            let message = "The request's body did not arrive in time";
            Err(Failure::new(Code::RequestMalformed, message).with_status(408))
        })
    }

    async fn receive(&self, chunks: &mut BodyDataStream, limit: usize) -> Result<Body, Failure> {
        let mut body = Body { bytes: Vec::new(), room: None };
        let broken = |_| Failure::new(Code::RequestMalformed, "The request's body could not be read");
        while let Some(chunk) = chunks.try_next().await.map_err(broken)? {
            let held = body.bytes.len().div_ceil(UNIT);
            if body.bytes.len() + chunk.len() > limit {
                return Err(too_large(limit));
            }
            let more = (body.bytes.len() + chunk.len()).div_ceil(UNIT) - held;
            let more = self.free.clone().try_acquire_many_owned(u32::try_from(more).unwrap_or(u32::MAX));
            let more = more.map_err(|_| {
                Failure::unavailable("Too much is being received at this moment; try again shortly")
            })?;
            match &mut body.room {
                Some(room) => room.merge(more),
                None => body.room = Some(more),
            }
            body.bytes.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

/// Lets a refused body pass by, up to a point: a client that is still sending when its connection ends would
/// not read why, and send it all again.
async fn drain(chunks: &mut BodyDataStream) {
    let mut passed = 0;
    while let Ok(Some(chunk)) = chunks.try_next().await {
        passed += chunk.len();
        if passed > PASSED {
            return;
        }
    }
}

fn too_large(limit: usize) -> Failure {
    let message = format!("The request's body exceeds the limit of {limit} bytes");
    Failure::new(Code::TaskPayloadTooLarge, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(size: usize) -> Request {
        Request::new(axum::body::Body::from(vec![0; size]))
    }

    #[tokio::test]
    async fn room_is_taken_while_a_body_is_held_and_given_back() {
        let limits = Limits { bodies_in_flight_bytes: 10 * UNIT, ..Limits::default() };
        let room = Room::new(&limits);
        let held = room.read(request(6 * UNIT), 8 * UNIT).await.unwrap();
        let refused = room.read(request(6 * UNIT), 8 * UNIT).await.unwrap_err();
        assert_eq!(refused.code(), Code::ServiceUnavailable);
        room.read(request(4 * UNIT), 8 * UNIT).await.unwrap();
        drop(held);
        assert_eq!(room.read(request(8 * UNIT), 8 * UNIT).await.unwrap().bytes.len(), 8 * UNIT);
        let refused = room.read(request(8 * UNIT + 1), 8 * UNIT).await.unwrap_err();
        assert_eq!(refused.code(), Code::TaskPayloadTooLarge);
        assert_eq!(room.free.available_permits(), 10);
    }
}
