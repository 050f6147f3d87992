//! Access control: the embedder decides who may log in and what they may do.
//!
//! The broker keeps no users and no permissions. It asks the embedder through [`AccessControl`]: once, asynchronously,
//! at the log-in, and then synchronously **at each operation**, so that a change of permissions applies to the next
//! method that a client sends. To end connections that are open, for example of a locked user, call
//! [`Handle::disconnect_user`](crate::Handle::disconnect_user).

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use crate::declaration::QueueOptions;

/// The embedder's check of a log-in, boxed so that [`AccessControl`] can be a trait object.
pub type LogInFuture<'a> = Pin<Box<dyn Future<Output = Result<LoggedIn, Refusal>> + Send + 'a>>;

/// The embedder's permissions.
///
/// Everything but [`log_in`](AccessControl::log_in) is called while the broker's state is locked: reply from a table in
/// memory, never block, and never call the [`Handle`](crate::Handle) from inside (it would wait for itself).
pub trait AccessControl: Send + Sync + 'static {
    /// Checks credentials. At most [`Config::log_ins`](crate::Config::log_ins) of these run at a time.
    fn log_in<'a>(&'a self, login: Login) -> LogInFuture<'a>;

    /// Whether `who` may do this now. `false` becomes 403 ACCESS_REFUSED on the channel (530 NOT_ALLOWED on the
    /// connection for [`Operation::Open`]).
    fn may(&self, who: &Principal, operation: &Operation<'_>) -> bool;

    /// Called when `who` consumes or gets from a queue that does not exist, or declares it passively, and
    /// [`may`](AccessControl::may) do so. `Some` declares the queue with these options; `None` sends 404 NOT_FOUND.
    fn unknown_queue(&self, who: &Principal, queue: &str) -> Option<QueueOptions> {
        let _ = (who, queue);
        None
    }
}

/// One attempt to log in, by SASL PLAIN. A client that asks for AMQPLAIN is refused: only PLAIN is offered.
#[derive(Clone)]
pub struct Login {
    pub user: String,
    pub password: String,
    /// `None` for a stream that was handed over without an address.
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
    /// These credentials were valid and are no longer: 403 ACCESS_REFUSED with this reason.
    Ended(String),
    /// The embedder can't check them now. The client is asked to try again: its connection ends without a 403, and after
    /// the state in which pika takes a lost connection for wrong credentials.
    Unavailable,
}

/// A user who has logged in. Cloning is cheap.
#[derive(Clone)]
pub struct Principal {
    user: Arc<str>,
    quota_owner: Option<Arc<str>>,
    attachment: Option<Arc<dyn Any + Send + Sync>>,
}

impl Principal {
    pub fn new(user: impl Into<Arc<str>>) -> Principal {
        Principal { user: user.into(), quota_owner: None, attachment: None }
    }

    /// Attaches a value of the embedder's, which [`AccessControl::may`] reads back with [`Principal::get`] instead of
    /// looking the user up by name.
    pub fn with(mut self, attachment: Arc<dyn Any + Send + Sync>) -> Principal {
        self.attachment = Some(attachment);
        self
    }

    /// Counts what this user takes of shared quotas for `quota_owner`, together with others that name the same one.
    /// Otherwise each user counts alone.
    pub fn counted_for(mut self, quota_owner: impl Into<Arc<str>>) -> Principal {
        self.quota_owner = Some(quota_owner.into());
        self
    }

    pub(crate) fn quota_owner(&self) -> &Arc<str> {
        self.quota_owner.as_ref().unwrap_or(&self.user)
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

/// What a user is about to do. The default exchange has the empty name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation<'a> {
    /// The last step of the handshake, checked for each new connection.
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
    /// Publish. Check the routing key too: many users may publish into one exchange, each under its own key.
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

/// Limits of one connection that has logged in. The defaults suit a well-behaved client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections of this user; one more is refused with 530 NOT_ALLOWED.
    pub connections: usize,
    /// Channels per connection, offered in Tune.
    pub channels: u16,
    /// Consumers per connection; one more is refused with 506 RESOURCE_ERROR.
    pub consumers: usize,
    /// Largest message body. A larger one closes its channel with 311 CONTENT_TOO_LARGE.
    pub body: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { connections: 1_000, channels: 2_047, consumers: 10_000, body: 128 << 20 }
    }
}
