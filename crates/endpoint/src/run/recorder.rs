//! Writes a user endpoint's audit records to the pipe from its manager, one packet each.
//!
//! No task begins before the records that were made earlier are in the pipe: while it is full, tasks wait, and nothing else does.
//! When it can't be written, no task begins any more.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::time::Duration;

use daemon::stop::Stop;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until, timeout};
use wire::TaskId;

/// How many entries may wait: several for each of the 65,535 tasks that the broker delivers at most. A manager that reads so slowly
/// can't be relied on.
const MOST_WAITING: usize = 8 * 65_536;
/// How long the last records may take at the end of a run that nobody asked for. It is shorter than a manager keeps the next
/// start waiting for this end.
const LAST_RECORDS: Duration = Duration::from_secs(20);
/// How long after the begin of a stop they may be written: a manager kills after 10 s, and the connection must be closed before.
const AFTER_STOP: Duration = Duration::from_secs(8);
/// How long they get if the stop has taken most of that.
const LEAST: Duration = Duration::from_secs(2);
/// The capacity to ask for, in bytes. Each packet takes a page of it.
const CAPACITY: i32 = 1 << 20;

/// The audit records that are not written yet, and what waits for them.
#[derive(Debug)]
pub(super) struct Recorder {
    /// `None`: nothing is recorded.
    pipe: Option<AsyncFd<OwnedFd>>,
    waiting: VecDeque<Waiting>,
    failed: bool,
}

#[derive(Debug)]
enum Waiting {
    Record(String),
    Begin(Vec<TaskId>),
}

impl Recorder {
    /// Takes over the descriptor that the manager passed.
    pub(super) fn open(descriptor: Option<RawFd>) -> io::Result<Self> {
        // SAFETY: the manager passed the number for this purpose; nothing else uses it.
        Self::new(descriptor.map(|number| unsafe { OwnedFd::from_raw_fd(number) }))
    }

    fn new(pipe: Option<OwnedFd>) -> io::Result<Self> {
        let pipe = pipe.map(prepared).transpose()?;
        Ok(Self { pipe, waiting: VecDeque::new(), failed: false })
    }

    /// Adds a record. [`Self::progress`] writes it.
    pub(super) fn record(&mut self, record: String) {
        if self.pipe.is_some() && !self.failed {
            self.waiting.push_back(Waiting::Record(record));
        }
    }

    /// Asks whether these tasks may begin. If not, they may when [`Self::progress`] returns them, or never.
    pub(super) fn may_begin(&mut self, tasks: Vec<TaskId>) -> Option<Vec<TaskId>> {
        if self.failed {
            return None;
        }
        if self.waiting.is_empty() {
            return Some(tasks);
        }
        self.waiting.push_back(Waiting::Begin(tasks));
        None
    }

    /// Writes what the pipe takes, and returns tasks that may begin. Waits for ever when there is nothing to write. After an error
    /// nothing more is written, and nothing begins.
    pub(super) async fn progress(&mut self) -> io::Result<Vec<TaskId>> {
        let outcome = match &self.pipe {
            Some(pipe) if !self.waiting.is_empty() => write(pipe, &mut self.waiting).await,
            _ => std::future::pending().await,
        };
        if outcome.is_err() {
            self.failed = true;
            self.waiting.clear();
        }
        outcome
    }

    /// Writes the last records, until there is no more time. Nothing begins any more.
    pub(super) async fn finish(&mut self, time_is_up: impl Future<Output = ()>) {
        let all = async {
            while !self.waiting.is_empty() {
                if self.progress().await.is_err() {
                    return;
                }
            }
        };
        let in_time = tokio::select! {
            biased;
            () = all => true,
            () = time_is_up => false,
        };
        if !in_time {
            tracing::error!(records = self.waiting.len(), "the manager does not take the last audit records");
        }
    }
}

/// Waits until there is no more time for the last records. `stop_began`: when the run was told to stop, if it was.
pub(super) async fn time_is_up(stop: &Stop, stop_began: Option<Instant>) {
    if stop_began.is_none() && timeout(LAST_RECORDS, stop.begun()).await.is_err() {
        return;
    }
    let now = Instant::now();
    sleep_until(written_until(stop_began.unwrap_or(now), now)).await;
}

fn written_until(stop_began: Instant, now: Instant) -> Instant {
    (stop_began + AFTER_STOP).max(now + LEAST)
}

/// Writes at least one entry. Cancelled while it waits, it has written nothing.
async fn write(pipe: &AsyncFd<OwnedFd>, waiting: &mut VecDeque<Waiting>) -> io::Result<Vec<TaskId>> {
    if waiting.len() > MOST_WAITING {
        return Err(io::Error::other(format!("the manager has not taken {MOST_WAITING} records")));
    }
    let mut begin = Vec::new();
    loop {
        match waiting.front() {
            None => return Ok(begin),
            Some(Waiting::Begin(_)) => {}
            Some(Waiting::Record(record)) => match nix::unistd::write(pipe.get_ref(), record.as_bytes()) {
                // A packet is written as a whole.
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) if begin.is_empty() => {
                    pipe.writable().await?.clear_ready();
                    continue;
                }
                Err(Errno::EAGAIN) => return Ok(begin),
                Err(error) => return Err(error.into()),
            },
        }
        if let Some(Waiting::Begin(tasks)) = waiting.pop_front() {
            begin.extend(tasks);
        }
    }
}

/// Packets stay apart, and a full pipe keeps nobody waiting.
fn prepared(pipe: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    let flags = OFlag::from_bits_retain(fcntl(&pipe, FcntlArg::F_GETFL)?);
    fcntl(&pipe, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK | OFlag::O_DIRECT))?;
    // A user's pipes may have used up what they may have in all: then it stays as it is.
    let _ = fcntl(pipe.as_fd(), FcntlArg::F_SETPIPE_SZ(CAPACITY));
    // SAFETY: the descriptor is the handle's own, and stays open and the same as long as it lives.
    unsafe { AsyncFd::register_with_interest(pipe, Interest::WRITABLE) }.map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use nix::unistd::{pipe2, read};
    use uuid::Uuid;

    use super::*;

    fn task(number: u128) -> TaskId {
        TaskId::from_uuid(Uuid::from_u128(number))
    }

    fn open() -> (OwnedFd, Recorder) {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_DIRECT).unwrap();
        (reader, Recorder::new(Some(writer)).unwrap())
    }

    fn packet(reader: &OwnedFd) -> String {
        let mut buffer = [0; 4096];
        let length = read(reader, &mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    /// Whether there is nothing to do for now.
    async fn waits(recorder: &mut Recorder) -> bool {
        timeout(Duration::from_millis(20), recorder.progress()).await.is_err()
    }

    #[tokio::test]
    async fn tasks_begin_after_their_records_and_packets_stay_apart() {
        let (reader, mut recorder) = open();
        assert_eq!(recorder.may_begin(vec![task(1)]), Some(vec![task(1)]), "nothing is waiting");
        recorder.record("one".to_owned());
        assert_eq!(recorder.may_begin(vec![task(2)]), None);
        recorder.record("two".to_owned());
        assert_eq!(recorder.may_begin(vec![task(3)]), None);
        assert_eq!(recorder.progress().await.unwrap(), [task(2), task(3)]);
        assert_eq!([packet(&reader), packet(&reader)], ["one", "two"]);
        assert!(waits(&mut recorder).await);
    }

    #[tokio::test]
    async fn while_the_pipe_is_full_nothing_begins() {
        let (reader, mut recorder) = open();
        const RECORDS: usize = 2_000;
        for number in 0..RECORDS {
            recorder.record(number.to_string());
        }
        assert_eq!(recorder.may_begin(vec![task(1)]), None);
        assert!(waits(&mut recorder).await);
        let read = std::thread::spawn(move || {
            for number in 0..RECORDS {
                assert_eq!(packet(&reader), number.to_string());
            }
            reader
        });
        assert_eq!(recorder.progress().await.unwrap(), [task(1)]);
        recorder.finish(std::future::pending()).await;
        drop(read.join().unwrap());
    }

    #[tokio::test]
    async fn without_a_reader_nothing_begins_any_more() {
        let (reader, mut recorder) = open();
        recorder.record("one".to_owned());
        assert_eq!(recorder.may_begin(vec![task(1)]), None);
        drop(reader);
        assert_eq!(recorder.progress().await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        recorder.record("two".to_owned());
        assert_eq!(recorder.may_begin(vec![task(2)]), None);
        assert!(waits(&mut recorder).await, "the failure is told once");
    }

    #[tokio::test]
    async fn a_manager_that_reads_nothing_can_not_be_relied_on() {
        let (_reader, mut recorder) = open();
        for _ in 0..=MOST_WAITING {
            recorder.record("x".to_owned());
        }
        assert!(recorder.progress().await.is_err());
    }

    #[tokio::test]
    async fn the_last_records_are_written_to_a_manager_that_takes_them_slowly() {
        let (trigger, stop) = daemon::stop::channel();
        trigger.begin();
        let (reader, mut recorder) = open();
        const RECORDS: usize = 300;
        (0..RECORDS).for_each(|number| recorder.record(number.to_string()));
        let read = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs(3));
            (0..RECORDS).filter(|_| !packet(&reader).is_empty()).count()
        });
        recorder.finish(time_is_up(&stop, None)).await;
        drop(recorder);
        assert_eq!(read.join().unwrap(), RECORDS);
    }

    #[test]
    fn the_last_records_have_the_time_that_a_stop_leaves_them() {
        let began = Instant::now();
        for (passed, left) in [(0, 8), (1, 7), (6, 2), (9, 2)] {
            let now = began + Duration::from_secs(passed);
            assert_eq!(written_until(began, now) - now, Duration::from_secs(left), "{passed}");
        }
    }

    #[tokio::test]
    async fn without_a_pipe_nothing_is_recorded() {
        let mut recorder = Recorder::new(None).unwrap();
        recorder.record("one".to_owned());
        assert_eq!(recorder.may_begin(vec![task(1)]), Some(vec![task(1)]));
        assert!(waits(&mut recorder).await);
    }
}
