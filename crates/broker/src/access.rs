//! Who may do what: the owner's rules, asked by the broker.
//!
//! The broker keeps no users and no permissions. It asks the owner through [`AccessControl`]: once, asynchronously, at
//! the log-in, and then synchronously **at each operation**, so that a change of the owner's table takes effect with
//! the next method a client sends. A connection that is open when its user is locked is ended with
//! [`Handle::disconnect_user`](crate::Handle::disconnect_user).

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use crate::handle::QueueOptions;

/// What a log-in asks of the owner, boxed so that [`AccessControl`] can be a trait object.
pub type LogInFuture<'a> = Pin<Box<dyn Future<Output = Result<LoggedIn, Refusal>> + Send + 'a>>;

/// The owner's rules.
///
/// Everything but [`log_in`](AccessControl::log_in) is called while the broker's state is locked: answer from a table in
/// memory, never block, and never call the [`Handle`](crate::Handle) from inside (it would wait for itself).
pub trait AccessControl: Send + Sync + 'static {
    /// Is this who they say they are? At most [`Config::log_ins`](crate::Config::log_ins) of these run at a time.
    fn log_in<'a>(&'a self, login: Login) -> LogInFuture<'a>;

    /// May they do this now? `false` becomes 403 ACCESS_REFUSED on the channel (530 NOT_ALLOWED on the connection
    /// for [`Operation::Open`]).
    fn may(&self, who: &Principal, operation: &Operation<'_>) -> bool;

    /// Someone who [`may`](AccessControl::may) consume or get from `queue`, or declares it passively, and it does not
    /// exist here. `Some` makes it real with these options; `None` answers 404 NOT_FOUND.
    fn unknown_queue(&self, who: &Principal, queue: &str) -> Option<QueueOptions> {
        let _ = (who, queue);
        None
    }
}

/// One attempt to log in (SASL PLAIN; an AMQPLAIN client is told that only PLAIN is offered).
#[derive(Clone)]
pub struct Login {
    pub user: String,
    pub password: String,
    /// `None` for a stream handed over without an address.
    pub peer: Option<SocketAddr>,
    pub tls: bool,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// A log-in that succeeded.
#[derive(Debug, Clone)]
pub struct LoggedIn {
    pub principal: Principal,
    pub limits: Limits,
}

/// Why a log-in did not succeed. The difference matters: a client that reads "wrong password" may give up for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// These credentials are wrong: 403 ACCESS_REFUSED.
    Denied,
    /// They were right once and open nothing any more: the same, with why.
    Ended(String),
    /// The owner can't say now. The client is asked to come again (its connection ends without a 403, and after the
    /// state in which pika takes a lost connection for wrong credentials).
    Unavailable,
}

/// Somebody who has logged in. Cloning is cheap.
#[derive(Clone)]
pub struct Principal {
    user: Arc<str>,
    holder: Option<Arc<str>>,
    attachment: Option<Arc<dyn Any + Send + Sync>>,
}

impl Principal {
    pub fn new(user: impl Into<Arc<str>>) -> Principal {
        Principal { user: user.into(), holder: None, attachment: None }
    }

    /// Carries something of the owner's, read back with [`Principal::get`]: so that
    /// [`AccessControl::may`] needs no look-up by name.
    pub fn with(mut self, attachment: Arc<dyn Any + Send + Sync>) -> Principal {
        self.attachment = Some(attachment);
        self
    }

    /// Whose share of what all use its connections take, together with those of others that name the same; otherwise its own.
    pub fn counted_for(mut self, holder: impl Into<Arc<str>>) -> Principal {
        self.holder = Some(holder.into());
        self
    }

    pub(crate) fn holder(&self) -> &Arc<str> {
        self.holder.as_ref().unwrap_or(&self.user)
    }

    pub fn user(&self) -> &str {
        &self.user
    }

    pub fn get<T: Any>(&self) -> Option<&T> {
        self.attachment.as_ref().and_then(|it| it.downcast_ref())
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.user
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Principal").field(&self.user).finish()
    }
}

/// What somebody is about to do. The default exchange has the empty name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation<'a> {
    /// The last step of the handshake; asked again for each new connection.
    Open {
        virtual_host: &'a str,
    },
    DeclareExchange {
        exchange: &'a str,
        passive: bool,
    },
    DeleteExchange {
        exchange: &'a str,
    },
    /// Bind or unbind an exchange to another. Messages flow from `source` to `destination`.
    BindExchange {
        destination: &'a str,
        source: &'a str,
        routing_key: &'a str,
    },
    DeclareQueue {
        queue: &'a str,
        passive: bool,
    },
    DeleteQueue {
        queue: &'a str,
    },
    PurgeQueue {
        queue: &'a str,
    },
    /// Bind or unbind a queue.
    Bind {
        queue: &'a str,
        exchange: &'a str,
        routing_key: &'a str,
    },
    /// The key matters: many may publish into one exchange, each under its own key.
    Publish {
        exchange: &'a str,
        routing_key: &'a str,
    },
    Consume {
        queue: &'a str,
    },
    Get {
        queue: &'a str,
    },
}

/// What one logged-in connection may use. Defaults suit a well-behaved client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections of this user; one more is refused with 530 NOT_ALLOWED.
    pub connections: usize,
    /// Channels per connection, offered in Tune.
    pub channels: u16,
    /// Consumers per connection; one more is refused with 506 RESOURCE_ERROR.
    pub consumers: usize,
    /// Largest message body. Larger ones close the channel with 311 CONTENT_TOO_LARGE.
    pub body: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { connections: 1_000, channels: 2_047, consumers: 10_000, body: 128 << 20 }
    }
}
