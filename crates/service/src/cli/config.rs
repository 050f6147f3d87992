//! `farcall config …`: what the service would run with, and whether it could.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::console::say;
use super::{DataDirectory, Settings};
use crate::directory;

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
        let root = directory::existing(&common.directory.data_dir)?;
        let file = root.join("farcall.yaml");
        let loaded = common.settings.load(&file)?;
        if !print {
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
