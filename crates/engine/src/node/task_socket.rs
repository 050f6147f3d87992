//! The packet socket by which tasks go to a worker.
//!
//! The node keeps the worker's end open, too, so that it can take back what the worker has not read. A task is never
//! with both: the node must not take back one that the worker has begun to read.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockType, sockopt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use wire::TaskId;

use super::slots::SlotTask;
use crate::link::frame::Frame;
use crate::link::message::ToNode;

/// The longest packet: the worker reads this much at a time.
const PACKET: usize = 64 << 10;

/// A longer frame is never prefetched: the socket has room for as many of this size as may be prefetched.
const LARGE: usize = 8 << 10;
const ROOM: usize = 512 << 10;

/// A task with its frame.
#[derive(Clone, Debug)]
pub(super) struct TaskFrame {
    pub(super) id: TaskId,
    pub(super) frame: Frame,
}

impl SlotTask for TaskFrame {
    fn id(&self) -> TaskId {
        self.id
    }

    fn is_large(&self) -> bool {
        self.frame.as_bytes().len() > LARGE
    }
}

impl TaskFrame {
    /// Reads a task from a packet. None for a part of a longer frame, which can't be taken back.
    fn from_packet(packet: &[u8]) -> Option<Self> {
        match ToNode::read(Frame::from_packet(packet)?) {
            Ok(ToNode::Task(id, frame)) => Some(Self { id, frame }),
            _ => None,
        }
    }
}

/// Both ends of the socket.
#[derive(Debug)]
pub(super) struct TaskSocket {
    ours: Arc<OwnedFd>,
    /// The worker has inherited this one.
    theirs: OwnedFd,
    /// Tasks for which the socket had no room.
    unsent: VecDeque<TaskFrame>,
    /// Frames of many packets, which an async task of their own writes.
    large: mpsc::UnboundedSender<Frame>,
}

impl TaskSocket {
    pub(super) fn new() -> io::Result<Self> {
        let kind = SockType::SeqPacket;
        let (ours, theirs) = socket::socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)?;
        let _ = socket::setsockopt(&ours, sockopt::SndBuf, &ROOM); // a smaller buffer works, too
        let (large, frames) = mpsc::unbounded_channel();
        let ours = Arc::new(ours);
        tokio::spawn(write_packets(Arc::clone(&ours), frames));
        Ok(Self { ours, theirs, unsent: VecDeque::new(), large })
    }

    /// What the worker reads from.
    pub(super) fn theirs(&self) -> RawFd {
        self.theirs.as_raw_fd()
    }

    pub(super) fn send(&mut self, task: TaskFrame) {
        if task.is_large() {
            let _ = self.large.send(task.frame); // the writer has failed: the worker's exit is reported
        } else {
            self.unsent.push_back(task);
            self.send_unsent();
        }
    }

    /// Sends the tasks for which the socket had no room before.
    pub(super) fn send_unsent(&mut self) {
        while let Some(task) = self.unsent.front() {
            if send_packet(self.ours.as_raw_fd(), task.frame.as_bytes()).is_err() {
                return;
            }
            self.unsent.pop_front();
        }
    }

    /// Takes back all tasks that the worker has not read.
    pub(super) fn take_back(&mut self) -> Vec<TaskFrame> {
        let mut taken = Vec::new();
        let mut packet = vec![0; PACKET];
        while let Ok(length) = socket::recv(self.theirs.as_raw_fd(), &mut packet, MsgFlags::MSG_DONTWAIT) {
            taken.extend(packet.get(..length).and_then(TaskFrame::from_packet));
        }
        taken.extend(self.unsent.drain(..));
        taken
    }
}

fn send_packet(socket: RawFd, packet: &[u8]) -> nix::Result<()> {
    socket::send(socket, packet, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL).map(drop)
}

/// Writes long frames packet by packet, until the [`TaskSocket`] is dropped.
async fn write_packets(socket: Arc<OwnedFd>, mut frames: mpsc::UnboundedReceiver<Frame>) -> io::Result<()> {
    while let Some(frame) = frames.recv().await {
        // Registered for this frame only: otherwise each task that the worker reads would wake this process for
        // nothing. SAFETY: an owned descriptor stays the same and open until it is dropped, after its registration.
        let writable = unsafe { AsyncFd::register_with_interest(socket.as_fd(), Interest::WRITABLE)? };
        for packet in frame.as_bytes().chunks(PACKET) {
            let send = |socket: &BorrowedFd<'_>| Ok(send_packet(socket.as_raw_fd(), packet)?);
            writable.async_io(Interest::WRITABLE, send).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::link::message::{self, Extras};

    fn test_frame(n: u128, size: usize) -> TaskFrame {
        let id = TaskId::from_uuid(Uuid::from_u128(n));
        TaskFrame { id, frame: message::task(id, &Extras::default(), &vec![7; size]) }
    }

    fn read(socket: &TaskSocket) -> Vec<u8> {
        let mut packet = vec![0; PACKET];
        let length = socket::recv(socket.theirs.as_raw_fd(), &mut packet, MsgFlags::MSG_DONTWAIT).unwrap();
        packet.truncate(length);
        packet
    }

    fn ids(frames: &[TaskFrame]) -> Vec<u128> {
        frames.iter().map(|frame| frame.id.as_uuid().as_u128()).collect()
    }

    #[tokio::test]
    async fn unread_tasks_are_taken_back_and_read_ones_are_not() {
        let mut socket = TaskSocket::new().unwrap();
        (1..=4).for_each(|n| socket.send(test_frame(n, 100)));
        assert_eq!(read(&socket), test_frame(1, 100).frame.as_bytes());
        assert_eq!(ids(&socket.take_back()), [2, 3, 4]);
        assert_eq!(ids(&socket.take_back()), []);
    }

    #[tokio::test]
    async fn tasks_keep_their_order_when_the_socket_is_full() {
        let mut socket = TaskSocket::new().unwrap();
        (1..=1000).for_each(|n| socket.send(test_frame(n, LARGE - 100)));
        assert!(!socket.unsent.is_empty());
        assert_eq!(read(&socket), test_frame(1, LARGE - 100).frame.as_bytes());
        socket.send_unsent();
        socket.send(test_frame(1001, 1));
        assert_eq!(ids(&socket.take_back()), (2..=1001).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_large_task_crosses_in_packets() {
        let mut socket = TaskSocket::new().unwrap();
        let large = test_frame(1, 3 << 20);
        socket.send(large.clone());
        let mut got = Vec::new();
        let mut packet = vec![0; PACKET];
        while got.len() < large.frame.as_bytes().len() {
            match socket::recv(socket.theirs.as_raw_fd(), &mut packet, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => got.extend_from_slice(&packet[..length]),
                Err(_) => tokio::task::yield_now().await,
            }
        }
        assert_eq!(got, large.frame.as_bytes());
    }
}
