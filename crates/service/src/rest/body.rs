//! Request bodies: how large one may be, how much of all of them may be in flight, how long one may take.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{BodyDataStream, HttpBody};
use axum::extract::Request;
use futures_util::TryStreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wire::rest::error::Code;

use super::failure::Failure;

/// Bytes of bodies in flight, over all requests. Beyond it, whoever needs more is asked to come again.
const IN_FLIGHT: usize = 256 << 20;
/// The semaphore counts in these.
const UNIT: usize = 4 << 10;
/// How much of a refused body is let pass by.
const PASSED: usize = 256 << 20;
/// A body that has not arrived by then is not waited for.
const ARRIVAL: Duration = Duration::from_secs(60);

/// The room for bodies. Clones share it.
#[derive(Clone, Debug)]
pub struct Room(Arc<Semaphore>);

/// A whole body. Its room is given back when it is dropped.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) bytes: Vec<u8>,
    room: Option<OwnedSemaphorePermit>,
}

impl Default for Room {
    fn default() -> Room {
        Room::of(IN_FLIGHT)
    }
}

impl Room {
    fn of(bytes: usize) -> Room {
        Room(Arc::new(Semaphore::new(bytes / UNIT)))
    }

    /// Reads the body of `request`, of at most `limit` bytes. Room is taken as it arrives: a promise takes none.
    pub(super) async fn read(&self, request: Request, limit: usize) -> Result<Body, Failure> {
        let promised = request.body().size_hint().lower();
        let mut chunks = request.into_body().into_data_stream();
        let received = async {
            let received = if promised > limit as u64 {
                Err(too_large(limit))
            } else {
                self.receive(&mut chunks, limit).await
            };
            if received.is_err() {
                drain(&mut chunks).await;
            }
            received
        };
        tokio::time::timeout(ARRIVAL, received).await.unwrap_or_else(|_| {
            Err(Failure::new(Code::RequestMalformed, "The request's body did not arrive in time"))
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
            let more = self.0.clone().try_acquire_many_owned(u32::try_from(more).unwrap_or(u32::MAX));
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
        let room = Room::of(10 * UNIT);
        let held = room.read(request(6 * UNIT), 8 * UNIT).await.unwrap();
        let refused = room.read(request(6 * UNIT), 8 * UNIT).await.unwrap_err();
        assert_eq!(refused.code(), Code::ServiceUnavailable);
        room.read(request(4 * UNIT), 8 * UNIT).await.unwrap();
        drop(held);
        assert_eq!(room.read(request(8 * UNIT), 8 * UNIT).await.unwrap().bytes.len(), 8 * UNIT);
        let refused = room.read(request(8 * UNIT + 1), 8 * UNIT).await.unwrap_err();
        assert_eq!(refused.code(), Code::TaskPayloadTooLarge);
        assert_eq!(room.0.available_permits(), 10);
    }
}
