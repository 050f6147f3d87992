//! Streams JSON answers piece by piece from the store, so that a large one takes little memory.

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt, stream};

use crate::http::failure::Failure;

/// Answers `open`, the pieces and `close`. If the first piece fails, that is the answer. If a later one does, the connection
/// ends, so that the client doesn't take half an answer for all of it.
pub(super) async fn json(
    open: impl Into<Bytes>,
    pieces: impl Stream<Item = Result<Bytes, Failure>> + Send + 'static,
    close: &'static str,
) -> Result<Response, Failure> {
    let mut pieces = Box::pin(pieces);
    let first = pieces.next().await.transpose()?;
    let whole = stream::iter([Ok(open.into())])
        .chain(stream::iter(first.map(Ok)))
        .chain(pieces)
        .chain(stream::iter([Ok(Bytes::from_static(close.as_bytes()))]))
        .map(|piece| piece.map_err(|_| "the answer could not be completed"));
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from_stream(whole)).into_response())
}
