//! One connection's side of the protocol. Pure: requests in, effects out, no IO and no clock.
//!
//! ```text
//! Header --AMQP0091--> Start --start-ok--> LoggingIn --owner--> Tune --tune-ok--> Open --open--> Running
//!                        any error, or the end of the connection: --> Closing --close-ok--> Closed
//! ```
//!
//! Replies and deliveries go out through the core's effects, in one order. The session may never wait: what must be
//! waited for is a [`Step`].

pub(crate) mod assembly;
mod basic;
mod channel;
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
use crate::access::{AccessControl, Limits, Login, Operation, Principal};
use crate::config::Config;
use crate::core::{ChannelKey, ConnectionKey, Effect, Output};
use crate::state::State;

/// What the shell must do next.
#[derive(Debug)]
pub(crate) enum Step {
    Continue,
    /// Ask the owner, then call [`Session::logged_in`].
    LogIn(Login),
    /// The tuning is done: these hold from the next frame on.
    Tuned {
        frame_max: u32,
        channel_max: u16,
        heartbeat: u16,
        largest_body: u64,
    },
    /// The connection is open for work.
    Opened,
    /// Write what is left, then end the connection.
    Close,
}

#[derive(Debug)]
enum Phase {
    Header,
    Start,
    LoggingIn {
        hears: Hears,
    },
    Tune(Welcome),
    Open(Welcome),
    Running,
    /// The client was told; everything but its answer is skipped.
    Closing,
    Closed,
}

/// What the client's capabilities say it understands.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hears {
    pub(crate) cancel: bool,
    pub(crate) blocked: bool,
    pub(crate) authentication_failure: bool,
}

/// Who came in. `None`: the owner could not say, and the client will be asked to come again.
#[derive(Debug)]
struct Welcome {
    who: Option<(Principal, Limits)>,
}

pub(crate) struct Session {
    connection: ConnectionKey,
    phase: Phase,
    who: Principal,
    limits: Limits,
    channel_max: u16,
    channels: HashMap<u16, Channel>,
    hears: Hears,
    /// Numbers for the names the server makes up.
    made_up: u64,
    secret: u64,
}

enum Channel {
    Open {
        key: ChannelKey,
        /// What the empty queue name means.
        last_queue: Option<Arc<str>>,
    },
    /// The client was told that it is closed; everything but its answer is skipped.
    Closing,
    /// Both sides closed it at once. The client was answered; its own answer may still come.
    Crossed,
}

/// What a request may touch.
pub(crate) struct World<'a> {
    pub(crate) state: &'a mut State,
    pub(crate) access: &'a dyn AccessControl,
    pub(crate) config: &'a Config,
}

impl Session {
    /// `secret` makes the names the server gives unguessable.
    pub(crate) fn new(connection: ConnectionKey, secret: u64) -> Session {
        Session {
            connection,
            phase: Phase::Header,
            who: Principal::new(""),
            limits: Limits::default(),
            channel_max: 0,
            channels: HashMap::new(),
            hears: Hears::default(),
            made_up: 0,
            secret,
        }
    }

    /// Whose share of what all use this connection takes.
    pub(crate) fn holder(&self) -> &Arc<str> {
        self.who.holder()
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running)
    }

    /// The client was told to go: only its last word counts.
    pub(crate) fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing | Phase::Closed)
    }

    pub(crate) fn hears(&self) -> Hears {
        self.hears
    }

    /// Does one request. Afterwards the core has been [`run`](crate::core::Core::run).
    pub(crate) fn perform(&mut self, request: Request, world: &mut World<'_>) -> Step {
        let done = match request {
            Request::Publish { channel, message, user_id, mandatory, immediate } if self.is_running() => {
                let id = assembly::PUBLISH;
                let done = self.publish(channel, message, user_id, (mandatory, immediate), world);
                self.end(channel, done.map_err(|it| it.by(id)), world)
            }
            Request::Ack { channel, tag, multiple } if self.is_running() => {
                let done = self.ack(channel, tag, multiple, world);
                self.end(channel, done.map_err(|it| it.by(assembly::ACK)), world)
            }
            Request::Method { channel, method } => {
                let id = (method.get_amqp_class_id(), method.get_amqp_method_id());
                let done = self.method(channel, *method, world);
                self.end(channel, done.map_err(|it| it.by(id)), world)
            }
            Request::Refuse { channel, violation } => self.end(channel, Err(violation), world),
            Request::Publish { .. } | Request::Ack { .. } => {
                let violation = Violation::new(Code::CommandInvalid, "the connection is not open");
                if self.is_closing() { Step::Continue } else { self.end(0, Err(violation), world) }
            }
        };
        world.state.core.run();
        done
    }

    /// A rule broken by the bytes themselves.
    pub(crate) fn fail(&mut self, violation: &Violation, world: &mut World<'_>) -> Step {
        if self.is_closing() {
            return Step::Close;
        }
        self.close_connection(violation, world);
        if matches!(self.phase, Phase::Closed) { Step::Close } else { Step::Continue }
    }

    /// Ends the connection from here: the server stops, or the owner cut it.
    pub(crate) fn force_close(&mut self, text: &str, world: &mut World<'_>) -> Step {
        self.fail(&Violation::new(Code::ConnectionForced, text), world)
    }

    /// The owner cut this connection; the core has already let go of it.
    pub(crate) fn is_cut(&self, state: &State) -> bool {
        !self.is_closing() && !state.core.has_connection(self.connection)
    }

    fn method(&mut self, channel: u16, method: AMQPClass, world: &mut World<'_>) -> Result<Step, Violation> {
        match self.phase {
            Phase::Running => {}
            Phase::Closing => return Ok(self.while_closing(&method)),
            Phase::Closed => return Ok(Step::Close),
            _ => return self.handshake(channel, method, world),
        }
        if let AMQPClass::Connection(method) = method {
            if channel != 0 {
                return Err(Violation::new(Code::CommandInvalid, "a connection method on a channel"));
            }
            return self.connection_method(&method, world);
        }
        if channel == 0 {
            return Err(Violation::new(Code::ChannelError, "only connection methods on channel 0"));
        }
        if let AMQPClass::Channel(method) = method {
            return self.channel_method(channel, &method, world).map(|()| Step::Continue);
        }
        let Some(key) = self.channel(channel)? else { return Ok(Step::Continue) };
        match method {
            AMQPClass::Exchange(method) => self.exchange_method((channel, key), method, world),
            AMQPClass::Queue(method) => self.queue_method((channel, key), method, world),
            AMQPClass::Basic(method) => self.basic_method((channel, key), method, world),
            AMQPClass::Confirm(method) => self.confirm_method((channel, key), &method, world),
            AMQPClass::Tx(_) => Err(Violation::new(Code::NotImplemented, "transactions")),
            AMQPClass::Access(_) => Err(Violation::new(Code::NotImplemented, "access tickets")),
            AMQPClass::Connection(_) | AMQPClass::Channel(_) => Ok(()),
        }
        .map(|()| Step::Continue)
    }

    fn connection_method(
        &mut self,
        method: &methods::AMQPMethod,
        world: &mut World<'_>,
    ) -> Result<Step, Violation> {
        match method {
            methods::AMQPMethod::Close(_) => {
                let ok = methods::AMQPMethod::CloseOk(methods::CloseOk {});
                self.reply(0, AMQPClass::Connection(ok), world);
                self.phase = Phase::Closed;
                world.state.core.close_connection(self.connection);
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

    /// The channel, open; `None` while it is closing, when everything is to be skipped.
    fn channel(&self, number: u16) -> Result<Option<ChannelKey>, Violation> {
        match self.channels.get(&number) {
            Some(Channel::Open { key, .. }) => Ok(Some(*key)),
            Some(Channel::Closing) => Ok(None),
            Some(Channel::Crossed) | None => {
                Err(Violation::new(Code::ChannelError, "expected 'channel.open'"))
            }
        }
    }

    fn may(&self, operation: &Operation<'_>, world: &World<'_>) -> bool {
        world.access.may(&self.who, operation)
    }

    /// `may`, or 403.
    fn require(&self, operation: &Operation<'_>, what: &str, world: &World<'_>) -> Result<(), Violation> {
        if self.may(operation, world) {
            return Ok(());
        }
        let user = self.who.user();
        let text =
            format!("access to {what} in vhost '{}' refused for user '{user}'", world.config.virtual_host);
        Err(Violation::new(Code::AccessRefused, text))
    }

    fn send(&self, output: Output, world: &mut World<'_>) {
        world.state.core.effects.push(Effect::Send(self.connection, output));
    }

    fn reply(&self, channel: u16, method: AMQPClass, world: &mut World<'_>) {
        self.send(Output::Method { channel, method: Box::new(method) }, world);
    }

    /// Ends a request: an error closes the channel or the connection.
    fn end(&mut self, channel: u16, done: Result<Step, Violation>, world: &mut World<'_>) -> Step {
        let violation = match done {
            Ok(step) => return step,
            Err(violation) => violation,
        };
        if self.is_closing() {
            return Step::Continue;
        }
        if violation.closes_channel() && self.is_running() && self.channels.contains_key(&channel) {
            self.close_channel(channel, &violation, world);
            return Step::Continue;
        }
        self.close_connection(&violation, world);
        if matches!(self.phase, Phase::Closed) { Step::Close } else { Step::Continue }
    }

    fn close_connection(&mut self, violation: &Violation, world: &mut World<'_>) {
        let close = methods::Close {
            reply_code: violation.code as u16,
            reply_text: violation.reply_text().into(),
            class_id: violation.class,
            method_id: violation.method,
        };
        let silent = matches!(self.phase, Phase::Header);
        if silent {
            // Whoever does not speak AMQP 0-9-1 is told what is spoken here, and nothing else.
            self.send(Output::ProtocolHeader, world);
            self.phase = Phase::Closed;
        } else {
            self.reply(0, AMQPClass::Connection(methods::AMQPMethod::Close(close)), world);
            self.phase = Phase::Closing;
        }
        self.channels.clear();
        world.state.core.close_connection(self.connection);
    }

    /// A name nobody can guess: `amq.<what>-<32 hexadecimal digits>`.
    fn make_up(&mut self, what: &str) -> String {
        self.made_up += 1;
        let mix = |mut it: u64| {
            // splitmix64
            it = it.wrapping_add(0x9e37_79b9_7f4a_7c15);
            it = (it ^ (it >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            it = (it ^ (it >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            it ^ (it >> 31)
        };
        let high = mix(self.secret ^ mix(self.connection.to_bits()));
        let low = mix(self.secret.wrapping_add(self.made_up) ^ self.connection.to_bits().rotate_left(32));
        format!("amq.{what}-{high:016x}{low:016x}")
    }
}
