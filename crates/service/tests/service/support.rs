//! Starts a service for a test, and plays the parties that talk to it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use store::test_database::TestDatabase;
use store::{Sharing, Store};
use wire::Text;
use wire::message::{ErrorDetails, TaskResult};

use crate::database::Database;

pub const COMPUTE: &str = wire::rest::auth::COMPUTE_SCOPE;
/// A packed buffer that stands for a function, and one that stands for arguments.
pub const CODE: &str = "7\n01\ngASV";
pub const PAYLOAD: &str = "5\n00\nab5\n00\ncd";

/// `farcall serve` in a directory of its own.
pub struct Farcall {
    directory: TestDatabase,
    process: Option<Child>,
    pub http: String,
    pub amqp: String,
    /// Further places it listens at.
    pub others: Vec<String>,
    web: reqwest::Client,
}

/// A running service, a client, and a function and an endpoint of that client.
pub async fn service_with_endpoint() -> (Farcall, Client, String, Registration) {
    with_endpoint(Farcall::start()).await
}

/// `service`, a client, and a function and an endpoint of that client.
pub async fn with_endpoint(service: Farcall) -> (Farcall, Client, String, Registration) {
    let client = service.client().await;
    let function = client.function().await;
    let registration = client.register().await;
    (service, client, function, registration)
}

/// A client identity with a token.
#[derive(Clone)]
pub struct Client {
    pub id: String,
    pub secret: String,
    pub token: String,
    http: String,
    web: reqwest::Client,
}

#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub body: Value,
    pub headers: reqwest::header::HeaderMap,
}

impl Answer {
    /// The name of the error.
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or("")
    }

    #[track_caller]
    pub fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        self.body
    }

    /// A refusal in the form that all generations of clients read.
    #[track_caller]
    pub fn refused(self, status: u16, code: &str) -> Value {
        assert_eq!((self.status.as_u16(), self.code()), (status, code), "{}", self.body);
        assert_eq!(self.body["status"], "Failed");
        assert_eq!(self.body["http_status_code"], status);
        assert_eq!(self.body["message"], self.body["reason"]);
        assert!(self.body["message"].as_str().is_some_and(|text| !text.is_empty()));
        assert!(self.body["error_args"].is_array());
        assert_eq!(self.body["request_id"].as_str(), self.headers["x-request-id"].to_str().ok());
        self.body
    }
}

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// Calls `condition` until it returns a value, and returns that. Fails after a while and says `what` was awaited.
pub async fn until<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    within(what, async {
        loop {
            if let Some(value) = condition().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

/// Waits for `happening`; fails after a while and says `what` was awaited.
pub async fn within<T>(what: &str, happening: impl Future<Output = T>) -> T {
    let outcome = tokio::time::timeout(PATIENCE, happening).await;
    outcome.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}

pub fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_farcall")
}

impl Farcall {
    pub fn start() -> Farcall {
        Farcall::configured("")
    }

    /// With this `farcall.yaml`.
    pub fn configured(yaml: &str) -> Farcall {
        Farcall::prepared().configure(yaml)
    }

    /// Starts it with this `farcall.yaml`.
    pub fn configure(mut self, yaml: &str) -> Farcall {
        std::fs::create_dir(self.data()).unwrap();
        std::fs::write(self.data().join("farcall.yaml"), yaml).unwrap();
        self.start_again();
        self
    }

    /// With a directory and not started.
    pub fn prepared() -> Farcall {
        Farcall::on(TestDatabase::new_blocking())
    }

    /// On SQLite, whatever this run of the tests is for: for what only SQLite does.
    pub fn on_sqlite() -> Farcall {
        Farcall::on(TestDatabase::sqlite())
    }

    fn on(directory: TestDatabase) -> Farcall {
        let web = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
        let (http, amqp) = (String::new(), String::new());
        Farcall { directory, process: None, http, amqp, others: Vec::new(), web }
    }

    /// A file beside the data directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Starts it on the addresses it had before, if it had any.
    pub fn start_again(&mut self) {
        self.start_with(&[], &[]);
    }

    /// The same with further arguments and variables.
    pub fn start_with(&mut self, arguments: &[&str], variables: &[(&str, &str)]) {
        let address = |known: &str| known.split("://").nth(1).unwrap_or("127.0.0.1:0").to_owned();
        // Files that may not grow end a process that does not mind: it shall see the error.
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ; exec \"$@\"", "sh", binary()]);
        command.args(["serve", "--http-listen", &address(&self.http), "--amqp-listen", &address(&self.amqp)]);
        command.arg("--data-dir").arg(self.data()).stdout(Stdio::piped()).env_remove("NOTIFY_SOCKET");
        command.args(arguments).envs(self.database_variable()).envs(variables.iter().copied());
        let log = std::fs::File::options().create(true).append(true).open(self.log()).unwrap();
        let mut process = command.stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready = line.trim().strip_prefix("farcall is ready: ");
        let ready = ready.unwrap_or_else(|| panic!("not ready: {line:?}\n{}", self.read_log()));
        let mut places = ready.split(' ');
        let mut next = || places.next().unwrap().to_owned();
        (self.http, self.amqp) = (next(), next());
        self.others = places.map(str::to_owned).collect();
        self.process = Some(process);
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    pub fn read_log(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = self.process.as_ref().unwrap().id();
        kill(Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
    }

    /// The files of payloads.
    pub fn files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.data().join("payloads")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// Waits until there are so many files of payloads.
    pub async fn files_until(&self, count: usize) {
        until(&format!("{count} files of payloads"), async || (self.files().len() == count).then_some(()))
            .await;
    }

    /// The URL of the database, if it is on a server.
    pub fn database_url(&self) -> Option<String> {
        self.directory.url()
    }

    /// The variable that tells a command which database it is.
    pub fn database_variable(&self) -> Option<(&'static str, String)> {
        self.database_url().map(|url| ("FARCALL_STORE__URL", url))
    }

    /// A connection of the test's own to the database.
    pub async fn database(&self) -> Database {
        Database::of(self).await
    }

    /// The store of the service, which does not run.
    pub async fn store(&self) -> Store {
        match self.database_url() {
            None => Store::open(&self.data().join("farcall.db")).await.unwrap(),
            Some(url) => {
                let servers = url.parse().unwrap();
                Store::open_postgres(&servers, &self.data().join("payloads"), Sharing::Alone).await.unwrap()
            }
        }
    }

    /// The most bytes that a file of the process may have: 0 makes its disk read-only.
    pub fn limit_files(&self, bytes: &str) {
        let pid = self.process.as_ref().unwrap().id().to_string();
        let limited = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={bytes}:")]).status();
        assert!(limited.unwrap().success());
    }

    /// The memory that it holds now, in megabytes. From here on `peak_megabytes` counts anew.
    pub fn begin_peak(&self) -> u64 {
        std::fs::write(self.proc("clear_refs"), "5").unwrap();
        self.peak_megabytes()
    }

    /// The most memory that it held at any moment since `begin_peak`, in megabytes.
    pub fn peak_megabytes(&self) -> u64 {
        let status = std::fs::read_to_string(self.proc("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() >> 10
    }

    /// How many bytes lie in files without a name that it holds open: request bodies that arrive.
    pub fn nameless_bytes(&self) -> u64 {
        let opened = std::fs::read_dir(self.proc("fd")).unwrap();
        // A descriptor may be closed while the list is read.
        let files = opened.filter_map(|entry| std::fs::metadata(entry.ok()?.path()).ok());
        files.filter(|file| file.is_file() && file.nlink() == 0).map(|file| file.len()).sum()
    }

    fn proc(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.process.as_ref().unwrap().id()))
    }

    /// SIGKILL, and nothing else.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.process.take().unwrap().wait().unwrap();
    }

    /// SIGTERM; how it left.
    pub fn stop(&mut self) -> std::process::ExitStatus {
        self.signal(Signal::SIGTERM);
        self.stop_status()
    }

    /// How it left, if it has.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.process.as_mut().unwrap().try_wait().unwrap()
    }

    /// How it left, after a signal.
    pub fn stop_status(&mut self) -> std::process::ExitStatus {
        self.process.take().unwrap().wait().unwrap()
    }

    pub fn command(&self, arguments: &[&str]) -> Output {
        let mut command = self.program();
        command.args(arguments).arg("--data-dir").arg(self.data()).output().unwrap()
    }

    /// The program, which learns from its environment which database it is.
    pub fn program(&self) -> Command {
        let mut command = Command::new(binary());
        command.envs(self.database_variable());
        command
    }

    /// A command that is done well and says so in JSON; `input` is its standard input.
    #[track_caller]
    pub fn administer(&self, arguments: &[&str], input: &str) -> Value {
        let done = self.try_administer(arguments, input);
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        serde_json::from_slice(&done.stdout).unwrap()
    }

    pub fn try_administer(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = self.program();
        command.args(arguments).args(["--output", "json"]).arg("--data-dir").arg(self.data());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        process.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        process.wait_with_output().unwrap()
    }

    /// A new client identity, with a token for the compute routes.
    pub async fn client(&self) -> Client {
        self.new_client(&["client", "add", "tester"]).await
    }

    /// A client that may check tokens for `name`.
    pub async fn resource_server(&self, name: &str) -> Client {
        self.new_client(&["client", "add", "tester", "--resource-server", name]).await
    }

    async fn new_client(&self, arguments: &[&str]) -> Client {
        let added = self.administer(arguments, "");
        let text = |name: &str| added[name].as_str().unwrap().to_owned();
        self.client_known_as(&text("client_id"), &text("client_secret")).await
    }

    /// A client that exists.
    pub async fn client_known_as(&self, id: &str, secret: &str) -> Client {
        let (id, secret) = (id.to_owned(), secret.to_owned());
        let mut client =
            Client { id, secret, token: String::new(), http: self.http.clone(), web: self.web.clone() };
        client.token = client.grant(COMPUTE).await.ok()["access_token"].as_str().unwrap().to_owned();
        client
    }

    /// A request without anything that the caller does not add.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.web.request(method, format!("{}{path}", self.http))
    }

    pub async fn get(&self, path: &str) -> Answer {
        send(self.request(Method::GET, path)).await
    }
}

impl Drop for Farcall {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            eprintln!("the service's log:\n{}", self.read_log());
        }
    }
}

pub fn farcall(data: &Path, arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).arg("--data-dir").arg(data).output().unwrap()
}

pub async fn send(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let bytes = response.bytes().await.unwrap();
    let body = serde_json::from_slice(&bytes)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
    Answer { status, body, headers }
}

impl Client {
    /// The same client with another token.
    pub fn with_token(&self, token: &serde_json::Value) -> Client {
        Client { token: token.as_str().unwrap().to_owned(), ..self.clone() }
    }

    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.web.request(method, format!("{}{path}", self.http)).bearer_auth(&self.token)
    }

    pub async fn get(&self, path: &str) -> Answer {
        send(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        send(self.request(Method::POST, path).json(&body)).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        send(self.request(Method::PUT, path).json(&body)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        send(self.request(Method::DELETE, path)).await
    }

    /// Tokens for `scope`, by client credentials.
    pub async fn grant(&self, scope: &str) -> Answer {
        let form = [("grant_type", "client_credentials"), ("scope", scope)];
        let request = self.web.post(format!("{}/v2/oauth2/token", self.http));
        send(request.basic_auth(&self.id, Some(&self.secret)).form(&form)).await
    }

    pub async fn function(&self) -> String {
        let body = json!({"function_name": "f", "function_code": CODE, "serialized": true,
            "meta": {"python_version": "3.11.7", "sdk_version": "4.19.0", "serde_identifier": "01"}});
        self.post("/v3/functions", body).await.ok()["function_uuid"].as_str().unwrap().to_owned()
    }

    pub async fn register(&self) -> Registration {
        Registration(self.post("/v3/endpoints", endpoint_body()).await.ok())
    }

    pub async fn register_again(&self, endpoint: &str) -> Registration {
        Registration(self.put(&format!("/v3/endpoints/{endpoint}"), endpoint_body()).await.ok())
    }

    /// Submits `count` calls; the answer.
    pub async fn submit(&self, endpoint: &str, function: &str, count: usize) -> Submitted {
        self.submit_to_group(endpoint, function, count, None).await
    }

    pub async fn submit_to_group(
        &self,
        endpoint: &str,
        function: &str,
        count: usize,
        group: Option<&str>,
    ) -> Submitted {
        let mut body = json!({"create_queue": true, "tasks": {function: vec![PAYLOAD; count]}});
        if let Some(group) = group {
            body["task_group_id"] = json!(group);
        }
        let answer = self.post(&format!("/v3/endpoints/{endpoint}/submit"), body).await.ok();
        let tasks = answer["tasks"][function].as_array().unwrap();
        let tasks: Vec<_> = tasks.iter().map(|id| id.as_str().unwrap().to_owned()).collect();
        assert_eq!(tasks.len(), count);
        Submitted { group: answer["task_group_id"].as_str().unwrap().to_owned(), tasks }
    }

    pub async fn task(&self, task: &str) -> Value {
        self.get(&format!("/v2/tasks/{task}")).await.ok()
    }

    /// The task's document once `done` says so.
    pub async fn task_until(&self, task: &str, done: impl Fn(&Value) -> bool) -> Value {
        until(&format!("the awaited state of task {task}"), async || {
            Some(self.task(task).await).filter(&done)
        })
        .await
    }

    /// Consumes the results of `group`, as the SDK does.
    pub async fn results(&self, group: &str) -> Results {
        let answer = self.get("/v2/get_amqp_result_connection_url").await.ok();
        let queue = format!("{}{group}", answer["queue_prefix"].as_str().unwrap());
        let (connection, channel) = open(answer["connection_url"].as_str().unwrap()).await;
        let consumer = consume(&channel, &queue, false).await.unwrap();
        Results { connection, consumer }
    }
}

pub struct Submitted {
    pub group: String,
    pub tasks: Vec<String>,
}

pub struct Registration(pub Value);

impl Registration {
    pub fn id(&self) -> &str {
        self.0["endpoint_id"].as_str().unwrap()
    }

    pub fn url(&self) -> &str {
        self.0["task_queue_info"]["connection_url"].as_str().unwrap()
    }
}

pub fn endpoint_body() -> Value {
    json!({"endpoint_name": "ep", "high_assurance": false, "metadata":
        {"endpoint_version": "3.8.0", "hostname": "h", "local_user": "u", "endpoint_config": "engine: {}"}})
}

pub async fn open(url: &str) -> (Connection, Channel) {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

/// Waits until a connection has ended.
pub async fn connection_ends(connection: &Connection) {
    until("the end of the connection", async || (!connection.status().connected()).then_some(())).await;
}

pub async fn consume(channel: &Channel, queue: &str, exclusive: bool) -> lapin::Result<Consumer> {
    let options = BasicConsumeOptions { exclusive, ..BasicConsumeOptions::default() };
    channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await
}

pub struct Results {
    connection: Connection,
    consumer: Consumer,
}

impl Results {
    pub async fn leave(self) {
        self.connection.close(200, "".into()).await.unwrap();
    }

    /// The next result, not yet acknowledged.
    pub async fn next(&mut self) -> (Delivery, Value) {
        let delivery = within("a result in the group's queue", self.consumer.next()).await.unwrap().unwrap();
        assert_eq!(delivery.data[0], 1);
        let message = serde_json::from_slice(&delivery.data[1..]).unwrap();
        (delivery, message)
    }

    /// Takes `count` results and acknowledges them; the ids of their tasks.
    pub async fn take(&mut self, count: usize) -> Vec<String> {
        let mut tasks = Vec::new();
        for _ in 0..count {
            let (delivery, message) = self.next().await;
            delivery.ack(BasicAckOptions::default()).await.unwrap();
            tasks.push(message["data"]["task_id"].as_str().unwrap().to_owned());
        }
        tasks
    }
}

/// An endpoint's AMQP side, played by the test.
pub struct FakeEndpoint {
    pub id: String,
    connection: Connection,
    channel: Channel,
    tasks: Consumer,
}

impl FakeEndpoint {
    pub async fn connect(registration: &Registration) -> FakeEndpoint {
        let (connection, channel) = open(registration.url()).await;
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        let queue = registration.0["task_queue_info"]["queue"].as_str().unwrap();
        let tasks = consume(&channel, queue, true).await.unwrap();
        FakeEndpoint { id: registration.id().to_owned(), connection, channel, tasks }
    }

    pub async fn leave(self) {
        self.connection.close(200, "".into()).await.unwrap();
    }

    /// Consumes nothing from now on.
    pub async fn rest(&mut self) {
        let options = lapin::options::BasicCancelOptions::default();
        self.channel.basic_cancel(self.tasks.tag(), options).await.unwrap();
    }

    /// Consumes its tasks again.
    pub async fn work_again(&mut self, registration: &Registration) {
        let queue = registration.0["task_queue_info"]["queue"].as_str().unwrap();
        self.tasks = consume(&self.channel, queue, true).await.unwrap();
    }

    /// Whether the service answers it still.
    pub async fn is_connected(&self) -> bool {
        self.connection.create_channel().await.is_ok()
    }

    /// Whether its connection lives on; waits a while for its end.
    pub async fn is_connected_after_a_while(&self) -> bool {
        for _ in 0..500 {
            if !self.connection.status().connected() {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        true
    }

    /// The next task, not yet acknowledged.
    pub async fn next(&mut self) -> (Delivery, Value) {
        let delivery = within("a task in the endpoint's queue", self.tasks.next()).await.unwrap().unwrap();
        assert_eq!(delivery.data[0], 1);
        let message = serde_json::from_slice(&delivery.data[1..]).unwrap();
        (delivery, message)
    }

    /// Takes the next task and acknowledges it; its id.
    pub async fn take(&mut self) -> String {
        let (delivery, message) = self.next().await;
        delivery.ack(BasicAckOptions::default()).await.unwrap();
        message["data"]["task_id"].as_str().unwrap().to_owned()
    }

    pub async fn publish(&self, exchange: &str, key: &str, body: &[u8]) -> lapin::Result<Confirmation> {
        let properties = BasicProperties::default().with_delivery_mode(2);
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        self.channel.basic_publish(exchange.into(), key.into(), options, body, properties).await?.await
    }

    /// Publishes a result and waits for its confirmation.
    pub async fn finish(&self, task: &str, text: &str, error: bool) {
        let key = format!("{}.results", self.id);
        let confirmed = self.publish("results", &key, &result(task, text, error)).await.unwrap();
        assert!(matches!(confirmed, Confirmation::Ack(None)), "{confirmed:?}");
    }

    pub async fn heartbeat(&self, state: Value) {
        let id = self.id.parse().unwrap();
        let global_state = wire::json::FreeForm::from(state.as_object().unwrap());
        let report =
            wire::message::StatusReport { endpoint_id: id, global_state, task_statuses: Default::default() };
        self.publish("heartbeats", &format!("{}.heartbeats", self.id), &report.encode()).await.unwrap();
    }
}

pub fn result(task: &str, text: &str, error: bool) -> Vec<u8> {
    let error_details = error.then(|| ErrorDetails {
        code: "RemoteExecutionError".into(),
        user_message: "An error occurred during the execution of this task".into(),
    });
    let task_id = task.parse().unwrap();
    let data = Text::plain(text);
    TaskResult { task_id, data, details: None, error_details, task_statuses: None }.encode()
}
