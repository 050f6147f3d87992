//! Reads request bodies, and limits the size of one and of all that are in flight. How slow one may be is decided by
//! [`client_pace`](crate::http::client_pace).
//!
//! ```text
//! up to 1 MiB: arrives in memory -----------------------------------+
//! larger: arrives in a file --complete--> waits until memory is free --+--> handled, in memory
//! ```
//!
//! However many large bodies arrive at a time and however slowly, they take no more memory together than the largest single
//! body may. What is in flight is [shared](identity::fair_shares) by address, and half of it by identity, so that an identity
//! that sends much leaves room for others at the same address.

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
use crate::http::failure::Failure;
use crate::limits::Limits;
use identity::fair_shares::{Share, Shares};
use identity::http::arrival::{network, peer};
use identity::http::interrupted_body::InterruptedBody;

/// Memory and shares are counted in units of so many bytes.
const UNIT: usize = 4 << 10;
/// A larger body arrives in a file.
const LARGE: usize = 1 << 20;
/// How long a large body waits for memory that others use.
const WAIT_FOR_MEMORY: Duration = Duration::from_secs(20);
/// How much of a refused body is read and dropped, and for how long.
const DRAINED: usize = 256 << 20;
const DRAINING: Duration = Duration::from_secs(60);

/// What all bodies together may take. Clones share it.
#[derive(Clone, Debug)]
pub struct BodyRoom {
    by_address: Shares<IpAddr>,
    by_identity: Shares<IdentityId>,
    /// Memory for large bodies.
    memory: Arc<Semaphore>,
    /// Where files are created.
    directory: Arc<Path>,
}

/// A complete body. What it takes is given back when it is dropped.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) bytes: Bytes,
    /// All of a large body.
    file: Option<File>,
    shares: BodyShares,
}

/// A large body that is in its file only.
#[derive(Debug)]
pub(super) struct StoredBody(PartialBody);

impl Body {
    /// Gives the memory of a large body to others while its request waits for something else. Returns a small one.
    pub(super) fn store_in_file(mut self) -> Result<StoredBody, Box<Body>> {
        let Some(file) = self.file.take() else { return Err(Box::new(self)) };
        let Body { bytes, mut shares, .. } = self;
        shares.memory = None;
        Ok(StoredBody(PartialBody { held: Vec::new(), file: Some(file), length: bytes.len(), shares }))
    }
}

/// What a body takes of what all may take.
#[derive(Debug)]
struct BodyShares {
    address: Share<IpAddr>,
    /// Absent if the sender isn't known.
    identity: Option<Share<IdentityId>>,
    memory: Option<OwnedSemaphorePermit>,
}

impl BodyShares {
    fn grow(&mut self, units: usize) -> bool {
        self.address.grow(units) && self.identity.as_mut().is_none_or(|identity| identity.grow(units))
    }
}

/// A body that has arrived in part.
#[derive(Debug)]
struct PartialBody {
    held: Vec<u8>,
    /// What came before, of a large body.
    file: Option<File>,
    length: usize,
    shares: BodyShares,
}

impl BodyRoom {
    /// Files are created in `directory`, without names, so that none is left when the process ends.
    pub fn new(limits: &Limits, directory: &Path) -> BodyRoom {
        let largest = limits.submit_bytes().max(limits.body_bytes).max(LARGE);
        BodyRoom {
            by_address: Shares::new(limits.bodies_in_flight_bytes / UNIT),
            by_identity: Shares::new(limits.bodies_in_flight_bytes / UNIT / 2),
            memory: Arc::new(Semaphore::new(largest.div_ceil(UNIT))),
            directory: directory.into(),
        }
    }

    /// Reads the body of `request`, of at most `limit` bytes. Only what has arrived counts, not what was announced.
    pub(super) async fn read(&self, request: Request, limit: usize) -> Result<Body, Failure> {
        // Compressed bodies are refused: a small one could be large in memory, and the SDK sends none.
        let encoded = request.headers().get(header::CONTENT_ENCODING).is_some_and(|it| it != "identity");
        let announced = request.body().size_hint().lower();
        let shares = self.shares_of(request.extensions())?;
        let mut chunks = request.into_body().into_data_stream();
        let received = if encoded {
            let message = "Content-Encoding: only identity is understood here";
            Err(Failure::new(Code::RequestMalformed, message).with_status(415))
        } else if announced > limit as u64 {
            Err(too_large(limit))
        } else {
            self.receive(&mut chunks, limit, shares).await
        };
        if received.is_err() {
            let _ = tokio::time::timeout(DRAINING, drain(&mut chunks)).await;
        }
        self.load(received?).await
    }

    /// The sender's shares, of which nothing is taken yet.
    fn shares_of(&self, request: &Extensions) -> Result<BodyShares, Failure> {
        let address = self.by_address.take(network(peer(request)), 0).ok_or_else(busy)?;
        let identity = match request.get::<Caller>() {
            Some(&Caller(identity)) => Some(self.by_identity.take(identity, 0).ok_or_else(busy)?),
            None => None,
        };
        Ok(BodyShares { address, identity, memory: None })
    }

    async fn receive(
        &self,
        chunks: &mut BodyDataStream,
        limit: usize,
        shares: BodyShares,
    ) -> Result<PartialBody, Failure> {
        let mut body = PartialBody { held: Vec::new(), file: None, length: 0, shares };
        while let Some(chunk) = chunks.try_next().await.map_err(|error| broken(&error))? {
            let length = body.length + chunk.len();
            if length > limit {
                return Err(too_large(limit));
            }
            let more = length.div_ceil(UNIT) - body.length.div_ceil(UNIT);
            if !body.shares.grow(more) {
                return Err(busy());
            }
            body.held.extend_from_slice(&chunk);
            body.length = length;
            if body.held.len() > LARGE {
                body = self.write_to_file(body).await?;
            }
        }
        Ok(body)
    }

    /// Moves what is in memory of a large body to its file.
    async fn write_to_file(&self, mut body: PartialBody) -> Result<PartialBody, Failure> {
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

    /// Reads a stored body back into memory, once there is some.
    pub(super) async fn read_back(&self, stored: StoredBody) -> Result<Body, Failure> {
        self.load(stored.0).await
    }

    /// Completes a body in memory, once there is some.
    async fn load(&self, mut body: PartialBody) -> Result<Body, Failure> {
        let Some(mut file) = body.file.take() else {
            return Ok(Body { bytes: body.held.into(), file: None, shares: body.shares });
        };
        let needed = u32::try_from(body.length.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let memory = tokio::time::timeout(WAIT_FOR_MEMORY, self.memory.clone().acquire_many_owned(needed));
        let Ok(Ok(memory)) = memory.await else { return Err(busy()) };
        body.shares.memory = Some(memory);
        blocking(move || {
            file.write_all(&std::mem::take(&mut body.held))?;
            let mut bytes = Vec::with_capacity(body.length);
            file.rewind()?;
            file.read_to_end(&mut bytes)?;
            Ok(Body { bytes: bytes.into(), file: Some(file), shares: body.shares })
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(
    act: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(act).await.map_err(io::Error::other);
    done.and_then(|done| done).map_err(|error| {
        tracing::error!(%error, "could not write a large body to a file");
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
    match InterruptedBody::behind(error) {
        Some(interrupted @ InterruptedBody::TooSlow) => {
            Failure::new(Code::RequestMalformed, interrupted.to_string()).with_status(interrupted.status())
        }
        Some(interrupted @ InterruptedBody::MadeRoom) => Failure::unavailable(interrupted.to_string()),
        None => Failure::new(Code::RequestMalformed, "The request's body could not be read"),
    }
}

/// Reads and drops a refused body, up to a point. A client that is still sending when its connection ends would not read
/// the refusal, and would send it all again.
async fn drain(chunks: &mut BodyDataStream) {
    let mut read = 0;
    while let Ok(Some(chunk)) = chunks.try_next().await {
        read += chunk.len();
        if read > DRAINED {
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
        let room = BodyRoom::new(&limits, directory.path());
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
        let room = BodyRoom::new(&limits, directory.path());
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
        let aside = first.store_in_file().unwrap();
        assert_eq!(second.as_mut().await.unwrap().bytes, sent);
        let first = room.read_back(aside).await.unwrap();
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
        let room = BodyRoom::new(&Limits::default(), &directory.path().join("gone"));
        let refused = room.read(request(LARGE + 1), LARGE * 2).await.unwrap_err();
        assert_eq!(refused.code(), Code::ServiceUnavailable);
        room.read(request(LARGE), LARGE * 2).await.unwrap();
    }
}
