//! The part `nodes`: one engine with as many nodes as a large machine has, whose workers are stubs.
//!
//! One other process plays the nodes: real connections that speak the real protocol, and run no functions. A single node
//! is measured in the same run, to compare with.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Args;
use engine::{Engine, EngineConfig, Event, Submission};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use wire::message::Task;
use wire::{EndpointId, TaskId};

use crate::measurements::{megabytes, milliseconds, record};
use crate::random;

#[derive(Args)]
pub(crate) struct Options {
    #[arg(long, default_value_t = 1000)]
    nodes: u32,
    #[arg(long, default_value_t = 128)]
    slots: u32,
    /// Tasks sent at once.
    #[arg(long, default_value_t = 1_000_000)]
    burst: usize,
    /// Measures this many nodes and nothing else, and prints the measurements as JSON.
    #[arg(long, hide = true)]
    alone: bool,
}

/// The command line of a block's nodes.
#[derive(Args)]
pub(crate) struct SimulateOptions {
    nodes: u32,
    slots: u32,
    #[arg(long)]
    config: std::path::PathBuf,
    #[arg(long)]
    block: u32,
}

#[derive(Serialize, Deserialize)]
struct Measurements {
    nodes: u32,
    joined: Duration,
    burst: Duration,
    ended: usize,
    cpu: Duration,
    /// The most that the engine's process ever held.
    peak_kib: u64,
}

impl Measurements {
    fn record(&self) {
        let subject = if self.nodes == 1 { "one node".to_owned() } else { format!("{} nodes", self.nodes) };
        let record = |measure, value, unit| record(&subject, measure, value, unit);
        record("joined within", self.joined.as_secs_f64(), "s");
        record("tasks ended", self.ended as f64, "");
        record("dispatched and ended", self.ended as f64 / self.burst.as_secs_f64(), "/s");
        record("engine's CPU per task", milliseconds(self.cpu) / self.ended as f64, "ms");
        record("engine's peak memory", megabytes(self.peak_kib), "MB");
    }
}

#[allow(clippy::print_stdout, reason = "the process that started this one reads it")]
fn print_for_parent(measured: &Measurements) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(measured)?);
    Ok(())
}

pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    if options.alone {
        return print_for_parent(&measure(&options).await?);
    }
    for nodes in [1, options.nodes] {
        // A process of its own, so that its memory is its own.
        let output = Command::new(std::env::current_exe()?)
            .args(["nodes", "--alone", "--nodes", &nodes.to_string(), "--slots", &options.slots.to_string()])
            .args(["--burst", &options.burst.to_string()])
            .stderr(std::process::Stdio::inherit())
            .output()?;
        ensure!(output.status.success(), "{nodes} nodes were not measured");
        let seen: Measurements = serde_json::from_slice(&output.stdout).context("the measurements")?;
        seen.record();
    }
    Ok(())
}

pub(crate) async fn simulate(options: SimulateOptions) -> anyhow::Result<()> {
    many_descriptors()?;
    let config = engine::node::Config::read(&options.config)?;
    Ok(engine::node::simulate(config, options.block, options.nodes, options.slots).await?)
}

/// Each connection is a descriptor, on either side.
fn many_descriptors() -> anyhow::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

async fn measure(options: &Options) -> anyhow::Result<Measurements> {
    many_descriptors()?;
    let directory = tempfile::tempdir()?;
    let words = ["simulate", &options.nodes.to_string(), &options.slots.to_string()].map(str::to_owned);
    let program = std::env::current_exe()?.to_string_lossy().into_owned();
    let config = EngineConfig {
        open_files: None,
        reports_blocks: false,
        endpoint: EndpointId::from_uuid(random::id()),
        run_dir: directory.path().to_owned(),
        node_command: std::iter::once(program).chain(words).collect(),
        options: engine::Options::from_value(serde_json::json!({"max_workers_per_node": options.slots}))?,
    };
    let started = Instant::now();
    let (handle, mut events) = Engine::start(config).await?;
    while handle.report().await?.managers < options.nodes {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let joined = started.elapsed();
    let buffer = wire::buffer::pack(&["st\nf:def f():\n    pass\n", "11\n[]", "11\n{}"]);
    let before = cpu()?;
    let began = Instant::now();
    for _ in 0..options.burst {
        handle.submit(submission(&buffer))?;
    }
    let (mut ended, mut batch) = (0, Vec::new());
    while ended < options.burst {
        if events.recv_many(&mut batch, 1024).await == 0 {
            bail!("the engine has stopped");
        }
        for event in batch.drain(..) {
            match event {
                Event::Assigned(tasks) => handle.begin(tasks)?,
                Event::Ended { result, .. } => {
                    ensure!(!contains(&result, b"RemoteExecutionError"), "a task was lost");
                    ended += 1;
                }
                other => bail!("the engine can't: {other:?}"),
            }
        }
    }
    let (burst, cpu) = (began.elapsed(), cpu()?.saturating_sub(before));
    let report = handle.report().await?;
    ensure!(report.outstanding_tasks == 0 && report.managers == options.nodes, "something is left over");
    handle.stop(Duration::ZERO)?;
    while events.recv().await.is_some() {}
    Ok(Measurements { nodes: options.nodes, joined, burst, ended, cpu, peak_kib: peak_kib()? })
}

fn contains(bytes: &[u8], words: &[u8]) -> bool {
    bytes.windows(words.len()).any(|window| window == words)
}

fn submission(buffer: &str) -> Submission {
    let id = TaskId::from_uuid(random::id());
    let task = Task { task_id: id, container_id: None, container: None, task_buffer: buffer.into() };
    Submission {
        id,
        body: task.encode().into(),
        resource_specification: serde_json::Map::new(),
        result_serializers: Vec::new(),
        function_python: None,
    }
}

fn cpu() -> anyhow::Result<Duration> {
    let line = std::fs::read_to_string("/proc/self/schedstat")?;
    let nanoseconds = line.split(' ').next().context("a count")?.parse()?;
    Ok(Duration::from_nanos(nanoseconds))
}

fn peak_kib() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("a peak")?;
    Ok(line.split_whitespace().next().context("a figure")?.parse()?)
}
