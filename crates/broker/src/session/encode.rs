//! Encodes what a client is sent.
//!
//! Methods, headers and small bodies are written into one buffer. Large bodies are not copied but queued beside it, so
//! that a message which many clients receive is in memory once.

use std::collections::VecDeque;
use std::io::IoSlice;

use amq_protocol::protocol::constants::{FRAME_BODY, FRAME_END, FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD};
use amq_protocol::protocol::{AMQPClass, gen_class};
use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::core::Output;
use crate::frame::{HEADER, OVERHEAD, PROTOCOL_HEADER};
use crate::message::Message;

/// Bodies from this size are not copied.
const LARGE: usize = 16 << 10;

/// Encoded bytes that wait for the socket.
#[derive(Default)]
pub(crate) struct Outgoing {
    done: VecDeque<Bytes>,
    tail: BytesMut,
    length: usize,
}

impl Outgoing {
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The first bytes, as slices for one vectored write. Returns how many slices.
    pub(crate) fn slices<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        let tail = (!self.tail.is_empty()).then_some(&self.tail[..]);
        let mut count = 0;
        for (slot, bytes) in into.iter_mut().zip(self.done.iter().map(|it| &it[..]).chain(tail)) {
            *slot = IoSlice::new(bytes);
            count += 1;
        }
        count
    }

    pub(crate) fn advance(&mut self, mut count: usize) {
        self.length -= count;
        while count > 0 {
            match self.done.front_mut() {
                Some(first) => {
                    let part = count.min(first.len());
                    first.advance(part);
                    count -= part;
                    if first.is_empty() {
                        self.done.pop_front();
                    }
                }
                None => {
                    self.tail.advance(count);
                    count = 0;
                }
            }
        }
        if self.length == 0 {
            // An idle connection keeps no buffer.
            *self = Outgoing::default();
        }
    }

    fn push(&mut self, bytes: Bytes) {
        self.length += bytes.len();
        if !self.tail.is_empty() {
            self.done.push_back(self.tail.split().freeze());
        }
        self.done.push_back(bytes);
    }

    /// Writes a frame. `payload` appends to the buffer; its length is filled in afterwards.
    fn frame(&mut self, kind: u8, channel: u16, payload: impl FnOnce(&mut BytesMut)) {
        let start = self.tail.len();
        self.tail.put_u8(kind);
        self.tail.put_u16(channel);
        self.tail.put_u32(0);
        let before = self.tail.len();
        payload(&mut self.tail);
        let size = self.tail.len() - before;
        self.tail[before - 4..before].copy_from_slice(&u32::try_from(size).unwrap_or(u32::MAX).to_be_bytes());
        self.tail.put_u8(FRAME_END);
        self.length += self.tail.len() - start;
    }

    /// Writes one output with frames of at most `frame_max` bytes.
    pub(crate) fn write(&mut self, output: &Output, frame_max: u32) {
        match output {
            Output::Deliver { channel, consumer, tag, redelivered, message } => {
                self.frame(FRAME_METHOD, *channel, |it| {
                    it.put_slice(&[0, 60, 0, 60]);
                    put_short(it, consumer);
                    it.put_u64(*tag);
                    it.put_u8((*redelivered).into());
                    put_short(it, message.exchange());
                    put_short(it, message.routing_key());
                });
                self.content(*channel, message, frame_max);
            }
            Output::Got { channel, tag, redelivered, remaining, message } => {
                self.frame(FRAME_METHOD, *channel, |it| {
                    it.put_slice(&[0, 60, 0, 71]);
                    it.put_u64(*tag);
                    it.put_u8((*redelivered).into());
                    put_short(it, message.exchange());
                    put_short(it, message.routing_key());
                    it.put_u32(*remaining);
                });
                self.content(*channel, message, frame_max);
            }
            Output::Return { channel, message } => {
                self.frame(FRAME_METHOD, *channel, |it| {
                    it.put_slice(&[0, 60, 0, 50]);
                    it.put_u16(312);
                    put_short(it, "NO_ROUTE");
                    put_short(it, message.exchange());
                    put_short(it, message.routing_key());
                });
                self.content(*channel, message, frame_max);
            }
            Output::Confirm { channel, first, last, safe, .. } => {
                self.frame(FRAME_METHOD, *channel, |it| {
                    it.put_slice(if *safe { &[0, 60, 0, 80] } else { &[0, 60, 0, 120] });
                    it.put_u64(*last);
                    it.put_u8((first != last).into());
                });
            }
            Output::Cancel { channel, consumer } => {
                self.frame(FRAME_METHOD, *channel, |it| {
                    it.put_slice(&[0, 60, 0, 30]);
                    put_short(it, consumer);
                    it.put_u8(1);
                });
            }
            Output::Blocked(true) => self.frame(FRAME_METHOD, 0, |it| {
                it.put_slice(&[0, 10, 0, 60]);
                put_short(it, "low on memory");
            }),
            Output::Blocked(false) => self.frame(FRAME_METHOD, 0, |it| it.put_slice(&[0, 10, 0, 61])),
            Output::Method { channel, method } => self.method(*channel, method),
            Output::Heartbeat => self.frame(FRAME_HEARTBEAT, 0, |_| {}),
            Output::ProtocolHeader => {
                self.tail.put_slice(PROTOCOL_HEADER);
                self.length += PROTOCOL_HEADER.len();
            }
        }
    }

    fn method(&mut self, channel: u16, method: &AMQPClass) {
        // Writing to memory does not fail. If it did, no frame is better than one without its payload.
        if let Ok(written) = gen_class::<Vec<u8>>(method)(Vec::new().into()) {
            let (payload, _) = written.into_inner();
            self.frame(FRAME_METHOD, channel, |it| it.put_slice(&payload));
        }
    }

    fn content(&mut self, channel: u16, message: &Message, frame_max: u32) {
        let body = message.body();
        self.frame(FRAME_HEADER, channel, |it| {
            it.put_slice(&[0, 60, 0, 0]);
            it.put_u64(body.len() as u64);
            it.put_slice(message.raw_properties());
        });
        let room = (frame_max as usize).saturating_sub(OVERHEAD).max(1);
        let mut rest = body.clone();
        while !rest.is_empty() {
            let piece = rest.split_to(room.min(rest.len()));
            if piece.len() < LARGE {
                self.frame(FRAME_BODY, channel, |it| it.put_slice(&piece));
                continue;
            }
            self.tail.put_u8(FRAME_BODY);
            self.tail.put_u16(channel);
            self.tail.put_u32(u32::try_from(piece.len()).unwrap_or(u32::MAX));
            self.length += HEADER;
            self.push(piece);
            self.tail.put_u8(FRAME_END);
            self.length += 1;
        }
    }
}

fn put_short(buffer: &mut BytesMut, text: &str) {
    let text = crate::message::short(text);
    buffer.put_u8(u8::try_from(text.len()).unwrap_or(u8::MAX));
    buffer.put_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use amq_protocol::frame::{AMQPFrame, parse_frame};
    use amq_protocol::protocol::{BasicProperties, basic};

    fn written(output: &Output, frame_max: u32) -> Vec<AMQPFrame> {
        let mut outgoing = Outgoing::default();
        outgoing.write(output, frame_max);
        let mut slices = [IoSlice::new(&[]); 64];
        let count = outgoing.slices(&mut slices);
        let bytes: Vec<u8> = slices[..count].iter().flat_map(|it| it.to_vec()).collect();
        assert_eq!(bytes.len(), outgoing.len());
        let mut rest = &bytes[..];
        let mut frames = Vec::new();
        while !rest.is_empty() {
            let (after, frame) = parse_frame(rest).unwrap();
            frames.push(frame);
            rest = after;
        }
        outgoing.advance(bytes.len());
        assert!(outgoing.is_empty());
        frames
    }

    fn message(body: Vec<u8>) -> Arc<Message> {
        let properties = BasicProperties::default().with_delivery_mode(2).with_timestamp(9);
        Arc::new(Message::new("x", "a.b", &properties, body).unwrap())
    }

    #[test]
    fn deliveries_are_decoded_by_another_codec() {
        for size in [0, 1, 4088, 4089, 20_000, 100_000] {
            for frame_max in [4096, 131_072] {
                let body: Vec<u8> = (0..size).map(|it| it as u8).collect();
                let output = Output::Deliver {
                    channel: 7,
                    consumer: "ctag".into(),
                    tag: 1 << 40,
                    redelivered: true,
                    message: message(body.clone()),
                };
                let frames = written(&output, frame_max);
                let deliver = basic::Deliver {
                    consumer_tag: "ctag".into(),
                    delivery_tag: 1 << 40,
                    redelivered: true,
                    exchange: "x".into(),
                    routing_key: "a.b".into(),
                };
                let method = AMQPClass::Basic(basic::AMQPMethod::Deliver(deliver));
                assert_eq!(frames[0], AMQPFrame::Method(7, method));
                let AMQPFrame::Header(7, header) = &frames[1] else { panic!("{:?}", frames[1]) };
                assert_eq!((header.class_id, header.body_size), (60, size as u64));
                assert_eq!(header.properties.timestamp(), &Some(9));
                let mut joined: Vec<u8> = Vec::new();
                for frame in &frames[2..] {
                    let AMQPFrame::Body(7, bytes) = frame else { panic!("{frame:?}") };
                    assert!(bytes.len() + OVERHEAD <= frame_max as usize);
                    joined.extend(bytes);
                }
                assert_eq!(joined, body);
            }
        }
    }

    #[test]
    fn the_other_outputs_are_decoded_by_another_codec() {
        let method = |output: &Output| match written(output, 4096).remove(0) {
            AMQPFrame::Method(_, AMQPClass::Basic(method)) => method,
            other => panic!("{other:?}"),
        };
        let confirm = |first, last, safe| Output::Confirm { channel: 1, first, last, safe, whole: true };
        assert_eq!(
            method(&confirm(3, 3, true)),
            basic::AMQPMethod::Ack(basic::Ack { delivery_tag: 3, multiple: false })
        );
        assert_eq!(
            method(&confirm(3, 5, true)),
            basic::AMQPMethod::Ack(basic::Ack { delivery_tag: 5, multiple: true })
        );
        let basic::AMQPMethod::Nack(nack) = method(&confirm(3, 3, false)) else { panic!("no nack") };
        assert_eq!((nack.delivery_tag, nack.multiple), (3, false));
        let returned = method(&Output::Return { channel: 1, message: message(vec![1]) });
        let basic::AMQPMethod::Return(returned) = returned else { panic!("{returned:?}") };
        assert_eq!((returned.reply_code, returned.reply_text.as_str()), (312, "NO_ROUTE"));
        let got =
            Output::Got { channel: 1, tag: 4, redelivered: false, remaining: 9, message: message(vec![1]) };
        let basic::AMQPMethod::GetOk(got) = method(&got) else { panic!("no get-ok") };
        assert_eq!((got.delivery_tag, got.message_count), (4, 9));
        let cancel = method(&Output::Cancel { channel: 1, consumer: "c".into() });
        let basic::AMQPMethod::Cancel(cancel) = cancel else { panic!("{cancel:?}") };
        assert!(cancel.nowait);
        assert_eq!(written(&Output::Heartbeat, 4096), [AMQPFrame::Heartbeat]);
        for (blocked, name) in [(true, "Blocked"), (false, "Unblocked")] {
            let frames = written(&Output::Blocked(blocked), 4096);
            assert!(format!("{frames:?}").contains(name), "{frames:?}");
        }
    }
}
