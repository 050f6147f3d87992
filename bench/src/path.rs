//! The part `path`: batches are submitted to a service over REST, results consumed from the client's own queue.

use anyhow::Context;
use clap::Args;
use futures_util::{StreamExt, TryStreamExt, stream};
use lapin::{Channel, Connection};
use serde_json::json;
use tokio::sync::mpsc;
use wire::rest::submit::Submitted;
use wire::{EndpointId, FunctionId, TaskGroupId};

use crate::contender::Programs;
use crate::link;
use crate::payload::NoOp;
use crate::service::Service;
use crate::transport::{Arrival, Transport, measure};

/// What the stock SDK sends in one request.
const BATCH: usize = 128;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    programs: Programs,
    /// The URL of an empty database of PostgreSQL for the service.
    #[arg(long)]
    database: Option<String>,
    /// Tasks sent one after another.
    #[arg(long, default_value_t = 500)]
    serial: usize,
    /// Tasks sent at once, in batches of 128.
    #[arg(long, default_value_t = 5120)]
    burst: usize,
    /// Batches in flight at a time.
    #[arg(long, default_value_t = 4)]
    connections: usize,
}

pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let no_op = NoOp::packed_by(&options.programs.python)?;
    let service = Service::start_on(&options.programs.binaries, options.database.as_deref()).await?;
    let function = service.register_function(&no_op).await?;
    for contender in options.programs.contenders() {
        let directory = tempfile::tempdir()?;
        let registration = service.register_endpoint(contender.name()).await?;
        let endpoint = registration.endpoint_id;
        let running = contender.start(&options.programs, directory.path(), &no_op, registration)?;
        let mut transport = Path::open(&service, endpoint, function, &no_op, options.connections).await?;
        let row = measure(
            contender.name().to_owned(),
            &mut transport,
            running.started,
            running.tree(),
            contender.serial(options.serial),
            options.burst,
        )
        .await
        .with_context(|| format!("while measuring {}", contender.name()))?;
        row.record();
        transport.connection.close(200, "measured".into()).await?;
    }
    Ok(())
}

struct Path<'a> {
    service: &'a Service,
    function: FunctionId,
    submit: String,
    group: TaskGroupId,
    no_op: &'a NoOp,
    connections: usize,
    connection: Connection,
    _channel: Channel,
    prepared: Vec<Vec<u8>>,
    results: mpsc::UnboundedReceiver<Arrival>,
}

impl<'a> Path<'a> {
    /// Opens a task group with its first task, and consumes its queue.
    async fn open(
        service: &'a Service,
        endpoint: EndpointId,
        function: FunctionId,
        no_op: &'a NoOp,
        connections: usize,
    ) -> anyhow::Result<Self> {
        let submit = format!("/v3/endpoints/{endpoint}/submit");
        let body = json!({ "create_queue": true, "tasks": { function.to_string(): [no_op.arguments] } });
        let submitted: Submitted = service.post(&submit, serde_json::to_vec(&body)?).await?;
        let group = submitted.task_group_id;
        let results = service.result_connection().await?;
        let connection = link::connect(&results.connection_url).await?;
        let channel = connection.create_channel().await?;
        let arrivals = link::arrivals(&channel, &format!("{}{group}", results.queue_prefix)).await?;
        Ok(Self {
            service,
            function,
            submit,
            group,
            no_op,
            connections,
            connection,
            _channel: channel,
            prepared: Vec::new(),
            results: arrivals,
        })
    }
}

impl Transport for Path<'_> {
    fn prepare(&mut self, tasks: usize) -> anyhow::Result<()> {
        for batch in (0..tasks).step_by(BATCH) {
            let payloads = vec![self.no_op.arguments.as_str(); BATCH.min(tasks - batch)];
            let body = json!({
                "create_queue": true,
                "task_group_id": self.group,
                "tasks": { self.function.to_string(): payloads },
            });
            self.prepared.push(serde_json::to_vec(&body)?);
        }
        Ok(())
    }

    async fn send(&mut self) -> anyhow::Result<()> {
        let (service, path) = (self.service, self.submit.as_str());
        stream::iter(self.prepared.drain(..))
            .map(|body| async move { service.post::<Submitted>(path, body).await.map(drop) })
            .buffer_unordered(self.connections)
            .try_collect()
            .await
    }

    fn results(&mut self) -> &mut mpsc::UnboundedReceiver<Arrival> {
        &mut self.results
    }
}
