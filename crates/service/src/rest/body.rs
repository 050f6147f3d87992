//! Request bodies: how large one may be, and how much of all of them may be in flight. How long one may take is
//! decided by its [pace](crate::http::client_pace).
//!
//! ```text
//! arriving, up to 1 MiB: in memory --------------------------+
//! arriving, larger: in a file --whole--> waits for a place --+--> worked on, in memory
//! ```
//!
//! However many large bodies arrive at a time and however slowly, memory holds as much of them as the largest single
//! body may measure. The room is [shared](crate::fair_shares) twice: by address, and half of it by identity, so that whoever
//! sends much leaves room for others from the same address, too.

use std::error::Error;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{BodyDataStream, HttpBody};
use axum::extract::Request;
use axum::http::{Extensions, header};
use bytes::Bytes;
use futures_util::TryStreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wire::IdentityId;
use wire::rest::error::Code;

use super::caller::Caller;
use crate::fair_shares::{Share, Shares};
use crate::http::client_pace::{MadeRoom, TooSlow};
use crate::http::failure::Failure;
use crate::limits::Limits;
use identity::http::arrival::{network, peer};

/// The semaphores count in these.
const UNIT: usize = 4 << 10;
/// What is larger is large: it arrives in a file.
const LARGE: usize = 1 << 20;
/// How long a large body waits for others that are worked on.
const TURN: Duration = Duration::from_secs(20);
/// How much of a refused body is let pass by, and for how long.
const PASSED: usize = 256 << 20;
const PASSING: Duration = Duration::from_secs(60);

/// The room for bodies. Clones share it.
#[derive(Clone, Debug)]
pub struct Room {
    by_address: Shares<IpAddr>,
    by_identity: Shares<IdentityId>,
    /// Memory for large bodies.
    memory: Arc<Semaphore>,
    /// Where files are made.
    directory: Arc<Path>,
}

/// A whole body. Its room is given back when it is dropped.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) bytes: Bytes,
    /// Of a large one: all of it.
    file: Option<File>,
    taken: Taken,
}

/// A large body that nobody works on: it waits in its file.
#[derive(Debug)]
pub(super) struct Aside(Arriving);

impl Body {
    /// Gives the memory of a large body to others, for as long as something else is waited for.
    pub(super) fn set_aside(mut self) -> Result<Aside, Box<Body>> {
        let Some(file) = self.file.take() else { return Err(Box::new(self)) };
        let Body { bytes, mut taken, .. } = self;
        taken.memory = None;
        Ok(Aside(Arriving { held: Vec::new(), file: Some(file), length: bytes.len(), taken }))
    }
}

/// What a body takes of the room.
#[derive(Debug)]
struct Taken {
    address: Share<IpAddr>,
    /// Of one whose sender is known.
    identity: Option<Share<IdentityId>>,
    memory: Option<OwnedSemaphorePermit>,
}

impl Taken {
    fn grow(&mut self, units: usize) -> bool {
        self.address.grow(units) && self.identity.as_mut().is_none_or(|identity| identity.grow(units))
    }
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
            by_address: Shares::new(limits.bodies_in_flight_bytes / UNIT),
            by_identity: Shares::new(limits.bodies_in_flight_bytes / UNIT / 2),
            memory: Arc::new(Semaphore::new(largest.div_ceil(UNIT))),
            directory: directory.into(),
        }
    }

    /// Reads the body of `request`, of at most `limit` bytes. Room is taken as it arrives: a promise takes none.
    pub(super) async fn read(&self, request: Request, limit: usize) -> Result<Body, Failure> {
        // What is small on the way and large in memory is not taken: no client of ours compresses.
        let encoded = request.headers().get(header::CONTENT_ENCODING).is_some_and(|it| it != "identity");
        let promised = request.body().size_hint().lower();
        let taken = self.taken(request.extensions())?;
        let mut chunks = request.into_body().into_data_stream();
        let received = if encoded {
            let message = "Content-Encoding: only identity is understood here";
            Err(Failure::new(Code::RequestMalformed, message).with_status(415))
        } else if promised > limit as u64 {
            Err(too_large(limit))
        } else {
            self.receive(&mut chunks, limit, taken).await
        };
        if received.is_err() {
            let _ = tokio::time::timeout(PASSING, drain(&mut chunks)).await;
        }
        self.whole(received?).await
    }

    /// The shares of whoever sends a request; nothing of them is taken yet.
    fn taken(&self, request: &Extensions) -> Result<Taken, Failure> {
        let address = self.by_address.take(network(peer(request)), 0).ok_or_else(busy)?;
        let identity = match request.get::<Caller>() {
            Some(&Caller(identity)) => Some(self.by_identity.take(identity, 0).ok_or_else(busy)?),
            None => None,
        };
        Ok(Taken { address, identity, memory: None })
    }

    async fn receive(
        &self,
        chunks: &mut BodyDataStream,
        limit: usize,
        taken: Taken,
    ) -> Result<Arriving, Failure> {
        let mut body = Arriving { held: Vec::new(), file: None, length: 0, taken };
        while let Some(chunk) = chunks.try_next().await.map_err(|error| broken(&error))? {
            let length = body.length + chunk.len();
            if length > limit {
                return Err(too_large(limit));
            }
            let more = length.div_ceil(UNIT) - body.length.div_ceil(UNIT);
            if !body.taken.grow(more) {
                return Err(busy());
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

    /// A body that was set aside, in memory again.
    pub(super) async fn take_up(&self, aside: Aside) -> Result<Body, Failure> {
        self.whole(aside.0).await
    }

    /// All of a body in memory, when there is a place for it.
    async fn whole(&self, mut body: Arriving) -> Result<Body, Failure> {
        let Some(mut file) = body.file.take() else {
            return Ok(Body { bytes: body.held.into(), file: None, taken: body.taken });
        };
        let needed = u32::try_from(body.length.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let memory = tokio::time::timeout(TURN, self.memory.clone().acquire_many_owned(needed));
        let Ok(Ok(memory)) = memory.await else { return Err(busy()) };
        body.taken.memory = Some(memory);
        blocking(move || {
            file.write_all(&std::mem::take(&mut body.held))?;
            let mut bytes = Vec::with_capacity(body.length);
            file.rewind()?;
            file.read_to_end(&mut bytes)?;
            Ok(Body { bytes: bytes.into(), file: Some(file), taken: body.taken })
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
    Failure::unavailable(
        "Too many request bodies of yours, or from your address, are being received; try again shortly \
         (limits.bodies_in_flight_bytes)",
    )
}

fn broken(error: &axum::Error) -> Failure {
    let mut cause: Option<&dyn Error> = Some(error);
    while let Some(error) = cause {
        if error.is::<TooSlow>() {
            let message = "The request's body did not arrive in time: it came slower than \
                           limits.body_bytes_per_second or took longer than limits.body_seconds";
            return Failure::new(Code::RequestMalformed, message).with_status(408);
        }
        if error.is::<MadeRoom>() {
            return Failure::unavailable(
                "Too many connections from your address are open, and this one sent nothing for longest; try again \
                 shortly (limits.http_connections)",
            );
        }
        cause = error.source();
    }
    Failure::new(Code::RequestMalformed, "The request's body could not be read")
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
    use identity::http::arrival::Arrival;

    fn request(size: usize) -> Request {
        Request::new(axum::body::Body::from(vec![0; size]))
    }

    /// A request of `size` bytes, by identity number `who` from address `from`.
    fn sent(size: usize, who: u128, from: u8) -> Request {
        let mut request = request(size);
        let at = std::net::SocketAddr::from(([127, 0, 0, 1], 5000));
        let peer = std::net::SocketAddr::from(([192, 0, 2, from], 1));
        request.extensions_mut().insert(Arrival { at, tls: false, peer, metrics: false, forwarder: None });
        request.extensions_mut().insert(Caller(IdentityId::from_uuid(uuid::Uuid::from_u128(who))));
        request
    }

    #[tokio::test]
    async fn an_identity_has_a_quarter_and_an_address_half_of_what_others_leave() {
        let limits = Limits { bodies_in_flight_bytes: 40 * UNIT, ..Limits::default() };
        let directory = tempfile::tempdir().unwrap();
        let room = Room::new(&limits, directory.path());
        let read = async |units: usize, who, from| room.read(sent(units * UNIT, who, from), 50 * UNIT).await;
        let held = read(10, 1, 1).await.unwrap();
        for from in [1, 2] {
            assert_eq!(read(1, 1, from).await.unwrap_err().code(), Code::ServiceUnavailable, "from anywhere");
        }
        let second = read(5, 2, 1).await.unwrap();
        let third = read(2, 3, 1).await.unwrap();
        assert_eq!(read(2, 4, 1).await.unwrap_err().code(), Code::ServiceUnavailable);
        read(1, 4, 1).await.unwrap();
        // Identities alone never take all that their address has: what is sent without one finds room.
        let nobody = room.by_address.take(network([192, 0, 2, 1].into()), 3);
        assert!(nobody.is_some());
        assert!(room.by_address.take(network([192, 0, 2, 1].into()), 1).is_none(), "half of the room");
        assert!(room.by_address.take(network([192, 0, 2, 2].into()), 10).is_some(), "half of the rest");
        drop((held, second, third, nobody));
        assert_eq!(read(10, 1, 1).await.unwrap().bytes.len(), 10 * UNIT);
        assert_eq!(read(51, 1, 1).await.unwrap_err().code(), Code::TaskPayloadTooLarge);
        assert!(room.by_address.take([192, 0, 2, 1].into(), 20).is_some(), "all was given back");
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
        // While it waits for something else, another one has its turn.
        let aside = first.set_aside().unwrap();
        assert_eq!(second.as_mut().await.unwrap().bytes, sent);
        let first = room.take_up(aside).await.unwrap();
        assert_eq!(first.bytes, sent);
        let second = room.read(body(), 20 << 20);
        tokio::pin!(second);
        let waits = tokio::time::timeout(Duration::from_millis(200), second.as_mut()).await;
        assert!(waits.is_err());
        // What is small does not wait for those that are large.
        room.read(request(LARGE), LARGE).await.unwrap();
        drop(first);
        assert_eq!(second.await.unwrap().bytes, sent);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "files have no names");
        assert_eq!(room.memory.available_permits(), (20 << 20) / UNIT);
    }

    #[tokio::test]
    async fn without_room_for_files_small_ones_are_taken_all_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let room = Room::new(&Limits::default(), &directory.path().join("gone"));
        let refused = room.read(request(LARGE + 1), LARGE * 2).await.unwrap_err();
        assert_eq!(refused.code(), Code::ServiceUnavailable);
        room.read(request(LARGE), LARGE * 2).await.unwrap();
    }
}
