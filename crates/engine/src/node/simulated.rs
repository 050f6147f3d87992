//! Simulated nodes, many in one process: they use the real link and protocol, and answer every task at once without
//! running it. For benchmarks and tests of the engine.

use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{MissedTickBehavior, interval};
use wire::TaskId;
use wire::message::TaskResult;

use super::config::Config;
use super::connect;
use super::error::NodeError;
use crate::link::frame::{self, Frame, FrameReader};
use crate::link::message::{self, Hello, Interpreter, ToNode};
use crate::random;

/// How many connect at the same time: a handshake costs more than all that follows.
const MAX_HANDSHAKES: usize = 64;

/// Runs `nodes` nodes of `block`, each with `slots` slots, until their engine is gone.
pub async fn simulate(config: Config, block: u32, nodes: u32, slots: u32) -> Result<(), NodeError> {
    let (config, handshakes) = (Arc::new(config), Arc::new(Semaphore::new(MAX_HANDSHAKES)));
    let mut all: FuturesUnordered<_> = (0..nodes)
        .map(|_| tokio::spawn(run_node(Arc::clone(&config), Arc::clone(&handshakes), block, slots)))
        .collect();
    while let Some(ended) = all.next().await {
        ended.unwrap_or(Ok(()))?;
    }
    Ok(())
}

async fn run_node(
    config: Arc<Config>,
    handshakes: Arc<Semaphore>,
    block: u32,
    slots: u32,
) -> Result<(), NodeError> {
    let permit = handshakes.acquire().await;
    let stream = connect::to_engine(&config).await?;
    drop(permit);
    let (reading, writing) = tokio::io::split(stream);
    let (out, frames) = mpsc::unbounded_channel();
    let writer = tokio::spawn(frame::write(writing, frames));
    let hello = Hello {
        version: message::VERSION.to_owned(),
        run: config.run.clone(),
        uid: random::node_uid(),
        host: "simulated".to_owned(),
        block,
        slots,
    };
    let send = |frame| {
        let _ = out.send(frame); // the link is gone, which its reader tells
    };
    send(message::hello(&hello));
    send(message::ready(&Interpreter::default()));
    let mut reader = FrameReader::new(reading);
    let mut heartbeats = interval(config.heartbeat_period);
    heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            frame = reader.next() => {
                let Ok(Some(frame)) = frame else { break };
                match ToNode::read(frame) {
                    Ok(ToNode::Task(task, _)) => send(result_of(task)),
                    // Every task that has come has ended.
                    Ok(ToNode::Recall) => send(message::unstarted(&[])),
                    Ok(ToNode::Abandon(_) | ToNode::Heartbeat) => {}
                    Ok(ToNode::Refused(why)) => return Err(NodeError::Refused(why)),
                    Err(error) => return Err(NodeError::Protocol(error.to_string())),
                }
            }
            _ = heartbeats.tick() => send(message::heartbeat()),
        }
    }
    writer.abort();
    Ok(())
}

fn result_of(task: TaskId) -> Frame {
    let result = TaskResult {
        task_id: task,
        data: "00\ngAROLg==\n".into(),
        details: None,
        error_details: None,
        task_statuses: None,
    };
    message::ended(task, &result.encode())
}
