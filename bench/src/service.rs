//! Starts a service in a directory of its own, with one client identity.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use reqwest::Client;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use wire::FunctionId;
use wire::queue::{Registration, ResultConnection};
use wire::rest::function::Registered;

use crate::children::{Running, Tree};
use crate::payload::NoOp;

/// Ends when dropped, and its directory with it.
pub(crate) struct Service {
    /// Absent while it is stopped.
    running: Option<Running>,
    directory: TempDir,
    farcall: PathBuf,
    /// The URL of its database, if it is not embedded.
    database_url: Option<String>,
    /// From its start to the line that says it is ready.
    pub(crate) ready: Duration,
    origin: String,
    http: Client,
    client_id: String,
    client_secret: String,
    token: String,
}

fn data(directory: &TempDir) -> PathBuf {
    directory.path().join("service")
}

fn administer(farcall: &Path, data: &Path, arguments: &[&str], input: &str) -> anyhow::Result<Value> {
    let mut command = Command::new(farcall);
    command.args(arguments).args(["--output", "json", "--data-dir"]).arg(data);
    let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    process.stdin.take().context("a piped standard input")?.write_all(input.as_bytes())?;
    let done = process.wait_with_output()?;
    ensure!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(serde_json::from_slice(&done.stdout)?)
}

fn text(value: &Value, name: &str) -> anyhow::Result<String> {
    Ok(value.get(name).and_then(Value::as_str).with_context(|| format!("no {name}"))?.to_owned())
}

/// Starts it, and waits until it is ready; where it listens for HTTP.
fn serve(
    farcall: &Path,
    directory: &TempDir,
    database_url: Option<&str>,
) -> anyhow::Result<(Running, String)> {
    let mut command = Command::new(farcall);
    command
        .args(["serve", "--http-listen", "127.0.0.1:0", "--amqp-listen", "127.0.0.1:0"])
        // All endpoints are one identity's, at one address.
        .args(["--set", "limits.endpoints_per_identity=20000", "--set", "limits.amqp_connections=60000"])
        .arg("--data-dir")
        .arg(data(directory));
    if let Some(url) = database_url {
        command.args(["--set", &format!("store.url={url}")]);
    }
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
    Ok((running, origin))
}

impl Service {
    pub(crate) async fn start(binaries: &Path) -> anyhow::Result<Self> {
        Self::start_on(binaries, None).await
    }

    /// Starts it on the empty database at this URL of PostgreSQL; without one, on the embedded one.
    pub(crate) async fn start_on(binaries: &Path, database_url: Option<&str>) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let data = data(&directory);
        let farcall = binaries.join("farcall");
        let (running, origin) = serve(&farcall, &directory, database_url)?;
        let ready = running.started.elapsed();

        let client = administer(&farcall, &data, &["client", "add", "bench"], "")?;
        let http = Client::builder().no_proxy().build()?;
        let mut service = Self {
            ready,
            running: Some(running),
            directory,
            farcall,
            database_url: database_url.map(str::to_owned),
            origin,
            http,
            client_id: text(&client, "client_id")?,
            client_secret: text(&client, "client_secret")?,
            token: String::new(),
        };
        service.token = service.grant(wire::rest::auth::COMPUTE_SCOPE).await?;
        Ok(service)
    }

    /// A token of the client's for `scope`.
    pub(crate) async fn grant(&self, scope: &str) -> anyhow::Result<String> {
        let form = [("grant_type", "client_credentials"), ("scope", scope)];
        let request = self.http.post(format!("{}/v2/oauth2/token", self.origin)).form(&form);
        let request = request.basic_auth(&self.client_id, Some(&self.client_secret));
        text(&request.send().await?.error_for_status()?.json().await?, "access_token")
    }

    /// Its token for compute.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// Where it listens for HTTP.
    pub(crate) fn address(&self) -> &str {
        self.origin.trim_start_matches("http://")
    }

    pub(crate) fn data(&self) -> PathBuf {
        data(&self.directory)
    }

    /// What an administrative command answers.
    pub(crate) fn administer(&self, arguments: &[&str], input: &str) -> anyhow::Result<Value> {
        administer(&self.farcall, &self.data(), arguments, input)
    }

    /// The service's process.
    pub(crate) fn tree(&self) -> Tree {
        self.running.as_ref().expect("costs are asked of a service that runs").tree()
    }

    /// Ends it, and waits until its database is closed.
    pub(crate) fn stop(&mut self) {
        self.running = None;
    }

    /// Starts it in the same directory, at other ports.
    pub(crate) fn start_again(&mut self) -> anyhow::Result<()> {
        let (running, origin) = serve(&self.farcall, &self.directory, self.database_url.as_deref())?;
        (self.running, self.origin) = (Some(running), origin);
        Ok(())
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.data().join("farcall.db")
    }

    /// The size of the database.
    pub(crate) fn stored_bytes(&self) -> anyhow::Result<u64> {
        Ok(std::fs::metadata(self.database())?.len())
    }

    /// A number from the page `/metrics`.
    pub(crate) async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let page = self.http.get(format!("{}/metrics", self.origin)).send().await?.text().await?;
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.with_context(|| format!("{name} is not on the page of metrics"))?.parse()?)
    }

    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: Vec<u8>) -> anyhow::Result<T> {
        let request = self.http.post(format!("{}{path}", self.origin)).bearer_auth(&self.token);
        let answer = request.header("content-type", "application/json").body(body).send().await?;
        let status = answer.status();
        let body = answer.bytes().await?;
        ensure!(status.is_success(), "{path} was refused with {status}: {}", String::from_utf8_lossy(&body));
        Ok(serde_json::from_slice(&body)?)
    }

    pub(crate) async fn register_function(&self, no_op: &NoOp) -> anyhow::Result<FunctionId> {
        let body = json!({ "function_name": "nothing", "function_code": no_op.function });
        let registered: Registered = self.post("/v3/functions", serde_json::to_vec(&body)?).await?;
        Ok(registered.function_uuid)
    }

    pub(crate) async fn register_endpoint(&self, name: &str) -> anyhow::Result<Registration> {
        let body = json!({ "endpoint_name": name, "metadata": { "endpoint_version": "3.8.0" } });
        self.post("/v3/endpoints", serde_json::to_vec(&body)?).await
    }

    pub(crate) async fn result_connection(&self) -> anyhow::Result<ResultConnection> {
        let request = self.http.get(format!("{}/v2/get_amqp_result_connection_url", self.origin));
        Ok(request.bearer_auth(&self.token).send().await?.error_for_status()?.json().await?)
    }
}
