//! `farcall serve`.

use std::net::SocketAddr;

use clap::Args;
use daemon::logging::{self, Form, Logging};
use serde_json::Value;

use super::DataDirectory;
use crate::config::{self, Config, Setting};
use crate::directory::Directory;
use crate::serve::Service;

#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    directory: DataDirectory,
    /// Where to listen for HTTP; port 0 takes a free one [default: 127.0.0.1:5000].
    #[arg(long, value_name = "ADDRESS")]
    http_listen: Option<SocketAddr>,
    /// Where to listen for AMQP; port 0 takes a free one [default: 127.0.0.1:5672].
    #[arg(long, value_name = "ADDRESS")]
    amqp_listen: Option<SocketAddr>,
    /// Log lines as JSON.
    #[arg(long)]
    log_json: bool,
}

impl Serve {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let form = if self.log_json { Form::Json } else { Form::Text };
        logging::start(Logging { form, directives: "info", file: None })?;
        let directory = Directory::prepare(&self.directory.data_dir)?;
        let mut settings = config::from_environment(std::env::vars())?;
        for (section, address) in [("http", self.http_listen), ("amqp", self.amqp_listen)] {
            settings.extend(address.map(|address| Setting {
                section: section.to_owned(),
                key: "listen".to_owned(),
                value: Value::String(address.to_string()),
            }));
        }
        let config = Config::load(&directory.configuration(), settings)?;
        tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
            let (_trigger, stop) = daemon::stop::on_signals()?;
            let service = Service::open(directory, config).await?;
            let addresses = service.addresses();
            println!("farcall is ready: http://{} amqp://{}", addresses.http, addresses.amqp);
            daemon::ready::serving();
            let stopping = stop.clone();
            tokio::spawn(async move {
                stopping.begun().await;
                daemon::ready::stopping();
            });
            service.run(stop).await;
            Ok(())
        })
    }
}
