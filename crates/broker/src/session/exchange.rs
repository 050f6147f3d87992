//! Methods of class exchange: declare, delete, bind, unbind.

use amq_protocol::protocol::AMQPClass;
use amq_protocol::protocol::exchange as methods;

use super::violation::{Code, Violation};
use super::{RequestContext, Session};
use crate::access_control::Operation;
use crate::core::{ChannelKey, Error, ExchangeAttributes};
use crate::declaration::ExchangeKind;

impl Session {
    pub(super) fn exchange_method(
        &mut self,
        (number, _): (u16, ChannelKey),
        method: methods::AMQPMethod,
        context: &mut RequestContext<'_>,
    ) -> Result<(), Violation> {
        let (nowait, ok) = match method {
            methods::AMQPMethod::Declare(it) => {
                self.declare_exchange(&it, context)?;
                (it.nowait, methods::AMQPMethod::DeclareOk(methods::DeclareOk {}))
            }
            methods::AMQPMethod::Delete(it) => {
                self.delete_exchange(&it, context)?;
                (it.nowait, methods::AMQPMethod::DeleteOk(methods::DeleteOk {}))
            }
            methods::AMQPMethod::Bind(it) => {
                let names = (it.destination.as_str(), it.source.as_str(), it.routing_key.as_str());
                self.bind_exchanges(names, true, context)?;
                (it.nowait, methods::AMQPMethod::BindOk(methods::BindOk {}))
            }
            methods::AMQPMethod::Unbind(it) => {
                let names = (it.destination.as_str(), it.source.as_str(), it.routing_key.as_str());
                self.bind_exchanges(names, false, context)?;
                (it.nowait, methods::AMQPMethod::UnbindOk(methods::UnbindOk {}))
            }
            _ => return Err(Violation::new(Code::CommandInvalid, "a method only servers send")),
        };
        if !nowait {
            self.reply(number, AMQPClass::Exchange(ok), context);
        }
        Ok(())
    }

    fn declare_exchange(
        &self,
        it: &methods::Declare,
        context: &mut RequestContext<'_>,
    ) -> Result<(), Violation> {
        let name = it.exchange.as_str();
        not_default(name)?;
        let operation = Operation::DeclareExchange { exchange: name, passive: it.passive };
        self.require(&operation, &format!("exchange '{name}'"), context)?;
        if it.passive {
            let found = context.core.exchange(name).map(drop);
            return found.ok_or_else(|| no_exchange(name, context));
        }
        let kind = match it.kind.as_str() {
            "direct" => ExchangeKind::Direct,
            "topic" => ExchangeKind::Topic,
            "fanout" => ExchangeKind::Fanout,
            "headers" => return Err(Violation::new(Code::NotImplemented, "headers exchanges")),
            other => {
                return Err(Violation::new(Code::CommandInvalid, format!("unknown exchange type '{other}'")));
            }
        };
        if it.arguments.contains_key("alternate-exchange") {
            return Err(Violation::new(Code::NotImplemented, "alternate exchanges"));
        }
        if context.core.exchange(name).is_none() {
            not_reserved("exchange", name)?;
        }
        let attributes = ExchangeAttributes {
            kind,
            durable: it.durable,
            auto_delete: it.auto_delete,
            internal: it.internal,
        };
        context.core.declare_exchange(name, attributes).map_err(|error| match error {
            Error::Different { what } => Violation::new(
                Code::PreconditionFailed,
                format!(
                    "inequivalent arg '{what}' for exchange '{name}' in vhost '{}'",
                    context.config.virtual_host
                ),
            ),
            other => Violation::new(Code::PreconditionFailed, other.to_string()),
        })
    }

    fn delete_exchange(
        &self,
        it: &methods::Delete,
        context: &mut RequestContext<'_>,
    ) -> Result<(), Violation> {
        let name = it.exchange.as_str();
        not_default(name)?;
        not_reserved("exchange", name)?;
        self.require(&Operation::DeleteExchange { exchange: name }, &format!("exchange '{name}'"), context)?;
        context.core.delete_exchange(name, it.if_unused).map(drop).map_err(|_| {
            let text = format!("exchange '{name}' in vhost '{}' in use", context.config.virtual_host);
            Violation::new(Code::PreconditionFailed, text)
        })
    }

    fn bind_exchanges(
        &self,
        (destination, source, routing_key): (&str, &str, &str),
        bind: bool,
        context: &mut RequestContext<'_>,
    ) -> Result<(), Violation> {
        not_default(destination)?;
        not_default(source)?;
        let operation = Operation::BindExchange { destination, source, routing_key };
        self.require(&operation, &format!("exchange '{destination}'"), context)?;
        for name in [destination, source] {
            if context.core.exchange(name).is_none() {
                // Without the exchange there is no binding.
                return if bind { Err(no_exchange(name, context)) } else { Ok(()) };
            }
        }
        let core = &mut context.core;
        let done = if bind {
            core.bind_exchange(destination, source, routing_key)
        } else {
            core.unbind_exchange(destination, source, routing_key)
        };
        done.map_err(|_| no_exchange(source, context))
    }
}

pub(super) fn no_exchange(name: &str, context: &RequestContext<'_>) -> Violation {
    Violation::new(Code::NotFound, format!("no exchange '{name}' in vhost '{}'", context.config.virtual_host))
}

pub(super) fn not_default(exchange: &str) -> Result<(), Violation> {
    if exchange.is_empty() {
        return Err(Violation::new(Code::AccessRefused, "operation not permitted on the default exchange"));
    }
    Ok(())
}

/// Refuses names that begin with `amq.`: they are the server's.
pub(super) fn not_reserved(what: &str, name: &str) -> Result<(), Violation> {
    if name.starts_with("amq.") {
        let text = format!("{what} name '{name}' contains reserved prefix 'amq.*'");
        return Err(Violation::new(Code::AccessRefused, text));
    }
    Ok(())
}
