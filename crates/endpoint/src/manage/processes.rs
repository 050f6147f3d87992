//! The processes of a manager: starts launchers, reads their reports, signals and reaps its children.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::Duration;

use manager::children::{Child, Serial};
use manager::core::{ExitStatus, Signalled};
use manager::launch::{self, LaunchEnd, LaunchReport, LaunchRequest, OpenFiles};
use manager::restart::HandedOver;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::stat::fstat;
use nix::unistd::Pid;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use wire::FunctionId;
use wire::json::FreeForm;

use super::credentials::{Content, RenewedCredentials};
use super::process_event::ProcessEvent;
use super::{audit_log, launcher_reports, wait};
use crate::clock;

/// How long the end of a child waits for the last of its launcher's reports: a program of a PAM module may hold the pipe.
const REPORTS_PATIENCE: Duration = Duration::from_secs(1);

/// How long after its last report a launcher's pipe may stay open, before the process itself is looked at.
const EXECUTING_PATIENCE: Duration = Duration::from_secs(5);

/// The children's processes, and the manager's descriptors for them.
#[derive(Debug)]
pub(super) struct Processes {
    /// By the serial number of their launch: the number of a process may be another's as soon as it is reaped.
    children: BTreeMap<Serial, Process>,
    serials: HashMap<String, Serial>,
    next_serial: u64,
    /// Processes that send a signal in the manager's place.
    deputies: Vec<std::process::Child>,
    /// The limit of open files for children, while this process has a higher one.
    pub(super) open_files: Option<OpenFiles>,
    /// The functions that user endpoints may run, whatever their template says.
    pub(super) allowed_functions: Option<Vec<FunctionId>>,
    outbox: mpsc::UnboundedSender<ProcessEvent>,
    inbox: mpsc::UnboundedReceiver<ProcessEvent>,
}

/// A child, from its launch until its end is told.
#[derive(Debug)]
struct Process {
    name: String,
    pid: i32,
    renewed: Option<RenewedCredentials>,
    /// The manager's end of its audit pipe.
    audit_pipe: Option<OwnedFd>,
    /// Whether somebody reads that pipe.
    recorded: bool,
    /// Whether the end of its launch was not told yet.
    launching: bool,
    /// Reads the launcher's reports, until they are given up.
    reader: Option<AbortHandle>,
    /// When the launcher said that it executes the user endpoint.
    executing: Option<Instant>,
    /// The inode of the launcher's report pipe.
    report_pipe: Option<u64>,
    /// The user endpoint's process, if it is not the child itself but the child's child. To be looked at, not signalled.
    user_endpoint: Option<i32>,
    /// The user that it is, or becomes.
    uid: Option<u32>,
    /// How and when it ended. It is reaped then, and its number may be another's.
    ended: Option<(ExitStatus, Instant)>,
    /// Whether its end was told: it is forgotten before the next event.
    told: bool,
}

impl Process {
    fn new(name: String, pid: i32) -> Self {
        Self {
            name,
            pid,
            renewed: None,
            audit_pipe: None,
            recorded: false,
            launching: false,
            reader: None,
            executing: None,
            report_pipe: None,
            user_endpoint: None,
            uid: None,
            ended: None,
            told: false,
        }
    }

    /// Expects no more reports: whatever still comes through the pipe is nobody's.
    fn stop_reading(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.abort();
        }
    }
}

impl Default for Processes {
    fn default() -> Self {
        let (outbox, inbox) = mpsc::unbounded_channel();
        Self {
            children: BTreeMap::new(),
            serials: HashMap::new(),
            next_serial: 0,
            deputies: Vec::new(),
            open_files: None,
            allowed_functions: None,
            outbox,
            inbox,
        }
    }
}

impl Processes {
    /// Takes over children that this process had before it executed its program again, and tells them what may have changed.
    pub(super) fn resume(&mut self, children: Vec<HandedOver>) -> Vec<Child> {
        let mut known = Vec::new();
        for HandedOver { mut child, renewed_credentials, audit_pipe } in children {
            let renewed = renewed_credentials.and_then(|(descriptor, key)| {
                // SAFETY: the program that this process ran before left it open for this one alone.
                let file = unsafe { OwnedFd::from_raw_fd(descriptor) };
                closed_at_exec(&file, true).ok()?;
                let mut renewed = RenewedCredentials::resume(file, &key).ok()?;
                if let Err(error) =
                    renewed.write(self.content(&child.credentials), clock::since_epoch().as_secs())
                {
                    tracing::error!(%error, name = %child.name, "a user endpoint can't be told what changed");
                }
                Some(renewed)
            });
            let audit_pipe = audit_pipe.and_then(|descriptor| {
                // SAFETY: as above.
                let pipe = unsafe { OwnedFd::from_raw_fd(descriptor) };
                closed_at_exec(&pipe, true).ok()?;
                Some(pipe)
            });
            if let Some(pid) = child.pid {
                let uid = child.uid;
                let process = Process { renewed, audit_pipe, uid, ..Process::new(child.name.clone(), pid) };
                child.serial = Some(self.add(process));
                known.push(child);
            }
        }
        known
    }

    fn add(&mut self, process: Process) -> Serial {
        let serial = Serial(self.next_serial);
        self.next_serial += 1;
        self.serials.insert(process.name.clone(), serial);
        self.children.insert(serial, process);
        serial
    }

    /// The state of these children for the next program.
    pub(super) fn hand_over<'a>(&self, children: impl Iterator<Item = &'a Child>) -> Vec<HandedOver> {
        let of = |child: &Child| {
            let process = child.serial.and_then(|serial| self.children.get(&serial));
            let renewed = process.and_then(|process| process.renewed.as_ref());
            let audit_pipe = process.and_then(|process| process.audit_pipe.as_ref());
            HandedOver {
                child: child.clone(),
                renewed_credentials: renewed.map(|it| (it.descriptor().as_raw_fd(), it.key())),
                audit_pipe: audit_pipe.map(|it| it.as_raw_fd()),
            }
        };
        children.map(of).collect()
    }

    /// Leaves the descriptors of that state open for the next program. To be called right before it is executed: until
    /// then, no other program that this process starts gets them.
    pub(super) fn leave_open(&self) -> io::Result<()> {
        // Of one that has ended, the next program knows nothing.
        let running = self.children.values().filter(|process| process.ended.is_none());
        for Process { renewed, audit_pipe, .. } in running {
            if let Some(renewed) = renewed {
                closed_at_exec(renewed.descriptor(), false)?;
            }
            if let Some(pipe) = audit_pipe {
                closed_at_exec(pipe, false)?;
            }
        }
        Ok(())
    }

    /// A copy of the manager's end of a child's audit pipe, for the one who reads it. None, if there is a reader already.
    pub(super) fn audit_pipe(&mut self, serial: Serial) -> Option<io::Result<OwnedFd>> {
        let process = self.children.get_mut(&serial)?;
        let pipe = process.audit_pipe.as_ref().filter(|_| !process.recorded)?.try_clone();
        process.recorded = true;
        Some(pipe)
    }

    /// Whether something happened to a child that was not told yet.
    pub(super) fn has_news(&self) -> bool {
        !self.inbox.is_empty()
            || self.children.values().any(|process| process.ended.is_some() && !process.told)
    }

    /// Starts a launcher. Returns its serial number and its process. `audited`: the user endpoint gets an audit pipe.
    pub(super) fn launch(&mut self, mut request: LaunchRequest, audited: bool) -> io::Result<(Serial, i32)> {
        let credentials = FreeForm::from(request.credentials.as_object().cloned().unwrap_or_default());
        let content = self.content(&credentials);
        let (renewed, reader) = RenewedCredentials::create(content, clock::since_epoch().as_secs())?;
        request.renewed_credentials = Some((reader.as_raw_fd(), renewed.key()));
        let (audit_pipe, theirs) = if audited { Some(audit_log::pipe()?) } else { None }.unzip();
        request.audit_descriptor = theirs.as_ref().map(std::os::fd::AsRawFd::as_raw_fd);
        let launch::Launch { pid, reports } = launch::start(&request, self.open_files)?;
        let report_pipe = fstat(&reports).ok().map(|it| it.st_ino);
        let renewed = Some(renewed);
        let serial = self.add(Process {
            renewed,
            audit_pipe,
            report_pipe,
            launching: true,
            ..Process::new(request.name, pid)
        });
        let outbox = self.outbox.clone();
        match launcher_reports::read(serial, reports, outbox) {
            Ok(reader) => {
                self.children.entry(serial).and_modify(|process| process.reader = Some(reader));
            }
            Err(error) => {
                tracing::error!(%error, pid, "the reports of a launcher can't be read");
                let _ = self.outbox.send(ProcessEvent::LaunchEnded { serial, end: LaunchEnd::Lost });
            }
        }
        Ok((serial, pid))
    }

    /// Writes new credentials for a user endpoint.
    pub(super) fn renew(&mut self, name: &str, credentials: &FreeForm) {
        let Self { children, serials, allowed_functions, .. } = self;
        let process = serials.get(name).and_then(|serial| children.get_mut(serial));
        let Some(renewed) = process.and_then(|process| process.renewed.as_mut()) else { return };
        let content = Content { amqp_creds: credentials, allowed_functions: allowed_functions.as_deref() };
        if let Err(error) = renewed.write(content, clock::since_epoch().as_secs()) {
            tracing::error!(%error, name, "new credentials can't be written for a user endpoint");
        }
    }

    /// What a running user endpoint is told.
    fn content<'a>(&'a self, credentials: &'a FreeForm) -> Content<'a> {
        Content { amqp_creds: credentials, allowed_functions: self.allowed_functions.as_deref() }
    }

    /// The next event of a child: its launch ends once, and its own end comes last.
    pub(super) async fn event(&mut self) -> ProcessEvent {
        let told: Vec<Serial> =
            self.children.iter().filter(|(_, process)| process.told).map(|(serial, _)| *serial).collect();
        told.into_iter().for_each(|serial| self.forget(serial));
        loop {
            let event = match self.inbox.recv().await {
                Some(event) => event,
                None => std::future::pending().await,
            };
            let (ProcessEvent::Reported { serial, .. }
            | ProcessEvent::LaunchEnded { serial, .. }
            | ProcessEvent::Exited { serial, .. }) = event;
            let Some(process) = self.children.get_mut(&serial) else { continue };
            match &event {
                ProcessEvent::LaunchEnded { .. } => {
                    if !std::mem::take(&mut process.launching) {
                        continue;
                    }
                    process.stop_reading();
                    if let Some((status, _)) = process.ended {
                        let _ = self.outbox.send(ProcessEvent::Exited { serial, status });
                    }
                }
                ProcessEvent::Reported { report, .. } => match report {
                    LaunchReport::UserFound { uid, .. } => process.uid = process.uid.or(Some(*uid)),
                    LaunchReport::Running { pid } => process.user_endpoint = Some(*pid),
                    LaunchReport::Executing => process.executing = Some(Instant::now()),
                    _ => {}
                },
                ProcessEvent::Exited { .. } => process.told = true,
            }
            return event;
        }
    }

    /// Whether this process is a child that is not reaped yet.
    pub(super) fn is_child(&self, pid: i32) -> bool {
        let is_deputy = self.deputies.iter().any(|it| i32::try_from(it.id()) == Ok(pid));
        is_deputy || self.children.values().any(|it| it.pid == pid && it.ended.is_none())
    }

    /// Looks which children have ended.
    pub(super) fn reap(&mut self) {
        self.deputies.retain_mut(|deputy| matches!(deputy.try_wait(), Ok(None)));
        for (serial, process) in self.children.iter_mut().filter(|(_, process)| process.ended.is_none()) {
            let Some(status) = wait::reaped(process.pid) else { continue };
            process.ended = Some((status, Instant::now()));
            if !process.launching {
                let _ = self.outbox.send(ProcessEvent::Exited { serial: *serial, status });
            }
        }
    }

    /// Gives up on reports that do not end although the launcher did, or became the user endpoint: a process that a PAM
    /// module left behind may hold the pipe.
    pub(super) fn give_up_on_reports(&mut self) {
        for (serial, process) in self.children.iter_mut().filter(|(_, process)| process.reader.is_some()) {
            let event = match process.ended {
                Some((status, since)) if since.elapsed() >= REPORTS_PATIENCE => {
                    ProcessEvent::Exited { serial: *serial, status }
                }
                None if process.executing.is_some_and(|since| since.elapsed() >= EXECUTING_PATIENCE) => {
                    let pid = process.user_endpoint.unwrap_or(process.pid);
                    if process.report_pipe.is_none_or(|inode| wait::holds_pipe(pid, inode)) {
                        continue;
                    }
                    ProcessEvent::LaunchEnded { serial: *serial, end: LaunchEnd::Started }
                }
                _ => continue,
            };
            process.stop_reading();
            let _ = self.outbox.send(event);
        }
    }

    /// Sends a signal to a child that is not reaped yet.
    pub(super) fn signal(&mut self, signalled: Signalled) {
        let (Signalled::Terminate(serial) | Signalled::Kill(serial) | Signalled::KillHeld(serial)) =
            signalled;
        let Some(process) = self.children.get(&serial).filter(|process| process.ended.is_none()) else {
            return;
        };
        let signal = match signalled {
            Signalled::Terminate(_) => Signal::SIGTERM,
            Signalled::Kill(_) => Signal::SIGKILL,
            // A holder that an older program launched does not know this signal and ends by it: then it is its stand-in that
            // ends the user endpoint, and closes the session.
            Signalled::KillHeld(_) => launch::KILL_USER_ENDPOINT,
        };
        if signal == Signal::SIGKILL {
            // Before it has a session of its own, there is no such group.
            let _ = killpg(Pid::from_raw(process.pid), signal);
        }
        let result = match (kill(Pid::from_raw(process.pid), signal), process.uid) {
            (Err(Errno::EPERM), Some(uid)) => launch::signal_as(uid, process.pid, signal)
                .map(|deputy| self.deputies.push(deputy))
                .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or_default())),
            (result, _) => result,
        };
        match result {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => {
                tracing::warn!(pid = process.pid, "User endpoint signal failed: {error} ({signalled:?})");
            }
        }
    }

    fn forget(&mut self, serial: Serial) {
        if let Some(mut process) = self.children.remove(&serial) {
            process.stop_reading();
            if self.serials.get(&process.name) == Some(&serial) {
                self.serials.remove(&process.name);
            }
        }
    }
}

/// Sets whether the programs that this process executes get the descriptor.
fn closed_at_exec(descriptor: impl std::os::fd::AsFd, closed: bool) -> io::Result<()> {
    let flags = if closed { nix::fcntl::FdFlag::FD_CLOEXEC } else { nix::fcntl::FdFlag::empty() };
    fcntl(descriptor, FcntlArg::F_SETFD(flags))?;
    Ok(())
}

#[cfg(test)]
mod tests;
