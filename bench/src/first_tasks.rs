//! Clients that each send one task, all at once, and wait for its result. Where the endpoint is a manager, a task is what
//! starts the client's user endpoint.
//!
//! The program reads the clients from standard input, one JSON document a line. It prints a line when all are connected,
//! and sends when standard input then gives it a line more. Of each client it prints when its task was sent, when the
//! submit was answered, and when the result came, in seconds since 1970.
#![allow(clippy::print_stdout, reason = "the times are what this program is for")]

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use futures_util::future::try_join_all;
use lapin::Connection;
use reqwest::Client as Http;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;
use wire::queue::ResultConnection;
use wire::rest::function::Registered;
use wire::rest::submit::Submitted;

use crate::payload::NoOp;
use crate::{clock, link};

/// Longer than anything that works takes: upstream's managers start a hundred user endpoints in minutes.
const PATIENCE: Duration = Duration::from_secs(900);

#[derive(Args)]
pub(crate) struct Options {
    /// Where the service listens for HTTP.
    #[arg(long)]
    service: String,
    /// The Python of an environment with the stock SDK: packs the task.
    #[arg(long)]
    python: PathBuf,
}

#[derive(Deserialize)]
struct Client {
    token: String,
    endpoint: String,
    /// For a manager.
    user_endpoint_config: Option<Value>,
}

/// Who sends: the clients of one token share a connection for their results.
struct Sender {
    connection: Connection,
    queue_prefix: String,
    function: String,
}

pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let no_op = Arc::new(NoOp::packed_by(&options.python)?);
    let http = Http::builder().no_proxy().build()?;
    let mut lines = std::io::stdin().lock().lines();
    let mut clients = Vec::new();
    for line in lines.by_ref() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        clients.push(serde_json::from_str::<Client>(&line)?);
    }
    let mut senders = BTreeMap::new();
    for client in &clients {
        if !senders.contains_key(&client.token) {
            let sender = sender(&http, &options.service, &client.token, &no_op).await?;
            senders.insert(client.token.clone(), sender);
        }
    }
    println!("connected");
    lines.next().context("a line that says when to send")??;
    let senders = &senders;
    let sent = clients.iter().enumerate().map(|(number, client)| {
        let (http, service, no_op) = (&http, &options.service, &no_op);
        async move {
            let sender = senders.get(&client.token).context("every token has a sender")?;
            timeout(PATIENCE, first_task(http, service, number, client, sender, no_op))
                .await
                .with_context(|| format!("client {number} got no result"))?
        }
    });
    try_join_all(sent).await?;
    Ok(())
}

async fn sender(http: &Http, service: &str, token: &str, no_op: &NoOp) -> anyhow::Result<Sender> {
    let function = json!({ "function_name": "nothing", "function_code": no_op.function });
    let request = http.post(format!("{service}/v3/functions")).bearer_auth(token).json(&function);
    let function: Registered = request.send().await?.error_for_status()?.json().await?;
    let request = http.get(format!("{service}/v2/get_amqp_result_connection_url")).bearer_auth(token);
    let results: ResultConnection = request.send().await?.error_for_status()?.json().await?;
    let connection = link::connect(&results.connection_url).await?;
    Ok(Sender {
        connection,
        queue_prefix: results.queue_prefix,
        function: function.function_uuid.to_string(),
    })
}

async fn first_task(
    http: &Http,
    service: &str,
    number: usize,
    client: &Client,
    sender: &Sender,
    no_op: &NoOp,
) -> anyhow::Result<()> {
    let mut body =
        json!({ "create_queue": true, "tasks": { sender.function.as_str(): [no_op.arguments.as_str()] } });
    if let (Some(config), Some(body)) = (&client.user_endpoint_config, body.as_object_mut()) {
        body.insert("user_endpoint_config".to_owned(), config.clone());
    }
    let url = format!("{service}/v3/endpoints/{}/submit", client.endpoint);
    let request = http.post(url).bearer_auth(&client.token).json(&body);
    tell(number, "sent");
    let answer = request.send().await?;
    let status = answer.status();
    let body = answer.bytes().await?;
    ensure!(status.is_success(), "client {number}: {status}: {}", String::from_utf8_lossy(&body));
    tell(number, "answered");
    let submitted: Submitted = serde_json::from_slice(&body)?;
    let channel = sender.connection.create_channel().await?;
    let queue = format!("{}{}", sender.queue_prefix, submitted.task_group_id);
    let mut arrivals = link::arrivals(&channel, &queue).await?;
    let arrival = arrivals.recv().await.context("the connection for results was closed")?;
    tell(number, "result");
    ensure!(arrival.error.is_none(), "client {number}: {}", arrival.error.unwrap_or_default());
    Ok(())
}

fn tell(client: usize, event: &str) {
    println!("{}", json!({ "client": client, "event": event, "at": clock::now().as_secs_f64() }));
}
