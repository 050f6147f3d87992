//! Methods of class queue: declare, bind, purge, delete.

use std::sync::Arc;

use amq_protocol::protocol::AMQPClass;
use amq_protocol::protocol::queue as methods;
use amq_protocol::types::{AMQPValue, FieldTable};

use super::exchange::{no_exchange, not_default, not_reserved};
use super::violation::{Code, Violation, about_queue};
use super::{Channel, RequestContext, Session};
use crate::access_control::Operation;
use crate::core::{Attributes, ChannelKey, Declared, Error};
use crate::declaration::Overflow;
use crate::frame::properties::MAX_TTL;

impl Session {
    pub(super) fn queue_method(
        &mut self,
        (number, _): (u16, ChannelKey),
        method: methods::AMQPMethod,
        context: &mut RequestContext<'_>,
    ) -> Result<(), Violation> {
        let (nowait, ok) = match method {
            methods::AMQPMethod::Declare(it) => {
                let (queue, declared) = self.declare_queue(number, &it, context)?;
                let ok = methods::DeclareOk {
                    queue: crate::message::short(&queue).into(),
                    message_count: declared.messages,
                    consumer_count: declared.consumers,
                };
                (it.nowait, methods::AMQPMethod::DeclareOk(ok))
            }
            methods::AMQPMethod::Bind(it) => {
                let queue = self.named(number, it.queue.as_str())?;
                self.bind(&queue, it.exchange.as_str(), it.routing_key.as_str(), true, context)?;
                (it.nowait, methods::AMQPMethod::BindOk(methods::BindOk {}))
            }
            methods::AMQPMethod::Unbind(it) => {
                let queue = self.named(number, it.queue.as_str())?;
                self.bind(&queue, it.exchange.as_str(), it.routing_key.as_str(), false, context)?;
                (false, methods::AMQPMethod::UnbindOk(methods::UnbindOk {}))
            }
            methods::AMQPMethod::Purge(it) => {
                let queue = self.named(number, it.queue.as_str())?;
                self.require(&Operation::PurgeQueue { queue: &queue }, &format!("queue '{queue}'"), context)?;
                let purged = context.core.purge_queue(&queue, Some(self.connection));
                let message_count =
                    purged.map_err(|error| about_queue(error, &queue, &context.config.virtual_host))?;
                (it.nowait, methods::AMQPMethod::PurgeOk(methods::PurgeOk { message_count }))
            }
            methods::AMQPMethod::Delete(it) => {
                let queue = self.named(number, it.queue.as_str())?;
                self.require(
                    &Operation::DeleteQueue { queue: &queue },
                    &format!("queue '{queue}'"),
                    context,
                )?;
                let core = &mut context.core;
                let deleted = core.delete_queue(&queue, self.connection, it.if_unused, it.if_empty);
                let deleted =
                    deleted.map_err(|error| about_queue(error, &queue, &context.config.virtual_host))?;
                let ok = methods::DeleteOk { message_count: deleted.unwrap_or(0) };
                (it.nowait, methods::AMQPMethod::DeleteOk(ok))
            }
            _ => return Err(Violation::new(Code::CommandInvalid, "a method only servers send")),
        };
        if !nowait {
            self.reply(number, AMQPClass::Queue(ok), context);
        }
        Ok(())
    }

    /// The queue that a name refers to: the empty name is the last queue declared on this channel.
    pub(super) fn named(&self, number: u16, name: &str) -> Result<Arc<str>, Violation> {
        if !name.is_empty() {
            return Ok(name.into());
        }
        match self.channels.get(&number) {
            Some(Channel::Open { last_queue: Some(queue), .. }) => Ok(queue.clone()),
            _ => Err(Violation::new(Code::NotFound, "no previously declared queue")),
        }
    }

    /// Asks the embedder whether to declare a queue that does not exist.
    pub(super) fn declare_unknown(&self, queue: &str, context: &mut RequestContext<'_>) {
        if context.core.queue(queue).is_none()
            && let Some(options) = context.access.unknown_queue(&self.principal, queue)
        {
            // This can't fail: no queue of this name exists, with other attributes or the same.
            let _ = context.callbacks.declare(context.core, queue, options);
        }
    }

    fn declare_queue(
        &mut self,
        number: u16,
        it: &methods::Declare,
        context: &mut RequestContext<'_>,
    ) -> Result<(Arc<str>, Declared), Violation> {
        // Here the empty name asks for a new name; in a passive declaration, as everywhere, it is the last queue.
        let name: Arc<str> = match it.queue.as_str() {
            "" if !it.passive => self.generate_name("gen").into(),
            name => name.into(),
        };
        let operation = Operation::DeclareQueue { queue: &name, passive: it.passive };
        self.require(&operation, &format!("queue '{name}'"), context)?;
        let declared = if it.passive {
            self.declare_unknown(&name, context);
            context.core.inspect_queue(&name, self.connection)
        } else {
            if !it.queue.as_str().is_empty() && context.core.queue(&name).is_none() {
                not_reserved("queue", &name)?;
            }
            let attributes = attributes(it)?;
            context.core.declare_queue(&name, self.connection, attributes)
        };
        let declared = declared.map_err(|error| about_queue(error, &name, &context.config.virtual_host))?;
        if let Some(Channel::Open { last_queue, .. }) = self.channels.get_mut(&number) {
            *last_queue = Some(name.clone());
        }
        Ok((name, declared))
    }

    fn bind(
        &self,
        queue: &str,
        exchange: &str,
        routing_key: &str,
        bind: bool,
        context: &mut RequestContext<'_>,
    ) -> Result<(), Violation> {
        not_default(exchange)?;
        let operation = Operation::Bind { queue, exchange, routing_key };
        self.require(&operation, &format!("queue '{queue}'"), context)?;
        let core = &mut context.core;
        let done = core.inspect_queue(queue, self.connection).and_then(|_| {
            if bind {
                core.bind_queue(queue, exchange, routing_key)
            } else {
                core.unbind_queue(queue, exchange, routing_key)
            }
        });
        match done {
            Ok(()) => Ok(()),
            // Without the queue or the exchange there is no binding.
            Err(Error::NoQueue | Error::NoExchange) if !bind => Ok(()),
            Err(Error::NoExchange) => Err(no_exchange(exchange, context)),
            Err(error) => Err(about_queue(error, queue, &context.config.virtual_host)),
        }
    }
}

fn attributes(it: &methods::Declare) -> Result<Attributes, Violation> {
    let arguments = &it.arguments;
    if let Some((name, _)) = arguments.into_iter().find(|it| unsupported(it.0.as_str())) {
        return Err(Violation::new(Code::NotImplemented, format!("queue argument '{name}'")));
    }
    let overflow = match text(arguments, "x-overflow")? {
        None | Some("drop-head") => Overflow::DropHead,
        Some("reject-publish") => Overflow::RejectPublish,
        Some(other) => return Err(invalid("x-overflow", other)),
    };
    if let Some(kind) = text(arguments, "x-queue-type")?
        && !matches!(kind, "classic" | "quorum")
    {
        return Err(invalid("x-queue-type", kind));
    }
    let bounded = |name: &str, least: u64| match number(arguments, name)? {
        Some(value) if value < least || value > MAX_TTL => Err(invalid(name, &value.to_string())),
        value => Ok(value),
    };
    let size =
        |name: &str| Ok::<_, Violation>(number(arguments, name)?.and_then(|it| usize::try_from(it).ok()));
    Ok(Attributes {
        durable: it.durable,
        auto_delete: it.auto_delete,
        exclusive: it.exclusive,
        message_ttl: bounded("x-message-ttl", 0)?,
        expires: bounded("x-expires", 1)?,
        max_length: size("x-max-length")?,
        max_bytes: size("x-max-length-bytes")?,
        overflow,
        delivery_limit: number(arguments, "x-delivery-limit")?.and_then(|it| u32::try_from(it).ok()),
    })
}

/// Whether an argument would change what happens to messages in a way that this broker does not support. Such a
/// declaration is refused, because ignoring the argument would lose messages or their order.
fn unsupported(name: &str) -> bool {
    matches!(
        name,
        "x-dead-letter-exchange"
            | "x-dead-letter-routing-key"
            | "x-max-priority"
            | "x-single-active-consumer"
    )
}

fn invalid(name: &str, value: &str) -> Violation {
    Violation::new(Code::PreconditionFailed, format!("invalid arg '{name}': {value}"))
}

fn number(arguments: &FieldTable, name: &str) -> Result<Option<u64>, Violation> {
    let value = match arguments.inner().get(name) {
        None => return Ok(None),
        Some(AMQPValue::ShortShortInt(it)) => i64::from(*it),
        Some(AMQPValue::ShortShortUInt(it)) => i64::from(*it),
        Some(AMQPValue::ShortInt(it)) => i64::from(*it),
        Some(AMQPValue::ShortUInt(it)) => i64::from(*it),
        Some(AMQPValue::LongInt(it)) => i64::from(*it),
        Some(AMQPValue::LongUInt(it)) => i64::from(*it),
        Some(AMQPValue::LongLongInt(it)) => *it,
        Some(other) => return Err(invalid(name, &format!("{other:?}"))),
    };
    u64::try_from(value).map(Some).map_err(|_| invalid(name, &value.to_string()))
}

fn text<'a>(arguments: &'a FieldTable, name: &str) -> Result<Option<&'a str>, Violation> {
    match arguments.inner().get(name) {
        None => Ok(None),
        Some(AMQPValue::LongString(it)) => {
            std::str::from_utf8(it.as_bytes()).map(Some).map_err(|_| invalid(name, "?"))
        }
        Some(other) => Err(invalid(name, &format!("{other:?}"))),
    }
}
