//! Finds the service that uses the data directory, or starts one in this process, for `farcall up`.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::RawFd;
use std::time::Duration;

use anyhow::Context as _;
use daemon::stop::{self, Stop, Trigger};
use serde_json::Value;
use tokio::task::JoinHandle;

use super::UpOptions;
use crate::http::listeners::ListenError;
use crate::operate::config::{self, Config, Setting, Source};
use crate::operate::data_directory::{Directory, DirectoryError};
use crate::operate::serve::{ServeError, Service};

/// How long a service that has the lock may take to write its addresses.
const ADDRESSES_TIMEOUT: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The service's addresses on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceAddresses {
    pub http: SocketAddr,
    pub amqp: SocketAddr,
}

/// A running service.
#[derive(Debug)]
pub struct Running {
    addresses: ServiceAddresses,
    ours: Option<OwnService>,
}

#[derive(Debug)]
struct OwnService {
    trigger: Trigger,
    task: JoinHandle<()>,
    sockets: Vec<RawFd>,
}

impl Running {
    pub(super) async fn find_or_start(directory: &Directory, options: &UpOptions) -> anyhow::Result<Running> {
        match start(directory, options).await {
            Ok(running) => Ok(running),
            Err(error) if holds_the_lock(&error) => find(directory).await,
            Err(error) => Err(error),
        }
    }

    pub fn addresses(&self) -> ServiceAddresses {
        self.addresses
    }

    pub fn is_ours(&self) -> bool {
        self.ours.is_some()
    }

    /// The sockets on which it listens, if it runs in this process.
    pub(super) fn sockets(&self) -> &[RawFd] {
        self.ours.as_ref().map_or(&[], |ours| &ours.sockets)
    }

    pub(super) async fn stop(self) {
        if let Some(OwnService { trigger, task, .. }) = self.ours {
            trigger.begin();
            if task.await.is_err() {
                tracing::error!("the service's task panicked");
            }
        }
    }
}

fn holds_the_lock(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(ServeError::Directory(DirectoryError::InUse(_))))
}

async fn start(directory: &Directory, options: &UpOptions) -> anyhow::Result<Running> {
    let (trigger, stop) = stop::channel();
    let service = match open(directory, options.http_listen, options.amqp_listen, stop.clone()).await {
        // The usual ports are in use and were not asked for: take free ones.
        Err(error)
            if port_taken(&error) && options.http_listen.is_none() && options.amqp_listen.is_none() =>
        {
            let free = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
            open(directory, free, free, stop.clone()).await?
        }
        other => other?,
    };
    let listening = service.addresses();
    let of = |name: &str| listening.first(name).with_context(|| format!("{name} is not spoken without TLS"));
    let addresses = ServiceAddresses { http: of("http")?, amqp: of("amqp")? };
    tracing::info!(http = %addresses.http, amqp = %addresses.amqp, "the service is ready");
    let sockets = service.sockets();
    let task = tokio::spawn(service.run(stop));
    Ok(Running { addresses, ours: Some(OwnService { trigger, task, sockets }) })
}

async fn open(
    directory: &Directory,
    http: Option<SocketAddr>,
    amqp: Option<SocketAddr>,
    stop: Stop,
) -> anyhow::Result<Service> {
    let mut settings = config::from_environment(std::env::vars());
    for (section, address) in [("http", http), ("amqp", amqp)] {
        settings.extend(address.map(|address| Setting {
            section: section.to_owned(),
            key: "listen".to_owned(),
            value: Value::String(address.to_string()),
            source: Source::Flag(format!("--{section}-listen")),
        }));
    }
    let mut config = Config::load(&directory.configuration(), settings)?.config;
    name_the_broker(&mut config);
    Ok(Service::open(directory.clone(), config, stop).await?)
}

/// Has clients and endpoints told the address that the broker listens on, if it is a single one. By default they are told the
/// host at which their HTTP request arrived, where another user's program may listen on the broker's port.
fn name_the_broker(config: &mut Config) {
    let [address] = config.amqp.listen.0[..] else { return };
    // With TLS the name must be that of the certificate.
    if config.amqp.public_host.is_none()
        && config.amqp.tls_listen.0.is_empty()
        && !address.ip().is_unspecified()
    {
        config.amqp.public_host = Some(match address {
            SocketAddr::V4(address) => address.ip().to_string(),
            SocketAddr::V6(address) => format!("[{}]", address.ip()),
        });
    }
}

fn port_taken(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(ServeError::Listener(ListenError { error, .. })) if error.kind() == io::ErrorKind::AddrInUse)
}

/// Reads the addresses of the service that uses the data directory; it may have just started.
async fn find(directory: &Directory) -> anyhow::Result<Running> {
    let path = directory.addresses();
    let said = async {
        loop {
            match std::fs::read_to_string(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => tokio::time::sleep(LOOK_AGAIN).await,
                said => return said,
            }
        }
    };
    let text = tokio::time::timeout(ADDRESSES_TIMEOUT, said)
        .await
        .context("another farcall process uses the data directory and has not written its addresses")?
        .with_context(|| format!("cannot read {}", path.display()))?;
    let addresses = read(&text).with_context(|| format!("{} is not understood", path.display()))?;
    Ok(Running { addresses, ours: None })
}

fn read(text: &str) -> anyhow::Result<ServiceAddresses> {
    let document: Value = serde_json::from_str(text)?;
    let address = |name: &str, scheme: &str| {
        let text = document[name].as_str().and_then(|text| text.strip_prefix(scheme)).unwrap_or_default();
        text.parse::<SocketAddr>().with_context(|| format!("{name} is no address"))
    };
    Ok(ServiceAddresses { http: address("http", "http://")?, amqp: address("amqp", "amqp://")? })
}
