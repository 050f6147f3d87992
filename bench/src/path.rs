//! The whole path: batches submitted over REST to a service, results consumed from the client's own queue.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use clap::Args;
use futures_util::{StreamExt, TryStreamExt, stream};
use lapin::{Channel, Connection};
use reqwest::Client;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;
use wire::queue::{Registration, ResultConnection};
use wire::rest::function::Registered;
use wire::rest::submit::Submitted;
use wire::{EndpointId, FunctionId, TaskGroupId};

use crate::children::Running;
use crate::contender::Programs;
use crate::payload::NoOp;
use crate::road::{Arrival, Road, measure};
use crate::{figures, link};

/// What the stock SDK sends in one request.
const BATCH: usize = 128;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    programs: Programs,
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
    let service = Service::start(&options.programs).await?;
    let function = service.register_function(&no_op).await?;
    let mut rows = Vec::new();
    for contender in options.programs.contenders() {
        let directory = tempfile::tempdir()?;
        let registration = service.register_endpoint(contender.name()).await?;
        let endpoint = registration.endpoint_id;
        let running = contender.start(&options.programs, directory.path(), &no_op, registration)?;
        let mut road = Path::open(&service, endpoint, function, &no_op, options.connections).await?;
        rows.push(
            measure(
                contender.name().to_owned(),
                &mut road,
                running.started,
                running.tree(),
                contender.serial(options.serial),
                options.burst,
            )
            .await
            .with_context(|| format!("while measuring {}", contender.name()))?,
        );
        road.connection.close(200, "measured".into()).await?;
    }
    figures::print("The whole path", &rows);
    Ok(())
}

/// A service in a directory of its own, and one client of it.
struct Service {
    _running: Running,
    _directory: TempDir,
    origin: String,
    http: Client,
    token: String,
}

impl Service {
    async fn start(programs: &Programs) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let data = directory.path().join("service");
        let farcall = programs.binaries.join("farcall");
        let mut command = Command::new(&farcall);
        command
            .args(["serve", "--http-listen", "127.0.0.1:0", "--amqp-listen", "127.0.0.1:0", "--data-dir"])
            .arg(&data);
        let log = std::fs::File::create(directory.path().join("service.log"))?;
        let mut running = Running::start(command.stdout(Stdio::piped()).stderr(log), b"")?;
        let mut said = BufReader::new(running.stdout().context("a piped standard output")?);
        let origin = loop {
            let mut line = String::new();
            ensure!(said.read_line(&mut line)? > 0, "the service ended before it was ready");
            if let Some(rest) = line.trim().strip_prefix("farcall is ready: ") {
                break rest.split(' ').next().context("an HTTP address")?.to_owned();
            }
        };
        // Whatever else it prints must not fill the pipe.
        std::thread::spawn(move || said.read_to_end(&mut Vec::new()));

        let added = Command::new(&farcall)
            .args(["client", "add", "bench", "--output", "json", "--data-dir"])
            .arg(&data)
            .output()?;
        ensure!(added.status.success(), "no client was added: {}", String::from_utf8_lossy(&added.stderr));
        let client: Value = serde_json::from_slice(&added.stdout)?;
        let field =
            |name: &str| client.get(name).and_then(Value::as_str).with_context(|| format!("no {name}"));

        let http = Client::builder().no_proxy().build()?;
        let form = [("grant_type", "client_credentials"), ("scope", wire::rest::auth::COMPUTE_SCOPE)];
        let answer: Value = http
            .post(format!("{origin}/v2/oauth2/token"))
            .basic_auth(field("client_id")?, Some(field("client_secret")?))
            .form(&form)
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?;
        let token = answer.get("access_token").and_then(Value::as_str).context("no token")?.to_owned();
        Ok(Self { _running: running, _directory: directory, origin, http, token })
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: Vec<u8>) -> anyhow::Result<T> {
        let request = self.http.post(format!("{}{path}", self.origin)).bearer_auth(&self.token);
        let answer = request.header("content-type", "application/json").body(body).send().await?;
        let status = answer.status();
        let body = answer.bytes().await?;
        ensure!(status.is_success(), "{path} was refused with {status}: {}", String::from_utf8_lossy(&body));
        Ok(serde_json::from_slice(&body)?)
    }

    async fn register_function(&self, no_op: &NoOp) -> anyhow::Result<FunctionId> {
        let body = json!({ "function_name": "nothing", "function_code": no_op.function });
        let registered: Registered = self.post("/v3/functions", serde_json::to_vec(&body)?).await?;
        Ok(registered.function_uuid)
    }

    async fn register_endpoint(&self, name: &str) -> anyhow::Result<Registration> {
        let body = json!({ "endpoint_name": name, "metadata": { "endpoint_version": "3.8.0" } });
        self.post("/v3/endpoints", serde_json::to_vec(&body)?).await
    }

    async fn result_connection(&self) -> anyhow::Result<ResultConnection> {
        let request = self.http.get(format!("{}/v2/get_amqp_result_connection_url", self.origin));
        Ok(request.bearer_auth(&self.token).send().await?.error_for_status()?.json().await?)
    }
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

impl Road for Path<'_> {
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
