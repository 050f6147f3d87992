//! Memory for large answers: how much of it the answers that one caller has not read yet may take.
//!
//! A caller who asks for large results and reads nothing would otherwise fill the memory, one connection at a time. Each
//! large answer takes a [share](identity::fair_shares) for its caller before its value is read from the store, and holds it
//! until the connection has taken the last of its bytes. Beyond the share, requests are refused: 503, try again.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use wire::IdentityId;

use crate::http::failure::Failure;
use crate::limits::Limits;
use identity::fair_shares::{Share, Shares};

/// What is smaller is not counted: most answers are, and an identity has a bounded number of connections.
const SMALL: usize = 4 << 10;
/// What is larger may be a value that takes minutes to read. Smaller answers have memory of their own, so that they go on.
const LARGE: usize = 1 << 20;

/// The memory for answers. Clones share it.
#[derive(Clone, Debug)]
pub struct UnreadAnswers {
    by_identity: Shares<IdentityId>,
    /// For answers that are not large.
    smaller: Shares<IdentityId>,
    /// A single answer counts for this much at most, so that the largest is not refused for ever.
    most_for_one: usize,
}

/// The memory that one answer takes, to be given back with the last of its [bytes](AnswerMemory::bytes).
#[derive(Clone, Debug)]
pub(super) struct AnswerMemory(Option<Arc<Share<IdentityId>>>);

/// Bytes of an answer, with the memory that they take.
struct Counted {
    bytes: Vec<u8>,
    _memory: AnswerMemory,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl UnreadAnswers {
    pub fn new(limits: &Limits) -> UnreadAnswers {
        let size = limits.bodies_in_flight_bytes / 2;
        UnreadAnswers {
            by_identity: Shares::new(size),
            smaller: Shares::new(size / 4),
            most_for_one: size / 4,
        }
    }

    /// Memory for an answer of about so many bytes to `caller`.
    pub(super) fn take(&self, caller: IdentityId, bytes: usize) -> Result<AnswerMemory, Failure> {
        if bytes < SMALL {
            return Ok(AnswerMemory(None));
        }
        let shares = if bytes < LARGE { &self.smaller } else { &self.by_identity };
        let share = shares.take(caller, bytes.min(self.most_for_one)).ok_or_else(|| {
            Failure::unavailable(
                "Too many large answers to you have not been read yet; read them, or try again shortly \
                 (limits.bodies_in_flight_bytes)",
            )
        })?;
        Ok(AnswerMemory(Some(Arc::new(share))))
    }

    /// An answer to `caller` whose size is known only now. The store has few readers, so that little can have been read
    /// that is not counted yet.
    pub(super) fn json(&self, caller: IdentityId, content: &impl Serialize) -> Result<Response, Failure> {
        let bytes = wire::json::encode(content);
        Ok(self.take(caller, bytes.len())?.answer(bytes))
    }
}

impl AnswerMemory {
    /// `bytes` of the answer, which give the memory back once they have been sent.
    pub(super) fn bytes(&self, bytes: Vec<u8>) -> Bytes {
        match &self.0 {
            Some(_) => Bytes::from_owner(Counted { bytes, _memory: self.clone() }),
            None => bytes.into(),
        }
    }

    /// The whole answer.
    pub(super) fn json(&self, content: &impl Serialize) -> Response {
        self.answer(wire::json::encode(content))
    }

    fn answer(&self, bytes: Vec<u8>) -> Response {
        let body = Body::from(self.bytes(bytes));
        ([(header::CONTENT_TYPE, "application/json")], body).into_response()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn an_answer_counts_for_its_caller_until_its_last_byte_is_sent() {
        let limits = Limits { bodies_in_flight_bytes: 80 * LARGE, ..Limits::default() };
        let answers = UnreadAnswers::new(&limits);
        let [first, second] = [1, 2].map(|n| IdentityId::from_uuid(Uuid::from_u128(n)));
        let memory = answers.take(first, 10 * LARGE).unwrap();
        let mut bytes = memory.bytes(vec![0; 10 * LARGE]);
        drop(memory);
        let largest = answers.take(first, 1_000 * LARGE).unwrap();
        assert!(answers.take(first, LARGE).is_err(), "a quarter of bodies_in_flight_bytes is taken");
        let smaller = answers.take(first, LARGE - 1).unwrap();
        assert!(smaller.0.is_some(), "smaller ones have memory of their own");
        assert!(answers.take(first, SMALL - 1).unwrap().0.is_none(), "small ones are not counted");
        assert!(answers.take(second, 1_000 * LARGE).is_ok(), "others have room for the largest");
        drop(bytes.split_to(10 * LARGE - 1));
        assert!(answers.take(first, LARGE).is_err(), "its memory is held by the last byte");
        drop(bytes);
        assert!(answers.take(first, LARGE).is_ok());
        drop(largest);
        assert!(answers.take(first, 1_000 * LARGE).is_ok());
    }
}
