//! The hot restart, and registering again.
//!
//! SIGHUP executes the manager's program again in the same process: the same PID, the same children, the same descriptors.
//! The path is the one of the start, and its links are followed again: a program that was replaced on disk takes over, also by
//! a link that was moved. It must first accept configuration and state (`--check-state`); otherwise the manager goes on as it was.

use std::convert::Infallible;
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::time::Duration;

use client::Credentials;
use manager::core::Core;
use manager::restart::State;
use wire::queue::Registration;
use wire::rest::endpoint::{Metadata, Register};

use super::document::ManageDocument;
use super::processes::Processes;
use super::{begin, check, registration};
use crate::account::AccountSettings;
use crate::clock;
use crate::config::ManagerConfig;
use crate::directory::{Base, EndpointDir};
use crate::exit::{Failure, block_on, status};
use crate::pid::Claim;
use crate::start::{memory_file, register};

/// How long the next program may take to check the state.
const CHECK_PATIENCE: Duration = Duration::from_secs(10);
/// How long the thread that runs it may take in addition.
const THREAD_PATIENCE: Duration = Duration::from_secs(5);
/// How long a registration may take while commands wait.
const REGISTRATION_PATIENCE: Duration = Duration::from_secs(10);
/// How long a program that can't be executed is tried again.
const EXECUTE_PATIENCE: Duration = Duration::from_secs(5);
const EXECUTE_PAUSE: Duration = Duration::from_millis(100);
/// The first and the longest pause between registrations when the service can't be reached.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Collects the state, and has the next program check it. The error says why the manager is not restarted.
pub(super) async fn prepare(
    document: &mut ManageDocument,
    endpoint: &EndpointDir,
    core: &Core,
    processes: &Processes,
) -> Result<State, String> {
    let (_, text) = check::load(endpoint).map_err(|failure| failure.bare().to_owned())?;
    let children = processes.hand_over(core.children().iter());
    document.state = Some(State::new(children, core.revivals()));
    let bytes = serde_json::to_vec(document).map_err(|error| error.to_string());
    let state = document.state.take().ok_or("there is no state")?;
    let (bytes, program) = (bytes?, document.program.clone());
    check_elsewhere(program, bytes).await?;
    document.config = text;
    Ok(state)
}

/// Runs the next program's check on a thread of its own, and waits for no longer than it may take: a file system that does not
/// answer stops the thread, and threads that other work waits for may be used up.
async fn check_elsewhere(program: PathBuf, document: Vec<u8>) -> Result<(), String> {
    let (outbox, answer) = tokio::sync::oneshot::channel();
    let shown = program.display().to_string();
    let check = move || drop(outbox.send(run_check(&program, &document)));
    std::thread::Builder::new()
        .name("check-state".to_owned())
        .spawn(check)
        .map_err(|error| error.to_string())?;
    match tokio::time::timeout(CHECK_PATIENCE + THREAD_PATIENCE, answer).await {
        Ok(Ok(checked)) => checked,
        Ok(Err(_)) => Err(format!("the check of {shown} ended without an answer")),
        Err(_) => Err(format!("{shown} can't be executed: its file system does not answer")),
    }
}

/// Runs the next program's check. Blocks.
fn run_check(program: &Path, document: &[u8]) -> Result<(), String> {
    let shown = program.display();
    let failed = |error: std::io::Error| format!("{shown}: {error}");
    let input = memory_file(document).map_err(failed)?;
    let mut output = memory_file(b"").map_err(failed)?;
    let mut child = Command::new(program)
        .args(["_manage", "--check-state"])
        .stdin(input)
        .stdout(Stdio::null())
        .stderr(output.try_clone().map_err(failed)?)
        .spawn()
        .map_err(failed)?;
    let since = clock::now();
    let ended = loop {
        if let Some(ended) = child.try_wait().map_err(failed)? {
            break ended;
        }
        if clock::now().duration_since(since) >= CHECK_PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("{shown} did not check the state within {} s", CHECK_PATIENCE.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    if ended.success() {
        return Ok(());
    }
    let mut text = String::new();
    let _ = output.rewind();
    let _ = output.take(4096).read_to_string(&mut text);
    Err(format!("{shown} refuses to take over ({ended}): {}", text.trim()))
}

/// Executes the program again in this process. A file that can't be executed is being replaced at this moment, maybe; if that
/// lasts, the program that runs goes on from the same state. Returns only if that is not possible either.
pub(super) fn execute_again(
    document: &mut ManageDocument,
    config: &ManagerConfig,
    processes: &Processes,
) -> std::io::Result<Infallible> {
    processes.leave_open()?;
    let since = clock::now();
    let error = loop {
        let Err(error) = begin::execute(document, config);
        if clock::now().duration_since(since) >= EXECUTE_PATIENCE {
            break error;
        }
        std::thread::sleep(EXECUTE_PAUSE);
    };
    document.not_executed = Some(format!("{}: {error}", document.program.display()));
    begin::execute_as(Path::new("/proc/self/exe"), document, config)
}

/// After a hot restart: registers once if something changed that the service knows. Without the service, the old
/// registration holds.
pub(super) async fn register_changes(
    document: &mut ManageDocument,
    endpoint: &EndpointDir,
    config: &ManagerConfig,
    text: String,
) {
    let body = match registration::body(endpoint, config, &text) {
        Ok(body) => body,
        Err(failure) => return tracing::warn!("{}", failure.text),
    };
    if known(&body) == known(&document.registered) && !document.unregistered {
        return;
    }
    tracing::info!("a registered setting changed; registering");
    document.config = text;
    document.registered = body;
    let once = Registering::of(document, endpoint, None).once_elsewhere();
    let outcome = tokio::time::timeout(REGISTRATION_PATIENCE, once).await.map(|answer| {
        let registration = answer?;
        registration::link_config(&registration, config, document.authorities.clone())?;
        Ok::<_, Failure>(registration)
    });
    // The next restart, or the next registration, tries again: the answer may have been lost after the change was made.
    document.unregistered = !matches!(outcome, Ok(Ok(_)));
    match outcome {
        Ok(Ok(registration)) => document.registration = registration,
        Ok(Err(failure)) => tracing::error!("the change was not registered: {}", failure.text),
        Err(_) => tracing::error!("the change was not registered: the service does not answer"),
    }
}

/// The part of a registration whose change is worth a request: not the version, the host, or a comment in the file.
fn known(body: &Register) -> Register {
    let metadata = Metadata {
        user_config_template: body.metadata.user_config_template.clone(),
        user_config_schema: body.metadata.user_config_schema.clone(),
        ..Metadata::default()
    };
    Register { metadata, ..body.clone() }
}

/// A registration that is under way.
pub(super) type Renewal = Pin<Box<dyn Future<Output = Result<Registration, Failure>>>>;

/// Registers again, because the broker refuses the credentials.
pub(super) fn renew(document: &ManageDocument, endpoint: &EndpointDir, claim: Claim) -> Renewal {
    let registering = Registering::of(document, endpoint, Some(claim));
    Box::pin(async move {
        let mut pause = FIRST_PAUSE;
        loop {
            tokio::time::sleep(pause).await;
            match registering.clone().once_elsewhere().await {
                // User endpoints run on meanwhile, with credentials of their own.
                Err(failure) if failure.may_pass => {
                    tracing::error!("not registered, trying again: {}", failure.text);
                    pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
                }
                other => return other,
            }
        }
    })
}

/// Waits for the registration that is under way.
pub(super) async fn renewed(renewal: &mut Option<Renewal>) -> Result<Registration, Failure> {
    match renewal {
        Some(renewal) => renewal.await,
        None => std::future::pending().await,
    }
}

/// What a registration needs.
#[derive(Clone)]
struct Registering {
    base: Base,
    endpoint: EndpointDir,
    body: Register,
    config: String,
    client: Option<Credentials>,
    claim: Option<Claim>,
}

impl Registering {
    fn of(document: &ManageDocument, endpoint: &EndpointDir, claim: Option<Claim>) -> Self {
        Self {
            base: Base::at(document.base.clone()),
            endpoint: endpoint.clone(),
            body: document.registered.clone(),
            config: document.config.clone(),
            client: document.client.as_ref().map(|client| Credentials {
                client_id: client.id.clone(),
                client_secret: client.secret.clone(),
            }),
            claim,
        }
    }

    /// Registers once, on a thread of its own: it reads the token store, on a file system that may stall.
    async fn once_elsewhere(self) -> Result<Registration, Failure> {
        let once = tokio::task::spawn_blocking(move || block_on(self.once()));
        once.await.map_err(Failure::error)?
    }

    async fn once(&self) -> Result<Registration, Failure> {
        // Another process may have registered, which made our credentials invalid: then only its own count.
        if self.claim.as_ref().is_some_and(|claim| !claim.holds()) {
            return Err(Failure::new(status::ALREADY_ACTIVE, "another process runs the endpoint"));
        }
        let config = ManagerConfig::read("the configuration", &self.config)?;
        let settings = AccountSettings {
            endpoint: Some((&self.endpoint, config.common.service())),
            client: self.client.as_ref(),
            ..AccountSettings::of(&self.base)
        };
        let account = settings.account().await?;
        let known = self.endpoint.registered_id();
        let registration = register(&account, &self.body, known).await?;
        registration::check(&registration, known)?;
        Ok(registration)
    }
}
