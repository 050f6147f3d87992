//! The command `farcall serve`: runs the service.

use std::net::SocketAddr;

use clap::Args;
use daemon::logging::{self, Destination, Form, Logging};
use nix::sys::resource::{Resource, getrlimit};

use super::console::say;
use super::{DataDirectory, Settings};
use crate::limits::Limits;
use crate::operate::config::LogForm;
use crate::operate::data_directory::Directory;
use crate::operate::serve::Service;

#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    directory: DataDirectory,
    /// Where to listen for HTTP; port 0 takes a free one. Short for --set http.listen=ADDRESS.
    #[arg(long, value_name = "ADDRESS")]
    http_listen: Option<SocketAddr>,
    /// Where to listen for AMQP; port 0 takes a free one. Short for --set amqp.listen=ADDRESS.
    #[arg(long, value_name = "ADDRESS")]
    amqp_listen: Option<SocketAddr>,
    /// Log lines as JSON. Short for --set log.form=json.
    #[arg(long)]
    log_json: bool,
    #[command(flatten)]
    settings: Settings,
}

impl Serve {
    pub(super) fn run(mut self) -> anyhow::Result<()> {
        let directory = Directory::prepare(&self.directory.data_dir)?;
        for (section, address) in [("http", self.http_listen), ("amqp", self.amqp_listen)] {
            self.settings.set.extend(address.map(|address| format!("{section}.listen={address}")));
        }
        if self.log_json {
            self.settings.set.push("log.form=json".to_owned());
        }
        let mut config = self.settings.load(&directory.configuration())?.config;
        let form = match config.log.form {
            LogForm::Text => Form::Text,
            LogForm::Json => Form::Json,
        };
        logging::start(Logging { form, directives: &config.log.filter, destination: Destination::Stderr })?;
        let _raised = daemon::open_files::raise();
        fit_descriptors(&mut config.limits);
        tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
            let (_trigger, stop) = daemon::stop::on_signals()?;
            let service = Service::open(directory, config, stop.clone()).await?;
            if let Err(error) = say(format_args!("farcall is ready: {}", service.addresses())) {
                tracing::warn!(%error, "could not print that the service is ready");
            }
            daemon::ready::serving();
            let stopping = stop.clone();
            tokio::spawn(async move {
                stopping.begun().await;
                daemon::ready::stopping();
            });
            Box::pin(service.run(stop)).await;
            Ok(())
        })
    }
}

/// Lowers the limits of connections to the number of files that this process may open.
fn fit_descriptors(limits: &mut Limits) {
    let Ok((descriptors, _)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    if limits.fit(usize::try_from(descriptors).unwrap_or(usize::MAX)) {
        let (http_connections, amqp_connections) = (limits.http_connections, limits.amqp_connections);
        tracing::warn!(
            descriptors,
            http_connections,
            amqp_connections,
            "lowered the limits of connections: this process may not open as many files as they need; raise that \
             (LimitNOFILE in the unit, ulimit -n)"
        );
    }
}
