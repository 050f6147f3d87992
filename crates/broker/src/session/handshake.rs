//! The handshake, from the first eight bytes to the open connection.

use amq_protocol::protocol::AMQPClass;
use amq_protocol::protocol::connection as methods;
use amq_protocol::types::{AMQPValue, FieldTable};

use super::violation::{Code, Violation};
use super::{CheckedLogin, ClientCapabilities, Phase, RequestContext, Session, Step};
use crate::access_control::{LoggedIn, Login, Operation, Refusal};
use crate::frame::{PROTOCOL_HEADER, UNTUNED};

impl Session {
    /// Takes the first eight bytes.
    pub(crate) fn header(&mut self, bytes: &[u8; 8], context: &mut RequestContext<'_>) -> Step {
        if bytes != PROTOCOL_HEADER {
            return self.fail(&Violation::new(Code::FrameError, "not AMQP 0-9-1"), context);
        }
        let start = methods::Start {
            version_major: 0,
            version_minor: 9,
            server_properties: server_properties(context),
            mechanisms: "PLAIN".into(),
            locales: "en_US".into(),
        };
        self.reply(0, AMQPClass::Connection(methods::AMQPMethod::Start(start)), context);
        self.phase = Phase::Start;
        Step::Continue
    }

    pub(super) fn handshake(
        &mut self,
        channel: u16,
        method: AMQPClass,
        context: &mut RequestContext<'_>,
    ) -> Result<Step, Violation> {
        let AMQPClass::Connection(method) = method else {
            return Err(Violation::new(Code::CommandInvalid, "the connection is not open"));
        };
        if channel != 0 {
            return Err(Violation::new(Code::CommandInvalid, "a connection method on a channel"));
        }
        match (std::mem::replace(&mut self.phase, Phase::Start), method) {
            (Phase::Start, methods::AMQPMethod::StartOk(it)) => self.start_ok(&it),
            (Phase::Tune(login), methods::AMQPMethod::TuneOk(it)) => self.tune_ok(login, &it, context),
            (Phase::Open(login), methods::AMQPMethod::Open(it)) => {
                self.open(login, it.virtual_host.as_str(), context)
            }
            (_, methods::AMQPMethod::Close(_)) => {
                let ok = methods::AMQPMethod::CloseOk(methods::CloseOk {});
                self.reply(0, AMQPClass::Connection(ok), context);
                self.phase = Phase::Closed;
                context.core.close_connection(self.connection);
                Ok(Step::Close)
            }
            (phase, _) => {
                self.phase = phase;
                Err(Violation::new(Code::CommandInvalid, "not the next step of the handshake"))
            }
        }
    }

    fn start_ok(&mut self, it: &methods::StartOk) -> Result<Step, Violation> {
        let capability = |name: &str| match it.client_properties.inner().get("capabilities") {
            Some(AMQPValue::FieldTable(table)) => {
                matches!(table.inner().get(name), Some(AMQPValue::Boolean(true)))
            }
            _ => false,
        };
        let capabilities = ClientCapabilities {
            cancel: capability("consumer_cancel_notify"),
            blocked: capability("connection.blocked"),
            authentication_failure: capability("authentication_failure_close"),
        };
        self.capabilities = capabilities;
        if it.mechanism.as_str() != "PLAIN" {
            let text = format!("mechanism '{}' is not offered", it.mechanism);
            return Err(Violation::new(Code::NotAllowed, text));
        }
        let response = it.response.as_bytes();
        let mut parts = response.splitn(3, |it| *it == 0);
        let part = |it: Option<&[u8]>| it.and_then(|it| String::from_utf8(it.to_vec()).ok());
        parts.next();
        match (part(parts.next()), part(parts.next())) {
            (Some(user), Some(password)) => {
                self.phase = Phase::LoggingIn { capabilities };
                Ok(Step::LogIn(Login { user, password, peer: None, tls: false }))
            }
            _ => Err(Violation::new(Code::SyntaxError, "malformed PLAIN response")),
        }
    }

    /// Takes the embedder's answer to a log-in.
    pub(crate) fn logged_in(
        &mut self,
        answer: Result<LoggedIn, Refusal>,
        context: &mut RequestContext<'_>,
    ) -> Step {
        let Phase::LoggingIn { capabilities } = self.phase else { return Step::Continue };
        let who = match answer {
            Ok(it) => Some((it.principal, it.limits)),
            Err(Refusal::Unavailable) => None,
            Err(refusal) => {
                if capabilities.authentication_failure {
                    let text = match refusal {
                        Refusal::Ended(why) => why,
                        _ => "Login was refused using authentication mechanism PLAIN. For details see the broker \
                              logfile."
                            .to_owned(),
                    };
                    self.fail(&Violation::new(Code::AccessRefused, text), context);
                    return Step::Continue;
                }
                self.phase = Phase::Closed;
                context.core.close_connection(self.connection);
                return Step::Close;
            }
        };
        if let Some((principal, limits)) = &who {
            self.limits = *limits;
            context.core.identify(self.connection, principal.name().clone(), capabilities.cancel);
        }
        self.channel_max = self.limits.channels;
        let tune = methods::Tune {
            channel_max: self.channel_max,
            frame_max: context.config.frame_max,
            heartbeat: context.config.heartbeat,
        };
        self.phase = Phase::Tune(CheckedLogin { user: who });
        self.reply(0, AMQPClass::Connection(methods::AMQPMethod::Tune(tune)), context);
        Step::Continue
    }

    fn tune_ok(
        &mut self,
        login: CheckedLogin,
        it: &methods::TuneOk,
        context: &RequestContext<'_>,
    ) -> Result<Step, Violation> {
        let offered = context.config.frame_max;
        let frame_max = if it.frame_max == 0 { offered } else { it.frame_max };
        if frame_max > offered || frame_max < UNTUNED {
            let text = format!("negotiated frame_max = {frame_max} is not between {UNTUNED} and {offered}");
            return Err(Violation::new(Code::NotAllowed, text));
        }
        let most = self.limits.channels;
        let channel_max = if it.channel_max == 0 { most } else { it.channel_max };
        if channel_max > most {
            let text = format!(
                "negotiated channel_max = {channel_max} is higher than the maximum allowed value ({most})"
            );
            return Err(Violation::new(Code::NotAllowed, text));
        }
        self.channel_max = channel_max;
        self.phase = Phase::Open(login);
        Ok(Step::Tuned { frame_max, channel_max, heartbeat: it.heartbeat, largest_body: self.limits.body })
    }

    fn open(
        &mut self,
        login: CheckedLogin,
        vhost: &str,
        context: &mut RequestContext<'_>,
    ) -> Result<Step, Violation> {
        let Some((principal, limits)) = login.user else {
            // The embedder could not check the credentials. The handshake succeeds first: pika takes a close before that
            // for wrong credentials, and does not try again.
            self.open_ok(context);
            self.phase = Phase::Running;
            return Err(Violation::new(
                Code::ConnectionForced,
                "the service can't check credentials now, try again",
            ));
        };
        if vhost != context.config.virtual_host {
            return Err(Violation::new(Code::NotAllowed, format!("vhost {vhost} not found")));
        }
        self.principal = principal;
        let user = self.principal.user();
        if !self.may(&Operation::Open { virtual_host: vhost }, context) {
            let text = format!("access to vhost '{vhost}' refused for user '{user}'");
            return Err(Violation::new(Code::NotAllowed, text));
        }
        if context.core.connections_of(user).count() > limits.connections {
            let text = format!("user '{user}' has {} connections, and may have no more", limits.connections);
            return Err(Violation::new(Code::NotAllowed, text));
        }
        self.phase = Phase::Running;
        self.open_ok(context);
        Ok(Step::Opened)
    }

    fn open_ok(&self, context: &mut RequestContext<'_>) {
        self.reply(0, AMQPClass::Connection(methods::AMQPMethod::OpenOk(methods::OpenOk {})), context);
    }
}

fn server_properties(context: &RequestContext<'_>) -> FieldTable {
    let text = |it: &str| AMQPValue::LongString(it.as_bytes().to_vec().into());
    let mut capabilities = FieldTable::default();
    for name in [
        "publisher_confirms",
        "exchange_exchange_bindings",
        "basic.nack",
        "consumer_cancel_notify",
        "connection.blocked",
        "authentication_failure_close",
        "per_consumer_qos",
    ] {
        capabilities.insert(name.into(), AMQPValue::Boolean(true));
    }
    let mut properties = FieldTable::default();
    properties.insert("capabilities".into(), AMQPValue::FieldTable(capabilities));
    properties.insert("product".into(), text(&context.config.product));
    properties.insert("version".into(), text(&context.config.version));
    properties.insert("platform".into(), text("Rust"));
    properties
}
