//! A transport carries tasks to a contender and results back; the measuring is the same over each.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::children::Tree;
use crate::measurements::Row;

/// Longer than anything that works takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Warms caches, connections and workers before anything counts.
const WARM_UP: usize = 50;

/// Tasks out, results back.
pub(crate) trait Transport {
    /// Makes the messages for this many tasks, so that sending them costs nothing but sending.
    fn prepare(&mut self, tasks: usize) -> anyhow::Result<()>;

    /// Sends what was prepared, as fast as the transport accepts it.
    fn send(&mut self) -> impl Future<Output = anyhow::Result<()>>;

    /// One item for every result, sent at the moment it was received.
    fn results(&mut self) -> &mut mpsc::UnboundedReceiver<Arrival>;
}

/// A result that came back: when, and its error if it is one.
pub(crate) struct Arrival {
    pub(crate) at: Instant,
    pub(crate) error: Option<String>,
}

async fn next(transport: &mut impl Transport) -> anyhow::Result<Instant> {
    let arrival = timeout(PATIENCE, transport.results().recv())
        .await
        .context("no result came")?
        .context("the transport was closed")?;
    ensure!(arrival.error.is_none(), "a task failed: {}", arrival.error.unwrap_or_default());
    Ok(arrival.at)
}

/// Measures one contender, started at `started`, whose processes are `tree`. One task is under way already.
pub(crate) async fn measure(
    contender: String,
    transport: &mut impl Transport,
    started: Instant,
    tree: Tree,
    serial: usize,
    burst: usize,
) -> anyhow::Result<Row> {
    let first_result = next(transport).await? - started;

    for _ in 0..WARM_UP {
        transport.prepare(1)?;
        transport.send().await?;
        next(transport).await?;
    }

    let mut samples = Vec::with_capacity(serial);
    for _ in 0..serial {
        transport.prepare(1)?;
        let began = Instant::now();
        transport.send().await?;
        samples.push(next(transport).await? - began);
    }

    transport.prepare(burst)?;
    let before = tree.spent()?;
    let began = Instant::now();
    transport.send().await?;
    let sent_in = began.elapsed();
    let mut last = began;
    for _ in 0..burst {
        last = next(transport).await?;
    }
    let after = tree.spent()?;

    Ok(Row {
        contender,
        first_result,
        serial: samples,
        sent_in,
        burst: last - began,
        tasks: burst,
        native: after.native.saturating_sub(before.native),
        python: after.python.saturating_sub(before.python),
        memory_kib: Some(tree.memory_kib()?),
    })
}
