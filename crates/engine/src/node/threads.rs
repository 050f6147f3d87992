//! Workers that are threads of one process. Each has a socket of its own; all of them end with the process.
//!
//! To the node's slots a thread is a worker like any other, but it can't be killed alone.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream as StdStream;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::resources::WorkerResources;
use super::task_socket::TaskSocket;
use super::worker::{
    EXIT_LIMIT, SOCKET_CLOSED, Worker, WorkerEvent, WorkerSpec, build_command, describe_exit_status,
    log_name, output_tail,
};
use crate::link::frame::FrameReader;
use crate::processes;

/// Starts the process with all its threads, and blocks until its interpreter has been loaded. What happens to them
/// arrives in `events`.
pub(super) fn start(
    spec: &WorkerSpec,
    resources: &WorkerResources,
    events: &mpsc::UnboundedSender<WorkerEvent>,
) {
    if let Err(error) = spawn(spec, resources, events) {
        let _ = events.send(WorkerEvent::StartFailed { rank: 0, error }); // the node has left
    }
}

fn spawn(
    spec: &WorkerSpec,
    resources: &WorkerResources,
    events: &mpsc::UnboundedSender<WorkerEvent>,
) -> io::Result<()> {
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    for _ in 0..spec.count {
        let (here, there) = StdStream::pair()?;
        here.set_nonblocking(true)?;
        ours.push((TaskSocket::new()?, UnixStream::from_std(here)?));
        theirs.push(there);
    }
    let (reading, writing) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let tasks = ours.iter().map(|(tasks, _)| tasks.theirs());
    let sockets =
        tasks.zip(theirs.iter().map(AsRawFd::as_raw_fd)).flat_map(|(tasks, results)| [tasks, results]);
    let child = processes::spawn(&mut build_command(spec, 0, resources, sockets.collect(), writing)?)?;
    drop(theirs);
    let copying = spec.writer.copy_output(reading, spec.logs.join(log_name(0)))?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("the worker has no process id"))?;
    let (exited, end) = watch::channel(None);
    let (closed, one_closed) = mpsc::channel(1);
    tokio::spawn(watch_process(child, pid, spec.pool.clone(), copying, one_closed, exited));
    for (rank, (tasks, results)) in (0..).zip(ours) {
        let _ = events.send(WorkerEvent::Started { rank, worker: Worker::new(pid, tasks) }); // the node has left
        tokio::spawn(read_results(rank, results, events.clone(), closed.clone(), end.clone()));
    }
    Ok(())
}

/// Waits for the process, kills what it has started, and reports how it ended.
async fn watch_process(
    mut child: Child,
    pid: Pid,
    pool: String,
    copying: JoinHandle<String>,
    mut one_closed: mpsc::Receiver<()>,
    exited: watch::Sender<Option<(String, String)>>,
) {
    let exit = tokio::select! {
        exit = child.wait() => Some(exit),
        // A thread that has lost its socket can't answer, and it can't be replaced alone.
        Some(()) = one_closed.recv() => tokio::time::timeout(EXIT_LIMIT, child.wait()).await.ok(),
    };
    let how = match exit {
        Some(exit) => describe_exit_status(exit),
        None => {
            let _ = killpg(pid, Signal::SIGKILL); // it may have ended already
            let _ = child.wait().await;
            SOCKET_CLOSED.to_owned()
        }
    };
    processes::kill_descendants(&pool, &[(pid, 0)]).await;
    let output = output_tail(copying).await;
    let _ = exited.send(Some((how, output))); // the node has left
}

/// Reads the frames of one thread, and reports its end with the process.
async fn read_results(
    rank: u32,
    results: UnixStream,
    events: mpsc::UnboundedSender<WorkerEvent>,
    closed: mpsc::Sender<()>,
    mut end: watch::Receiver<Option<(String, String)>>,
) {
    let mut reader = FrameReader::new(results);
    while let Ok(Some(frame)) = reader.next().await {
        let _ = events.send(WorkerEvent::Frame { rank, frame });
    }
    let _ = closed.try_send(()); // another thread has reported it
    let (how, output) = match end.wait_for(Option::is_some).await {
        Ok(how) => how.clone().unwrap_or_default(),
        Err(_) => ("The worker process is gone.".to_owned(), String::new()),
    };
    let _ = events.send(WorkerEvent::Exited { rank, how, output });
}
