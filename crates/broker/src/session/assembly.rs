//! Assembles frames to requests: parses methods and joins contents. It knows the bytes of one connection and nothing of the
//! broker's state, so it runs outside the lock.

use std::collections::HashMap;
use std::sync::Arc;

use amq_protocol::protocol::{AMQPClass, parse_class};
use bytes::{BufMut, Bytes, BytesMut};

use super::violation::{Code, Violation};
use crate::frame::decode::{BadFrame, Frame};
use crate::frame::properties::{self, Malformed, Summary};
use crate::frame::table::{BadTable, Reader};
use crate::message::{Address, Message};

pub(crate) const PUBLISH: (u16, u16) = (60, 40);
pub(crate) const ACK: (u16, u16) = (60, 80);

/// The encoding of no properties.
const BARE: &[u8] = &[0, 0];

/// The most bytes allocated for a body before they are received: a header may announce any size.
const AHEAD: usize = 128 << 10;

/// One request of a client.
#[derive(Debug)]
pub(crate) enum Request {
    Method {
        channel: u16,
        method: Box<AMQPClass>,
    },
    Publish {
        channel: u16,
        message: Arc<Message>,
        user_id: UserId,
        mandatory: bool,
        immediate: bool,
    },
    Ack {
        channel: u16,
        tag: u64,
        multiple: bool,
    },
    /// A violation found while the frames were read.
    Refuse {
        channel: u16,
        violation: Violation,
    },
}

/// Where the property `user-id` is in the raw properties, if it is there: offset and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UserId(pub(crate) Option<(u32, u8)>);

enum Content {
    /// A publish was read; its header is next.
    Header {
        address: Address,
        mandatory: bool,
        immediate: bool,
    },
    Body {
        body: Box<IncompleteBody>,
        left: u64,
    },
    /// The content was refused: its body is read and ignored.
    Skip {
        left: u64,
    },
}

/// A message of which a part of the body is missing.
struct IncompleteBody {
    address: Address,
    mandatory: bool,
    immediate: bool,
    properties: Bytes,
    summary: Summary,
    body: BytesMut,
    declared: u64,
}

#[derive(Default)]
pub(crate) struct Assembly {
    /// The channels that are in the middle of a content.
    contents: HashMap<u16, Content>,
    /// The address of the last message: publishers often use the same one.
    last: Option<Address>,
    largest_body: u64,
    channel_max: u16,
    /// The announced size of all bodies that are not complete.
    incomplete: u64,
}

impl From<BadFrame> for Violation {
    fn from(error: BadFrame) -> Violation {
        Violation::new(Code::FrameError, error.to_string())
    }
}

fn syntax(error: impl ToString) -> Violation {
    Violation::new(Code::SyntaxError, error.to_string())
}

impl Assembly {
    /// The log-in and the tuning are done.
    pub(crate) fn set_limits(&mut self, largest_body: u64, channel_max: u16) {
        self.largest_body = largest_body;
        self.channel_max = channel_max;
    }

    /// The announced size of all bodies that are not complete.
    pub(crate) fn incomplete(&self) -> u64 {
        self.incomplete
    }

    /// Takes a frame. Returns a request when that completes one. An error closes the connection.
    pub(crate) fn accept(&mut self, frame: Frame<'_>) -> Result<Option<Request>, Violation> {
        match frame {
            Frame::Heartbeat => Ok(None),
            Frame::Method { channel, payload } => self.method(channel, payload),
            Frame::Header { channel, payload } => self.header(channel, payload),
            Frame::Body { channel, piece } => self.body(channel, piece),
        }
    }

    fn method(&mut self, channel: u16, payload: &[u8]) -> Result<Option<Request>, Violation> {
        let mut reader = Reader::new(payload);
        let id = (reader.u16().map_err(syntax)?, reader.u16().map_err(syntax)?);
        if !self.contents.is_empty() && self.contents.contains_key(&channel) {
            let text = "expected content, got a method";
            return Err(Violation::new(Code::UnexpectedFrame, text).by(PUBLISH));
        }
        let request = match id {
            PUBLISH if channel > self.channel_max => {
                let text = format!("channel {channel}, {} were agreed", self.channel_max);
                return Err(Violation::new(Code::ChannelError, text).by(id));
            }
            PUBLISH => return self.publish(channel, reader).map(|()| None).map_err(|it| syntax(it).by(id)),
            ACK => ack(channel, reader).map_err(|it| syntax(it).by(id))?,
            _ => {
                check_tables(id, reader).map_err(|it| it.by(id))?;
                match parse_class(payload) {
                    Ok(([], method)) => Request::Method { channel, method: Box::new(method) },
                    Ok(_) => return Err(syntax("bytes after the method").by(id)),
                    Err(_) => return Err(syntax("malformed method").by(id)),
                }
            }
        };
        Ok(Some(request))
    }

    fn publish(&mut self, channel: u16, mut reader: Reader<'_>) -> Result<(), BadTable> {
        reader.u16()?;
        let exchange = reader.short_string()?;
        let routing_key = reader.short_string()?;
        let bits = reader.u8()?;
        let address = match &self.last {
            Some(last) if last.exchange() == exchange && last.routing_key() == routing_key => last.clone(),
            _ => self.last.insert(Address::new(exchange, routing_key)).clone(),
        };
        let (mandatory, immediate) = (bits & 1 != 0, bits & 2 != 0);
        self.contents.insert(channel, Content::Header { address, mandatory, immediate });
        Ok(())
    }

    fn header(&mut self, channel: u16, payload: &[u8]) -> Result<Option<Request>, Violation> {
        let (address, mandatory, immediate) = match self.contents.remove(&channel) {
            Some(Content::Header { address, mandatory, immediate }) => (address, mandatory, immediate),
            interrupted => {
                let text = "expected no content header";
                let violation = Violation::new(Code::UnexpectedFrame, text);
                return Err(if interrupted.is_some() { violation.by(PUBLISH) } else { violation });
            }
        };
        let mut reader = Reader::new(payload);
        let bad = |error: BadTable| syntax(error).by(PUBLISH);
        let class = reader.u16().map_err(bad)?;
        reader.u16().map_err(bad)?;
        let declared = reader.u64().map_err(bad)?;
        if class != PUBLISH.0 {
            let text = format!("content header of class {class}");
            return Err(Violation::new(Code::UnexpectedFrame, text).by(PUBLISH));
        }
        let raw = &payload[12..];
        if declared > self.largest_body {
            let text =
                format!("message size {declared} is larger than configured max size {}", self.largest_body);
            let violation = Violation::new(Code::ContentTooLarge, text).by(PUBLISH);
            return Ok(Some(self.skip(channel, declared, violation)));
        }
        let summary = match properties::summarize(raw) {
            Ok(summary) => summary,
            Err(error @ (Malformed::BadExpiration | Malformed::BadDeliveryMode(_))) => {
                let violation = Violation::new(Code::PreconditionFailed, error.to_string()).by(PUBLISH);
                return Ok(Some(self.skip(channel, declared, violation)));
            }
            Err(error) => return Err(syntax(error).by(PUBLISH)),
        };
        let properties = if raw == BARE { Bytes::from_static(BARE) } else { Bytes::copy_from_slice(raw) };
        // As large as announced, unless that is large: the announcement may be false.
        let body = BytesMut::with_capacity(usize::try_from(declared).unwrap_or(AHEAD).min(AHEAD));
        let incomplete =
            IncompleteBody { address, mandatory, immediate, properties, summary, body, declared };
        if declared == 0 {
            return Ok(Some(incomplete.complete(channel)));
        }
        self.incomplete += declared;
        self.contents.insert(channel, Content::Body { body: Box::new(incomplete), left: declared });
        Ok(None)
    }

    /// Refuses a content whose body is still to come.
    fn skip(&mut self, channel: u16, left: u64, violation: Violation) -> Request {
        if left > 0 {
            self.contents.insert(channel, Content::Skip { left });
        }
        Request::Refuse { channel, violation }
    }

    fn body(&mut self, channel: u16, piece: &[u8]) -> Result<Option<Request>, Violation> {
        let (left, complete) = match self.contents.get_mut(&channel) {
            Some(Content::Body { body: incomplete, left }) => {
                let after = left.checked_sub(piece.len() as u64);
                if after.is_some() {
                    incomplete.body.put_slice(piece);
                }
                (left, after)
            }
            Some(Content::Skip { left }) => {
                let after = left.checked_sub(piece.len() as u64);
                (left, after)
            }
            // An empty body frame after an empty body means nothing.
            None if piece.is_empty() => return Ok(None),
            interrupted => {
                let violation = Violation::new(Code::UnexpectedFrame, "expected no content body");
                return Err(if interrupted.is_some() { violation.by(PUBLISH) } else { violation });
            }
        };
        let Some(after) = complete else {
            return Err(Violation::new(Code::UnexpectedFrame, "more body than the header said").by(PUBLISH));
        };
        *left = after;
        if after > 0 {
            return Ok(None);
        }
        match self.contents.remove(&channel) {
            Some(Content::Body { body: incomplete, .. }) => {
                self.incomplete -= incomplete.declared;
                Ok(Some(incomplete.complete(channel)))
            }
            _ => Ok(None),
        }
    }
}

impl IncompleteBody {
    fn complete(self, channel: u16) -> Request {
        let IncompleteBody { address, mandatory, immediate, properties, summary, body, .. } = self;
        let message = Message::from_parts(address, properties, body.freeze(), summary);
        Request::Publish {
            channel,
            message: Arc::new(message),
            user_id: UserId(summary.user_id),
            mandatory,
            immediate,
        }
    }
}

fn ack(channel: u16, mut reader: Reader<'_>) -> Result<Request, BadTable> {
    let tag = reader.u64()?;
    let multiple = reader.u8()? & 1 != 0;
    Ok(Request::Ack { channel, tag, multiple })
}

/// Checks a method before the parser gets it: it must be one that clients may send, and its tables must be well-formed.
fn check_tables(id: (u16, u16), mut reader: Reader<'_>) -> Result<(), Violation> {
    let (strings, bits) = match id {
        // connection.start-ok begins with its table.
        (10, 11) => return reader.table().map_err(syntax),
        (40, 10) => (2, true),
        (40, 30 | 40) => (3, true),
        (50, 10) => (1, true),
        (50, 20) => (3, true),
        (50, 50) => (3, false),
        (60, 20) => (2, true),
        (60, 10) => {
            return match reader.u32().map_err(syntax)? {
                0 => Ok(()),
                size => Err(Violation::new(Code::NotImplemented, format!("prefetch_size!=0 ({size})"))),
            };
        }
        (10, 31 | 40 | 50 | 51 | 70)
        | (20, 10 | 20 | 21 | 40 | 41)
        | (40, 20)
        | (50, 30 | 40)
        | (60, 30 | 31 | 70 | 90 | 100 | 110 | 120)
        | (85, 10) => return Ok(()),
        (90, _) => return Err(Violation::new(Code::NotImplemented, "transactions")),
        (class, method) => {
            let text = format!("no such method for clients: {class}, {method}");
            return Err(Violation::new(Code::CommandInvalid, text));
        }
    };
    let mut walk = || {
        reader.u16()?;
        for _ in 0..strings {
            reader.short_string()?;
        }
        if bits {
            reader.u8()?;
        }
        reader.table()
    };
    walk().map_err(syntax)
}
