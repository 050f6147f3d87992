//! The commands `farcall client …`: manage clients.

use clap::Subcommand;

use super::administer::AdminArgs;
use crate::operate::administration::request::{ClientRequest, Request};

#[derive(Debug, Subcommand)]
pub(super) enum ClientCommand {
    /// Make a client identity; prints its id and secret, the secret this once.
    Add {
        /// What people call it.
        name: String,
        /// It may check tokens for this resource server (funcx_service, groups.api.globus.org).
        #[arg(long, value_name = "NAME", conflicts_with = "native")]
        resource_server: Option<String>,
        /// An application that keeps no secret, through which people log in.
        #[arg(long)]
        native: bool,
        /// Where codes may be sent, besides our own page; may be given more than once.
        #[arg(long = "redirect-uri", value_name = "URI", requires = "native")]
        redirect_uris: Vec<String>,
        #[command(flatten)]
        args: AdminArgs,
    },
    /// List clients.
    List {
        #[command(flatten)]
        args: AdminArgs,
    },
    /// Show one client.
    Show {
        client: String,
        #[command(flatten)]
        args: AdminArgs,
    },
    /// Let a client in again.
    Enable {
        client: String,
        #[command(flatten)]
        args: AdminArgs,
    },
    /// Let a client in no longer; its tokens end at once.
    Disable {
        client: String,
        #[command(flatten)]
        args: AdminArgs,
    },
    /// Give a client a new secret and print it; what it got with the old one ends at once.
    Reset {
        client: String,
        #[command(flatten)]
        args: AdminArgs,
    },
    /// Forget a client.
    Remove {
        client: String,
        #[command(flatten)]
        args: AdminArgs,
    },
}

impl ClientCommand {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let (args, request) = match self {
            ClientCommand::Add { name, resource_server, native, redirect_uris, args } => {
                let request = match native {
                    true => ClientRequest::AddNative { name, redirect_uris },
                    false => ClientRequest::Add { name, resource_server },
                };
                (args, request)
            }
            ClientCommand::List { args } => (args, ClientRequest::List),
            ClientCommand::Show { client, args } => (args, ClientRequest::Show { client }),
            ClientCommand::Enable { client, args } => (args, ClientRequest::Enable { client }),
            ClientCommand::Disable { client, args } => (args, ClientRequest::Disable { client }),
            ClientCommand::Reset { client, args } => (args, ClientRequest::Reset { client }),
            ClientCommand::Remove { client, args } => (args, ClientRequest::Remove { client }),
        };
        args.administer(Request::Client(request))
    }
}
