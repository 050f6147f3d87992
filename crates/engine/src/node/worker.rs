//! One worker process. It has a session of its own, and dies with its node. Tasks go to it by a packet socket,
//! results come back by a stream.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::config::WorkerConfig;
use super::log;
use super::resources::WorkerResources;
use super::task_socket::{TaskFrame, TaskSocket};
use crate::link::frame::{Frame, FrameReader};
use crate::processes;

/// What every worker of a node has in common.
#[derive(Clone, Debug)]
pub(crate) struct WorkerSpec {
    pub(crate) python: PathBuf,
    /// The directory of the worker's package, as [`super::library::install`] has made it.
    pub(crate) library: PathBuf,
    pub(crate) config: WorkerConfig,
    pub(crate) logs: PathBuf,
    pub(crate) writer: log::LogWriter,
    pub(crate) pool: String,
    pub(crate) block: u32,
    pub(crate) count: u32,
    /// A worker that is not ready after this time is killed.
    pub(crate) start_limit: Duration,
    /// The soft limit of open files that users had.
    pub(crate) open_files: Option<u64>,
}

/// What happens to a worker.
#[derive(Debug)]
pub(crate) enum WorkerEvent {
    /// Its process runs. The first event of a worker.
    Started {
        rank: u32,
        worker: Worker,
    },
    /// Its process could not be started.
    StartFailed {
        rank: u32,
        error: io::Error,
    },
    Frame {
        rank: u32,
        frame: Frame,
    },
    /// It has ended, with every process that it had started.
    Exited {
        rank: u32,
        how: String,
        /// The end of its output.
        output: String,
    },
}

/// The node's handle of one worker.
#[derive(Debug)]
pub(crate) struct Worker {
    pid: Pid,
    tasks: TaskSocket,
    /// Why it was killed, if it broke a rule.
    kill_reason: Option<&'static str>,
}

/// The worker's package. An `import` statement can't name it, so no function meets it by accident. As a package it
/// keeps `__main__` clean, and the interpreter caches its byte code.
pub(super) const PACKAGE: &str = "farcall-worker";

pub(super) const FILES: [(&str, &str); 8] = [
    ("__init__.py", include_str!("worker_python/__init__.py")),
    ("errors.py", include_str!("worker_python/errors.py")),
    ("payloads.py", include_str!("worker_python/payloads.py")),
    ("pickles.py", include_str!("worker_python/pickles.py")),
    ("shell_function.py", include_str!("worker_python/shell_function.py")),
    ("threads.py", include_str!("worker_python/threads.py")),
    ("timeout.py", include_str!("worker_python/timeout.py")),
    ("worker.py", include_str!("worker_python/worker.py")),
];

/// The name of a worker's log file.
pub(super) fn log_name(rank: u32) -> String {
    format!("worker_{rank}.log")
}

impl Worker {
    /// Starts the worker of this rank, and blocks until its interpreter has been loaded. What happens to it arrives
    /// in `events`, its exit last.
    pub(super) fn start(
        spec: &WorkerSpec,
        rank: u32,
        resources: &WorkerResources,
        events: mpsc::UnboundedSender<WorkerEvent>,
    ) {
        // A node that has ended receives no events; the worker dies with it.
        match Self::spawn(spec, rank, resources, events.clone()) {
            Ok((worker, process, results)) => {
                let _ = events.send(WorkerEvent::Started { rank, worker });
                tokio::spawn(process.watch(results));
            }
            Err(error) => {
                let _ = events.send(WorkerEvent::StartFailed { rank, error });
            }
        }
    }

    fn spawn(
        spec: &WorkerSpec,
        rank: u32,
        resources: &WorkerResources,
        events: mpsc::UnboundedSender<WorkerEvent>,
    ) -> io::Result<(Self, WorkerProcess, UnixStream)> {
        let (here, there) = StdStream::pair()?;
        here.set_nonblocking(true)?;
        let stream = UnixStream::from_std(here)?;
        let (reading, writing) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        let tasks = TaskSocket::new()?;
        let sockets = vec![tasks.theirs(), there.as_raw_fd()];
        let child = processes::spawn(&mut build_command(spec, rank, resources, sockets, writing)?)?;
        drop(there);
        let copying = spec.writer.copy_output(reading, spec.logs.join(log_name(rank)))?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("the worker has no process id"))?;
        let process = WorkerProcess { child, pid, rank, pool: spec.pool.clone(), copying, events };
        Ok((Self::new(pid, tasks), process, stream))
    }

    pub(super) fn new(pid: Pid, tasks: TaskSocket) -> Self {
        Self { pid, tasks, kill_reason: None }
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends one task. If the worker is gone, its exit follows as an event.
    pub(super) fn give(&mut self, task: TaskFrame) {
        self.tasks.send(task);
    }

    /// Sends tasks for which there was no room before; to be called after each answer.
    pub(super) fn send_unsent(&mut self) {
        self.tasks.send_unsent();
    }

    /// Takes back all tasks that it has not read.
    pub(super) fn take_back(&mut self) -> Vec<TaskFrame> {
        self.tasks.take_back()
    }

    /// Asks it, and all of its process group, to end.
    pub(crate) fn terminate(&self) {
        let _ = killpg(self.pid, Signal::SIGTERM); // it may have ended already
    }

    pub(crate) fn kill(&self) {
        let _ = killpg(self.pid, Signal::SIGKILL); // it may have ended already
    }

    /// Kills it because it broke a rule; the first reason is reported.
    pub(super) fn kill_for(&mut self, kill_reason: &'static str) {
        self.kill_reason.get_or_insert(kill_reason);
        self.kill();
    }

    pub(super) fn kill_reason(&self) -> Option<&'static str> {
        self.kill_reason
    }
}

/// Lets the C library keep freed memory. Otherwise it returns large blocks to the system at once, and a worker with
/// arguments of megabytes pays for fresh pages in every task, which takes longer than all the copying. The worker
/// removes these variables before a function runs.
const KEPT_MEMORY: [(&str, &str); 2] =
    [("MALLOC_TRIM_THRESHOLD_", "16777216"), ("MALLOC_MMAP_THRESHOLD_", "8388608")];

/// The command of a process for one worker, or for several threads. Each has two of the sockets: for tasks and for
/// results.
pub(super) fn build_command(
    spec: &WorkerSpec,
    rank: u32,
    resources: &WorkerResources,
    sockets: Vec<RawFd>,
    output: OwnedFd,
) -> io::Result<Command> {
    let names: Vec<_> = sockets.iter().map(i32::to_string).collect();
    let config = serde_json::to_string(&spec.config)?;
    let errors = output.try_clone()?;
    let mut command = Command::new(&spec.python);
    command
        .args(["-c", &bootstrap(&spec.library)])
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .env("FARCALL_WORKER_SOCKETS", names.join(","))
        .env("FARCALL_WORKER_CONFIG", config)
        .env(processes::MARK, processes::mark(&spec.pool, rank))
        .envs(resources.environment.iter().map(|(name, value)| (*name, value.as_str())));
    let own = KEPT_MEMORY.into_iter().filter(|(name, _)| std::env::var_os(name).is_none());
    let names: Vec<_> = own.clone().map(|(name, _)| name).collect();
    command.envs(own).env("FARCALL_WORKER_OWN_VARIABLES", names.join(","));
    if spec.config.variables {
        command
            .env("PARSL_WORKER_RANK", rank.to_string())
            .env("PARSL_WORKER_COUNT", spec.count.to_string())
            .env("PARSL_WORKER_POOL_ID", &spec.pool)
            .env("PARSL_WORKER_BLOCK_ID", spec.block.to_string());
    }
    let mut cpus = nix::sched::CpuSet::new();
    for &cpu in resources.cpus.iter().flatten() {
        cpus.set(cpu).map_err(io::Error::from)?;
    }
    let bound = resources.cpus.is_some();
    processes::limit_open_files(&mut command, spec.open_files);
    let limit = processes::marking_limit(rank);
    // SAFETY: between fork and exec only async-signal-safe system calls are made, on values prepared before.
    unsafe {
        command.pre_exec(move || {
            nix::unistd::setsid()?;
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            if bound {
                nix::sched::sched_setaffinity(Pid::from_raw(0), &cpus)?;
            }
            for &socket in &sockets {
                let socket = std::os::fd::BorrowedFd::borrow_raw(socket);
                fcntl(socket, FcntlArg::F_SETFD(FdFlag::empty()))?;
            }
            if let Some((soft, hard)) = limit {
                nix::sys::resource::setrlimit(processes::MARKED_LIMIT, soft, hard)?;
            }
            Ok(())
        });
    }
    Ok(command)
}

/// The program for `python -c`. It binds no name, so that functions see a clean `__main__`. On `sys.path` it replaces
/// the current directory, which is absent with `PYTHONSAFEPATH`, by the library; the worker removes that again.
fn bootstrap(library: &Path) -> String {
    let library = serde_json::Value::from(library.to_string_lossy());
    format!(
        "(lambda path: path.__setitem__(slice(path[:1].count('')), [{library}]))(__import__('sys').path); \
         __import__('{PACKAGE}').main()"
    )
}

/// Watches a worker's process until it has ended.
struct WorkerProcess {
    child: Child,
    pid: Pid,
    rank: u32,
    pool: String,
    /// Ends when the worker's output is closed, and gives the end of it.
    copying: JoinHandle<String>,
    events: mpsc::UnboundedSender<WorkerEvent>,
}

impl WorkerProcess {
    async fn watch(mut self, results: UnixStream) {
        let mut reader = FrameReader::new(results);
        let exited = loop {
            tokio::select! {
                biased;
                frame = reader.next() => match frame {
                    Ok(Some(frame)) => {
                        // Without a receiver the node is ending and kills its workers.
                        let _ = self.events.send(WorkerEvent::Frame { rank: self.rank, frame });
                    }
                    // It has closed its socket or sent an invalid frame: no result can come any more.
                    Ok(None) | Err(_) => break None,
                },
                exit = self.child.wait() => break Some(exit),
            }
        };
        let how = match exited {
            Some(exit) => describe_exit_status(exit),
            None => {
                // A process that exits closes its socket first: wait briefly for its exit status.
                match tokio::time::timeout(EXIT_LIMIT, self.child.wait()).await {
                    Ok(exit) => describe_exit_status(exit),
                    Err(_) => {
                        let _ = killpg(self.pid, Signal::SIGKILL);
                        let _ = self.child.wait().await;
                        SOCKET_CLOSED.to_owned()
                    }
                }
            }
        };
        if self.events.is_closed() {
            // The node is ending, and kills the descendants of all its workers at once.
            return;
        }
        processes::kill_descendants(&self.pool, &[(self.pid, self.rank)]).await;
        let output = output_tail(self.copying).await;
        let _ = self.events.send(WorkerEvent::Exited { rank: self.rank, how, output });
    }
}

/// The end of a worker's output; empty if the file system stalls.
pub(super) async fn output_tail(copying: JoinHandle<String>) -> String {
    let copied = tokio::time::timeout(EXIT_LIMIT, copying).await;
    copied.ok().and_then(Result::ok).unwrap_or_default()
}

/// How long a worker may take to exit after it has closed its socket.
pub(super) const EXIT_LIMIT: Duration = Duration::from_millis(200);

/// The exit status of a worker that has lost its node.
const DISCONNECTED: i32 = 197;

/// The error of a task whose worker can't answer any more.
pub(super) const SOCKET_CLOSED: &str = "The worker's connection to its node was closed or used by something else, and the \
                                 worker ended. A function must leave file descriptors alone that it has not opened.";

/// The error of a task whose worker sent a result that was not asked for.
pub(super) const UNEXPECTED_RESULT: &str = "The worker sent a result for a task that it was not running, and was killed. \
                                         A function must leave file descriptors alone that it has not opened, and a \
                                         process that it forks must end with os._exit().";

/// Describes how a process ended.
pub(super) fn describe_exit_status(exit: io::Result<std::process::ExitStatus>) -> String {
    use std::os::unix::process::ExitStatusExt;
    match exit {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(DISCONNECTED), _) => SOCKET_CLOSED.to_owned(),
            (Some(code), _) => format!("The worker process exited with status {code}."),
            (None, Some(signal)) => {
                let name = Signal::try_from(signal).map(Signal::as_str).unwrap_or("an unknown signal");
                format!("The worker process was ended by {name}.")
            }
            (None, None) => "The worker process is gone.".to_owned(),
        },
        Err(error) => format!("The worker process is gone: {error}."),
    }
}
