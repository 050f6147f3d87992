//! Frames: four bytes of length (big-endian, of all that follows), one byte of kind, the body.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

/// The longest frame: the longest message, and room for what surrounds it.
const MAX_LENGTH: usize = wire::message::LIMIT + (1 << 20);

/// The bytes of length and kind.
pub(crate) const HEADER: usize = 5;

/// How many bytes are read at a time. Shorter frames are gathered for one write.
const CHUNK: usize = 64 << 10;

/// When this many bytes are gathered, they are written before more frames are taken.
const MAX_GATHERED: usize = 256 << 10;

/// One frame as it crosses: header and body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame(Bytes);

impl Frame {
    /// Builds a frame from the parts of its body.
    pub(crate) fn new(kind: u8, parts: &[&[u8]]) -> Self {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let mut bytes = BytesMut::with_capacity(HEADER + length);
        bytes.put_u32(u32::try_from(length + 1).expect("payloads are bounded far below 4 GiB"));
        bytes.put_u8(kind);
        for part in parts {
            bytes.put_slice(part);
        }
        Self(bytes.freeze())
    }

    /// Reads a frame that came as one packet; none if the packet is no whole frame.
    pub(crate) fn from_packet(packet: &[u8]) -> Option<Self> {
        let length = u32::from_be_bytes(*packet.first_chunk()?) as usize;
        (length > 0 && packet.len() == length + 4).then(|| Self(Bytes::copy_from_slice(packet)))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn kind(&self) -> u8 {
        self.0[HEADER - 1]
    }

    pub(crate) fn body(&self) -> Bytes {
        self.0.slice(HEADER..)
    }
}

/// Reads frames.
pub(crate) struct FrameReader<R> {
    from: R,
    buffer: BytesMut,
    received: u64,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(from: R) -> Self {
        Self { from, buffer: BytesMut::new(), received: 0 }
    }

    /// The next frame, or none when the other side has closed between two frames. Safe to cancel.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.take_received()? {
                return Ok(Some(frame));
            }
            let whole =
                self.buffer.first_chunk().map_or(CHUNK, |length| u32::from_be_bytes(*length) as usize + 4);
            let missing = whole - self.buffer.len().min(whole);
            // The buffer grows with the bytes that have come, not with the length that the peer announces.
            self.buffer.reserve(missing.min(self.buffer.len().max(CHUNK)));
            let count = self.from.read_buf(&mut self.buffer).await?;
            self.received += count as u64;
            if count == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }
}

impl<R> FrameReader<R> {
    /// How many bytes have come: they show that the peer is alive while a long frame is on its way.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// The next frame, if it has come already.
    pub(crate) fn take_received(&mut self) -> io::Result<Option<Frame>> {
        let Some(length) = self.buffer.first_chunk() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if length == 0 || length > MAX_LENGTH {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} bytes")));
        }
        let whole = length + 4;
        Ok((self.buffer.len() >= whole).then(|| Frame(self.buffer.split_to(whole).freeze())))
    }
}

/// Writes what comes from `frames` until all its senders are gone; many small frames go in one write.
///
/// The channel needs no bound: it carries tasks, whose number the endpoint bounds, and one heartbeat per period.
pub(crate) async fn write(
    mut to: impl AsyncWrite + Unpin,
    mut frames: mpsc::UnboundedReceiver<Frame>,
) -> io::Result<()> {
    let mut gathered = BytesMut::new();
    while let Some(first) = frames.recv().await {
        let mut next = Some(first);
        while let Some(Frame(bytes)) = next.take() {
            if bytes.len() > CHUNK {
                if !gathered.is_empty() {
                    to.write_all(&gathered).await?;
                    gathered.clear();
                }
                to.write_all(&bytes).await?;
            } else {
                gathered.put(bytes);
            }
            if gathered.len() < MAX_GATHERED {
                next = frames.try_recv().ok();
            }
        }
        if !gathered.is_empty() {
            to.write_all(&gathered).await?;
            gathered.clear();
        }
        to.flush().await?;
        if gathered.capacity() > CHUNK {
            // There may be many connections: none keeps a large buffer after a burst.
            gathered = BytesMut::new();
        }
    }
    to.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_all(mut bytes: &[u8]) -> io::Result<Vec<Frame>> {
        let mut reader = FrameReader::new(&mut bytes);
        let mut frames = Vec::new();
        while let Some(frame) = reader.next().await? {
            frames.push(frame);
        }
        Ok(frames)
    }

    #[tokio::test]
    async fn frames_come_out_as_they_went_in_whatever_their_size() {
        let sent: Vec<_> = [0, 1, 100, CHUNK, CHUNK + 1, 3 << 20]
            .iter()
            .map(|&n| Frame::new(7, &[&vec![b'x'; n], b"y"]))
            .collect();
        let (sender, frames) = mpsc::unbounded_channel();
        for frame in &sent {
            sender.send(frame.clone()).unwrap();
        }
        drop(sender);
        let mut bytes = Vec::new();
        write(&mut bytes, frames).await.unwrap();
        assert_eq!(read_all(&bytes).await.unwrap(), sent);
    }

    #[tokio::test]
    async fn bad_frames_are_errors() {
        assert!(read_all(b"").await.unwrap().is_empty());
        for (bytes, kind) in [
            (&b"\0\0"[..], io::ErrorKind::UnexpectedEof),
            (b"\0\0\0\x05\x01abc", io::ErrorKind::UnexpectedEof),
            (b"\0\0\0\0\x01", io::ErrorKind::InvalidData),
            (b"\xff\xff\xff\xff\x01", io::ErrorKind::InvalidData),
        ] {
            assert_eq!(read_all(bytes).await.unwrap_err().kind(), kind, "{bytes:?}");
        }
    }
}
