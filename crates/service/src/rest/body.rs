//! Request bodies: how large one may be, how much of all of them may be in flight, how long one may take.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Bytes, HttpBody};
use axum::extract::Request;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wire::rest::error::Code;

use super::failure::Failure;

/// Bytes of bodies in flight, over all requests. Beyond it, the next one is asked to come again.
const IN_FLIGHT: usize = 256 << 20;
/// The semaphore counts in these.
const UNIT: usize = 1 << 10;
/// A body that has not arrived by then is not waited for.
const ARRIVAL: Duration = Duration::from_secs(60);

/// The room for bodies. Clones share it.
#[derive(Clone, Debug)]
pub struct Room(Arc<Semaphore>);

/// A whole body. Its room is given back when it is dropped.
#[derive(Debug)]
pub struct Body {
    pub bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

impl Default for Room {
    fn default() -> Room {
        Room(Arc::new(Semaphore::new(IN_FLIGHT / UNIT)))
    }
}

impl Room {
    /// Reads the body of `request`, of at most `limit` bytes.
    pub async fn read(&self, request: Request, limit: usize) -> Result<Body, Failure> {
        let too_large = || {
            let message = format!("The request's body exceeds the limit of {limit} bytes");
            Failure::new(Code::TaskPayloadTooLarge, message)
        };
        let size = request.body().size_hint();
        if size.lower() > limit as u64 {
            return Err(too_large());
        }
        // A body that does not say how long it is may become as long as it is allowed to.
        let bytes = size.exact().and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(limit);
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let room = self.0.clone().try_acquire_many_owned(units).map_err(|_| {
            Failure::unavailable("Too many requests are being received at this moment; try again shortly")
        })?;
        let body = request.into_body();
        let arrived = tokio::time::timeout(ARRIVAL, axum::body::to_bytes(body, limit)).await;
        let bytes = arrived
            .map_err(|_| Failure::new(Code::RequestMalformed, "The request's body did not arrive in time"))?
            .map_err(|error| {
                let over = std::error::Error::source(&error)
                    .is_some_and(|source| source.to_string().contains("length limit exceeded"));
                if over {
                    too_large()
                } else {
                    Failure::new(Code::RequestMalformed, "The request's body could not be read")
                }
            })?;
        Ok(Body { bytes, _room: room })
    }
}
