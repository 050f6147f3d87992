//! The commands `farcall client …`: manage clients.

use clap::Subcommand;

use super::administer::Where;
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
        at: Where,
    },
    /// List clients.
    List {
        #[command(flatten)]
        at: Where,
    },
    /// Show one client.
    Show {
        client: String,
        #[command(flatten)]
        at: Where,
    },
    /// Let a client in again.
    Enable {
        client: String,
        #[command(flatten)]
        at: Where,
    },
    /// Let a client in no longer; its tokens end at once.
    Disable {
        client: String,
        #[command(flatten)]
        at: Where,
    },
    /// Give a client a new secret and print it; what it got with the old one ends at once.
    Reset {
        client: String,
        #[command(flatten)]
        at: Where,
    },
    /// Forget a client.
    Remove {
        client: String,
        #[command(flatten)]
        at: Where,
    },
}

impl ClientCommand {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let (at, request) = match self {
            ClientCommand::Add { name, resource_server, native, redirect_uris, at } => {
                let request = match native {
                    true => ClientRequest::AddNative { name, redirect_uris },
                    false => ClientRequest::Add { name, resource_server },
                };
                (at, request)
            }
            ClientCommand::List { at } => (at, ClientRequest::List),
            ClientCommand::Show { client, at } => (at, ClientRequest::Show { client }),
            ClientCommand::Enable { client, at } => (at, ClientRequest::Enable { client }),
            ClientCommand::Disable { client, at } => (at, ClientRequest::Disable { client }),
            ClientCommand::Reset { client, at } => (at, ClientRequest::Reset { client }),
            ClientCommand::Remove { client, at } => (at, ClientRequest::Remove { client }),
        };
        at.administer(Request::Client(request))
    }
}
