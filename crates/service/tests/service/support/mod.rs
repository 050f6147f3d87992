//! What the tests of the service share: the service itself, and the parties that talk to it.

mod amqp;
mod authority;
mod client;
mod farcall;
mod waiting;

pub use amqp::{FakeEndpoint, connection_ends, consume, open, result};
pub use authority::Authority;
pub use client::{Answer, CODE, COMPUTE, Client, PAYLOAD, Registration, endpoint_body, send};
pub use farcall::{Farcall, binary, farcall, service_with_endpoint, with_endpoint};
pub use waiting::{until, within};
