//! The parts `service`, `stored` and `endpoints`: the service alone, under the loads that its goals name. This program
//! plays endpoints and clients. They share the cores with the service; where a row says `CPU`, only the service's counts.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt, TryStreamExt, stream};
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, Consumer};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;
use wire::Text;
use wire::json::FreeForm;
use wire::message::{Message, StatusReport, TaskResult, decode, encode};
use wire::queue::Registration;
use wire::rest::submit::Submitted;
use wire::{EndpointId, FunctionId, TaskGroupId, TaskId};

use crate::history;
use crate::link;
use crate::measurements::{megabytes, microseconds, milliseconds, quantile, record};
use crate::payload::NoOp;
use crate::reporter::Reporter;
use crate::service::Service;
use crate::transport::Arrival;

const BATCH: usize = 128;
/// Results published and not yet confirmed.
const WINDOW: usize = 2_000;
/// Longer than anything that works takes.
const PATIENCE: Duration = Duration::from_secs(120);
/// Tasks of one round of the row `stored`, and its rounds.
const ROUND: usize = 10_000;
const ROUNDS: usize = 4;
/// How often an endpoint sends a heartbeat.
const BEAT: Duration = Duration::from_secs(30);

#[derive(Args)]
pub(crate) struct Options {
    /// The directory of the built programs.
    #[arg(long)]
    binaries: PathBuf,
    /// The URL of an empty database of PostgreSQL for the service, for one row.
    #[arg(long)]
    database: Option<String>,
    /// Measure only these: start, submit, single, results, latency, stored, waiting, endpoints.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Tasks of the rows `submit` and `results`.
    #[arg(long, default_value_t = 50_000)]
    tasks: usize,
    /// Seconds of the row `single`.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Submits each second of the row `single`.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rate: u64,
    /// Tasks stored in the second half of the row `stored`.
    #[arg(long, default_value_t = 10_000_000)]
    stored: usize,
    /// Tasks of the row `waiting`.
    #[arg(long, default_value_t = 1_000_000)]
    waiting: usize,
    /// Endpoints of the row `endpoints`.
    #[arg(long, default_value_t = 10_000)]
    endpoints: usize,
}

impl Options {
    fn wants(&self, row: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == row)
    }
}

pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    if options.wants("start") {
        start(&options).await?;
    }
    if options.wants("submit") {
        submits(&options).await?;
    }
    if options.wants("single") {
        singles(&options).await?;
    }
    if options.wants("results") {
        results(&options).await?;
    }
    if options.wants("latency") {
        latency(&options).await?;
    }
    if options.wants("stored") {
        stored(&options).await?;
    }
    if options.wants("waiting") {
        waiting(&options).await?;
    }
    if options.wants("endpoints") {
        endpoints(&options).await?;
    }
    Ok(())
}

/// A service with a function, and how to submit it to an endpoint.
struct Scene {
    service: Service,
    function: FunctionId,
    no_op: NoOp,
    bodies: AtomicU64,
}

impl Scene {
    async fn open(options: &Options) -> anyhow::Result<Self> {
        let service = Service::start_on(&options.binaries, options.database.as_deref()).await?;
        let no_op = NoOp::carried();
        let function = service.register_function(&no_op).await?;
        Ok(Self { service, function, no_op, bodies: AtomicU64::new(0) })
    }

    fn body(&self, count: usize, group: Option<TaskGroupId>) -> anyhow::Result<Vec<u8>> {
        // Equal bodies are not what clients send, and take longer: each might be one that is sent again.
        let mut payloads = vec![self.no_op.arguments.clone(); count];
        let number = format!("{:021}", self.bodies.fetch_add(1, Ordering::Relaxed));
        for payload in &mut payloads {
            payload.truncate(payload.len() - number.len());
            payload.push_str(&number);
        }
        let mut body = json!({ "create_queue": true, "tasks": { self.function.to_string(): payloads } });
        if let Some(group) = group {
            body["task_group_id"] = json!(group);
        }
        Ok(serde_json::to_vec(&body)?)
    }

    async fn submit(&self, endpoint: EndpointId, body: Vec<u8>) -> anyhow::Result<Submitted> {
        self.service.post(&format!("/v3/endpoints/{endpoint}/submit"), body).await
    }

    /// Submits so many tasks in batches, several at a time.
    async fn fill(&self, endpoint: EndpointId, group: TaskGroupId, count: usize) -> anyhow::Result<Duration> {
        let batches = count.div_ceil(BATCH);
        let bodies: Vec<_> = (0..batches).map(|_| self.body(BATCH, Some(group))).collect::<Result<_, _>>()?;
        let began = Instant::now();
        stream::iter(bodies)
            .map(|body| self.submit(endpoint, body))
            .buffer_unordered(8)
            .try_for_each(|_| async { Ok(()) })
            .await?;
        Ok(began.elapsed())
    }

    /// A task group, made by the first task of it.
    async fn group(&self, endpoint: EndpointId) -> anyhow::Result<TaskGroupId> {
        Ok(self.submit(endpoint, self.body(1, None)?).await?.task_group_id)
    }

    async fn client(&self, group: TaskGroupId) -> anyhow::Result<Client> {
        let at = self.service.result_connection().await?;
        let connection = link::connect(&at.connection_url).await?;
        let channel = connection.create_channel().await?;
        let arrivals = link::arrivals(&channel, &format!("{}{group}", at.queue_prefix)).await?;
        Ok(Client { _connection: connection, _channel: channel, arrivals })
    }
}

/// Waits for the results of a group.
struct Client {
    _connection: Connection,
    _channel: Channel,
    arrivals: mpsc::UnboundedReceiver<Arrival>,
}

impl Client {
    async fn next(&mut self) -> anyhow::Result<Instant> {
        let arrival = timeout(PATIENCE, self.arrivals.recv()).await.context("no result came")?;
        let arrival = arrival.context("the connection was lost")?;
        ensure!(arrival.error.is_none(), "a task failed: {}", arrival.error.unwrap_or_default());
        Ok(arrival.at)
    }
}

/// An endpoint that answers when it is told to.
struct Endpoint {
    _connection: Connection,
    channel: Channel,
    deliveries: Consumer,
    registration: Registration,
    answer: String,
}

impl Endpoint {
    async fn open(registration: Registration, answer: &str) -> anyhow::Result<Self> {
        let tasks = registration.task_queue_info.clone().context("no task queue")?;
        let connection = link::connect(&tasks.connection_url).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let deliveries = channel
            .basic_consume(
                tasks.queue.as_str().into(),
                "bench".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await?;
        let answer = answer.to_owned();
        Ok(Self { _connection: connection, channel, deliveries, registration, answer })
    }

    /// Takes so many tasks and acknowledges them.
    async fn take(&mut self, count: usize) -> anyhow::Result<Vec<TaskId>> {
        let mut tasks = Vec::with_capacity(count);
        while tasks.len() < count {
            let delivery = timeout(PATIENCE, self.deliveries.next()).await.context("no task came")?;
            let delivery = delivery.context("the connection was lost")??;
            if let Message::Task(task) = decode(&delivery.data)? {
                tasks.push(task.task_id);
            }
            if tasks.len() == count || tasks.len().is_multiple_of(256) {
                delivery.acker.ack(BasicAckOptions { multiple: true }).await?;
            }
        }
        Ok(tasks)
    }

    /// Publishes the results of `tasks`, and waits until all are confirmed.
    async fn finish(&self, tasks: &[TaskId]) -> anyhow::Result<()> {
        let to =
            &self.registration.result_queue_info.as_ref().context("no result queue")?.queue_publish_kwargs;
        let mut open = FuturesUnordered::new();
        for task in tasks {
            let body = encode(&Message::Result(TaskResult {
                task_id: *task,
                data: Text::plain(self.answer.as_str()),
                details: None,
                error_details: None,
                task_statuses: None,
            }));
            let confirm = self
                .channel
                .basic_publish(
                    to.exchange.as_str().into(),
                    to.routing_key.as_str().into(),
                    BasicPublishOptions { mandatory: true, ..Default::default() },
                    &body,
                    BasicProperties::default().with_delivery_mode(2),
                )
                .await?;
            open.push(confirm);
            if open.len() >= WINDOW {
                open.next().await.transpose()?;
            }
        }
        while open.next().await.transpose()?.is_some() {}
        Ok(())
    }
}

async fn start(options: &Options) -> anyhow::Result<()> {
    let mut samples = Vec::new();
    for _ in 0..5 {
        samples.push(Service::start(&options.binaries).await?.ready);
    }
    record("start to ready, in an empty directory", "median", milliseconds(quantile(&samples, 0.5)), "ms");
    record("start to ready, in an empty directory", "worst", milliseconds(quantile(&samples, 1.0)), "ms");
    Ok(())
}

async fn submits(options: &Options) -> anyhow::Result<()> {
    let scene = Scene::open(options).await?;
    let endpoint = scene.service.register_endpoint("nobody").await?.endpoint_id;
    let group = scene.group(endpoint).await?;
    scene.fill(endpoint, group, 5_000).await?;
    let before = scene.service.tree().spent()?.native;
    let took = scene.fill(endpoint, group, options.tasks).await?;
    let spent = scene.service.tree().spent()?.native.saturating_sub(before);
    let subject = "durable submits in batches of 128";
    record(subject, "tasks", options.tasks as f64 / took.as_secs_f64(), "/s");
    record(subject, "CPU of the service each", microseconds(spent) / options.tasks as f64, "µs");
    Ok(())
}

/// One task each, at moments fixed beforehand: a late answer makes no later request late.
async fn singles(options: &Options) -> anyhow::Result<()> {
    let scene = Arc::new(Scene::open(options).await?);
    let endpoint = scene.service.register_endpoint("nobody").await?.endpoint_id;
    let group = scene.group(endpoint).await?;
    let count = options.seconds * options.rate;
    let mut bodies = (0..count).map(|_| scene.body(1, Some(group))).collect::<Result<Vec<_>, _>>()?;
    let began = Instant::now();
    let mut requests = Vec::new();
    for number in 0..count {
        let due = began + Duration::from_secs(1).mul_f64(number as f64 / options.rate as f64);
        tokio::time::sleep_until(due.into()).await;
        let (scene, body) = (scene.clone(), bodies.pop().unwrap_or_default());
        requests.push(tokio::spawn(async move {
            scene.submit(endpoint, body).await?;
            anyhow::Ok(due.elapsed())
        }));
    }
    let mut samples = Vec::with_capacity(requests.len());
    for request in requests {
        samples.push(request.await??);
    }
    let subject = match options.rate {
        1_000 => "single submits at 1,000/s".to_owned(),
        rate => format!("single submits at {rate}/s"),
    };
    for (measure, share) in [("median", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
        record(&subject, measure, milliseconds(quantile(&samples, share)), "ms");
    }
    Ok(())
}

async fn results(options: &Options) -> anyhow::Result<()> {
    let scene = Scene::open(options).await?;
    let registration = scene.service.register_endpoint("player").await?;
    let id = registration.endpoint_id;
    let mut endpoint = Endpoint::open(registration, &scene.no_op.result).await?;
    let group = scene.group(id).await?;
    let mut client = scene.client(group).await?;
    let first = endpoint.take(1).await?;
    endpoint.finish(&first).await?;
    client.next().await?;
    let count = options.tasks.div_ceil(BATCH) * BATCH;
    let (filled, tasks) = tokio::join!(scene.fill(id, group, count), endpoint.take(count));
    filled?;
    let tasks = tasks?;
    let before = scene.service.tree().spent()?.native;
    let began = Instant::now();
    let received = async {
        let mut last = began;
        for _ in 0..count {
            last = client.next().await?;
        }
        anyhow::Ok(last)
    };
    let (confirmed, last) =
        tokio::join!(async { (endpoint.finish(&tasks).await, began.elapsed()) }, received);
    confirmed.0?;
    let last = last?;
    let spent = scene.service.tree().spent()?.native.saturating_sub(before);
    let per_second = |took: Duration| count as f64 / took.as_secs_f64();
    record("results", "recorded", per_second(confirmed.1), "/s");
    record("results", "delivered", per_second(last - began), "/s");
    record("results", "CPU of the service each", microseconds(spent) / count as f64, "µs");
    Ok(())
}

async fn latency(options: &Options) -> anyhow::Result<()> {
    let scene = Scene::open(options).await?;
    let registration = scene.service.register_endpoint("player").await?;
    let id = registration.endpoint_id;
    let mut endpoint = Endpoint::open(registration, &scene.no_op.result).await?;
    let group = scene.group(id).await?;
    let mut client = scene.client(group).await?;
    let mut samples = Vec::new();
    for number in 0..500 {
        if number > 0 {
            scene.submit(id, scene.body(1, Some(group))?).await?;
        }
        let task = endpoint.take(1).await?;
        tokio::time::sleep(Duration::from_millis(5)).await;
        let began = Instant::now();
        let (finished, received) = tokio::join!(endpoint.finish(&task), client.next());
        finished?;
        samples.push(received? - began);
    }
    for (measure, share) in [("median", 0.5), ("p95", 0.95)] {
        let subject = "an endpoint's publish to the client's delivery, idle";
        record(subject, measure, milliseconds(quantile(&samples, share)), "ms");
    }
    Ok(())
}

/// What a task costs from its submit to its delivery, when few tasks are stored and when many are.
async fn stored(options: &Options) -> anyhow::Result<()> {
    let mut scene = Scene::open(options).await?;
    let few = rounds(&scene).await?;
    let count = u64::try_from(options.stored)?;
    scene.service.stop();
    let before = scene.service.stored_bytes()?;
    history::add(&scene.service.database(), count).await?;
    let each = scene.service.stored_bytes()?.saturating_sub(before) as f64 / count as f64;
    scene.service.start_again()?;
    let many = rounds(&scene).await?;
    for (subject, stored, cost) in
        [("a task among few stored", ROUND, few), ("a task among many stored", options.stored, many)]
    {
        record(subject, "stored", stored as f64, "");
        record(subject, "CPU of the service each", microseconds(cost), "µs");
    }
    record("a task among many stored", "on disk each", each, "bytes");
    Ok(())
}

/// Rounds of submits, results and deliveries; what a task costs in the one that is neither the best nor the worst. The
/// first one warms caches and statements, and counts for nothing.
async fn rounds(scene: &Scene) -> anyhow::Result<Duration> {
    let registration = scene.service.register_endpoint("player").await?;
    let id = registration.endpoint_id;
    let mut endpoint = Endpoint::open(registration, &scene.no_op.result).await?;
    let group = scene.group(id).await?;
    let mut client = scene.client(group).await?;
    let first = endpoint.take(1).await?;
    endpoint.finish(&first).await?;
    client.next().await?;
    let count = ROUND.div_ceil(BATCH) * BATCH;
    let mut costs = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let before = scene.service.tree().spent()?.native;
        let (filled, tasks) = tokio::join!(scene.fill(id, group, count), endpoint.take(count));
        filled?;
        let tasks = tasks?;
        let received = async {
            for _ in 0..count {
                client.next().await?;
            }
            anyhow::Ok(())
        };
        let (finished, received) = tokio::join!(endpoint.finish(&tasks), received);
        finished?;
        received?;
        let spent = scene.service.tree().spent()?.native.saturating_sub(before);
        costs.push(spent / u32::try_from(count)?);
    }
    Ok(quantile(&costs[1..], 0.5))
}

async fn waiting(options: &Options) -> anyhow::Result<()> {
    let scene = Scene::open(options).await?;
    let endpoint = scene.service.register_endpoint("nobody").await?.endpoint_id;
    let group = scene.group(endpoint).await?;
    let took = scene.fill(endpoint, group, options.waiting).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let subject = "tasks that wait";
    record(subject, "stored", options.waiting as f64, "");
    record(subject, "memory of the service", megabytes(scene.service.tree().memory_kib()?), "MB");
    record(subject, "tasks", options.waiting as f64 / took.as_secs_f64(), "/s");
    Ok(())
}

async fn endpoints(options: &Options) -> anyhow::Result<()> {
    let scene = Scene::open(options).await?;
    let (scene, count) = (&scene, options.endpoints);
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let mut reporters: Vec<_> = stream::iter(0..count)
        .map(|number| async move {
            let registration = scene.service.register_endpoint(&format!("ep{number}")).await?;
            let to = registration.heartbeat_queue_info.context("no heartbeat queue")?;
            Reporter::connect(registration.endpoint_id, &to.connection_url).await
        })
        .buffer_unordered(32)
        .try_collect()
        .await?;
    let state = json!({"heartbeat_period": BEAT.as_secs(), "active": true, "managers": 1, "total_workers": 4,
        "idle_workers": 4, "pending_tasks": 0, "outstanding_tasks": 0, "engine_type": "GlobusComputeEngine"});
    let state = FreeForm::from(state.as_object().context("an object")?);
    // A first round, then two that count, each spread evenly over its time.
    let tree = scene.service.tree();
    let (mut before, mut counting) = (Duration::ZERO, Instant::now());
    for round in 0..3 {
        let began = Instant::now();
        if round == 1 {
            (before, counting) = (tree.spent()?.native, began);
        }
        for (at, reporter) in reporters.iter_mut().enumerate() {
            let due = began + BEAT.mul_f64(at as f64 / count as f64);
            tokio::time::sleep_until(due.into()).await;
            let (endpoint_id, global_state) = (reporter.id, state.clone());
            let report = StatusReport { endpoint_id, global_state, task_statuses: Default::default() };
            reporter.beat(&report.encode()).await?;
        }
    }
    let spent = tree.spent()?.native.saturating_sub(before);
    let online = scene.service.metric("farcall_endpoints_online").await?;
    ensure!(online == count as f64, "{online} of {count} endpoints are online at the end");
    let subject = "endpoints, a connection each, a heartbeat every 30 s";
    record(subject, "connected", count as f64, "");
    record(subject, "of a core", spent.as_secs_f64() / counting.elapsed().as_secs_f64(), "");
    record(subject, "memory of the service", megabytes(tree.memory_kib()?), "MB");
    Ok(())
}
