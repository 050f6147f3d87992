//! From the command `start` to a running endpoint.
//!
//! ```text
//! start ── in the background ──► spawns `start --report-fd`, waits for its word, leaves
//!   │                                  │
//!   └── in the foreground ─────────────┴──► setup ──► exec `_run`, with all it needs on standard input
//! ```
//!
//! Setup registers last, so nothing is registered that could not work. The running process is a fresh image of this
//! program under the endpoint's title; no process is ever forked while threads run.

mod background;
mod document;
mod registration;
mod setup;

use std::os::fd::{FromRawFd as _, OwnedFd};

use wire::EndpointId;
use wire::start::StartDocument;

use crate::config::Config;
use crate::directory::{Base, EndpointDir, unwritable};
use crate::exit::{Failure, Outcome, status};
use crate::pid::{self, Standing};

pub(crate) use background::{inherit, report};
pub(crate) use setup::{RunDocument, shell};

/// What `start` was asked to do.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) name: String,
    pub(crate) endpoint_uuid: Option<EndpointId>,
    /// Stop when the parent goes away; implies the foreground.
    pub(crate) die_with_parent: bool,
    /// We are the background process of another `start`, which waits for a word on this descriptor.
    pub(crate) report_fd: Option<i32>,
}

/// What is about to run.
struct Launch {
    endpoint: EndpointDir,
    config: Config,
    /// The text the configuration was read from.
    text: String,
    document: Option<StartDocument>,
    request: Request,
}

/// Starts an endpoint. In the foreground this returns only if it could not be started.
pub(crate) fn start(base: &Base, request: Request) -> Outcome {
    // SAFETY: the number comes from the `start` that spawned us and made this descriptor for us alone.
    let report = request.report_fd.map(|number| unsafe { OwnedFd::from_raw_fd(number) });
    let document = document::read(request.die_with_parent)?;
    let rendered = document.as_ref().and_then(|document| document.config.as_deref());
    let (endpoint, config, text) = match rendered {
        Some(text) => {
            let endpoint = base.named(&request.name);
            base.create().map_err(|error| unwritable(endpoint.path(), &error))?;
            endpoint.create().map_err(|error| unwritable(endpoint.path(), &error))?;
            (endpoint, Config::read("the configuration on standard input", text)?, text.to_owned())
        }
        None => {
            let endpoint = base.find(&request.name)?;
            let (config, text) = Config::load(&endpoint)?;
            (endpoint, config, text)
        }
    };
    if let Standing::Alive(pid) = pid::standing(&endpoint.pid_file())
        && pid != nix::unistd::getpid()
    {
        return Err(already_active(&endpoint, &config));
    }
    let launch = Launch { endpoint, config, text, document, request };
    let detach = launch.config.detach_endpoint && !launch.request.die_with_parent;
    match report {
        Some(report) => setup::set_up(launch, Some(report)),
        None if detach => background::spawn(&launch),
        None => setup::set_up(launch, None),
    }
}

fn already_active(endpoint: &EndpointDir, config: &Config) -> Failure {
    let name = config.display_name.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| endpoint.name());
    Failure::new(status::ALREADY_ACTIVE, format!("Endpoint '{name}' is already active"))
}
