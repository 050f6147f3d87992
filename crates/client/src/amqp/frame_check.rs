//! Checks what a broker sends before the AMQP library parses it: no frame longer than agreed, no table nested deeper than
//! [`MAX_DEPTH`], no method that only clients send.
//!
//! The library's parser recurses into tables without a limit, and a stack overflow aborts the process: a hostile broker could
//! end every endpoint with a few kilobytes. This module changes nothing; a stream that fails a check ends with an error.

use std::io;

/// How deep tables and arrays may be nested.
const MAX_DEPTH: usize = 32;
/// The longest frame we agree to: a quarter of RabbitMQ's, because the library's buffers are sixty-four times as long.
pub(super) const FRAME_LIMIT: u32 = 32_768;
/// The largest message. Brokers accept none that is longer by default, and neither does ours.
pub(super) const BODY_LIMIT: u64 = 160 << 20;

const HEADER: usize = 7;
const METHOD: u8 = 1;
const CONTENT_HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;
/// `AMQP` and four numbers: the answer of a broker that speaks another version.
const GREETING: &[u8] = b"AMQP";
const GREETING_LENGTH: usize = 8;

/// The only method of a broker that contains a table: `connection.start`, after two octets of version.
const START: [u8; 4] = [0, 10, 0, 10];
/// Methods with tables that only clients send, as class and method.
const CLIENT_METHODS: [[u8; 4]; 8] = [
    [0, 10, 0, 11],
    [0, 40, 0, 10],
    [0, 40, 0, 30],
    [0, 40, 0, 40],
    [0, 50, 0, 10],
    [0, 50, 0, 20],
    [0, 50, 0, 50],
    [0, 60, 0, 20],
];

/// Checks a stream frame by frame.
#[derive(Debug, Default)]
pub(super) struct FrameCheck {
    /// The frame that is not complete: all of it if its content is checked, else its header.
    held: Vec<u8>,
    /// How many octets follow of a frame whose content is not checked.
    skip: usize,
    /// How many octets of bodies came since [`Self::bodies`] was called.
    bodies: usize,
    /// A check failed; everything that follows is refused.
    broken: bool,
}

/// Which check failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("the broker sent a frame of {0} octets, beyond {FRAME_LIMIT}")]
    FrameTooLong(usize),
    #[error("the broker sent a table nested deeper than {MAX_DEPTH}")]
    TooDeep,
    #[error("the broker announced a message of {0} octets, beyond {BODY_LIMIT}")]
    BodyTooLarge(u64),
    #[error("the broker sent data that is not AMQP")]
    Malformed,
    #[error("the broker sent a method that only clients send")]
    ClientMethod,
}

impl From<FrameError> for io::Error {
    fn from(error: FrameError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

impl FrameCheck {
    /// Checks the next octets of the stream.
    pub(super) fn inspect(&mut self, mut bytes: &[u8]) -> Result<(), FrameError> {
        if self.broken {
            return Err(FrameError::Malformed);
        }
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            match self.frame(bytes) {
                Ok(rest) => bytes = rest,
                Err(error) => {
                    self.broken = true;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// How many octets of bodies came since the last call.
    pub(super) fn bodies(&mut self) -> usize {
        std::mem::take(&mut self.bodies)
    }

    /// Consumes the octets of the current frame and returns the rest.
    fn frame<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], FrameError> {
        let rest = self.hold(bytes, HEADER);
        let Some((header, payload)) = self.held.split_first_chunk::<HEADER>() else { return Ok(rest) };
        let [kind, _, _, size @ ..] = *header;
        let size = u32::from_be_bytes(size) as usize;
        if header.starts_with(GREETING) {
            self.skip = GREETING_LENGTH - HEADER;
            self.held.clear();
            return Ok(rest);
        }
        if !matches!(kind, METHOD | CONTENT_HEADER | BODY | HEARTBEAT) {
            return Err(FrameError::Malformed);
        }
        // The payload and the octet that ends a frame.
        let left = size.saturating_add(1);
        if left.saturating_add(HEADER) > FRAME_LIMIT as usize {
            return Err(FrameError::FrameTooLong(left.saturating_add(HEADER)));
        }
        if matches!(kind, BODY | HEARTBEAT) {
            self.bodies += if kind == BODY { size } else { 0 };
            self.skip = left;
            self.held.clear();
            return Ok(rest);
        }
        let rest = if payload.len() < left { self.hold(rest, HEADER + left) } else { rest };
        if self.held.len() == HEADER + left {
            self.check_content(kind, size)?;
        }
        Ok(rest)
    }

    /// Moves octets into `held` until it has `until`; returns the rest.
    fn hold<'a>(&mut self, bytes: &'a [u8], until: usize) -> &'a [u8] {
        let (taken, rest) = bytes.split_at(until.saturating_sub(self.held.len()).min(bytes.len()));
        self.held.extend_from_slice(taken);
        rest
    }

    /// Checks the content of a complete frame.
    fn check_content(&mut self, kind: u8, size: usize) -> Result<(), FrameError> {
        let payload = &self.held[HEADER..HEADER + size];
        match kind {
            METHOD => method(payload)?,
            _ => content_header(payload)?,
        }
        self.held.clear();
        Ok(())
    }
}

fn method(payload: &[u8]) -> Result<(), FrameError> {
    let (name, arguments) = payload.split_first_chunk::<4>().ok_or(FrameError::Malformed)?;
    if *name == START {
        let mut reader = Reader(arguments);
        reader.take(2)?;
        return reader.table();
    }
    if CLIENT_METHODS.contains(name) { Err(FrameError::ClientMethod) } else { Ok(()) }
}

/// Checks class, weight, size of the body, flags, and those properties that precede the table.
fn content_header(payload: &[u8]) -> Result<(), FrameError> {
    let mut reader = Reader(payload);
    reader.take(2 + 2)?;
    let size = u64::from_be_bytes(reader.array()?);
    if size > BODY_LIMIT {
        return Err(FrameError::BodyTooLarge(size));
    }
    let flags = u16::from_be_bytes(reader.array()?);
    for property in [15, 14] {
        if flags & (1 << property) != 0 {
            let [length] = reader.array()?;
            reader.take(length.into())?;
        }
    }
    if flags & (1 << 13) != 0 { reader.table() } else { Ok(()) }
}

/// Reads octets that may be anything.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], FrameError> {
        let (head, tail) = self.0.split_at_checked(length).ok_or(FrameError::Malformed)?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(FrameError::Malformed)?;
        self.0 = tail;
        Ok(*head)
    }

    fn long(&mut self) -> Result<&'a [u8], FrameError> {
        let length = u32::from_be_bytes(self.array()?) as usize;
        self.take(length)
    }

    /// Checks one table, which begins with its length, without recursion.
    fn table(&mut self) -> Result<(), FrameError> {
        // The open tables and arrays: the octets that are left of each, and whether its fields have names.
        let mut open = vec![(Reader(self.long()?), true)];
        while let Some((inner, named)) = open.last_mut() {
            if inner.0.is_empty() {
                open.pop();
                continue;
            }
            if *named {
                let [length] = inner.array()?;
                inner.take(length.into())?;
            }
            let [kind] = inner.array()?;
            let length = match kind {
                b'V' => 0,
                b't' | b'b' | b'B' => 1,
                b's' | b'U' | b'u' => 2,
                b'I' | b'i' | b'f' => 4,
                b'D' => 5,
                b'L' | b'l' | b'd' | b'T' => 8,
                b'S' | b'x' => {
                    inner.long()?;
                    0
                }
                b'A' | b'F' => {
                    let deeper = Reader(inner.long()?);
                    if open.len() == MAX_DEPTH {
                        return Err(FrameError::TooDeep);
                    }
                    open.push((deeper, kind == b'F'));
                    continue;
                }
                _ => return Err(FrameError::Malformed),
            };
            inner.take(length)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn long(bytes: &[u8]) -> Vec<u8> {
        [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
    }

    /// A table with tables or arrays nested this deep.
    fn nested(depth: usize, letter: u8) -> Vec<u8> {
        let mut value = Vec::new();
        for level in 1..depth {
            let name: &[u8] = if level == depth - 1 || letter == b'F' { b"\x01x" } else { b"" };
            value = [name, &[letter], &long(&value)].concat();
        }
        long(&value)
    }

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        [&[kind, 0, 1], long(payload).as_slice(), &[0xce]].concat()
    }

    fn start(table: &[u8]) -> Vec<u8> {
        frame(METHOD, &[&START, &[0, 9][..], table, &long(b"PLAIN"), &long(b"en_US")].concat())
    }

    fn header(table: &[u8]) -> Vec<u8> {
        let fixed = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0b1110_0000, 0];
        frame(CONTENT_HEADER, &[&fixed[..], b"\x04text\x05utf-8", table].concat())
    }

    fn whole(bytes: &[u8]) -> Result<(), FrameError> {
        FrameCheck::default().inspect(bytes)
    }

    #[test]
    fn tables_are_checked_to_the_maximum_depth() {
        for letter in [b'A', b'F'] {
            for make in [start as fn(&[u8]) -> Vec<u8>, header] {
                assert_eq!(whole(&make(&nested(MAX_DEPTH, letter))), Ok(()));
                assert_eq!(whole(&make(&nested(MAX_DEPTH + 1, letter))), Err(FrameError::TooDeep));
                assert_eq!(whole(&make(&nested(4_000, letter))), Err(FrameError::TooDeep));
            }
        }
    }

    #[test]
    fn valid_streams_pass() {
        let table = b"\x01at\x01\x01bS\x00\x00\x00\x02hi\x01cI\0\0\0\x07\x01dV\x01eA\0\0\0\x03t\x01V\x01fF\0\0\0\0\x01gD\0\0\0\0\0";
        let deliver = frame(METHOD, b"\0\x3c\0\x3cwhatever");
        let all = [
            start(&long(table)),
            deliver,
            header(&long(table)),
            frame(BODY, &[7; 5000]),
            frame(HEARTBEAT, b""),
            frame(METHOD, &[0, 60, 0, 80, 1]),
        ]
        .concat();
        assert_eq!(whole(&all), Ok(()));
        let mut check = FrameCheck::default();
        assert_eq!(check.inspect(&all), Ok(()));
        assert_eq!((check.bodies(), check.bodies()), (5000, 0));
        assert_eq!(whole(b"AMQP\0\0\x09\x01"), Ok(()));
        // However it is cut.
        for size in [1, 2, 3, 7, 8, 100] {
            let mut check = FrameCheck::default();
            for part in all.chunks(size) {
                assert_eq!(check.inspect(part), Ok(()), "{size}");
            }
            assert_eq!((check.held.len(), check.skip), (0, 0), "{size}");
        }
    }

    #[test]
    fn invalid_streams_are_refused() {
        let consume =
            frame(METHOD, &[&[0, 60, 0, 20, 0, 0][..], b"\x01q\x01t\x00", &nested(3, b'A')].concat());
        for (bytes, why) in [
            (consume, FrameError::ClientMethod),
            (frame(METHOD, &[0, 10]), FrameError::Malformed),
            (frame(9, b""), FrameError::Malformed),
            (b"HTTP/1.1 400 Bad Request\r\n".to_vec(), FrameError::Malformed),
            (frame(CONTENT_HEADER, &[0, 60]), FrameError::Malformed),
            (
                frame(CONTENT_HEADER, &[0, 60, 0, 0, 0x7f, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
                FrameError::BodyTooLarge(0x7f << 56),
            ),
            (start(&long(b"\x01aZ")), FrameError::Malformed),
            (start(&long(b"\x01aF\xff\xff\xff\xff")), FrameError::Malformed),
            (vec![BODY, 0, 1, 0xff, 0xff, 0xff, 0xff], FrameError::FrameTooLong(0x1_0000_0007)),
            (vec![METHOD, 0, 1, 0, 0, 0x80, 0], FrameError::FrameTooLong(32_776)),
        ] {
            let mut check = FrameCheck::default();
            assert_eq!(check.inspect(&bytes), Err(why), "{bytes:?}");
            assert!(check.inspect(b"").is_err(), "it stays broken");
        }
    }

    proptest! {
        #[test]
        fn any_octets_can_be_checked(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 1..50_usize) {
            let at_once = whole(&bytes);
            let mut check = FrameCheck::default();
            let parts: Result<(), FrameError> = bytes.chunks(cut).try_for_each(|part| check.inspect(part));
            prop_assert_eq!(at_once, parts);
        }
    }
}
