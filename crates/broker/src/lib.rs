//! An AMQP 0-9-1 server as a library.
//!
//! It knows connections, exchanges, queues and deliveries, and may never learn one word of tasks. It keeps messages
//! in memory only: durability belongs to the owner ([`Sink`], [`Backing`]), as does the question who may do what
//! ([`Access`]).
//!
//! ```text
//! sockets -> server -> frame -> session -> core      (pure: frame, session, core)
//!                        owner  -> handle ---^
//! ```

mod access;
mod ambient;
mod config;
mod consumer;
mod core;
mod frame;
mod handle;
mod message;
mod owner;
mod server;
mod session;
mod state;

pub use access::{Access, Limits, LogInFuture, LoggedIn, Login, Operation, Principal, Refusal};
pub use config::Config;
pub use consumer::{Consumer, Delivery};
pub use frame::properties::Malformed;
pub use frame::table::BadTable;
pub use handle::{
    Confirm, ConsumeError, ConsumeOptions, DeclareError, ExchangeKind, Handle, Outcome, Overflow,
    QueueOptions, QueueStats, Stale, Stats, Window,
};
pub use message::{BadProperties, Message, Properties};
pub use owner::{Answer, Backing, Demand, Fed, Published, Sink, Want, Why};
pub use server::{Broker, Listener};
