//! An AMQP 0-9-1 server as a library.
//!
//! It knows connections, exchanges, queues and deliveries, and nothing of tasks. It keeps messages in memory only. The
//! program that embeds it (the **embedder**) stores what must survive ([`Sink`], [`Backing`]) and decides who may do
//! what ([`AccessControl`]).
//!
//! ```text
//!  sockets -> server -> driver -> frame -> session -> core     (frame, session and core are pure: no IO, no clock)
//! embedder -> handle, consumer -> driver ------------> core
//! ```

mod access_control;
mod backing;
mod callbacks;
mod clock;
mod config;
mod confirmation;
mod consumer;
mod core;
mod declaration;
mod driver;
mod frame;
mod handle;
mod message;
mod random;
mod server;
mod session;
mod sink;

pub use access_control::{
    AccessControl, Limits, LogInFuture, LoggedIn, Login, Operation, Principal, Refusal,
};
pub use backing::{Backing, Credit, CreditBalance, DropReason, StoredMessage};
pub use config::Config;
pub use confirmation::{Confirm, Confirmation};
pub use consumer::{ConsumeError, ConsumeOptions, Consumer, Delivery};
pub use declaration::{DeclareError, ExchangeKind, Overflow, QueueOptions, Window};
pub use frame::properties::Malformed;
pub use frame::table::BadTable;
pub use handle::{Handle, QueueStats, Stats, WindowEnded};
pub use message::{BadProperties, Message, Properties};
pub use server::{Broker, Listener};
pub use sink::{PublishReply, Published, Sink};
