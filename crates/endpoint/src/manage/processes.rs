//! The processes of a manager: starts launchers, reads their reports, signals and reaps its children.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::Duration;

use daemon::open_files::InheritedLimit;
use manager::children::Child;
use manager::core::{ExitStatus, Signalled};
use manager::launch::{self, LaunchEnd, LaunchReport, LaunchRequest, OpenFiles, Reports};
use manager::restart::HandedOver;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::stat::fstat;
use nix::unistd::Pid;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::time::Instant;
use wire::FunctionId;
use wire::json::FreeForm;

use super::audit_log;
use super::credentials::{Content, RenewedCredentials};
use super::wait::{self, Handle};
use crate::clock;

/// How long the end of a child waits for the last of its launcher's reports: a program of a PAM module may hold the pipe.
const REPORTS_PATIENCE: Duration = Duration::from_secs(1);

/// How long after its last report a launcher's pipe may stay open, before the process itself is looked at.
const EXECUTING_PATIENCE: Duration = Duration::from_secs(5);

/// What happened to a child.
#[derive(Debug)]
pub(super) enum ProcessEvent {
    Reported { pid: i32, report: LaunchReport },
    LaunchEnded { pid: i32, end: LaunchEnd },
    Exited { pid: i32, status: ExitStatus },
}

/// The children's processes, and the manager's descriptors for them.
#[derive(Debug)]
pub(super) struct Processes {
    children: HashMap<i32, Process>,
    pids: HashMap<String, i32>,
    /// The limit of open files for children, while this process has a higher one.
    pub(super) open_files: Option<InheritedLimit>,
    /// The functions that user endpoints may run, whatever their template says.
    pub(super) allowed_functions: Option<Vec<FunctionId>>,
    /// The audit pipes of children that have ended, with what nobody has read yet.
    unread: HashMap<i32, OwnedFd>,
    /// Children that have ended before their launcher's reports did.
    ended: Vec<(i32, ExitStatus, Instant)>,
    outbox: mpsc::UnboundedSender<ProcessEvent>,
    inbox: mpsc::UnboundedReceiver<ProcessEvent>,
}

#[derive(Debug)]
struct Process {
    name: String,
    renewed: Option<RenewedCredentials>,
    /// The manager's end of its audit pipe.
    audit_pipe: Option<OwnedFd>,
    /// Whether somebody reads that pipe.
    recorded: bool,
    launching: bool,
    /// When the launcher said that it executes the user endpoint.
    executing: Option<Instant>,
    /// The inode of the launcher's report pipe.
    report_pipe: Option<u64>,
    /// The user endpoint, if it is not the child itself but the child's child.
    user_endpoint: Option<Handle>,
}

impl Process {
    /// Kills a group: of the child, which is not reaped, or of the user endpoint that the child holds a PAM session for.
    fn kill(&self, group: i32, child: i32) -> nix::Result<()> {
        if let Some(user_endpoint) =
            self.user_endpoint.as_ref().filter(|it| it.pid() == group || group == child)
            && let Err(error) = user_endpoint.kill_group()
        {
            tracing::warn!(%error, pid = user_endpoint.pid(), "a user endpoint can't be killed");
        }
        if group != child {
            // The child must close the session; it ends after its user endpoint.
            return Ok(());
        }
        // Before it has a session of its own, there is no such group.
        let _ = killpg(Pid::from_raw(child), Signal::SIGKILL);
        kill(Pid::from_raw(child), Signal::SIGKILL)
    }
}

impl Default for Processes {
    fn default() -> Self {
        let (outbox, inbox) = mpsc::unbounded_channel();
        Self {
            children: HashMap::new(),
            pids: HashMap::new(),
            open_files: None,
            allowed_functions: None,
            unread: HashMap::new(),
            ended: Vec::new(),
            outbox,
            inbox,
        }
    }
}

impl Processes {
    /// Takes over children that this process had before it executed its program again, and tells them what may have changed.
    pub(super) fn resume(&mut self, children: Vec<HandedOver>) -> Vec<Child> {
        let mut known = Vec::new();
        for HandedOver { child, renewed_credentials, audit_pipe } in children {
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
                self.pids.insert(child.name.clone(), pid);
                let user_endpoint = child.user_endpoint_pid.and_then(|it| Handle::of_child(it, pid));
                let name = child.name.clone();
                self.children.insert(
                    pid,
                    Process {
                        name,
                        renewed,
                        audit_pipe,
                        recorded: false,
                        launching: false,
                        executing: None,
                        report_pipe: None,
                        user_endpoint,
                    },
                );
                known.push(child);
            }
        }
        known
    }

    /// The state of these children for the next program.
    pub(super) fn hand_over<'a>(&self, children: impl Iterator<Item = &'a Child>) -> Vec<HandedOver> {
        let of = |child: &Child| {
            let process = child.pid.and_then(|pid| self.children.get(&pid));
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
        for Process { renewed, audit_pipe, .. } in self.children.values() {
            if let Some(renewed) = renewed {
                closed_at_exec(renewed.descriptor(), false)?;
            }
            if let Some(pipe) = audit_pipe {
                closed_at_exec(pipe, false)?;
            }
        }
        Ok(())
    }

    /// A copy of the manager's end of a child's audit pipe, to read it; or the pipe itself, once the child has ended.
    pub(super) fn audit_pipe(&mut self, pid: i32) -> Option<io::Result<OwnedFd>> {
        if let Some(pipe) = self.unread.remove(&pid) {
            return Some(Ok(pipe));
        }
        let process = self.children.get_mut(&pid)?;
        process.recorded = true;
        Some(process.audit_pipe.as_ref()?.try_clone())
    }

    /// Starts a launcher. Returns its process. `audited`: the user endpoint gets an audit pipe.
    pub(super) fn launch(&mut self, mut request: LaunchRequest, audited: bool) -> io::Result<i32> {
        let credentials = FreeForm::from(request.credentials.as_object().cloned().unwrap_or_default());
        let content = self.content(&credentials);
        let (renewed, reader) = RenewedCredentials::create(content, clock::since_epoch().as_secs())?;
        request.renewed_credentials = Some((reader.as_raw_fd(), renewed.key()));
        let (audit_pipe, theirs) = if audited { Some(audit_log::pipe()?) } else { None }.unzip();
        request.audit_descriptor = theirs.as_ref().map(std::os::fd::AsRawFd::as_raw_fd);
        let limit = self.open_files.map(|it| OpenFiles { soft: it.soft(), hard: it.hard() });
        let launch::Launch { pid, reports } = launch::start(&request, limit)?;
        let report_pipe = fstat(&reports).ok().map(|it| it.st_ino);
        self.pids.insert(request.name.clone(), pid);
        self.unread.remove(&pid);
        let process = Process {
            name: request.name,
            renewed: Some(renewed),
            audit_pipe,
            recorded: false,
            launching: true,
            executing: None,
            report_pipe,
            user_endpoint: None,
        };
        self.children.insert(pid, process);
        let outbox = self.outbox.clone();
        match nonblocking(reports) {
            Ok(reports) => {
                tokio::spawn(read_reports(pid, reports, outbox));
            }
            Err(error) => {
                tracing::error!(%error, pid, "the reports of a launcher can't be read");
                let _ = outbox.send(ProcessEvent::LaunchEnded { pid, end: LaunchEnd::Lost });
            }
        }
        Ok(pid)
    }

    /// Writes new credentials for a user endpoint.
    pub(super) fn renew(&mut self, name: &str, credentials: &FreeForm) {
        let Self { children, pids, allowed_functions, .. } = self;
        let process = pids.get(name).and_then(|pid| children.get_mut(pid));
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

    /// The next event of a child.
    pub(super) async fn event(&mut self) -> ProcessEvent {
        loop {
            match self.inbox.recv().await {
                Some(ProcessEvent::LaunchEnded { pid, end }) => {
                    if let Some(at) = self.ended.iter().position(|(ended, ..)| *ended == pid) {
                        // It was reaped and forgotten: the number may be a new child's.
                        let (pid, status, _) = self.ended.swap_remove(at);
                        let _ = self.outbox.send(ProcessEvent::Exited { pid, status });
                    } else if let Some(process) = self.children.get_mut(&pid) {
                        process.launching = false;
                    }
                    return ProcessEvent::LaunchEnded { pid, end };
                }
                Some(ProcessEvent::Reported { pid, report: report @ LaunchReport::Running { pid: own } }) => {
                    if let Some(process) = self.children.get_mut(&pid) {
                        process.user_endpoint = Handle::of_child(own, pid);
                    }
                    return ProcessEvent::Reported { pid, report };
                }
                Some(ProcessEvent::Reported { pid, report: LaunchReport::Executing }) => {
                    if let Some(process) = self.children.get_mut(&pid) {
                        process.executing = Some(Instant::now());
                    }
                    return ProcessEvent::Reported { pid, report: LaunchReport::Executing };
                }
                Some(event) => return event,
                None => std::future::pending().await,
            }
        }
    }

    /// Whether this process is a child that is not reaped yet.
    pub(super) fn is_child(&self, pid: i32) -> bool {
        self.children.contains_key(&pid)
    }

    /// Looks which children have ended.
    pub(super) fn reap(&mut self) {
        let pids: Vec<i32> = self.children.keys().copied().collect();
        for pid in pids {
            let Some(status) = wait::reaped(pid) else { continue };
            if self.children.get(&pid).is_some_and(|process| process.launching) {
                self.ended.push((pid, status, Instant::now()));
                // It is reaped: the number may belong to another process now.
                self.forget(pid);
            } else {
                self.forget(pid);
                let _ = self.outbox.send(ProcessEvent::Exited { pid, status });
            }
        }
    }

    /// Gives up on reports that do not end although the launcher did, or became the user endpoint: a process that a PAM
    /// module left behind may hold the pipe.
    pub(super) fn give_up_on_reports(&mut self) {
        for (pid, process) in self.children.iter_mut().filter(|(_, process)| process.launching) {
            let user_endpoint = process.user_endpoint.as_ref().map_or(*pid, Handle::pid);
            if process.executing.is_some_and(|since| since.elapsed() >= EXECUTING_PATIENCE)
                && process.report_pipe.is_some_and(|inode| !wait::holds_pipe(user_endpoint, inode))
            {
                process.launching = false;
                let _ = self.outbox.send(ProcessEvent::LaunchEnded { pid: *pid, end: LaunchEnd::Started });
            }
        }
        for (pid, status, since) in std::mem::take(&mut self.ended) {
            if since.elapsed() >= REPORTS_PATIENCE {
                let _ = self.outbox.send(ProcessEvent::Exited { pid, status });
            } else {
                self.ended.push((pid, status, since));
            }
        }
    }

    /// Sends a signal to a child that is not reaped yet.
    pub(super) fn signal(&self, signalled: Signalled) {
        let result = match signalled {
            Signalled::Terminate(pid) if self.children.contains_key(&pid) => {
                kill(Pid::from_raw(pid), Signal::SIGTERM)
            }
            Signalled::Kill { group, child } => match self.children.get(&child) {
                Some(process) => process.kill(group, child),
                None => Ok(()),
            },
            Signalled::Terminate(_) => Ok(()),
        };
        match result {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => tracing::warn!("User endpoint signal failed: {error} ({signalled:?})"),
        }
    }

    fn forget(&mut self, pid: i32) {
        let Some(process) = self.children.remove(&pid) else { return };
        if self.pids.get(&process.name) == Some(&pid) {
            self.pids.remove(&process.name);
        }
        self.unread.extend(process.audit_pipe.filter(|_| !process.recorded).map(|pipe| (pid, pipe)));
    }
}

fn nonblocking(reports: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    fcntl(&reports, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    // SAFETY: the descriptor is the handle's own, and stays open and the same as long as it lives.
    unsafe { AsyncFd::register(reports) }.map_err(io::Error::other)
}

/// Reads until the pipe closes.
async fn read_reports(pid: i32, pipe: AsyncFd<OwnedFd>, outbox: mpsc::UnboundedSender<ProcessEvent>) {
    let mut reports = Reports::default();
    let mut buffer = [0; 4096];
    loop {
        let Ok(mut ready) = pipe.readable().await else { break };
        let read = ready.try_io(|pipe| Ok(nix::unistd::read(pipe.get_ref().as_fd(), &mut buffer)?));
        match read {
            Ok(Ok(0)) | Ok(Err(_)) => break,
            Ok(Ok(length)) => {
                for report in reports.push(&buffer[..length]) {
                    let _ = outbox.send(ProcessEvent::Reported { pid, report });
                }
            }
            // It was not readable after all.
            Err(_) => {}
        }
    }
    let _ = outbox.send(ProcessEvent::LaunchEnded { pid, end: reports.end() });
}

/// Sets whether the programs that this process executes get the descriptor.
fn closed_at_exec(descriptor: impl std::os::fd::AsFd, closed: bool) -> io::Result<()> {
    let flags = if closed { nix::fcntl::FdFlag::FD_CLOEXEC } else { nix::fcntl::FdFlag::empty() };
    fcntl(descriptor, FcntlArg::F_SETFD(flags))?;
    Ok(())
}

#[cfg(test)]
mod tests;
