//! A TCP stream that acknowledges at once what a client with `http_proxy` sends, which saves 40 ms a request.
//!
//! Such a client sends the head of a request and its body separately. Nagle's algorithm on its side holds the body back until
//! the head is acknowledged, and the kernel here delays that acknowledgement for 40 ms. The client uses absolute URLs
//! (`POST http://…`), so the first bytes show it, and no other client costs a system call.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// How the head of such a request begins.
const ABSOLUTE: &[u8] = b"POST http://";

#[derive(Debug)]
pub struct QuickAckStream {
    stream: TcpStream,
    /// A head has been read, and nothing since.
    owes: bool,
}

impl QuickAckStream {
    pub fn new(stream: TcpStream) -> QuickAckStream {
        QuickAckStream { stream, owes: false }
    }
}

impl AsyncRead for QuickAckStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_ready() {
            self.owes = buffer.filled()[before..].starts_with(ABSOLUTE);
        } else if std::mem::take(&mut self.owes) {
            // Where it can't be done, the client waits as it would without us.
            let _ = self.stream.set_quickack(true);
        }
        read
    }
}

impl AsyncWrite for QuickAckStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
