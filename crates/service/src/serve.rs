//! `farcall serve`: opens the data directory, builds the parts, says where it listens, runs until it is stopped.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use axum::Router;
use broker::Listener;
use daemon::stop::Stop;
use tokio::net::TcpListener;

use crate::admin::Administration;
use crate::config::Config;
use crate::directory::{Directory, DirectoryError};
use crate::identity::Identity;
use crate::origin::Names;
use crate::post::url::Outside;
use crate::post::{Post, PostError};
use crate::presence::Presence;
use crate::rest::{Answers, App, Rates, Room};
use crate::retention::Retention;
use crate::store::{Store, StoreError};
use crate::{admin, front, identity, rest};

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Post(#[from] PostError),
    #[error("cannot listen on {address}: {error}")]
    Listen { address: SocketAddr, error: io::Error },
    #[error("cannot write {path}: {error}")]
    Write { path: String, error: io::Error },
    #[error("cannot administer through {path}: {error}")]
    Admin { path: String, error: io::Error },
}

/// How long the last acknowledgements may take to reach the store.
const FINISH: Duration = Duration::from_secs(3);

/// Where the running service listens; the content of `addresses.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    pub http: SocketAddr,
    pub amqp: SocketAddr,
}

/// A service that listens and is about to run.
pub struct Service {
    addresses: Addresses,
    retention: Retention,
    store: Store,
    post: Post,
    http: TcpListener,
    names: Names,
    router: Router,
    amqp: TcpListener,
    broker: broker::Broker,
    admin: admin::Server,
    directory: Directory,
    _lock: crate::directory::Lock,
}

impl Service {
    /// Takes the data directory and the ports. Clients may connect as soon as this returns, and are served by `run`.
    pub async fn open(directory: Directory, config: Config) -> Result<Service, ServeError> {
        let lock = directory.lock()?;
        let (http, http_address) = listen(config.http.listen).await?;
        let (amqp, amqp_address) = listen(config.amqp.listen).await?;
        let addresses = Addresses { http: http_address, amqp: amqp_address };
        let store = Store::open(&directory.database()).await?.with_files_from(config.limits.file_from_bytes);
        let identity = Identity::new(store.clone(), directory.keys());
        let presence = Presence::default();
        let (post, broker) = Post::open(store.clone(), presence.clone()).await?;
        let app = App {
            store: store.clone(),
            identity: identity.clone(),
            presence: presence.clone(),
            post: post.clone(),
            room: Room::new(&config.limits),
            rates: Rates::new(&config.limits),
            answers: Answers::new(store.clone()),
            limits: config.limits,
            amqp: Outside {
                host: config.amqp.public_host.clone(),
                plain_port: Some(amqp_address.port()),
                ..Outside::default()
            },
        };
        let router =
            rest::router(app).merge(identity::routes::router(identity.clone())).fallback(rest::nowhere);
        let administration = Administration { identity: identity.clone(), post: Some(post.clone()) };
        let admin = admin::Server::open(&directory.admin_socket(), administration).map_err(|error| {
            ServeError::Admin { path: directory.admin_socket().display().to_string(), error }
        })?;
        // The first start makes the signing key, which takes longer than a start may take.
        tokio::spawn(async move {
            if let Err(error) = identity.keys().ring().await {
                tracing::error!(%error, "there is no signing key, id tokens cannot be made");
            }
        });
        if !store.anybody().await? {
            welcome(&directory);
        }
        publish(&directory.addresses(), addresses)?;
        let names = Names::new(http_address, &config.http.public_names);
        let retention =
            Retention { store: store.clone(), post: post.clone(), presence, limits: config.limits };
        Ok(Service {
            addresses,
            retention,
            store,
            post,
            http,
            names,
            router,
            amqp,
            broker,
            admin,
            directory,
            _lock: lock,
        })
    }

    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Serves until `stop` begins: then accepts nothing more, finishes what is open, and closes the store.
    pub async fn run(self, stop: Stop) {
        let amqp = vec![Listener { socket: self.amqp, tls: None }];
        let begun = stop.clone();
        tokio::join!(
            front::serve(self.http, self.router, self.names, stop.clone()),
            self.broker.run(amqp, async move { begun.begun().await }),
            self.admin.run(stop.clone()),
            self.retention.run(stop),
        );
        if tokio::time::timeout(FINISH, self.post.finish()).await.is_err() {
            tracing::warn!("acknowledgements were not written in time: what they are of is sent again");
        }
        self.store.close().await;
        for left in [self.directory.addresses(), self.directory.admin_socket()] {
            if let Err(error) = std::fs::remove_file(&left) {
                tracing::debug!(%error, path = %left.display(), "nothing to remove");
            }
        }
    }
}

/// Tells the operator of a fresh service what to do next.
fn welcome(directory: &Directory) {
    let data = directory.root().display();
    tracing::info!("nobody can log in yet; what to do next, in another terminal:");
    tracing::info!(
        "  farcall user add NAME@DOMAIN --administrator --data-dir {data}    (a person; asks for a password)"
    );
    tracing::info!("  farcall client add NAME --data-dir {data}    (a program; prints its id and secret)");
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServeError> {
    let refused = |error| ServeError::Listen { address, error };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    Ok((listener, bound))
}

/// Writes the addresses where others look for them, whole or not at all.
fn publish(path: &Path, addresses: Addresses) -> Result<(), ServeError> {
    let text = serde_json::json!({
        "http": format!("http://{}", addresses.http),
        "amqp": format!("amqp://{}", addresses.amqp),
    });
    let unfinished = path.with_extension("new");
    let write = || {
        let mut file = std::fs::File::create(&unfinished)?;
        writeln!(file, "{text}")?;
        std::fs::rename(&unfinished, path)
    };
    write().map_err(|error| ServeError::Write { path: path.display().to_string(), error })
}
