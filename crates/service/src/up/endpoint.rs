//! Finds the endpoint of `farcall up` running, or configures and starts it as a child that ends with this process.

use std::fs::{self, File};
use std::io::Read as _;
use std::num::NonZero;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use daemon::open_files::InheritedLimit;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, pipe};
use serde::Deserialize;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};
use wire::EndpointId;
use wire::start_document::Report;

use super::{Environment, UpDirectory};

pub(super) const NAME: &str = "local";
const PROGRAM: &str = "globus-compute-endpoint";

/// The exit status of `start` if the endpoint runs already.
const ALREADY_ACTIVE: i32 = 255;
/// How long an endpoint may take to report that it runs. The time of a long `worker_init` does not count.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an endpoint may take to stop: its grace for running tasks, 5 s, and a margin.
const STOP_TIMEOUT: Duration = Duration::from_secs(12);
/// How many lines of a failed program's output are shown.
const SHOWN_LINES: usize = 20;

/// The endpoint's program, and the user's limit of open files.
#[derive(Debug)]
pub(super) struct Program {
    path: PathBuf,
    open_files: Option<InheritedLimit>,
}

impl Program {
    pub(super) fn find(
        given: Option<PathBuf>,
        open_files: Option<InheritedLimit>,
    ) -> anyhow::Result<Program> {
        Ok(Program { path: find_program(given)?, open_files })
    }

    fn command(&self, up_directory: &UpDirectory, environment: &Environment) -> Command {
        let mut command = Command::new(&self.path);
        command.arg("--config-dir").arg(up_directory.endpoints());
        environment.apply(&mut command);
        if let Some(open_files) = self.open_files {
            open_files.restore_for(command.as_std_mut());
        }
        command
    }
}

/// Finds the endpoint's program: as given, beside this program, or on the PATH.
fn find_program(given: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    if let Some(path) = given {
        return fs::canonicalize(&path).with_context(|| format!("there is no {}", path.display()));
    }
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join(PROGRAM)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let candidates =
        beside.into_iter().chain(std::env::split_paths(&path).map(|directory| directory.join(PROGRAM)));
    candidates.into_iter().find(|path| path.is_file()).with_context(|| {
        format!(
            "{PROGRAM} is neither beside this program nor on the PATH: say where it is with --endpoint-binary"
        )
    })
}

/// A running endpoint.
#[derive(Debug)]
pub struct Endpoint {
    pub id: EndpointId,
    log: PathBuf,
    child: Option<Child>,
}

impl Endpoint {
    pub(super) async fn find_or_start(
        program: &Program,
        up_directory: &UpDirectory,
        environment: &Environment,
    ) -> anyhow::Result<Endpoint> {
        if !up_directory.endpoints().join(NAME).join("config.yaml").exists() {
            configure(program, up_directory, environment).await?;
        }
        let child = start(program, up_directory, environment).await?;
        let id = id(up_directory).context("the endpoint runs, and its id cannot be read")?;
        Ok(Endpoint { id, log: up_directory.endpoint_log(), child })
    }

    pub(super) fn is_ours(&self) -> bool {
        self.child.is_some()
    }

    pub(super) fn process(&self) -> Option<Pid> {
        let pid = self.child.as_ref()?.id()?;
        i32::try_from(pid).ok().map(Pid::from_raw)
    }

    pub(super) async fn ended(&mut self) -> String {
        let Some(child) = &mut self.child else { return std::future::pending().await };
        let how = match child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        self.child = None;
        format!("the endpoint ended ({how}); the end of its log {}:\n{}", self.log.display(), tail(&self.log))
    }

    pub(super) async fn stop(self) {
        let process = self.process();
        let Some(mut child) = self.child else { return };
        if let Some(pid) = process {
            // It may have ended by itself.
            let _ = kill(pid, Signal::SIGTERM);
        }
        if tokio::time::timeout(STOP_TIMEOUT, child.wait()).await.is_err() {
            tracing::warn!("the endpoint does not stop; killing it");
            let _ = child.kill().await;
        }
    }
}

/// The endpoint's configuration: one worker for each core, and sandboxes, because without them a ShellFunction's standard
/// error ends with a warning.
fn configuration() -> String {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    format!(
        "display_name: {NAME}
engine:
  type: GlobusComputeEngine
  max_workers_per_node: {cores}
  run_in_sandbox: true
  provider:
    type: LocalProvider
    init_blocks: 1
    min_blocks: 0
    max_blocks: 1
"
    )
}

async fn configure(
    program: &Program,
    up_directory: &UpDirectory,
    environment: &Environment,
) -> anyhow::Result<()> {
    let mut child = program
        .command(up_directory, environment)
        .args(["configure", NAME, "--endpoint-config", "/dev/stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", program.path.display()))?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(configuration().as_bytes()).await?;
    }
    let done = child.wait_with_output().await?;
    if !done.status.success() {
        bail!("the endpoint could not be configured:\n{}", String::from_utf8_lossy(&done.stderr).trim_end());
    }
    Ok(())
}

/// Starts the endpoint and waits until it reports that it runs. `None`: it runs already.
async fn start(
    program: &Program,
    up_directory: &UpDirectory,
    environment: &Environment,
) -> anyhow::Result<Option<Child>> {
    let said = up_directory.start_log();
    let log = File::create(&said).with_context(|| format!("cannot write {}", said.display()))?;
    // Without close-on-exec, because the child inherits its end; its number is an argument.
    let (ours, theirs) = pipe()?;
    let mut child = program
        .command(up_directory, environment)
        .args(["start", NAME, "--die-with-parent", "--report-fd"])
        .arg(theirs.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot run {}", program.path.display()))?;
    drop(theirs);
    let report =
        tokio::time::timeout(START_TIMEOUT, tokio::task::spawn_blocking(move || read_report(ours))).await;
    match report {
        Ok(Ok(Some(Report { status: 0, .. }))) => Ok(Some(child)),
        Ok(Ok(Some(Report { text, .. }))) => bail!("the endpoint could not be started:\n{text}"),
        Ok(_) => {
            let status = child.wait().await?;
            if status.code() == Some(ALREADY_ACTIVE) {
                return Ok(None);
            }
            bail!("the endpoint could not be started ({status}):\n{}", tail(&said))
        }
        Err(_) => {
            let _ = child.kill().await;
            bail!(
                "the endpoint did not report within {START_TIMEOUT:?} that it runs:\n{}",
                tail(&up_directory.endpoint_log())
            )
        }
    }
}

fn read_report(from: OwnedFd) -> Option<Report> {
    let mut text = Vec::new();
    File::from(from).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

fn id(up_directory: &UpDirectory) -> anyhow::Result<EndpointId> {
    #[derive(Deserialize)]
    struct EndpointFile {
        endpoint_id: EndpointId,
    }
    let text = fs::read_to_string(up_directory.endpoints().join(NAME).join("endpoint.json"))?;
    Ok(serde_json::from_str::<EndpointFile>(&text)?.endpoint_id)
}

/// The last lines of a file that may be long.
fn tail(path: &Path) -> String {
    const LONGEST: usize = 64 << 10;
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(LONGEST)..]);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}
