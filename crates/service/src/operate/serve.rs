//! `farcall serve`: opens the data directory, builds the service, reports where it listens, and runs until it is stopped.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use daemon::stop::{Stage, Stop};

use crate::dispatch::{Dispatch, DispatchError};
use crate::http::broker_address::BrokerAddress;
use crate::http::certificates::{CertificateError, Certificates, Files};
use crate::http::listeners::{self, Acceptor, ListenError, Listener, Protocols};
use crate::http::server::Server;
use crate::metrics::Metrics;
use crate::operate::administration;
use crate::operate::administration::Administration;
use crate::operate::config::{Config, Tls};
use crate::operate::data_directory::{Directory, DirectoryError};
use crate::operate::database::{self, DatabaseError};
use crate::operate::health::{self, Health};
use crate::rest;
use crate::rest::{App, BodyRoom, SubmitAnswers};
use crate::tasks::presence::Presence;
use crate::tasks::retention::Retention;
use crate::user_endpoint::forgetting::Forgetting;
use crate::user_endpoint::supervisor::Supervisor;
use crate::user_endpoint::{Starter, Starts};
use identity::Identity;
use identity::audit::Initiator;
use identity::fair_shares::Shares;
use identity::http::host_names::Names;
use identity::providers::Upstreams;
use identity::providers::settings::SettingsError;
use identity::rates::RateLimiter;
use identity::web::Web;
use store::Store;
use store::private_file;

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error(transparent)]
    Dispatch(#[from] DispatchError),
    #[error(transparent)]
    Listener(#[from] ListenError),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error(transparent)]
    Upstreams(#[from] SettingsError),
    #[error("cannot write {path}: {error}")]
    Write { path: String, error: io::Error },
    #[error("cannot administer through {path}: {error}")]
    Admin { path: String, error: io::Error },
}

/// How long the last acknowledgements may take to reach the store.
const FINISH: Duration = Duration::from_secs(3);
/// How long open work may take after a second stop signal.
const HURRY: Duration = Duration::from_millis(500);

/// Where the running service listens: protocol and address, the most common first. The first of each protocol is the
/// content of `addresses.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses(Vec<(&'static str, SocketAddr)>);

impl Addresses {
    fn of(listeners: &[Listener]) -> Addresses {
        type Kind = (&'static str, fn(Protocols) -> bool);
        let kinds: [Kind; 5] = [
            ("http", |it| it.http),
            ("amqp", |it| it.amqp),
            ("https", |it| it.https),
            ("amqps", |it| it.amqps),
            ("metrics", |it| it.metrics),
        ];
        let of = |(name, speaks): Kind| {
            let spoken = listeners.iter().filter(move |listener| speaks(listener.spoken));
            spoken.map(move |listener| (name, listener.address))
        };
        Addresses(kinds.into_iter().flat_map(of).collect())
    }

    /// The first address for `protocol`.
    pub fn first(&self, protocol: &str) -> Option<SocketAddr> {
        self.0.iter().find(|(name, _)| *name == protocol).map(|(_, address)| *address)
    }

    fn json(&self) -> serde_json::Value {
        let url = |(name, address): &(&str, SocketAddr)| {
            let scheme = if *name == "metrics" { "http" } else { name };
            ((*name).to_owned(), format!("{scheme}://{address}").into())
        };
        let first = self
            .0
            .iter()
            .enumerate()
            .filter(|(at, (name, _))| !self.0[..*at].iter().any(|(earlier, _)| earlier == name));
        serde_json::Value::Object(first.map(|(_, it)| url(it)).collect())
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, address)) in self.0.iter().enumerate() {
            let blank = if at == 0 { "" } else { " " };
            write!(f, "{blank}{name}://{address}")?;
        }
        Ok(())
    }
}

/// A service that listens and is about to run.
pub struct Service {
    addresses: Addresses,
    retention: Retention,
    forgetting: Forgetting,
    supervisor: Supervisor,
    store: Store,
    dispatch: Dispatch,
    listeners: Vec<Listener>,
    acceptor: Acceptor,
    certificates: Option<Certificates>,
    broker: broker::Broker,
    admin: administration::Server,
    health: Health,
    directory: Directory,
    _lock: crate::operate::data_directory::Lock,
}

/// The files of the certificate, if there is to be one.
pub fn certificate_files(tls: &Tls, directory: &Path) -> Option<Files> {
    let (certificate, key) = (tls.certificate.as_ref()?, tls.key.as_ref()?);
    Some(Files { certificate: directory.join(certificate), key: directory.join(key) })
}

impl Service {
    /// Takes the data directory and the ports. Clients may connect as soon as this returns, and are served by `run`.
    pub async fn open(directory: Directory, config: Config, stop: Stop) -> Result<Service, ServeError> {
        let lock = directory.lock()?;
        let certificates =
            certificate_files(&config.tls, directory.root()).map(Certificates::open).transpose()?;
        let listeners = listeners::open(super::listen_plan::plan(&config)).await?;
        database::check_recorded(directory.root(), &config.store)?;
        let store =
            database::open(&directory, &config.store).await?.with_files_from(config.limits.file_from_bytes);
        let address = database::address(&directory, &config.store).map_err(DatabaseError::Url)?;
        database::record(&directory, &address)?;
        let identity = Identity::new(store.clone(), directory.keys());
        let presence = Presence::new(&config.limits);
        let metrics = Metrics::default();
        let starts = Starts::default();
        let (dispatch, broker) = Dispatch::open(
            store.clone(),
            presence.clone(),
            Arc::new(starts.clone()),
            metrics.clone(),
            &config.limits,
        )
        .await?;
        let most = config.limits.endpoints_per_identity;
        let starter =
            Starter { store: store.clone(), dispatch: dispatch.clone(), starts: starts.clone(), most };
        let supervisor = Supervisor::new(starter, presence.clone(), config.limits.restarts);
        let broker_address = broker_address(&config, &listeners);
        let app = App {
            store: store.clone(),
            identity: identity.clone(),
            presence: presence.clone(),
            dispatch: dispatch.clone(),
            starts: starts.clone(),
            bodies: BodyRoom::new(&config.limits, &directory.payloads()),
            new_endpoints: RateLimiter::new(
                1,
                config.limits.endpoints_per_identity.saturating_mul(2).saturating_add(100),
            ),
            rates: RateLimiter::new(config.limits.requests_per_second, config.limits.requests_at_once),
            requests_at_once: Shares::new(config.limits.http_connections / 2),
            submit_answers: SubmitAnswers::new(store.clone()),
            unread_answers: rest::UnreadAnswers::new(&config.limits),
            result_credentials: rest::ResultCredentials::default(),
            supervisor: supervisor.clone(),
            limits: config.limits,
            amqp: broker_address.clone(),
            metrics: metrics.clone(),
        };
        let health = Health::new(store.clone(), dispatch.clone(), presence.clone(), metrics.clone(), stop);
        let inside = health::router(health.clone()).fallback(rest::nowhere);
        let listening = listeners.iter().filter(|listener| listener.spoken.http || listener.spoken.https);
        let names = Names::new(listening.map(|listener| listener.address), &config.http.public_names);
        let upstreams = Upstreams::new(&config.identity)?;
        let web = Web::new(identity.clone(), upstreams, names.clone(), &config.identity.site_name);
        let router = rest::router(app)
            .merge(identity::routes::router(identity.clone()))
            .merge(identity::web::router(web))
            .merge(health::router(health.clone()))
            .fallback(rest::nowhere);
        // The server sets the operator of each request.
        let by = Initiator::Operator { uid: nix::unistd::getuid().as_raw() };
        let administration =
            Administration { identity: identity.clone(), dispatch: Some(dispatch.clone()), by };
        let admin =
            administration::Server::open(&directory.admin_socket(), administration).map_err(|error| {
                ServeError::Admin { path: directory.admin_socket().display().to_string(), error }
            })?;
        // In the background: the first start generates the signing key, which takes seconds.
        tokio::spawn(async move {
            if let Err(error) = identity.keys().ring().await {
                tracing::error!(%error, "there is no signing key: logins that need an id token fail");
            }
        });
        if !store.has_accounts().await.map_err(DatabaseError::from)? {
            welcome(&directory);
        }
        let addresses = Addresses::of(&listeners);
        publish(&directory.addresses(), &addresses)?;
        let server = Server::new(router, inside, names, broker_address, metrics, &config.limits);
        let acceptor = Acceptor::new(
            server,
            dispatch.broker().clone(),
            certificates.as_ref().map(Certificates::server),
            &config.limits,
        );
        let retention = Retention {
            store: store.clone(),
            ender: dispatch.ender().clone(),
            presence: presence.clone(),
            limits: config.limits,
        };
        let forgetting = Forgetting {
            store: store.clone(),
            dispatch: dispatch.clone(),
            starts,
            presence,
            life: config.limits.user_endpoint_life(),
        };
        Ok(Service {
            addresses,
            retention,
            forgetting,
            supervisor,
            store,
            dispatch,
            listeners,
            acceptor,
            certificates,
            broker,
            admin,
            health,
            directory,
            _lock: lock,
        })
    }

    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The sockets that listen, open for as long as the service runs.
    pub fn sockets(&self) -> Vec<RawFd> {
        self.listeners.iter().map(AsRawFd::as_raw_fd).collect()
    }

    /// Serves until `stop` begins: then accepts nothing more, finishes open work, and closes the store. A second signal
    /// abandons open work.
    pub async fn run(self, stop: Stop) {
        for listener in self.listeners {
            let (acceptor, stop) = (self.acceptor.clone(), stop.clone());
            tokio::spawn(async move { acceptor.serve(listener, stop).await });
        }
        let health = self.health;
        let watchdog = tokio::spawn(daemon::ready::feed_watchdog(move || {
            let health = health.clone();
            async move { health.stop.stage() != Stage::Running || health.works().await }
        }));
        let begun = stop.clone();
        let working = async {
            let certificates = async {
                if let Some(certificates) = &self.certificates {
                    certificates.watch(stop.clone()).await;
                }
            };
            tokio::join!(
                self.acceptor.server.finish(stop.clone()),
                self.broker.run(Vec::new(), async move { begun.begun().await }),
                self.admin.run(stop.clone()),
                self.retention.run(stop.clone()),
                self.forgetting.run(stop.clone()),
                self.supervisor.run(stop.clone()),
                certificates,
            );
        };
        let hurried = async {
            stop.hurried().await;
            tokio::time::sleep(HURRY).await;
        };
        tokio::select! {
            () = working => {}
            () = hurried => tracing::warn!("second stop signal: abandoned open work"),
        }
        if tokio::time::timeout(FINISH, self.dispatch.finish()).await.is_err() {
            tracing::warn!("could not store all acknowledgements in time: their messages will be sent again");
        }
        self.store.close().await;
        watchdog.abort();
        for left in [self.directory.addresses(), self.directory.admin_socket()] {
            if let Err(error) = std::fs::remove_file(&left) {
                tracing::debug!(%error, path = %left.display(), "could not remove a file");
            }
        }
    }
}

/// Logs what the operator of a new service should do next.
fn welcome(directory: &Directory) {
    let data = directory.root().display();
    tracing::info!("nobody can log in yet; what to do next, in another terminal:");
    tracing::info!(
        "  farcall user add NAME@DOMAIN --administrator --data-dir {data}    (a person; asks for a password)"
    );
    tracing::info!("  farcall client add NAME --data-dir {data}    (a program; prints its id and secret)");
}

/// The broker's address for clients: what is configured, and the ports that were opened.
fn broker_address(config: &Config, listeners: &[Listener]) -> BrokerAddress {
    let port = |speaks: fn(Protocols) -> bool| {
        listeners.iter().find(|listener| speaks(listener.spoken)).map(|listener| listener.address.port())
    };
    BrokerAddress {
        host: config.amqp.public_host.clone(),
        port: config.amqp.public_port,
        tls: config.amqp.public_tls,
        plain_port: port(|it| it.amqp),
        tls_port: port(|it| it.amqps),
    }
}

/// Writes `addresses.json`, for other commands on this machine.
fn publish(path: &Path, addresses: &Addresses) -> Result<(), ServeError> {
    private_file::write(path, format!("{}\n", addresses.json()).as_bytes())
        .map_err(|error| ServeError::Write { path: path.display().to_string(), error })
}
