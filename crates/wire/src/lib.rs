//! Every byte that crosses between Farcall's parties: ids, messages, payload framing, REST bodies, queue names.
//!
//! This crate is the contract between the parties, and is tested by bytes alone. It may never do IO, wait, read a clock or
//! generate an id.
//!
//! | module | holds |
//! |---|---|
//! | [`id`] | one type per kind of id |
//! | [`json_text`] | long JSON strings that are read without a copy and written back as they came |
//! | [`message`] | the messages in queues: one version byte, then JSON |
//! | [`buffer`], [`serialization_strategy`] | how serialized Python objects are framed, and what their identifiers mean |
//! | [`rest`] | the bodies of every HTTP route, of the compute part and of the identity part |
//! | [`queue`] | names of exchanges, queues and headers; the connection information that endpoints and clients get |
//! | [`start_document`] | the command that starts a user endpoint, and the document that endpoint reads |
//! | [`extensions`] | what Farcall adds to upstream's protocol |
//! | [`json`] | reading any JSON document: bounded, and with errors that name the field |
//!
//! A new body gets its type here, a golden file under `tests/golden/` and a line in the table of
//! `tests/golden/mod.rs`. The tests then read and write it, and try it with a thousand mutations.

pub mod buffer;
pub mod extensions;
pub mod id;
pub mod json;
pub mod json_text;
pub mod message;
pub mod queue;
pub mod rest;
pub mod serialization_strategy;
pub mod start_document;

pub use id::{
    BlockId, ClientId, ContainerId, EndpointId, FunctionId, GroupId, IdentityId, PolicyId, ProjectId,
    RequestId, RunId, SubscriptionId, TaskGroupId, TaskId,
};
pub use json_text::Text;
