//! `farcall connect`: a forwarder on the client's own machine, between the stock SDK and a service elsewhere.
//!
//! The SDK knows one address of a service of one's own, and reaches any other through `http_proxy`; of a proxy its HTTP
//! library verifies no certificate. So the proxy is here, on the loopback, and the way from here to the service is inside
//! TLS that is verified.
//!
//! ```text
//! SDK --http_proxy, this run's password--> http   --TLS, verified--> service      requests for http://localhost:5000
//!                                                 -----------------> other hosts  without credentials, or as a tunnel
//! SDK --amqp://127.0.0.1:PORT-----------> amqp   --TLS, verified--> its broker   bytes
//! ```
//!
//! It listens on the loopback only. Nobody gets anything from the proxy without the password, which is made anew for each
//! run; no password and no `Authorization` ever goes to another host than the service. What listens may hand its port to
//! the command that runs meanwhile, so that nobody else can take it while that command lives.
//!
//! | file | knows |
//! |---|---|
//! | `trust` | whom we believe |
//! | `far` | the service: connections to it, whether it is away |
//! | `target` | where a request wants to go, and what may go along |
//! | `http`, `amqp` | what is done for one connection |

mod amqp;
mod far;
mod http;
mod target;
mod trust;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd as _, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

pub use far::FarError;
pub use trust::TrustError;

use crate::client_side::environment::{Reach, Variables};
use far::Far;
use store::secret::{self, Hash};

/// The user in `http_proxy`. The password is what counts.
const USER: &str = "farcall";
/// Connections at a time; further ones wait.
const HTTP_CONNECTIONS: usize = 512;
const AMQP_CONNECTIONS: usize = 128;

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("cannot listen on this machine's loopback: {0}")]
    Listen(#[from] io::Error),
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error(transparent)]
    Far(#[from] FarError),
}

/// Tells the user something, in one line.
pub type Say = fn(&str);

/// A forwarder that listens, and has reached the service once.
pub struct Forwarder {
    http: TcpListener,
    amqp: TcpListener,
    near: Near,
    password: String,
    near_at: SocketAddr,
    reach: Reach,
}

/// What the connections share.
#[derive(Clone)]
struct Near {
    far: Arc<Far>,
    password: Hash,
    amqp_port: u16,
}

impl Forwarder {
    /// Listens, and reaches the service: whom we can't believe, or don't find, is told at once.
    pub async fn open(reach: Reach, authority: Option<&Path>, say: Say) -> Result<Forwarder, ConnectError> {
        let far = Arc::new(Far::new(&reach, trust::configuration(authority)?, say)?);
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (http, amqp) = (TcpListener::bind(free).await?, TcpListener::bind(free).await?);
        let amqp_port = amqp.local_addr()?.port();
        far.greet(amqp_port).await?;
        let (password, near_at) = (secret::fresh(), http.local_addr()?);
        let near = Near { far, password: Hash::of(&password), amqp_port };
        Ok(Forwarder { http, amqp, near, password, near_at, reach })
    }

    /// What a client needs in its environment.
    pub fn variables(&self) -> Variables {
        let proxy = format!("http://{USER}:{}@{}", self.password, self.near_at);
        self.reach.through(proxy)
    }

    /// The sockets that listen, for a child to hold: see [`hold`].
    pub fn sockets(&self) -> [RawFd; 2] {
        [self.http.as_raw_fd(), self.amqp.as_raw_fd()]
    }

    /// Serves for ever.
    pub async fn run(self) {
        let mut serving = JoinSet::new();
        let Forwarder { http, amqp, near, .. } = self;
        let by_http = near.clone();
        serving.spawn(accept(http, HTTP_CONNECTIONS, move |stream| http::serve(stream, by_http.clone())));
        serving.spawn(accept(amqp, AMQP_CONNECTIONS, move |stream| amqp::serve(stream, near.clone())));
        // Neither ends, unless it breaks: then the other has no use.
        serving.join_next().await;
    }
}

async fn accept<F: Future<Output = ()> + Send + 'static>(
    socket: TcpListener,
    connections: usize,
    serve: impl Fn(TcpStream) -> F,
) {
    let room = Arc::new(Semaphore::new(connections));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        match socket.accept().await {
            Ok((stream, _)) => {
                // A small request must not wait for more.
                let _ = stream.set_nodelay(true);
                tokio::spawn(with(permit, serve(stream)));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn with(permit: OwnedSemaphorePermit, serving: impl Future<Output = ()>) {
    serving.await;
    drop(permit);
}

/// Makes the command hold the sockets, and die when this process does: nobody else can take the ports while it lives, and
/// it does not live without us.
pub fn hold(command: &mut tokio::process::Command, sockets: [RawFd; 2]) {
    let parent = nix::unistd::getpid();
    let prepare = move || {
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
        if nix::unistd::getppid() != parent {
            return Err(io::Error::other("farcall connect has ended"));
        }
        for socket in sockets {
            // SAFETY: the descriptors are open in this process, of which the child is a copy; fcntl is safe after a fork.
            if unsafe { nix::libc::fcntl(socket, nix::libc::F_SETFD, 0) } == -1 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: only system calls, and no allocation unless it fails.
    unsafe { command.pre_exec(prepare) };
}
