//! Request bodies: how large one may be, how much of all of them may be in flight, how long one may take.
//!
//! ```text
//! arriving, up to 1 MiB: in memory --------------------------+
//! arriving, larger: in a file --whole--> waits for a place --+--> worked on, in memory
//! ```
//!
//! However many large bodies arrive at a time and however slowly, memory holds as much of them as the largest single
//! body may measure.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{BodyDataStream, HttpBody};
use axum::extract::Request;
use axum::http::header;
use bytes::Bytes;
use futures_util::TryStreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wire::rest::error::Code;

use super::failure::Failure;
use crate::limits::Limits;
use crate::store;

/// The semaphores count in these.
const UNIT: usize = 4 << 10;
/// What is larger is large: it arrives in a file.
const LARGE: usize = 1 << 20;
/// How long a large body waits for others that are worked on.
const TURN: Duration = Duration::from_secs(20);
/// How much of a refused body is let pass by.
const PASSED: usize = 256 << 20;
/// The room for bodies. Clones share it.
#[derive(Clone, Debug)]
pub struct Room {
    free: Arc<Semaphore>,
    /// Memory for large bodies.
    memory: Arc<Semaphore>,
    /// Where files are made.
    directory: Arc<Path>,
    /// A body that has not arrived by then is not waited for.
    arrival: Duration,
}

/// A whole body. Its room is given back when it is dropped.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) bytes: Bytes,
    _room: Taken,
}

/// What a body takes of the room.
#[derive(Debug, Default)]
struct Taken {
    room: Option<OwnedSemaphorePermit>,
    _memory: Option<OwnedSemaphorePermit>,
}

/// What has arrived of a body.
#[derive(Debug)]
struct Arriving {
    held: Vec<u8>,
    /// Of a large one: what came before.
    file: Option<File>,
    length: usize,
    taken: Taken,
}

impl Room {
    /// Files are made in `directory`, without names: none is left when the process ends.
    pub fn new(limits: &Limits, directory: &Path) -> Room {
        let largest = limits.submit_bytes().max(limits.body_bytes).max(LARGE);
        Room {
            free: Arc::new(Semaphore::new(limits.bodies_in_flight_bytes / UNIT)),
            memory: Arc::new(Semaphore::new(largest.div_ceil(UNIT))),
            directory: directory.into(),
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
        let received = tokio::time::timeout(self.arrival, received).await.unwrap_or_else(|_| {
            let message = "The request's body did not arrive in time";
            Err(Failure::new(Code::RequestMalformed, message).with_status(408))
        })?;
        self.whole(received).await
    }

    async fn receive(&self, chunks: &mut BodyDataStream, limit: usize) -> Result<Arriving, Failure> {
        let mut body = Arriving { held: Vec::new(), file: None, length: 0, taken: Taken::default() };
        let broken = |_| Failure::new(Code::RequestMalformed, "The request's body could not be read");
        while let Some(chunk) = chunks.try_next().await.map_err(broken)? {
            let length = body.length + chunk.len();
            if length > limit {
                return Err(too_large(limit));
            }
            let more = length.div_ceil(UNIT) - body.length.div_ceil(UNIT);
            let more = self.free.clone().try_acquire_many_owned(u32::try_from(more).unwrap_or(u32::MAX));
            let more = more.map_err(|_| busy())?;
            match &mut body.taken.room {
                Some(room) => room.merge(more),
                None => body.taken.room = Some(more),
            }
            body.held.extend_from_slice(&chunk);
            body.length = length;
            if body.held.len() > LARGE {
                body = self.aside(body).await?;
            }
        }
        Ok(body)
    }

    /// Puts what is held of a large body into its file.
    async fn aside(&self, mut body: Arriving) -> Result<Arriving, Failure> {
        let directory = self.directory.clone();
        blocking(move || {
            let mut file = match body.file.take() {
                Some(file) => file,
                None => store::scratch(&directory)?,
            };
            file.write_all(&body.held)?;
            body.held.clear();
            body.file = Some(file);
            Ok(body)
        })
        .await
    }

    /// All of a body in memory, when there is a place for it.
    async fn whole(&self, mut body: Arriving) -> Result<Body, Failure> {
        let Some(mut file) = body.file.take() else {
            return Ok(Body { bytes: body.held.into(), _room: body.taken });
        };
        let needed = u32::try_from(body.length.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let memory = tokio::time::timeout(TURN, self.memory.clone().acquire_many_owned(needed));
        let Ok(Ok(memory)) = memory.await else { return Err(busy()) };
        body.taken._memory = Some(memory);
        blocking(move || {
            let mut bytes = Vec::with_capacity(body.length);
            file.rewind()?;
            file.read_to_end(&mut bytes)?;
            bytes.append(&mut body.held);
            Ok(Body { bytes: bytes.into(), _room: body.taken })
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(
    act: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(act).await.map_err(io::Error::other);
    done.and_then(|done| done).map_err(|error| {
        tracing::error!(%error, "a large body could not be put into a file");
        Failure::unavailable("The service has no room for the request's body; try again later")
    })
}

fn busy() -> Failure {
    Failure::unavailable("Too much is being received at this moment; try again shortly")
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
    let message = format!(
        "The request's body takes more than {limit} bytes (limits.payload_bytes of the service for a submit, \
         limits.body_bytes for other requests). Put large data into a file that the endpoint can read, and send its name"
    );
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
        let directory = tempfile::tempdir().unwrap();
        let room = Room::new(&limits, directory.path());
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

    #[tokio::test]
    async fn large_bodies_take_turns_in_memory_and_come_whole() {
        let limits = Limits { body_bytes: 20 << 20, payload_bytes: 0, ..Limits::default() };
        let directory = tempfile::tempdir().unwrap();
        let room = Room::new(&limits, directory.path());
        let mut chunks: Vec<Vec<u8>> = (0..=255).map(|n| vec![n; 50_000]).collect();
        chunks.insert(3, vec![7; 2 << 20]);
        let sent = chunks.concat();
        let body = || {
            let chunks = chunks.clone().into_iter().map(Ok::<_, std::convert::Infallible>);
            Request::new(axum::body::Body::from_stream(futures_util::stream::iter(chunks)))
        };
        let first = room.read(body(), 20 << 20).await.unwrap();
        assert_eq!(first.bytes, sent);
        let second = room.read(body(), 20 << 20);
        tokio::pin!(second);
        let waits = tokio::time::timeout(Duration::from_millis(200), second.as_mut()).await;
        assert!(waits.is_err(), "there is memory for one of them");
        // What is small does not wait for those that are large.
        room.read(request(LARGE), LARGE).await.unwrap();
        drop(first);
        assert_eq!(second.await.unwrap().bytes, sent);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "files have no names");
        let all = limits.bodies_in_flight_bytes / UNIT;
        assert_eq!(
            (room.free.available_permits(), room.memory.available_permits()),
            (all, (20 << 20) / UNIT)
        );
    }

    #[tokio::test]
    async fn without_room_for_files_small_ones_are_taken_all_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let room = Room::new(&Limits::default(), &directory.path().join("gone"));
        let refused = room.read(request(LARGE + 1), LARGE * 2).await.unwrap_err();
        assert_eq!(refused.code(), Code::ServiceUnavailable);
        room.read(request(LARGE), LARGE * 2).await.unwrap();
        assert_eq!(room.free.available_permits(), Limits::default().bodies_in_flight_bytes / UNIT);
    }
}
