//! The command `farcall doctor`: checks an installation. Exit codes: 0 no check failed, 1 one did.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::console::say;
use super::{DataDirectory, Settings};
use crate::operate::data_directory;
use crate::operate::doctor::{self, CheckResult};

#[derive(Debug, Args)]
pub(super) struct Doctor {
    #[command(flatten)]
    directory: DataDirectory,
    #[command(flatten)]
    settings: Settings,
    /// The certificate of the authority that clients are told to trust: does ours fit it?
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl Doctor {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let root = match data_directory::existing(&self.directory.data_dir) {
            Ok(root) => root,
            Err(error) => {
                say(format_args!("FAIL     data directory: {error}"))?;
                return Ok(ExitCode::FAILURE);
            }
        };
        let config = match self.settings.load(&root.join("farcall.yaml")) {
            Ok(loaded) => loaded.config,
            Err(error) => {
                let error = error.to_string().replace('\n', "\nFAIL     configuration: ");
                say(format_args!("FAIL     configuration: {error}"))?;
                return Ok(ExitCode::FAILURE);
            }
        };
        let log = std::env::var(daemon::logging::VARIABLE).ok();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let findings = runtime.block_on(doctor::examine(&root, &config, self.ca.as_deref(), log.as_deref()));
        for finding in &findings {
            say(finding)?;
        }
        let worst = findings.iter().map(|finding| finding.result).max();
        Ok(if worst == Some(CheckResult::Failed) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}
