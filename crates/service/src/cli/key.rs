//! The commands `farcall key …`: manage the keys that sign id tokens.

use clap::Subcommand;

use super::administer::AdminArgs;
use crate::operate::administration::request::{KeyRequest, Request};

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// List the keys that are published.
    List {
        #[command(flatten)]
        args: AdminArgs,
    },
    /// Sign with a new key from now on; the old one stays published until all that it signed is over.
    Rotate {
        #[command(flatten)]
        args: AdminArgs,
    },
}

impl KeyCommand {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let (args, request) = match self {
            KeyCommand::List { args } => (args, KeyRequest::List),
            KeyCommand::Rotate { args } => (args, KeyRequest::Rotate),
        };
        args.administer(Request::Key(request))
    }
}
