//! The commands `farcall endpoint …`: manage every endpoint of the service, whoever owns it.

use clap::Subcommand;

use super::administer::AdminArgs;
use crate::operate::administration::request::{EndpointRequest, Request};

#[derive(Debug, Subcommand)]
pub(super) enum EndpointCommand {
    /// List all endpoints.
    List {
        #[command(flatten)]
        args: AdminArgs,
    },
    /// Show one endpoint.
    Show {
        /// Its id.
        endpoint: String,
        #[command(flatten)]
        args: AdminArgs,
    },
    /// Stop an endpoint from afar: its connections end, and nobody can start it for a while. Its tasks wait.
    Lock {
        endpoint: String,
        /// How long nobody can start it.
        #[arg(long, default_value_t = 60)]
        minutes: u32,
        #[command(flatten)]
        args: AdminArgs,
    },
    /// Let an endpoint be started again before its lock is over.
    Unlock {
        endpoint: String,
        #[command(flatten)]
        args: AdminArgs,
    },
    /// Drop the tasks that wait for an endpoint: they end with an error that says who did it.
    Drop {
        endpoint: String,
        #[command(flatten)]
        args: AdminArgs,
    },
    /// Delete an endpoint: its connections and its open tasks end. Its id stays its owner's.
    Delete {
        endpoint: String,
        #[command(flatten)]
        args: AdminArgs,
    },
}

impl EndpointCommand {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let (args, request) = match self {
            EndpointCommand::List { args } => (args, EndpointRequest::List),
            EndpointCommand::Show { endpoint, args } => (args, EndpointRequest::Show { endpoint }),
            EndpointCommand::Lock { endpoint, minutes, args } => {
                (args, EndpointRequest::Lock { endpoint, minutes })
            }
            EndpointCommand::Unlock { endpoint, args } => (args, EndpointRequest::Unlock { endpoint }),
            EndpointCommand::Drop { endpoint, args } => (args, EndpointRequest::Drop { endpoint }),
            EndpointCommand::Delete { endpoint, args } => (args, EndpointRequest::Delete { endpoint }),
        };
        args.administer(Request::Endpoint(request))
    }
}
