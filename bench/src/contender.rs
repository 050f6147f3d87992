//! The endpoints that are measured: the echo endpoint, ours, and upstream's where it is installed.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;
use clap::Args;
use wire::queue::Registration;

use crate::children::Running;
use crate::payload::NoOp;

/// Where the measured programs are.
#[derive(Args)]
pub(crate) struct Programs {
    /// The directory of `farcall` and `globus-compute-endpoint`.
    #[arg(long, default_value = "target/release")]
    pub(crate) binaries: PathBuf,
    /// The Python of an environment with the stock SDK: packs the task, and runs the workers.
    #[arg(long)]
    pub(crate) python: PathBuf,
    /// Also measures upstream's endpoint, from the environment of this Python.
    #[arg(long)]
    pub(crate) upstream: Option<PathBuf>,
    /// Python workers of an endpoint.
    #[arg(long, default_value_t = 2)]
    pub(crate) workers: u32,
}

/// One endpoint to be measured.
pub(crate) enum Contender {
    Echo,
    Farcall,
    Upstream { python: PathBuf },
}

impl Programs {
    /// The echo first, as the least that is possible.
    pub(crate) fn contenders(&self) -> Vec<Contender> {
        let upstream = self.upstream.iter().map(|python| Contender::Upstream { python: python.clone() });
        [Contender::Echo, Contender::Farcall].into_iter().chain(upstream).collect()
    }
}

impl Contender {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Farcall => "our endpoint",
            Self::Upstream { .. } => "upstream's endpoint",
        }
    }

    /// How many tasks to send one after another: upstream's endpoint looks for results twice a second.
    pub(crate) fn serial(&self, wanted: usize) -> usize {
        match self {
            Self::Echo | Self::Farcall => wanted,
            Self::Upstream { .. } => wanted.min(20),
        }
    }

    /// Starts it in `directory` by the credentials that a manager would hand to it.
    pub(crate) fn start(
        &self,
        programs: &Programs,
        directory: &Path,
        no_op: &NoOp,
        registration: Registration,
    ) -> anyhow::Result<Running> {
        let config = match self {
            Self::Echo => no_op.result.clone(),
            Self::Farcall | Self::Upstream { .. } => format!(
                "engine:\n  type: GlobusComputeEngine\n  max_workers_per_node: {}\n  provider:\n    type: \
                 LocalProvider\n    init_blocks: 1\n    min_blocks: 1\n    max_blocks: 1\n",
                programs.workers
            ),
        };
        let document = serde_json::json!({
            "amqp_creds": registration,
            "config": &config,
            "ep_info": { "posix_ppid": std::process::id() },
        });
        let log = std::fs::File::create(directory.join(format!("{}.log", self.name())))?;
        let mut command = match self {
            Self::Echo => {
                let mut command = Command::new(env::current_exe()?);
                command.arg("echo");
                command
            }
            Self::Farcall => {
                let mut command = Command::new(programs.binaries.join("globus-compute-endpoint"));
                command.arg("-c").arg(directory).args(["start", "bench", "--die-with-parent"]);
                command
            }
            Self::Upstream { python } => {
                // It insists on a directory that a manager has made.
                std::fs::create_dir(directory.join("bench"))?;
                std::fs::write(directory.join("bench/config.yaml"), &config)?;
                upstream(python, directory)?
            }
        };
        let python = match self {
            Self::Echo | Self::Farcall => &programs.python,
            Self::Upstream { python } => python,
        };
        let bin = python.parent().context("the Python has a directory")?;
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths(std::iter::once(bin.to_owned()).chain(env::split_paths(&path)))?;
        command.env("PATH", path).env("HOME", directory).stdout(log.try_clone()?).stderr(log);
        Running::start(&mut command, &serde_json::to_vec(&document)?)
    }
}

/// Upstream's command line changed when user endpoints got a command of their own.
fn upstream(python: &Path, directory: &Path) -> anyhow::Result<Command> {
    let bin = python.parent().context("the Python has a directory")?;
    let known =
        Command::new(bin.join("globus-compute-endpoint")).arg("--help").stderr(Stdio::null()).output()?;
    let mut command = Command::new(bin.join("globus-compute-endpoint"));
    command.arg("-c").arg(directory);
    if String::from_utf8_lossy(&known.stdout).contains("render-user-config") {
        command.args(["_start-user-endpoint", "bench"]);
    } else {
        command.args(["start", "bench", "--die-with-parent"]);
    }
    Ok(command)
}
