//! An AMQP 0-9-1 server as a library.
//!
//! It knows connections, exchanges, queues and deliveries, and may never learn one word of tasks. It keeps messages
//! in memory only: durability belongs to the owner ([`Sink`], [`Backing`]), as does the question who may do what
//! ([`AccessControl`]).
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

pub use access::{AccessControl, Limits, LogInFuture, LoggedIn, Login, Operation, Principal, Refusal};
pub use config::Config;
pub use consumer::{Consumer, Delivery};
pub use frame::properties::Malformed;
pub use frame::table::BadTable;
pub use handle::{
    Confirm, Confirmation, ConsumeError, ConsumeOptions, DeclareError, ExchangeKind, Handle, Overflow,
    QueueOptions, QueueStats, Stats, Window, WindowEnded,
};
pub use message::{BadProperties, Message, Properties};
pub use owner::{Backing, Credit, CreditBalance, DropReason, PublishReply, Published, Sink, StoredMessage};
pub use server::{Broker, Listener};
