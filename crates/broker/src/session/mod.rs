//! The AMQP state of one connection. Pure: requests in, actions out, no IO and no clock.
//!
//! ```text
//! Header --AMQP0091--> Start --start-ok--> LoggingIn --embedder--> Tune --tune-ok--> Open --open--> Running
//!                        any error, or the end of the connection: --> Closing --close-ok--> Closed
//! ```
//!
//! Replies and deliveries are both actions of the core, so they keep one order. The session may never wait: for what takes
//! time it returns a [`Step`] to the driver.

pub(crate) mod assembly;
mod basic;
mod channel;
pub(crate) mod encode;
mod exchange;
mod handshake;
mod queue;
pub(crate) mod violation;

use std::collections::HashMap;
use std::sync::Arc;

use amq_protocol::protocol::AMQPClass;
use amq_protocol::protocol::connection as methods;

use self::assembly::Request;
use self::violation::{Code, Violation};
use crate::access_control::{AccessControl, Limits, Login, Operation, Principal};
use crate::callbacks::Callbacks;
use crate::config::Config;
use crate::core::{Action, ChannelKey, ConnectionKey, Core, Output};

/// What the driver must do next.
#[derive(Debug)]
pub(crate) enum Step {
    Continue,
    /// Ask the embedder, then call [`Session::logged_in`].
    LogIn(Login),
    /// The tuning is done: use these from the next frame on.
    Tuned {
        frame_max: u32,
        channel_max: u16,
        heartbeat: u16,
        largest_body: u64,
    },
    /// The handshake is over.
    Opened,
    /// Write what is left, then end the connection.
    Close,
}

#[derive(Debug)]
enum Phase {
    Header,
    Start,
    LoggingIn {
        capabilities: ClientCapabilities,
    },
    Tune(CheckedLogin),
    Open(CheckedLogin),
    Running,
    /// The client was sent a close; everything but its reply is ignored.
    Closing,
    Closed,
}

/// What the client says that it understands.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ClientCapabilities {
    pub(crate) cancel: bool,
    pub(crate) blocked: bool,
    pub(crate) authentication_failure: bool,
}

/// The user whose credentials were checked. `None`: the embedder could not check them, and the client will be asked to
/// try again.
#[derive(Debug)]
struct CheckedLogin {
    user: Option<(Principal, Limits)>,
}

pub(crate) struct Session {
    connection: ConnectionKey,
    phase: Phase,
    principal: Principal,
    limits: Limits,
    channel_max: u16,
    channels: HashMap<u16, Channel>,
    capabilities: ClientCapabilities,
    /// How many names were generated, to make each different.
    generated_names: u64,
    secret: u64,
}

enum Channel {
    Open {
        key: ChannelKey,
        /// The queue that an empty queue name refers to.
        last_queue: Option<Arc<str>>,
    },
    /// The client was sent a close; everything but its reply is ignored.
    Closing,
    /// Both sides closed it at the same time. The client got its reply, and its own may still come.
    Crossed,
}

/// What a request may read and change.
pub(crate) struct RequestContext<'a> {
    pub(crate) core: &'a mut Core,
    pub(crate) callbacks: &'a mut Callbacks,
    pub(crate) access: &'a dyn AccessControl,
    pub(crate) config: &'a Config,
}

impl Session {
    /// `secret` makes the names that the server generates unguessable.
    pub(crate) fn new(connection: ConnectionKey, secret: u64) -> Session {
        Session {
            connection,
            phase: Phase::Header,
            principal: Principal::new(""),
            limits: Limits::default(),
            channel_max: 0,
            channels: HashMap::new(),
            capabilities: ClientCapabilities::default(),
            generated_names: 0,
            secret,
        }
    }

    /// For whom this connection's use of shared quotas is counted.
    pub(crate) fn quota_owner(&self) -> &Arc<str> {
        self.principal.quota_owner()
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running)
    }

    /// Whether the client was sent a close: then only its reply matters.
    pub(crate) fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing | Phase::Closed)
    }

    pub(crate) fn client_capabilities(&self) -> ClientCapabilities {
        self.capabilities
    }

    /// Performs one request. Afterwards the core has been [`run`](crate::core::Core::run).
    pub(crate) fn perform(&mut self, request: Request, context: &mut RequestContext<'_>) -> Step {
        let done = match request {
            Request::Publish { channel, message, user_id, mandatory, immediate } if self.is_running() => {
                let id = assembly::PUBLISH;
                let done = self.publish(channel, message, user_id, (mandatory, immediate), context);
                self.end(channel, done.map_err(|it| it.by(id)), context)
            }
            Request::Ack { channel, tag, multiple } if self.is_running() => {
                let done = self.ack(channel, tag, multiple, context);
                self.end(channel, done.map_err(|it| it.by(assembly::ACK)), context)
            }
            Request::Method { channel, method } => {
                let id = (method.get_amqp_class_id(), method.get_amqp_method_id());
                let done = self.method(channel, *method, context);
                self.end(channel, done.map_err(|it| it.by(id)), context)
            }
            Request::Refuse { channel, violation } => self.end(channel, Err(violation), context),
            Request::Publish { .. } | Request::Ack { .. } => {
                let violation = Violation::new(Code::CommandInvalid, "the connection is not open");
                if self.is_closing() { Step::Continue } else { self.end(0, Err(violation), context) }
            }
        };
        context.core.run();
        done
    }

    /// Closes the connection for a violation.
    pub(crate) fn fail(&mut self, violation: &Violation, context: &mut RequestContext<'_>) -> Step {
        if self.is_closing() {
            return Step::Close;
        }
        self.close_connection(violation, context);
        if matches!(self.phase, Phase::Closed) { Step::Close } else { Step::Continue }
    }

    /// Closes the connection because the broker stops or the embedder ends it.
    pub(crate) fn force_close(&mut self, text: &str, context: &mut RequestContext<'_>) -> Step {
        self.fail(&Violation::new(Code::ConnectionForced, text), context)
    }

    /// Whether the embedder has ended this connection: then the core no longer has it.
    pub(crate) fn is_ended_by_embedder(&self, core: &Core) -> bool {
        !self.is_closing() && !core.has_connection(self.connection)
    }

    fn method(
        &mut self,
        channel: u16,
        method: AMQPClass,
        context: &mut RequestContext<'_>,
    ) -> Result<Step, Violation> {
        match self.phase {
            Phase::Running => {}
            Phase::Closing => return Ok(self.while_closing(&method)),
            Phase::Closed => return Ok(Step::Close),
            _ => return self.handshake(channel, method, context),
        }
        if let AMQPClass::Connection(method) = method {
            if channel != 0 {
                return Err(Violation::new(Code::CommandInvalid, "a connection method on a channel"));
            }
            return self.connection_method(&method, context);
        }
        if channel == 0 {
            return Err(Violation::new(Code::ChannelError, "only connection methods on channel 0"));
        }
        if let AMQPClass::Channel(method) = method {
            return self.channel_method(channel, &method, context).map(|()| Step::Continue);
        }
        let Some(key) = self.channel(channel)? else { return Ok(Step::Continue) };
        match method {
            AMQPClass::Exchange(method) => self.exchange_method((channel, key), method, context),
            AMQPClass::Queue(method) => self.queue_method((channel, key), method, context),
            AMQPClass::Basic(method) => self.basic_method((channel, key), method, context),
            AMQPClass::Confirm(method) => self.confirm_method((channel, key), &method, context),
            AMQPClass::Tx(_) => Err(Violation::new(Code::NotImplemented, "transactions")),
            AMQPClass::Access(_) => Err(Violation::new(Code::NotImplemented, "access tickets")),
            AMQPClass::Connection(_) | AMQPClass::Channel(_) => Ok(()),
        }
        .map(|()| Step::Continue)
    }

    fn connection_method(
        &mut self,
        method: &methods::AMQPMethod,
        context: &mut RequestContext<'_>,
    ) -> Result<Step, Violation> {
        match method {
            methods::AMQPMethod::Close(_) => {
                let ok = methods::AMQPMethod::CloseOk(methods::CloseOk {});
                self.reply(0, AMQPClass::Connection(ok), context);
                self.phase = Phase::Closed;
                context.core.close_connection(self.connection);
                Ok(Step::Close)
            }
            methods::AMQPMethod::CloseOk(_) => Ok(Step::Continue),
            methods::AMQPMethod::UpdateSecret(_) => {
                Err(Violation::new(Code::NotImplemented, "the secret can't be updated"))
            }
            _ => Err(Violation::new(Code::ChannelError, "the connection is already open")),
        }
    }

    fn while_closing(&mut self, method: &AMQPClass) -> Step {
        match method {
            AMQPClass::Connection(methods::AMQPMethod::Close(_) | methods::AMQPMethod::CloseOk(_)) => {
                self.phase = Phase::Closed;
                Step::Close
            }
            _ => Step::Continue,
        }
    }

    /// The open channel; `None` while it is closing, when everything on it is to be ignored.
    fn channel(&self, number: u16) -> Result<Option<ChannelKey>, Violation> {
        match self.channels.get(&number) {
            Some(Channel::Open { key, .. }) => Ok(Some(*key)),
            Some(Channel::Closing) => Ok(None),
            Some(Channel::Crossed) | None => {
                Err(Violation::new(Code::ChannelError, "expected 'channel.open'"))
            }
        }
    }

    fn may(&self, operation: &Operation<'_>, context: &RequestContext<'_>) -> bool {
        context.access.may(&self.principal, operation)
    }

    /// Refuses with 403 what `may` refuses.
    fn require(
        &self,
        operation: &Operation<'_>,
        what: &str,
        context: &RequestContext<'_>,
    ) -> Result<(), Violation> {
        if self.may(operation, context) {
            return Ok(());
        }
        let user = self.principal.user();
        let text =
            format!("access to {what} in vhost '{}' refused for user '{user}'", context.config.virtual_host);
        Err(Violation::new(Code::AccessRefused, text))
    }

    fn send(&self, output: Output, context: &mut RequestContext<'_>) {
        context.core.actions.push(Action::Send(self.connection, output));
    }

    fn reply(&self, channel: u16, method: AMQPClass, context: &mut RequestContext<'_>) {
        self.send(Output::Method { channel, method: Box::new(method) }, context);
    }

    /// Ends a request. A violation closes the channel or the connection.
    fn end(&mut self, channel: u16, done: Result<Step, Violation>, context: &mut RequestContext<'_>) -> Step {
        let violation = match done {
            Ok(step) => return step,
            Err(violation) => violation,
        };
        if self.is_closing() {
            return Step::Continue;
        }
        if violation.closes_channel() && self.is_running() && self.channels.contains_key(&channel) {
            self.close_channel(channel, &violation, context);
            return Step::Continue;
        }
        self.close_connection(&violation, context);
        if matches!(self.phase, Phase::Closed) { Step::Close } else { Step::Continue }
    }

    fn close_connection(&mut self, violation: &Violation, context: &mut RequestContext<'_>) {
        let close = methods::Close {
            reply_code: violation.code as u16,
            reply_text: violation.reply_text().into(),
            class_id: violation.class,
            method_id: violation.method,
        };
        let silent = matches!(self.phase, Phase::Header);
        if silent {
            // A client of another protocol or version is sent the header of this one, and nothing else.
            self.send(Output::ProtocolHeader, context);
            self.phase = Phase::Closed;
        } else {
            self.reply(0, AMQPClass::Connection(methods::AMQPMethod::Close(close)), context);
            self.phase = Phase::Closing;
        }
        self.channels.clear();
        context.core.close_connection(self.connection);
    }

    /// Generates a name that can't be guessed: `amq.<what>-<32 hexadecimal digits>`.
    fn generate_name(&mut self, what: &str) -> String {
        self.generated_names += 1;
        let mix = |mut it: u64| {
            // splitmix64
            it = it.wrapping_add(0x9e37_79b9_7f4a_7c15);
            it = (it ^ (it >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            it = (it ^ (it >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            it ^ (it >> 31)
        };
        let high = mix(self.secret ^ mix(self.connection.to_bits()));
        let low =
            mix(self.secret.wrapping_add(self.generated_names) ^ self.connection.to_bits().rotate_left(32));
        format!("amq.{what}-{high:016x}{low:016x}")
    }
}
