//! Methods of class channel and of class confirm: open, flow, close, select.

use amq_protocol::protocol::AMQPClass;
use amq_protocol::protocol::channel as methods;
use amq_protocol::protocol::confirm;

use super::violation::{Code, Violation};
use super::{Channel, RequestContext, Session};
use crate::core::ChannelKey;

impl Session {
    pub(super) fn channel_method(
        &mut self,
        number: u16,
        method: &methods::AMQPMethod,
        context: &mut RequestContext<'_>,
    ) -> Result<(), Violation> {
        if let methods::AMQPMethod::Open(_) = method {
            return self.open_channel(number, context);
        }
        if let (methods::AMQPMethod::CloseOk(_), Some(Channel::Crossed)) =
            (method, self.channels.get(&number))
        {
            self.channels.remove(&number);
            return Ok(());
        }
        match (method, self.channel(number)?) {
            (methods::AMQPMethod::Close(_), key) => {
                if let Some(key) = key {
                    context.core.close_channel(key);
                    self.channels.remove(&number);
                } else {
                    self.channels.insert(number, Channel::Crossed);
                }
                let ok = methods::AMQPMethod::CloseOk(methods::CloseOk {});
                self.reply(number, AMQPClass::Channel(ok), context);
            }
            (methods::AMQPMethod::CloseOk(_), None) => {
                self.channels.remove(&number);
            }
            (methods::AMQPMethod::Flow(it), Some(key)) => {
                let ok = methods::AMQPMethod::FlowOk(methods::FlowOk { active: it.active });
                self.reply(number, AMQPClass::Channel(ok), context);
                context.core.set_flow(key, it.active);
            }
            (methods::AMQPMethod::FlowOk(_), _) | (_, None) => {}
            (methods::AMQPMethod::CloseOk(_), Some(_)) => {
                return Err(Violation::new(Code::CommandInvalid, "nothing was asked to close"));
            }
            (methods::AMQPMethod::Open(_) | methods::AMQPMethod::OpenOk(_), _) => {
                return Err(Violation::new(Code::CommandInvalid, "a method only servers send"));
            }
        }
        Ok(())
    }

    fn open_channel(&mut self, number: u16, context: &mut RequestContext<'_>) -> Result<(), Violation> {
        if number > self.channel_max {
            let text = format!(
                "number of channels opened ({number}) has reached the negotiated channel_max ({})",
                self.channel_max
            );
            return Err(Violation::new(Code::NotAllowed, text));
        }
        if !matches!(self.channels.get(&number), None | Some(Channel::Crossed)) {
            return Err(Violation::new(Code::ChannelError, "second 'channel.open' seen"));
        }
        let key = context.core.open_channel(self.connection, number);
        self.channels.insert(number, Channel::Open { key, last_queue: None });
        let ok = methods::AMQPMethod::OpenOk(methods::OpenOk {});
        self.reply(number, AMQPClass::Channel(ok), context);
        Ok(())
    }

    /// Closes a channel for what was done on it.
    pub(super) fn close_channel(
        &mut self,
        number: u16,
        violation: &Violation,
        context: &mut RequestContext<'_>,
    ) {
        if let Some(Channel::Open { key, .. }) = self.channels.get(&number) {
            context.core.close_channel(*key);
            self.channels.insert(number, Channel::Closing);
            let close = methods::Close {
                reply_code: violation.code as u16,
                reply_text: violation.reply_text().into(),
                class_id: violation.class,
                method_id: violation.method,
            };
            self.reply(number, AMQPClass::Channel(methods::AMQPMethod::Close(close)), context);
        }
    }

    pub(super) fn confirm_method(
        &mut self,
        (number, key): (u16, ChannelKey),
        method: &confirm::AMQPMethod,
        context: &mut RequestContext<'_>,
    ) -> Result<(), Violation> {
        let confirm::AMQPMethod::Select(select) = method else {
            return Err(Violation::new(Code::CommandInvalid, "a method only servers send"));
        };
        context.core.select_confirms(key);
        if !select.nowait {
            let ok = confirm::AMQPMethod::SelectOk(confirm::SelectOk {});
            self.reply(number, AMQPClass::Confirm(ok), context);
        }
        Ok(())
    }
}
