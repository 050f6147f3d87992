//! Workers that are threads of one process: each has a socket of its own, as if it were alone, and they die together.
//!
//! To the node's slots a thread is a worker like any other. It may never be killed by itself: there is no way.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream as StdStream;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::resources::Share;
use super::task_socket::TaskSocket;
use super::worker::{CLOSED, LAST_MOMENT, News, Recipe, Worker, command, describe, last_words, log_name};
use crate::link::frame::Reader;
use crate::processes;

/// Starts the process and all its threads, and blocks until its interpreter has been loaded. Everything that happens to
/// them arrives in `news`.
pub(super) fn start(recipe: &Recipe, share: &Share, news: &mpsc::UnboundedSender<News>) {
    if let Err(error) = spawn(recipe, share, news) {
        let _ = news.send(News::NotStarted { rank: 0, error }); // the node has left
    }
}

fn spawn(recipe: &Recipe, share: &Share, news: &mpsc::UnboundedSender<News>) -> io::Result<()> {
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    for _ in 0..recipe.count {
        let (here, there) = StdStream::pair()?;
        here.set_nonblocking(true)?;
        ours.push((TaskSocket::new()?, UnixStream::from_std(here)?));
        theirs.push(there);
    }
    let (reading, writing) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let tasks = ours.iter().map(|(tasks, _)| tasks.theirs());
    let sockets =
        tasks.zip(theirs.iter().map(AsRawFd::as_raw_fd)).flat_map(|(tasks, results)| [tasks, results]);
    let child = processes::spawn(&mut command(recipe, 0, share, sockets.collect(), writing)?)?;
    drop(theirs);
    let copying = recipe.writer.keep(reading, recipe.logs.join(log_name(0)))?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("the worker has no process id"))?;
    let (told, end) = watch::channel(None);
    let (closed, one_closed) = mpsc::channel(1);
    tokio::spawn(outlive(child, pid, recipe.pool.clone(), copying, one_closed, told));
    for (rank, (tasks, results)) in (0..).zip(ours) {
        let _ = news.send(News::Started { rank, worker: Worker::new(pid, tasks) }); // the node has left
        tokio::spawn(live(rank, results, news.clone(), closed.clone(), end.clone()));
    }
    Ok(())
}

/// Waits for the process, sweeps up behind it, and tells how it ended.
async fn outlive(
    mut child: Child,
    pid: Pid,
    pool: String,
    copying: JoinHandle<String>,
    mut one_closed: mpsc::Receiver<()>,
    told: watch::Sender<Option<(String, String)>>,
) {
    let exit = tokio::select! {
        exit = child.wait() => Some(exit),
        // A thread that has lost its socket can bring no result, and it can't be replaced alone.
        Some(()) = one_closed.recv() => tokio::time::timeout(LAST_MOMENT, child.wait()).await.ok(),
    };
    let how = match exit {
        Some(exit) => describe(exit),
        None => {
            let _ = killpg(pid, Signal::SIGKILL); // gone already is as good
            let _ = child.wait().await;
            CLOSED.to_owned()
        }
    };
    processes::sweep(&pool, &[(pid, 0)]).await;
    let output = last_words(copying).await;
    let _ = told.send(Some((how, output))); // the node has left
}

/// One thread's conversation.
async fn live(
    rank: u32,
    results: UnixStream,
    news: mpsc::UnboundedSender<News>,
    closed: mpsc::Sender<()>,
    mut end: watch::Receiver<Option<(String, String)>>,
) {
    let mut reader = Reader::new(results);
    while let Ok(Some(frame)) = reader.next().await {
        let _ = news.send(News::Said { rank, frame });
    }
    let _ = closed.try_send(()); // told already
    let (how, output) = match end.wait_for(Option::is_some).await {
        Ok(how) => how.clone().unwrap_or_default(),
        Err(_) => ("The worker process is gone.".to_owned(), String::new()),
    };
    let _ = news.send(News::Died { rank, how, output });
}
