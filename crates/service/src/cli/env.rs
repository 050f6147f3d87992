//! The command `farcall env`: prints what a client must set, for `eval "$(farcall env URL)"`. It recommends nothing by which
//! tokens could be stolen on the way, unless told to.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use serde_json::Value;

use super::console::write;
use crate::client_side::environment::{Proxies, ServiceUrl};
use crate::operate::data_directory::Directory;

#[derive(Debug, Args)]
pub(super) struct Env {
    /// Where clients reach the service, such as `http://localhost:5000`; without it, where the service of the data
    /// directory listens.
    url: Option<String>,
    /// On the client's machine: the certificate of the private authority that has signed the service's.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Recommend a way on which anybody between here and the service can read and use the client's tokens.
    #[arg(long)]
    insecure: bool,
    /// The data directory of a service that runs on this machine.
    #[arg(long, env = "FARCALL_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl Env {
    pub(super) fn run(self) -> anyhow::Result<()> {
        // Of a service on this machine nothing leaves it.
        let mut here = false;
        let url = match (self.url, &self.data_dir) {
            (Some(url), _) => url,
            (None, Some(directory)) => {
                let path = Directory::open(directory)?.addresses();
                let text = std::fs::read_to_string(&path)
                    .with_context(|| format!("cannot read {}: does the service run?", path.display()))?;
                let addresses: Value = serde_json::from_str(&text)?;
                here = addresses["http"].is_string();
                let url = addresses["http"].as_str().or(addresses["https"].as_str());
                url.context("the service does not say where it listens for HTTP")?.to_owned()
            }
            (None, None) => anyhow::bail!("give the service's URL or its data directory"),
        };
        let mut reach = ServiceUrl::parse(&url)?;
        if !here && !reach.is_safe_without_a_forwarder() && !self.insecure {
            anyhow::bail!(refusal(&reach));
        }
        reach.authority = self.ca.map(std::path::absolute).transpose()?;
        write(reach.variables(&Proxies::here()).script())?;
        Ok(())
    }
}

fn refusal(reach: &ServiceUrl) -> String {
    let url = reach.base();
    let why = match reach.tls() {
        true => "the SDK reaches it as a proxy, and its HTTP library verifies no proxy's certificate",
        false => "the SDK reaches it without TLS",
    };
    let instead = match reach.tls() {
        true => format!("farcall connect {url} -- COMMAND"),
        false => "farcall connect https://… -- COMMAND, where the service has TLS".to_owned(),
    };
    format!(
        "no variables lead the SDK safely to {url}: {why}, so anybody in between can take its tokens. Run the program by \
         `{instead}`; or, if you trust everybody in between, add --insecure"
    )
}
