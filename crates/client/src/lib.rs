//! The client of a Farcall service (or any Globus Compute service): REST with retries, tokens, one supervised AMQP
//! connection.
//!
//! This crate transports messages and never decides what one means. It never reads the environment or a configuration
//! file: callers pass what these say (see [`service_address`]).

mod access_tokens;
pub mod amqp;
mod backoff;
mod clock;
mod credentials;
mod error;
mod http;
pub mod login;
mod random;
mod retry;
mod service;
pub mod service_address;
pub mod token_store;
mod trust;

pub use access_tokens::TokenSource;
pub use credentials::Credentials;
pub use error::{Error, Refusal};
pub use service::Service;
pub use service_address::ServiceAddress;
pub use trust::Trust;
