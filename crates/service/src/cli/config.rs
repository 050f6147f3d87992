//! The commands `farcall config …`: print the configuration, and check whether the service could start with it.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::console::{complain, say};
use super::{DataDirectory, Settings};
use crate::operate::config::ConfigError;
use crate::operate::data_directory::{self, Directory};
use crate::operate::start_problems::{self, StartProblem};

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Say whether the configuration is right, and if not, what is wrong and where it stands.
    Check(Common),
    /// Print every key with its value and where that comes from.
    Print(Common),
}

#[derive(Debug, Args)]
pub(super) struct Common {
    #[command(flatten)]
    directory: DataDirectory,
    #[command(flatten)]
    settings: Settings,
}

impl ConfigCommand {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let (common, print) = match self {
            ConfigCommand::Check(common) => (common, false),
            ConfigCommand::Print(common) => (common, true),
        };
        let root = data_directory::existing(&common.directory.data_dir)?;
        let file = root.join("farcall.yaml");
        let loaded = match common.settings.load(&file) {
            Err(ConfigError::Invalid(problems)) if !print => {
                return refused(problems.0.iter().map(ToString::to_string).collect());
            }
            loaded => loaded?,
        };
        if !print {
            let log = std::env::var(daemon::logging::VARIABLE).ok();
            let runs = Directory::is_held(&root);
            let mut found = start_problems::find(&loaded.config, &root, log.as_deref(), runs);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            found.extend(runtime.block_on(start_problems::in_database(&loaded.config, runs)));
            let (warnings, problems): (Vec<_>, Vec<_>) =
                found.into_iter().partition(StartProblem::is_warning);
            let with_remedy = |it: &StartProblem| format!("{it}\n    -> {}", it.remedy());
            for warning in &warnings {
                complain(format_args!("warning: {}", with_remedy(warning)));
            }
            if !problems.is_empty() {
                return refused(problems.iter().map(with_remedy).collect());
            }
            say("The configuration is right.")?;
            return Ok(());
        }
        let mut section = "";
        for (of, key, value, source) in loaded.values() {
            if of != section {
                say(format_args!("{of}:"))?;
                section = of;
            }
            let value = match value {
                Value::Null => "null".to_owned(),
                other => other.to_string(),
            };
            say(format_args!("  {key}: {value}  # {source}"))?;
        }
        Ok(())
    }
}

fn refused(problems: Vec<String>) -> anyhow::Result<()> {
    let count = match problems.len() {
        1 => "1 problem was found".to_owned(),
        count => format!("{count} problems were found"),
    };
    let lines = problems.iter().map(|problem| format!("\n  {problem}"));
    anyhow::bail!("{count}:{}", lines.collect::<String>())
}
