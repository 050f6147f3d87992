//! Methods of class basic: publish, consume, get, acknowledge, and the like.

use std::sync::Arc;

use amq_protocol::protocol::AMQPClass;
use amq_protocol::protocol::basic as methods;

use super::assembly::UserId;
use super::exchange::no_exchange;
use super::violation::{Code, Violation, about_queue};
use super::{RequestContext, Session, Step};
use crate::access_control::Operation;
use crate::core::{ChannelKey, Consume, Error, Output, Publisher, Verdict};
use crate::message::Message;

impl Session {
    pub(super) fn basic_method(
        &mut self,
        (number, key): (u16, ChannelKey),
        method: methods::AMQPMethod,
        context: &mut RequestContext<'_>,
    ) -> Result<(), Violation> {
        match method {
            methods::AMQPMethod::Qos(it) => self.qos(number, key, &it, context),
            methods::AMQPMethod::Consume(it) => self.consume(number, key, &it, context),
            methods::AMQPMethod::Cancel(it) => {
                context.core.cancel(key, it.consumer_tag.as_str());
                if !it.nowait {
                    let ok = methods::CancelOk { consumer_tag: it.consumer_tag };
                    self.reply(number, AMQPClass::Basic(methods::AMQPMethod::CancelOk(ok)), context);
                }
                Ok(())
            }
            methods::AMQPMethod::CancelOk(_) => Ok(()),
            methods::AMQPMethod::Get(it) => self.get(number, key, &it, context),
            methods::AMQPMethod::Reject(it) => {
                settle(key, it.delivery_tag, false, verdict(it.requeue), context)
            }
            methods::AMQPMethod::Nack(it) => {
                settle(key, it.delivery_tag, it.multiple, verdict(it.requeue), context)
            }
            methods::AMQPMethod::Recover(it) => {
                recover(key, it.requeue, context)?;
                let ok = methods::AMQPMethod::RecoverOk(methods::RecoverOk {});
                self.reply(number, AMQPClass::Basic(ok), context);
                Ok(())
            }
            methods::AMQPMethod::RecoverAsync(it) => recover(key, it.requeue, context),
            // Publish and Ack are parsed by the assembly. The others only servers send.
            _ => Err(Violation::new(Code::CommandInvalid, "a method only servers send")),
        }
    }

    pub(super) fn ack(
        &mut self,
        channel: u16,
        tag: u64,
        multiple: bool,
        context: &mut RequestContext<'_>,
    ) -> Result<Step, Violation> {
        if let Some(key) = self.channel(channel)? {
            settle(key, tag, multiple, Verdict::Acknowledge, context)?;
        }
        Ok(Step::Continue)
    }

    pub(super) fn publish(
        &mut self,
        channel: u16,
        message: Arc<Message>,
        user_id: UserId,
        (mandatory, immediate): (bool, bool),
        context: &mut RequestContext<'_>,
    ) -> Result<Step, Violation> {
        let Some(key) = self.channel(channel)? else { return Ok(Step::Continue) };
        let (exchange, routing_key) = (message.exchange(), message.routing_key());
        if !self.may(&Operation::Publish { exchange, routing_key }, context) {
            // The text is made only when it is needed, because every publish comes here.
            let what = if exchange.is_empty() { "the default exchange" } else { exchange };
            let text = format!(
                "access to exchange '{what}' with routing key '{routing_key}' in vhost '{}' refused for user '{}'",
                context.config.virtual_host,
                self.principal.user()
            );
            return Err(Violation::new(Code::AccessRefused, text));
        }
        if immediate {
            return Err(Violation::new(Code::NotImplemented, "immediate=true"));
        }
        if let Some((offset, length)) = user_id.0 {
            let claimed =
                message.raw_properties().get(offset as usize..offset as usize + usize::from(length));
            if claimed != Some(self.principal.user().as_bytes()) {
                let claimed = String::from_utf8_lossy(claimed.unwrap_or_default());
                let text = format!(
                    "user_id property set to '{claimed}' but authenticated user was '{}'",
                    self.principal.user()
                );
                return Err(Violation::new(Code::PreconditionFailed, text));
            }
        }
        if !exchange.is_empty() {
            match context.core.exchange(exchange) {
                None => return Err(no_exchange(exchange, context)),
                Some(it) if it.attributes.internal => {
                    let text = format!(
                        "cannot publish to internal exchange '{exchange}' in vhost '{}'",
                        context.config.virtual_host
                    );
                    return Err(Violation::new(Code::AccessRefused, text));
                }
                Some(_) => {}
            }
        }
        // The exchange exists: that was checked above, under the same lock.
        let _ = context.core.publish(Publisher::Channel(key), message, mandatory);
        Ok(Step::Continue)
    }

    fn qos(
        &mut self,
        number: u16,
        key: ChannelKey,
        it: &methods::Qos,
        context: &mut RequestContext<'_>,
    ) -> Result<(), Violation> {
        context.core.set_prefetch(key, it.prefetch_count, !it.global);
        let ok = methods::AMQPMethod::QosOk(methods::QosOk {});
        self.reply(number, AMQPClass::Basic(ok), context);
        Ok(())
    }

    fn consume(
        &mut self,
        number: u16,
        key: ChannelKey,
        it: &methods::Consume,
        context: &mut RequestContext<'_>,
    ) -> Result<(), Violation> {
        let queue = self.named(number, it.queue.as_str())?;
        self.require(&Operation::Consume { queue: &queue }, &format!("queue '{queue}'"), context)?;
        if context.core.consumer_count(self.connection) >= self.limits.consumers {
            let text = format!("a connection may have {} consumers", self.limits.consumers);
            return Err(Violation::new(Code::ResourceError, text));
        }
        self.declare_unknown(&queue, context);
        let tag: Arc<str> = match it.consumer_tag.as_str() {
            "" => self.generate_name("ctag").into(),
            tag => tag.into(),
        };
        let how = Consume { queue: &queue, tag: tag.clone(), no_ack: it.no_ack, exclusive: it.exclusive };
        context.core.consume(key, how).map_err(|error| match error {
            Error::TagTaken => {
                Violation::new(Code::NotAllowed, format!("attempt to reuse consumer tag '{tag}'"))
            }
            error => about_queue(error, &queue, &context.config.virtual_host),
        })?;
        if !it.nowait {
            let ok = methods::ConsumeOk { consumer_tag: crate::message::short(&tag).into() };
            self.reply(number, AMQPClass::Basic(methods::AMQPMethod::ConsumeOk(ok)), context);
        }
        Ok(())
    }

    fn get(
        &mut self,
        number: u16,
        key: ChannelKey,
        it: &methods::Get,
        context: &mut RequestContext<'_>,
    ) -> Result<(), Violation> {
        let queue = self.named(number, it.queue.as_str())?;
        self.require(&Operation::Get { queue: &queue }, &format!("queue '{queue}'"), context)?;
        self.declare_unknown(&queue, context);
        let got = context.core.get(key, &queue, it.no_ack);
        match got.map_err(|error| about_queue(error, &queue, &context.config.virtual_host))? {
            Some(got) => {
                let output = Output::Got {
                    channel: number,
                    tag: got.tag,
                    redelivered: got.redelivered,
                    remaining: got.remaining,
                    message: got.message,
                };
                self.send(output, context);
            }
            None => {
                let empty = methods::AMQPMethod::GetEmpty(methods::GetEmpty {});
                self.reply(number, AMQPClass::Basic(empty), context);
            }
        }
        Ok(())
    }
}

fn verdict(requeue: bool) -> Verdict {
    if requeue { Verdict::Requeue } else { Verdict::Drop }
}

fn settle(
    key: ChannelKey,
    tag: u64,
    multiple: bool,
    verdict: Verdict,
    context: &mut RequestContext<'_>,
) -> Result<(), Violation> {
    context
        .core
        .settle_delivery(key, tag, multiple, verdict)
        .map_err(|_| Violation::new(Code::PreconditionFailed, format!("unknown delivery tag {tag}")))
}

fn recover(key: ChannelKey, requeue: bool, context: &mut RequestContext<'_>) -> Result<(), Violation> {
    if !requeue {
        return Err(Violation::new(Code::NotImplemented, "requeue=false"));
    }
    context.core.recover(key);
    Ok(())
}
