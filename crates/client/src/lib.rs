//! Speaks to a Farcall service (or any Globus Compute service): REST with retries, tokens, one supervised AMQP
//! connection.
//!
//! It may never decide what a message means: it carries. It never reads the environment or a configuration file either:
//! [`place`] is told what they say.

mod ambient;
pub mod amqp;
mod backoff;
mod error;
pub mod login;
pub mod place;
mod rest;
mod retry;
mod session;
pub mod storage;
mod tls;
mod token;

pub use error::{Error, Refusal};
pub use place::Place;
pub use rest::Service;
pub use session::Who;
pub use tls::Trust;
pub use token::Credentials;
