//! Decodes bytes to frames. A frame larger than agreed is refused at its header, and bodies are passed on in pieces as they
//! arrive.

use thiserror::Error;

use super::{HEADER, OVERHEAD, UNTUNED};
use amq_protocol::protocol::constants::{FRAME_BODY, FRAME_END, FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD};

/// One frame, or a piece of a body frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    Method {
        channel: u16,
        payload: &'a [u8],
    },
    Header {
        channel: u16,
        payload: &'a [u8],
    },
    /// Some bytes of a body. Where one frame ends and the next begins does not matter.
    Body {
        channel: u16,
        piece: &'a [u8],
    },
    Heartbeat,
}

#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum BadFrame {
    #[error("frame of {size} bytes, {max} were agreed")]
    TooLarge { size: u64, max: u32 },
    #[error("frame does not end with 0xce but {0:#04x}")]
    BadEnd(u8),
    #[error("unknown frame type {0}")]
    UnknownType(u8),
    #[error("heartbeat on a channel, or with a payload")]
    BadHeartbeat,
}

/// The position in the stream of frames.
#[derive(Debug)]
pub(crate) struct Decoder {
    max: u32,
    /// Inside a body frame: its channel and how many bytes are missing.
    body: Option<(u16, usize)>,
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder { max: UNTUNED, body: None }
    }
}

impl Decoder {
    /// The tuning is done.
    pub(crate) fn set_max(&mut self, max: u32) {
        self.max = max.max(UNTUNED);
    }

    /// The first frame of `input` and how many bytes it took; `None` when more are needed.
    pub(crate) fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Option<(Frame<'a>, usize)>, BadFrame> {
        if let Some((channel, left)) = self.body {
            return self.body(channel, left, input, 0);
        }
        let Some((header, rest)) = input.split_first_chunk::<HEADER>() else { return Ok(None) };
        let [kind, channel_high, channel_low, size @ ..] = *header;
        let channel = u16::from_be_bytes([channel_high, channel_low]);
        let size = u32::from_be_bytes(size);
        if !matches!(kind, FRAME_METHOD | FRAME_HEADER | FRAME_BODY | FRAME_HEARTBEAT) {
            return Err(BadFrame::UnknownType(kind));
        }
        if u64::from(size) + OVERHEAD as u64 > u64::from(self.max) {
            return Err(BadFrame::TooLarge { size: u64::from(size) + OVERHEAD as u64, max: self.max });
        }
        let size = size as usize;
        if kind == FRAME_BODY {
            return self.body(channel, size, rest, HEADER);
        }
        let Some((payload, rest)) = rest.split_at_checked(size) else { return Ok(None) };
        let Some(end) = rest.first() else { return Ok(None) };
        if *end != FRAME_END {
            return Err(BadFrame::BadEnd(*end));
        }
        let frame = match kind {
            FRAME_METHOD => Frame::Method { channel, payload },
            FRAME_HEADER => Frame::Header { channel, payload },
            _ if channel != 0 || size != 0 => return Err(BadFrame::BadHeartbeat),
            _ => Frame::Heartbeat,
        };
        Ok(Some((frame, size + OVERHEAD)))
    }

    /// A piece of a body frame. Its last byte is passed on only after the end octet has been read.
    fn body<'a>(
        &mut self,
        channel: u16,
        left: usize,
        input: &'a [u8],
        before: usize,
    ) -> Result<Option<(Frame<'a>, usize)>, BadFrame> {
        if let Some(end) = input.get(left) {
            if *end != FRAME_END {
                return Err(BadFrame::BadEnd(*end));
            }
            self.body = None;
            return Ok(Some((Frame::Body { channel, piece: &input[..left] }, before + left + 1)));
        }
        let ready = input.len().min(left.saturating_sub(1));
        if ready == 0 {
            return Ok(None);
        }
        self.body = Some((channel, left - ready));
        Ok(Some((Frame::Body { channel, piece: &input[..ready] }, before + ready)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind];
        bytes.extend(channel.to_be_bytes());
        bytes.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
        bytes.extend(payload);
        bytes.push(FRAME_END);
        bytes
    }

    /// What a stream means, however it is cut: methods and headers whole, body bytes joined.
    fn read(decoder: &mut Decoder, chunks: &[&[u8]]) -> Result<Vec<(u8, u16, Vec<u8>)>, BadFrame> {
        let mut pending = Vec::new();
        let mut seen: Vec<(u8, u16, Vec<u8>)> = Vec::new();
        for chunk in chunks {
            pending.extend_from_slice(chunk);
            let mut used = 0;
            while let Some((frame, length)) = decoder.decode(&pending[used..])? {
                match frame {
                    Frame::Method { channel, payload } => seen.push((1, channel, payload.to_vec())),
                    Frame::Header { channel, payload } => seen.push((2, channel, payload.to_vec())),
                    Frame::Heartbeat => seen.push((8, 0, Vec::new())),
                    Frame::Body { channel, piece } => match seen.last_mut() {
                        Some((3, same, bytes)) if *same == channel => bytes.extend(piece),
                        _ => seen.push((3, channel, piece.to_vec())),
                    },
                }
                used += length;
            }
            pending.drain(..used);
        }
        Ok(seen)
    }

    #[test]
    fn frames_beyond_the_agreed_size_are_refused_at_their_header() {
        let mut decoder = Decoder::default();
        let header = [1, 0, 0, 0, 0, 0x10, 0];
        assert_eq!(decoder.decode(&header), Err(BadFrame::TooLarge { size: 4104, max: 4096 }));
        let body = [3, 0, 1, 0xff, 0xff, 0xff, 0xff];
        assert!(matches!(decoder.decode(&body), Err(BadFrame::TooLarge { .. })));
        decoder.set_max(131_072);
        assert_eq!(decoder.decode(&header), Ok(None));
        assert_eq!(decoder.decode(b"GET / HTTP/1.1"), Err(BadFrame::UnknownType(b'G')));
        assert_eq!(decoder.decode(&[8, 0, 1, 0, 0, 0, 0, FRAME_END]), Err(BadFrame::BadHeartbeat));
        assert_eq!(decoder.decode(&[8, 0, 0, 0, 0, 0, 1, 7, FRAME_END]), Err(BadFrame::BadHeartbeat));
        assert_eq!(decoder.decode(&[1, 0, 1, 0, 0, 0, 1, 7, 0]), Err(BadFrame::BadEnd(0)));
        assert_eq!(decoder.decode(&[3, 0, 1, 0, 0, 0, 1, 7, 0]), Err(BadFrame::BadEnd(0)));
    }

    proptest! {
        /// Fails when the way a stream of frames is cut into reads changes what is read.
        #[test]
        fn frames_are_the_same_however_the_stream_is_cut(
            frames in prop::collection::vec((prop::sample::select(vec![1u8, 2, 3, 8]), 1u16..3,
                prop::collection::vec(any::<u8>(), 0..40)), 1..8),
            cut in prop::collection::vec(1usize..20, 1..60),
        ) {
            let mut stream = Vec::new();
            for (kind, channel, payload) in &frames {
                let (channel, payload) = if *kind == 8 { (0, &[][..]) } else { (*channel, &payload[..]) };
                stream.extend(frame(*kind, channel, payload));
            }
            let whole = read(&mut Decoder::default(), &[&stream]).unwrap();
            let mut chunks = Vec::new();
            let mut rest = &stream[..];
            for size in cut {
                let (head, tail) = rest.split_at(size.min(rest.len()));
                chunks.push(head);
                rest = tail;
            }
            chunks.push(rest);
            let pieces = read(&mut Decoder::default(), &chunks).unwrap();
            // A body frame without bytes may be returned or not.
            let nonempty = |it: Vec<(u8, u16, Vec<u8>)>| -> Vec<_> {
                it.into_iter().filter(|it| it.0 != 3 || !it.2.is_empty()).collect()
            };
            prop_assert_eq!(nonempty(whole), nonempty(pieces));
        }

        /// Fails on a panic, whatever the bytes.
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&mut Decoder::default(), &[&bytes]);
        }
    }
}
