//! The part `engine`: the engine alone. Tasks are submitted in process, pass its link, a node and its Python workers, and
//! their results come back.
//!
//! Three others are measured beside it: a bare relay of the same hops (this process, TCP, another process, a socket
//! pair, Python, and back) that does no work, Python's `concurrent.futures.ProcessPoolExecutor`, and Parsl's
//! `HighThroughputExecutor`, which is the engine of the original's endpoint.

use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use engine::{Engine, EngineConfig, Event, Events, Handle, Submission};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use wire::message::Task;
use wire::{EndpointId, TaskId};

use crate::children::Tree;
use crate::measurements::{Row, megabytes, milliseconds, record};
use crate::payload::NoOp;
use crate::random;

/// The subject of our own measurements.
const ENGINE: &str = "engine";

#[derive(Args)]
pub(crate) struct Options {
    /// An interpreter that has the SDK: it prepares the payload, and runs the workers.
    #[arg(long)]
    python: PathBuf,
    /// Tasks sent one after another.
    #[arg(long, default_value_t = 3000)]
    serial: usize,
    /// Tasks sent at once.
    #[arg(long, default_value_t = 20_000)]
    burst: usize,
    #[arg(long, default_value_t = 2)]
    workers: u32,
    /// Tasks of a megabyte, each way.
    #[arg(long, default_value_t = 200)]
    megabytes: usize,
    /// An interpreter without packages, to measure a stock one.
    #[arg(long, default_value = "python3")]
    stock_python: String,
    /// Leaves out Parsl's HighThroughputExecutor, which takes its time.
    #[arg(long)]
    without_htex: bool,
}

/// The command line of a node, as `globus-compute-endpoint node` has it.
#[derive(Args)]
pub(crate) struct NodeOptions {
    #[arg(long)]
    config: PathBuf,
    #[arg(long)]
    block: u32,
}

#[derive(Args)]
pub(crate) struct RelayOptions {
    #[arg(long)]
    to: SocketAddr,
    #[arg(long)]
    python: PathBuf,
}

pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    // First, while this process has held nothing else.
    let engine = ours(&options).await?;
    floor(&options).await?.record();
    engine.record();
    python_peer(&options, "ProcessPoolExecutor", PROCESS_POOL)?.record();
    if !options.without_htex {
        python_peer(&options, "Parsl HTEX", HTEX)?.record();
    }
    bare(&options).await
}

pub(crate) async fn node(options: NodeOptions) -> anyhow::Result<()> {
    let config = engine::node::Config::read(&options.config)?;
    Ok(engine::node::run(config, options.block, None, std::future::pending()).await?)
}

/// Forwards bytes between a connection and a Python process that sends them back.
pub(crate) async fn relay(options: RelayOptions) -> anyhow::Result<()> {
    const ECHO: &str = "import os, sys\nwhile True:\n    d = os.read(int(sys.argv[1]), 65536)\n    if not d: break\n    \
                        os.write(int(sys.argv[1]), d)";
    let (here, there) = std::os::unix::net::UnixStream::pair()?;
    here.set_nonblocking(true)?;
    fcntl(&there, FcntlArg::F_SETFD(FdFlag::empty()))?;
    let mut python =
        Command::new(&options.python).args(["-c", ECHO, &there.as_raw_fd().to_string()]).spawn()?;
    drop(there);
    let mut link = TcpStream::connect(options.to).await?;
    link.set_nodelay(true)?;
    // The other side ends this by closing.
    let _ = copy_bidirectional(&mut link, &mut UnixStream::from_std(here)?).await;
    python.wait()?;
    Ok(())
}

async fn floor(options: &Options) -> anyhow::Result<Row> {
    const LIKE_A_TASK: usize = 600;
    let started = Instant::now();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let mut relay = Command::new(std::env::current_exe()?)
        .args(["relay", "--to", &listener.local_addr()?.to_string(), "--python"])
        .arg(&options.python)
        .stdin(Stdio::null())
        .spawn()?;
    let (mut link, _) = listener.accept().await?;
    link.set_nodelay(true)?;
    let mut bytes = [7; LIKE_A_TASK];
    let mut serial = Vec::with_capacity(options.serial);
    let mut first_result = Duration::ZERO;
    for index in 0..options.serial + 10 {
        let sent = Instant::now();
        link.write_all(&bytes).await?;
        link.read_exact(&mut bytes).await?;
        if index == 0 {
            first_result = started.elapsed();
        }
        if index >= 10 {
            serial.push(sent.elapsed());
        }
    }
    let tree = Tree::of_this_process();
    let (before, memory_kib) = (tree.spent()?, tree.memory_kib()?);
    let began = Instant::now();
    let (mut reading, mut writing) = link.split();
    let total = options.burst * LIKE_A_TASK;
    let send = async {
        for _ in 0..options.burst {
            writing.write_all(&[7; LIKE_A_TASK]).await?;
        }
        Ok::<_, std::io::Error>(began.elapsed())
    };
    let receive = async {
        let (mut buffer, mut received) = (vec![0; 1 << 16], 0);
        while received < total {
            received += reading.read(&mut buffer).await?;
        }
        Ok::<_, std::io::Error>(began.elapsed())
    };
    let (sent_in, burst) = tokio::try_join!(send, receive)?;
    let after = tree.spent()?;
    drop(link);
    relay.wait()?;
    Ok(Row {
        contender: "bare relay".into(),
        first_result,
        serial,
        sent_in,
        burst,
        tasks: options.burst,
        native: after.native.saturating_sub(before.native),
        python: after.python.saturating_sub(before.python),
        memory_kib: Some(memory_kib),
    })
}

/// An engine's owner with the fastest journal there is: none.
struct Owner {
    handle: Handle,
    events: Events,
    buffer: String,
}

impl Owner {
    fn submission(&self) -> Submission {
        let id = TaskId::from_uuid(random::id());
        let task = Task {
            task_id: id,
            container_id: None,
            container: None,
            task_buffer: self.buffer.as_str().into(),
        };
        Submission {
            id,
            body: task.encode().into(),
            resource_specification: serde_json::Map::new(),
            result_serializers: Vec::new(),
            function_python: None,
        }
    }

    /// Waits until so many tasks have ended.
    async fn ended(&mut self, mut count: usize) -> anyhow::Result<()> {
        let mut events = Vec::new();
        while count > 0 {
            if self.events.recv_many(&mut events, 256).await == 0 {
                bail!("the engine has stopped");
            }
            for event in events.drain(..) {
                match event {
                    Event::Assigned(tasks) => self.handle.begin(tasks)?,
                    Event::Ended { result, .. } => {
                        // It stands behind the data: what is looked for from there on costs nothing.
                        if !result.windows(20).rev().any(|window| window == br#""error_details":null"#) {
                            bail!("a task failed: {}", String::from_utf8_lossy(&result));
                        }
                        count -= 1;
                    }
                    other => bail!("the engine can't: {other:?}"),
                }
            }
        }
        Ok(())
    }
}

async fn start(python: &str, workers: u32, buffer: String) -> anyhow::Result<(Owner, tempfile::TempDir)> {
    let directory = tempfile::tempdir()?;
    let engine_options = serde_json::json!({
        "max_workers_per_node": workers,
        "cores_per_worker": 1e-9,
        "python": python,
    });
    let config = EngineConfig {
        open_files: None,
        reports_blocks: false,
        endpoint: EndpointId::from_uuid(random::id()),
        run_dir: directory.path().to_owned(),
        node_command: vec![std::env::current_exe()?.to_string_lossy().into_owned(), "node".into()],
        options: engine::Options::from_value(engine_options)?,
    };
    let (handle, events) = Engine::start(config).await?;
    Ok((Owner { handle, events, buffer }, directory))
}

async fn ours(options: &Options) -> anyhow::Result<Row> {
    let no_op = NoOp::packed_by(&options.python)?;
    let python = options.python.to_string_lossy().into_owned();
    let started = Instant::now();
    let (mut owner, _directory) = start(&python, options.workers, no_op.task_buffer()).await?;
    owner.handle.submit(owner.submission())?;
    owner.ended(1).await?;
    let first_result = started.elapsed();
    // Every worker has run a task before anything is measured.
    for _ in 0..200 {
        owner.handle.submit(owner.submission())?;
    }
    owner.ended(200).await?;
    let mut serial = Vec::with_capacity(options.serial);
    for _ in 0..options.serial {
        let submission = owner.submission();
        let sent = Instant::now();
        owner.handle.submit(submission)?;
        owner.ended(1).await?;
        serial.push(sent.elapsed());
    }
    let submissions: Vec<_> = (0..options.burst).map(|_| owner.submission()).collect();
    let tree = Tree::of_this_process();
    let before = tree.spent()?;
    let began = Instant::now();
    for submission in submissions {
        owner.handle.submit(submission)?;
    }
    let sent_in = began.elapsed();
    owner.ended(options.burst).await?;
    let burst = began.elapsed();
    let after = tree.spent()?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let memory_kib = tree.memory_kib()?;
    // What returns a function needs dill; the largest worker is the one that ran it.
    owner.buffer = wire::buffer::pack(&["st\nf:f = lambda: lambda: 1\n", "11\n[]", "11\n{}"]);
    owner.handle.submit(owner.submission())?;
    owner.ended(1).await?;
    record(ENGINE, "worker that ran a dill task, PSS", megabytes(tree.largest_kib(true)?), "MB");
    for (measure, function, size, ways) in [
        ("1 MB arguments", "lambda data: None", MEGABYTE, 1.0),
        ("1 MB results", "lambda data: 'x' * 1000000", 0, 1.0),
        ("1 MB both ways, together", "lambda data: data", MEGABYTE, 2.0),
    ] {
        let rate = rate(&mut owner, options.megabytes, function, &"x".repeat(size)).await?;
        record(ENGINE, measure, ways * rate, "MB/s");
    }
    owner.handle.stop(Duration::ZERO)?;
    while owner.events.recv().await.is_some() {}
    Ok(Row {
        contender: ENGINE.into(),
        first_result,
        serial,
        sent_in,
        burst,
        tasks: options.burst,
        native: after.native.saturating_sub(before.native),
        python: after.python.saturating_sub(before.python),
        memory_kib: Some(memory_kib),
    })
}

const MEGABYTE: usize = 1_000_000;

/// Megabytes a second, of tasks that take or return one each; as pickles, which are what the SDK sends.
async fn rate(owner: &mut Owner, tasks: usize, function: &str, argument: &str) -> anyhow::Result<f64> {
    let function = format!("st\nf:f = {function}\n");
    let argument = format!("11\n[\"{argument}\"]");
    owner.buffer = wire::buffer::pack(&[&function, &argument, "11\n{}"]);
    for _ in 0..4 {
        owner.handle.submit(owner.submission())?;
    }
    owner.ended(4).await?;
    let submissions: Vec<_> = (0..tasks).map(|_| owner.submission()).collect();
    let began = Instant::now();
    for submission in submissions {
        owner.handle.submit(submission)?;
    }
    owner.ended(tasks).await?;
    Ok(tasks as f64 / began.elapsed().as_secs_f64())
}

/// An interpreter without packages, and a task that needs none.
async fn bare(options: &Options) -> anyhow::Result<()> {
    let buffer = wire::buffer::pack(&["st\nf:def f():\n    pass\n", "11\n[]", "11\n{}"]);
    let started = Instant::now();
    let (mut owner, _directory) = start(&options.stock_python, options.workers, buffer).await?;
    owner.handle.submit(owner.submission())?;
    owner.ended(1).await?;
    let first_result = started.elapsed();
    for _ in 0..200 {
        owner.handle.submit(owner.submission())?;
    }
    owner.ended(200).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let tree = Tree::of_this_process();
    record(ENGINE, "first result, stock interpreter", milliseconds(first_result), "ms");
    record(ENGINE, "worker that needed no dill, PSS", megabytes(tree.largest_kib(true)?), "MB");
    record(ENGINE, "node, PSS", megabytes(tree.largest_kib(false)?), "MB");
    owner.handle.stop(Duration::ZERO)?;
    while owner.events.recv().await.is_some() {}
    Ok(())
}

/// What the script prints.
#[derive(Deserialize)]
struct PoolMeasurements {
    first: f64,
    serial: Vec<f64>,
    sent: f64,
    burst: f64,
    spent: f64,
}

const PROCESS_POOL: &str = r#"
from concurrent.futures import ProcessPoolExecutor

def started(workers):
    pool = ProcessPoolExecutor(workers)
    return pool.submit, pool.shutdown
"#;

const HTEX: &str = r#"
import tempfile

def started(workers):
    import parsl
    from parsl.executors import HighThroughputExecutor
    from parsl.providers import LocalProvider

    executor = HighThroughputExecutor(
        label="htex",
        address="127.0.0.1",
        max_workers_per_node=workers,
        cores_per_worker=1e-9,
        provider=LocalProvider(init_blocks=1, min_blocks=1, max_blocks=1),
    )
    kernel = parsl.load(
        parsl.Config(executors=[executor], run_dir=tempfile.mkdtemp(), strategy="none", initialize_logging=False)
    )
    return lambda function: executor.submit(function, {}), kernel.cleanup
"#;

/// What Python offers for the same: `started` gives a function that submits, and one that stops.
fn python_peer(options: &Options, name: &str, peer: &str) -> anyhow::Result<Row> {
    const SCRIPT: &str = r#"
import json, resource, sys, time
from concurrent.futures import wait

def noop():
    pass

def spent():
    return sum(r.ru_utime + r.ru_stime for r in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))

if __name__ == "__main__":
    serial_count, burst_count, workers = map(int, sys.argv[1:])
    began = time.perf_counter()
    submit, stop = started(workers)
    submit(noop).result()
    first = time.perf_counter() - began
    wait([submit(noop) for _ in range(200)])
    serial = []
    for _ in range(serial_count):
        at = time.perf_counter()
        submit(noop).result()
        serial.append(time.perf_counter() - at)
    began = time.perf_counter()
    futures = [submit(noop) for _ in range(burst_count)]
    sent = time.perf_counter() - began
    wait(futures)
    burst = time.perf_counter() - began
    stop()
    # Its processes are gone now, so what they used is counted; nearly all of it was the burst's.
    print(json.dumps({"first": first, "serial": serial, "sent": sent, "burst": burst, "spent": spent()}), flush=True)
"#;
    // Parsl starts programs of its own by their names.
    let bin = options.python.parent().context("the Python has a directory")?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(bin.to_owned()).chain(std::env::split_paths(&path)))?;
    let counts = [options.serial.to_string(), options.burst.to_string(), options.workers.to_string()];
    let file = tempfile::NamedTempFile::with_suffix(".py")?;
    std::fs::write(file.path(), [peer, SCRIPT].concat())?;
    let output = Command::new(&options.python)
        .arg(file.path())
        .args(counts)
        .env("PATH", path)
        .stderr(Stdio::inherit())
        .output()?;
    let measured: PoolMeasurements =
        serde_json::from_slice(&output.stdout).with_context(|| format!("the measurements of {name}"))?;
    let seconds = Duration::from_secs_f64;
    Ok(Row {
        contender: name.into(),
        first_result: seconds(measured.first),
        serial: measured.serial.into_iter().map(seconds).collect(),
        sent_in: seconds(measured.sent),
        burst: seconds(measured.burst),
        tasks: options.burst,
        native: Duration::ZERO,
        python: seconds(measured.spent),
        memory_kib: None,
    })
}
