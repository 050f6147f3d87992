//! `farcall env`: what a client must set, for `eval "$(farcall env URL)"`.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use serde_json::Value;

use super::console::write;
use crate::client_environment::Reach;
use crate::directory::Directory;

#[derive(Debug, Args)]
pub(super) struct Env {
    /// Where clients reach the service, such as `https://compute.example.org`; without it, where the service of the data
    /// directory listens.
    url: Option<String>,
    /// On the client's machine: the certificate of the private authority that has signed the service's.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The data directory of a service that runs on this machine.
    #[arg(long, env = "FARCALL_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl Env {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let url = match (self.url, &self.data_dir) {
            (Some(url), _) => url,
            (None, Some(directory)) => {
                let path = Directory::open(directory)?.addresses();
                let text = std::fs::read_to_string(&path)
                    .with_context(|| format!("cannot read {}: does the service run?", path.display()))?;
                let addresses: Value = serde_json::from_str(&text)?;
                let url = addresses["http"].as_str().or(addresses["https"].as_str());
                url.context("the service does not say where it listens for HTTP")?.to_owned()
            }
            (None, None) => anyhow::bail!("give the service's URL or its data directory"),
        };
        let mut reach = Reach::parse(&url)?;
        reach.authority = self.ca.map(std::path::absolute).transpose()?;
        write(reach.variables().script())?;
        Ok(())
    }
}
