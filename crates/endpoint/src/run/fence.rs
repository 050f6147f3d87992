//! Waits until the broker grants the endpoint's task queue, which one process at a time can have. It is the fence before the
//! endpoint's files.
//!
//! Another process may run the endpoint on a host that shares our file system, or may have run it until it was suspended. While
//! it has the queue, the journal and the results are its own. So no file is opened before the queue is granted, and a process that
//! is refused leaves every file as it was, the log included; it prints on the terminal instead.

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use client::amqp::{Event, LinkConfig, LinkEnd};
use daemon::stop::Stop;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::parent;
use crate::console::note;
use crate::exit::{Failure, status};

/// How long a start tries to get the queue, registrations included. A broker closes a connection whose other end has
/// vanished after two of its heartbeats: usually two minutes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);
/// How often to check whether the waiting `start` is still there.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// The events that abort a start while it waits.
pub(crate) struct StartAborts<'a> {
    pub(crate) stop: &'a Stop,
    pub(crate) parent: Option<i32>,
    /// The pipe to the `start` that waits for our report.
    pub(crate) waiting: Option<&'a OwnedFd>,
}

impl StartAborts<'_> {
    /// Waits until the start is aborted.
    pub(crate) async fn aborted(&self) -> Failure {
        tokio::select! {
            () = self.stop.begun() => {}
            () = parent::ended(self.parent) => {}
            () = reader_gone(self.waiting) => {}
        }
        Failure::new(status::GENERIC, "Aborted!")
    }
}

/// Why the queue is not granted.
#[derive(Debug)]
pub(crate) enum NotGranted {
    /// The broker does not accept the credentials. Another registration may bring others.
    CredentialsRefused(Failure),
    /// The start has failed.
    Final(Failure),
}

impl NotGranted {
    pub(crate) fn into_failure(self) -> Failure {
        match self {
            Self::CredentialsRefused(failure) | Self::Final(failure) => failure,
        }
    }
}

/// Waits until the queue is granted. Returns the number of the session.
pub(crate) async fn granted(
    events: &mut mpsc::Receiver<Event>,
    aborts: &StartAborts<'_>,
    name: &str,
    deadline: Instant,
) -> Result<u32, NotGranted> {
    let mut refusal = LastRefusal::default();
    loop {
        let event = tokio::select! {
            biased;
            failure = aborts.aborted() => return Err(NotGranted::Final(failure)),
            () = sleep_until(deadline) => return Err(NotGranted::Final(refusal.last(name))),
            event = events.recv() => event,
        };
        match event {
            Some(Event::Up { session }) => return Ok(session),
            Some(Event::Down { reason, queue_taken, .. }) => {
                if let Some(text) = refusal.record(reason, queue_taken) {
                    note(text);
                }
            }
            Some(Event::Ended(LinkEnd::AuthenticationRefused(reason))) => {
                return Err(NotGranted::CredentialsRefused(Failure::new(
                    status::NOPERM,
                    format!(
                        "Error: the broker does not accept the credentials of endpoint '{name}': {reason}"
                    ),
                )));
            }
            Some(Event::Ended(_)) | None => return Err(NotGranted::Final(refusal.last(name))),
            Some(Event::Delivered(_) | Event::Commanded(_) | Event::Settled { .. }) => {}
        }
    }
}

/// The last reason why the queue was not granted.
#[derive(Debug, Default)]
struct LastRefusal {
    reason: String,
    queue_taken: Option<bool>,
}

impl LastRefusal {
    /// Records a refusal. Returns a message for the terminal if its kind is new.
    fn record(&mut self, reason: String, queue_taken: bool) -> Option<String> {
        let is_new = self.queue_taken != Some(queue_taken);
        (self.reason, self.queue_taken) = (reason, Some(queue_taken));
        let seconds = PATIENCE.as_secs();
        let Self { reason, .. } = self;
        is_new.then(|| match queue_taken {
            true => format!("{reason}; waiting for up to {seconds} s until it has gone"),
            false => format!("no connection to the broker: {reason}; trying again for up to {seconds} s"),
        })
    }

    fn last(&self, name: &str) -> Failure {
        let (reason, seconds) = (&self.reason, PATIENCE.as_secs());
        match self.queue_taken {
            Some(true) => Failure::new(
                status::ALREADY_ACTIVE,
                format!(
                    "Endpoint '{name}' is already active: {reason}, and did so for {seconds} s. Stop it where it \
                     runs; `globus-compute-endpoint stop --remote {name}` stops it wherever it is."
                ),
            ),
            _ => Failure::new(
                status::TEMPFAIL,
                format!(
                    "Error: endpoint '{name}' could not connect to the broker within {seconds} s: {reason}\n  \
                     Start it again when the broker can be reached."
                ),
            ),
        }
    }
}

/// Waits for the new credentials of a registration.
pub(crate) async fn renewed(
    registering: impl Future<Output = Result<LinkConfig, Failure>>,
    aborts: &StartAborts<'_>,
    name: &str,
    deadline: Instant,
) -> Result<LinkConfig, Failure> {
    tokio::select! {
        biased;
        failure = aborts.aborted() => Err(failure),
        () = sleep_until(deadline) => Err(Failure::new(
            status::TEMPFAIL,
            format!(
                "Error: the broker refused the credentials of endpoint '{name}', and the service gave no new ones \
                 within {} s.\n  Start it again when the service can be reached.",
                PATIENCE.as_secs()
            ),
        )),
        renewed = registering => renewed.map_err(|failure| match failure.status {
            status::ALREADY_ACTIVE => failure,
            status => Failure::new(status, format!("Error: no new credentials: {}", failure.bare())),
        }),
    }
}

/// Waits until the reader of the pipe is gone; for ever if there is no pipe.
async fn reader_gone(waiting: Option<&OwnedFd>) {
    let Some(waiting) = waiting else { return std::future::pending().await };
    loop {
        let mut reader = [PollFd::new(waiting.as_fd(), PollFlags::empty())];
        let gone = poll(&mut reader, PollTimeout::ZERO).is_ok()
            && reader[0].revents().is_some_and(|found| found.contains(PollFlags::POLLERR));
        if gone {
            return;
        }
        sleep(CHECK_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn after(heard: Vec<Event>) -> Result<u32, NotGranted> {
        let (trigger, stop) = daemon::stop::channel();
        let (outbox, mut events) = mpsc::channel(10);
        for event in heard {
            outbox.send(event).await.unwrap();
        }
        let aborts = StartAborts { stop: &stop, parent: None, waiting: None };
        let deadline = Instant::now() + Duration::from_millis(50);
        let answer = granted(&mut events, &aborts, "ep", deadline).await;
        drop((trigger, outbox));
        answer
    }

    fn down(queue_taken: bool) -> Event {
        Event::Down { reason: "why".to_owned(), queue_taken, pause: Duration::ZERO }
    }

    #[tokio::test]
    async fn the_failures_of_a_start_for_each_answer_of_the_broker() {
        assert_eq!(after(vec![down(true), down(false), Event::Up { session: 3 }]).await.unwrap(), 3);
        let refused = |heard| async {
            match after(heard).await.unwrap_err() {
                NotGranted::Final(failure) => failure,
                NotGranted::CredentialsRefused(failure) => panic!("{failure:?}"),
            }
        };
        let taken = refused(vec![down(false), down(true)]).await;
        assert_eq!(taken.status, status::ALREADY_ACTIVE);
        assert!(taken.text.starts_with("Endpoint 'ep' is already active: why"), "{}", taken.text);
        assert_eq!(refused(vec![down(false)]).await.status, status::TEMPFAIL);
        let refusal = Event::Ended(LinkEnd::AuthenticationRefused("no".to_owned()));
        assert!(
            matches!(after(vec![refusal]).await, Err(NotGranted::CredentialsRefused(it)) if it.status == status::NOPERM)
        );
    }

    #[tokio::test]
    async fn a_registration_that_does_not_end_ends_the_start() {
        let (_trigger, stop) = daemon::stop::channel();
        let aborts = StartAborts { stop: &stop, parent: None, waiting: None };
        let deadline = Instant::now() + Duration::from_millis(50);
        let late = renewed(std::future::pending(), &aborts, "ep", deadline).await.unwrap_err();
        assert_eq!(late.status, status::TEMPFAIL);
        assert!(late.text.contains("gave no new ones within 180 s"), "{}", late.text);
    }

    #[test]
    fn the_same_refusal_is_printed_once() {
        let mut refusal = LastRefusal::default();
        let mut record = |queue_taken| refusal.record("why".to_owned(), queue_taken);
        assert_eq!(record(true).unwrap(), "why; waiting for up to 180 s until it has gone");
        assert_eq!(record(true), None);
        assert!(record(false).unwrap().contains("no connection to the broker: why"));
    }

    #[tokio::test]
    async fn the_end_of_the_waiting_start_aborts_the_run() {
        let (ours, theirs) = nix::unistd::pipe().unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(10), reader_gone(Some(&theirs))).await.is_err());
        drop(ours);
        reader_gone(Some(&theirs)).await;
    }
}
