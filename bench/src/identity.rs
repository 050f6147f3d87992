//! The part `identity`: how many tokens the identity service checks in a second, and whether password checks delay them.
//!
//! The client is plain sockets with requests prepared beforehand, one open request per connection, on the same cores.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixStream};

use crate::measurements::{microseconds, milliseconds, quantile, record};
use crate::service::Service;

/// Password checks in flight in the last row.
const PASSWORDS: usize = 50;
const PASSWORD: &str = "correct horse battery";

#[derive(Args)]
pub(crate) struct Options {
    /// The directory of the built programs.
    #[arg(long)]
    binaries: PathBuf,
    /// Connections, each with one request at a time.
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Seconds per row.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let service = Service::start(&options.binaries).await?;
    let server =
        service.administer(&["client", "add", "server", "--resource-server", "funcx_service"], "")?;
    let text = |value: &Value, name: &str| -> anyhow::Result<String> {
        Ok(value.get(name).and_then(Value::as_str).with_context(|| format!("no {name}"))?.to_owned())
    };
    let basic =
        STANDARD.encode(format!("{}:{}", text(&server, "client_id")?, text(&server, "client_secret")?));
    let openid = service.grant("openid").await?;
    let length = Duration::from_secs(options.seconds);

    let check = Exchange {
        request: format!(
            "GET /v2/oauth2/userinfo HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {openid}\r\n\r\n"
        ),
        part: "\"identity_set\":[{",
    };
    let form = format!("token={}&include=identity_set", service.token());
    let introspect = Exchange {
        request: format!(
            "POST /v2/oauth2/token/introspect HTTP/1.1\r\nhost: localhost\r\nauthorization: Basic {basic}\r\n\
             content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{form}",
            form.len()
        ),
        part: "\"active\":true",
    };
    for (what, exchange) in
        [("token checks (`userinfo`)", &check), ("introspection, with the set", &introspect)]
    {
        let measured = measure(&service, exchange, options.connections, length).await?;
        measured.record(what);
    }

    let quiet = measure(&service, &check, 1, length).await?;
    quiet.record("token checks, one after another");
    service.administer(&["user", "add", "bench@example.edu"], PASSWORD)?;
    let over = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicU64::new(0));
    let mut passwords = Vec::new();
    for _ in 0..PASSWORDS {
        let (socket, over, done) = (service.data().join("admin.sock"), over.clone(), done.clone());
        passwords.push(tokio::spawn(async move {
            while !over.load(Ordering::Relaxed) {
                password(&socket).await?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        }));
    }
    let began = Instant::now();
    let busy = measure(&service, &check, 1, length).await?;
    let rate = done.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
    let subject = format!("the same while {PASSWORDS} passwords are in flight");
    busy.record(&subject);
    record(&subject, "passwords hashed", rate, "/s");
    over.store(true, Ordering::Relaxed);
    for password in passwords {
        password.await??;
    }
    Ok(())
}

/// A password's hash, made in the service on the threads that check passwords: the same work, without the page around.
async fn password(socket: &std::path::Path) -> anyhow::Result<()> {
    let (reader, mut writer) = UnixStream::connect(socket).await?.into_split();
    let request = json!({"about": "user", "do": "reset", "user": "bench@example.edu", "password": PASSWORD});
    writer.write_all(format!("{request}\n").as_bytes()).await?;
    let mut line = String::new();
    BufReader::new(reader).read_line(&mut line).await?;
    ensure!(line.starts_with("{\"user\""), "a password was refused: {line}");
    Ok(())
}

/// A request, and what its answer must contain.
struct Exchange {
    request: String,
    part: &'static str,
}

struct Measured {
    latencies: Vec<Duration>,
    took: Duration,
    /// Processor time of the service.
    cost: Duration,
}

impl Measured {
    fn record(&self, what: &str) {
        let requests = self.latencies.len() as f64;
        record(what, "rate", requests / self.took.as_secs_f64(), "/s");
        record(what, "p50", milliseconds(quantile(&self.latencies, 0.5)), "ms");
        record(what, "p99", milliseconds(quantile(&self.latencies, 0.99)), "ms");
        record(what, "service's CPU each", microseconds(self.cost) / requests, "µs");
    }
}

async fn measure(
    service: &Service,
    exchange: &Exchange,
    connections: usize,
    length: Duration,
) -> anyhow::Result<Measured> {
    let mut sockets = Vec::new();
    for _ in 0..connections {
        let mut socket = TcpStream::connect(service.address()).await?;
        socket.set_nodelay(true)?;
        // Once before the clock starts.
        ask(&mut socket, exchange, &mut Vec::new()).await?;
        sockets.push(socket);
    }
    let before = service.tree().spent()?.native;
    let began = Instant::now();
    let end = began + length;
    let mut asking = Vec::new();
    for mut socket in sockets {
        let exchange = Exchange { request: exchange.request.clone(), part: exchange.part };
        asking.push(tokio::spawn(async move {
            let (mut latencies, mut buffer) = (Vec::new(), Vec::new());
            while Instant::now() < end {
                let asked = Instant::now();
                ask(&mut socket, &exchange, &mut buffer).await?;
                latencies.push(asked.elapsed());
            }
            anyhow::Ok(latencies)
        }));
    }
    let mut latencies = Vec::new();
    for asked in asking {
        latencies.extend(asked.await??);
    }
    Ok(Measured { latencies, took: began.elapsed(), cost: service.tree().spent()?.native - before })
}

/// One request and its whole answer.
async fn ask(socket: &mut TcpStream, exchange: &Exchange, buffer: &mut Vec<u8>) -> anyhow::Result<()> {
    socket.write_all(exchange.request.as_bytes()).await?;
    buffer.clear();
    loop {
        ensure!(socket.read_buf(buffer).await? > 0, "the service hung up");
        let answer = std::str::from_utf8(buffer)?;
        let Some((head, body)) = answer.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if body.len() >= length.context("an answer without a length")?.parse()? {
            ensure!(head.starts_with("HTTP/1.1 200") && body.contains(exchange.part), "refused: {answer}");
            return Ok(());
        }
    }
}
