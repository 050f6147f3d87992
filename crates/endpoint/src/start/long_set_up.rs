//! Runs `endpoint_setup` of a user endpoint. A conda environment may take minutes to build: meanwhile reports go to the service, so
//! that whoever waits for the user endpoint is told how far it is.
//!
//! ```text
//! script --output--> log, and the last lines --every few seconds--> service
//!    |
//!    +-- ends: its status --- a stop, or the end of the manager: its process group is ended
//! ```
//!
//! A script that ends at once costs no connection. A report that can't be sent is left out: the script goes on.

use std::io::{PipeReader, Write as _};
use std::os::fd::OwnedFd;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use client::amqp::{self, Event, Item, LinkConfig};
use daemon::stop::DeferredSignals;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, getpgrp, getpid, getppid};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval_at, sleep, timeout};
use wire::extensions::SetUp;
use wire::message::StatusReport;
use wire::queue::Registration;

use super::last_lines::LastLines;
use crate::exit::{CommandResult, Failure, block_on, status};

/// The time before the first report, and between two: far below the time in which the service gives up a silent start.
const PERIOD: Duration = Duration::from_secs(5);
/// How long the script may take to end when it is told to: less than what a manager with PAM gives a user endpoint.
const STOP_TIME: Duration = Duration::from_secs(1);
/// How long to read what the script has printed, once it has ended. What it left running may hold the pipe for ever.
const REST: Duration = Duration::from_millis(500);
/// How often to look whether the manager is there. It must be gone for less than 2 s.
const PARENT_CHECK: Duration = Duration::from_millis(250);
/// How long the link may take to end.
const CLOSING: Duration = Duration::from_secs(1);

/// How reports reach the service.
pub(super) struct Reporting {
    pub(super) credentials: Registration,
    pub(super) port: Option<u16>,
    pub(super) authorities: Option<String>,
}

/// Runs the script to its end. `parent`: the manager; with it, the script ends.
pub(super) fn run(script: &str, parent: Option<i32>, reporting: Reporting) -> CommandResult {
    // Before any thread is started, so that a stop ends the script, too.
    let signals = DeferredSignals::begin().map_err(Failure::error)?;
    let (output, theirs) = std::io::pipe().map_err(Failure::error)?;
    let outcome = block_on(async {
        let mut child = spawn(script, theirs)?;
        let group = Group::of(&child);
        let mut reporter = Reporter::new(reporting);
        let mut running = Running { output: receiver(output)?, last: LastLines::default() };
        let ended = tokio::select! {
            ended = running.until_it_ends(&mut child, &mut reporter) => ended,
            () = orphaned(parent) => {
                // All is to be gone within 2 s, and nobody is left to be told.
                group.signal(Signal::SIGKILL);
                std::process::exit(status::TEMPFAIL.into());
            }
            received = signals.received() => {
                received.map_err(Failure::error)?;
                group.end(&mut child, &signals).await;
                Err(Failure::new(status::GENERIC, "Error: the user endpoint was stopped during its endpoint_setup"))
            }
        };
        reporter.close().await;
        ended.map(|status| (status, running.last))
    });
    let (ended, last) = outcome?;
    if ended.success() {
        return Ok(());
    }
    let text = format!("Error: endpoint_setup failed ({ended}):\n  {}", last.joined("\n  "));
    Err(Failure::new(status::CONFIG, text))
}

fn spawn(script: &str, output: std::io::PipeWriter) -> Result<Child, Failure> {
    let errors = output.try_clone().map_err(Failure::error)?;
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(script).stdin(Stdio::null()).stdout(output).stderr(errors);
    if !leads_its_group() {
        command.process_group(0);
    }
    daemon::stop::deliver_signals_to(command.as_std_mut());
    command.spawn().map_err(|error| {
        Failure::new(status::CONFIG, format!("Error: endpoint_setup could not be run: {error}"))
    })
}

fn receiver(output: PipeReader) -> Result<Receiver, Failure> {
    Receiver::from_owned_fd(OwnedFd::from(output)).map_err(Failure::error)
}

/// Waits until `parent` is no longer our parent; for ever if there is none.
async fn orphaned(parent: Option<i32>) {
    let Some(parent) = parent else { return std::future::pending().await };
    while getppid().as_raw() == parent {
        sleep(PARENT_CHECK).await;
    }
}

/// The processes to signal to end the script and all that it runs.
#[derive(Clone, Copy)]
enum Group {
    /// This process's, which a manager has made its leader: whoever kills a user endpoint's group kills its script, too.
    Ours,
    /// The script's.
    Script(Pid),
}

fn leads_its_group() -> bool {
    getpgrp() == getpid()
}

impl Group {
    fn of(child: &Child) -> Self {
        match child.id().and_then(|id| i32::try_from(id).ok()) {
            Some(id) if !leads_its_group() => Self::Script(Pid::from_raw(id)),
            _ => Self::Ours,
        }
    }

    /// Whether it exists does not matter. The script is not waited for yet, so its number is no other's.
    fn signal(self, signal: Signal) {
        let group = match self {
            Self::Ours => getpgrp(),
            Self::Script(group) => group,
        };
        let _ = killpg(group, signal);
    }

    /// Ends the script. This process defers the signal. If the script does not end, this process ends with it and without a word.
    async fn end(self, child: &mut Child, signals: &DeferredSignals) {
        self.signal(Signal::SIGTERM);
        let ended = timeout(STOP_TIME, child.wait()).await.is_ok();
        match self {
            Self::Ours if ended => {
                // Its own is pending. It must not end this process before the service was told.
                let _ = timeout(STOP_TIME, signals.received()).await;
            }
            Self::Ours | Self::Script(_) => self.signal(Signal::SIGKILL),
        }
    }
}

/// The script, and what it has printed.
struct Running {
    output: Receiver,
    last: LastLines,
}

impl Running {
    async fn until_it_ends(
        &mut self,
        child: &mut Child,
        reporter: &mut Reporter,
    ) -> Result<ExitStatus, Failure> {
        let began = Instant::now();
        let mut due = interval_at(began + PERIOD, PERIOD);
        let mut open = true;
        let ended = loop {
            tokio::select! {
                ended = child.wait() => break ended.map_err(Failure::error)?,
                more = self.read(), if open => open = more,
                _ = due.tick() => {
                    let set_up = SetUp { seconds: began.elapsed().as_secs(), output: self.last.joined("\n") };
                    reporter.report(set_up);
                }
                () = reporter.go_on() => {}
            }
        };
        let _ = timeout(REST, async { while open && self.read().await {} }).await;
        Ok(ended)
    }

    /// Reads some of the output and puts it into the log. Returns whether there may be more.
    async fn read(&mut self) -> bool {
        let mut some = [0; 4096];
        match self.output.read(&mut some).await {
            Ok(0) | Err(_) => false,
            Ok(count) => {
                self.last.add(&some[..count]);
                // A full disk must not end a set-up that works.
                let _ = std::io::stdout().write_all(&some[..count]).and_then(|()| std::io::stdout().flush());
                true
            }
        }
    }
}

/// Sends reports of the set-up. It connects at the first.
struct Reporter {
    reporting: Reporting,
    link: Option<(amqp::Handle, mpsc::Receiver<Event>)>,
    session: Option<u32>,
    /// The newest report, until a session has it.
    waiting: Option<Vec<u8>>,
    /// The broker refused, or the credentials can't be used.
    useless: bool,
}

impl Reporter {
    fn new(reporting: Reporting) -> Self {
        Self { reporting, link: None, session: None, waiting: None, useless: false }
    }

    fn report(&mut self, set_up: SetUp) {
        if self.useless {
            return;
        }
        if self.link.is_none() {
            self.link = self.connect();
            self.useless = self.link.is_none();
        }
        let mut state = serde_json::Map::new();
        state.insert("heartbeat_period".to_owned(), PERIOD.as_secs().into());
        set_up.insert_into(&mut state);
        let endpoint_id = self.reporting.credentials.endpoint_id;
        let report =
            StatusReport { endpoint_id, global_state: state.into(), task_statuses: Default::default() };
        self.waiting = Some(report.encode());
        self.publish();
    }

    fn connect(&self) -> Option<(amqp::Handle, mpsc::Receiver<Event>)> {
        let Reporting { credentials, port, authorities } = &self.reporting;
        let name = format!("set-up of endpoint {}", credentials.endpoint_id);
        let mut config = LinkConfig::new(credentials, *port, authorities.clone(), 1, name).ok()?;
        // This link only publishes.
        config.commands = None;
        config.exclusive = false;
        let (link, events) = amqp::start(config);
        link.consume(false);
        Some((link, events))
    }

    fn publish(&mut self) {
        if let (Some((link, _)), Some(session)) = (&self.link, self.session)
            && let Some(report) = self.waiting.take()
        {
            link.publish(session, Item::Heartbeat, report);
        }
    }

    /// Handles the next event of the link; waits for ever without a link.
    async fn go_on(&mut self) {
        let Some((_, events)) = &mut self.link else { return std::future::pending().await };
        match events.recv().await {
            Some(Event::Up { session }) => {
                self.session = Some(session);
                self.publish();
            }
            Some(Event::Down { .. }) => self.session = None,
            Some(Event::Ended(_)) | None => {
                self.link = None;
                self.useless = true;
            }
            Some(Event::Delivered(_) | Event::Commanded(_) | Event::Settled { .. }) => {}
        }
    }

    async fn close(mut self) {
        if let Some((link, events)) = &mut self.link {
            link.close_within(CLOSING, events).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nowhere() -> Reporting {
        let endpoint = "e58b2276-b397-4246-b1a2-607d8e3b5838".parse().unwrap();
        let credentials = Registration::new(endpoint, "amqp://user:password@127.0.0.1:1/");
        Reporting { credentials, port: None, authorities: None }
    }

    #[test]
    fn the_failure_of_a_script_quotes_its_last_lines_in_their_order() {
        assert_eq!(run("exit 0", None, nowhere()), Ok(()));
        let failure = run("echo out; echo err >&2; echo last; exit 3", None, nowhere()).unwrap_err();
        assert_eq!(failure.status, 78);
        assert_eq!(failure.text, "Error: endpoint_setup failed (exit status: 3):\n  out\n  err\n  last");
        let killed = run("kill -9 $$", None, nowhere()).unwrap_err();
        assert!(killed.text.starts_with("Error: endpoint_setup failed (signal: 9"), "{}", killed.text);
    }

    #[test]
    fn what_a_script_leaves_running_is_not_waited_for() {
        assert_eq!(run("sleep 3 & exit 0", None, nowhere()), Ok(()));
    }
}
