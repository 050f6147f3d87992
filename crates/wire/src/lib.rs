//! Every byte that crosses between Farcall's parties: ids, messages, payload framing, REST bodies, queue names.
//!
//! It is the contract, so it can be tested by bytes alone. It may never do IO, wait, read a clock or draw an id.
//!
//! | module | holds |
//! |---|---|
//! | [`id`] | one type per kind of id |
//! | [`text`] | long strings that are read without being copied, and written back as they came |
//! | [`message`] | what travels in queues: one version byte, then JSON |
//! | [`buffer`], [`strategy`] | how serialized Python objects are framed, and what their identifiers say |
//! | [`rest`] | the bodies of every HTTP route, of the compute part and of the identity part |
//! | [`queue`] | names of exchanges, queues and headers; the connection information handed out |
//! | [`start`] | the command that starts a user endpoint, and the document that endpoint reads |
//! | [`control`] | what Farcall adds of its own |
//! | [`json`] | the one way in for a JSON document: bounded, and with errors that name the field |
//!
//! A new body gets its type here, a golden file under `tests/golden/` and a line in the table of
//! `tests/golden/mod.rs`; the tests then try it in both directions and break it in a thousand ways.

pub mod buffer;
pub mod control;
pub mod id;
pub mod json;
pub mod message;
pub mod queue;
pub mod rest;
pub mod start;
pub mod strategy;
pub mod text;

pub use id::{
    BlockId, ClientId, ContainerId, EndpointId, FunctionId, GroupId, IdentityId, PolicyId, ProjectId,
    RequestId, RunId, SubscriptionId, TaskGroupId, TaskId,
};
pub use text::Text;
