//! The commands `farcall endpoint …`: manage every endpoint of the service, whoever owns it.

use clap::Subcommand;

use super::administer::Where;
use crate::operate::administration::request::{EndpointRequest, Request};

#[derive(Debug, Subcommand)]
pub(super) enum EndpointCommand {
    /// List all endpoints.
    List {
        #[command(flatten)]
        at: Where,
    },
    /// Show one endpoint.
    Show {
        /// Its id.
        endpoint: String,
        #[command(flatten)]
        at: Where,
    },
    /// Stop an endpoint from afar: its connections end, and nobody can start it for a while. Its tasks wait.
    Lock {
        endpoint: String,
        /// How long nobody can start it.
        #[arg(long, default_value_t = 60)]
        minutes: u32,
        #[command(flatten)]
        at: Where,
    },
    /// Let an endpoint be started again before its lock is over.
    Unlock {
        endpoint: String,
        #[command(flatten)]
        at: Where,
    },
    /// Drop the tasks that wait for an endpoint: they end with an error that says who did it.
    Drop {
        endpoint: String,
        #[command(flatten)]
        at: Where,
    },
    /// Delete an endpoint: its connections and its open tasks end. Its id stays its owner's.
    Delete {
        endpoint: String,
        #[command(flatten)]
        at: Where,
    },
}

impl EndpointCommand {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let (at, request) = match self {
            EndpointCommand::List { at } => (at, EndpointRequest::List),
            EndpointCommand::Show { endpoint, at } => (at, EndpointRequest::Show { endpoint }),
            EndpointCommand::Lock { endpoint, minutes, at } => {
                (at, EndpointRequest::Lock { endpoint, minutes })
            }
            EndpointCommand::Unlock { endpoint, at } => (at, EndpointRequest::Unlock { endpoint }),
            EndpointCommand::Drop { endpoint, at } => (at, EndpointRequest::Drop { endpoint }),
            EndpointCommand::Delete { endpoint, at } => (at, EndpointRequest::Delete { endpoint }),
        };
        at.administer(Request::Endpoint(request))
    }
}
