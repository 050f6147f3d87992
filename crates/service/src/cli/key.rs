//! The commands `farcall key …`: manage the keys that sign id tokens.

use clap::Subcommand;

use super::administer::Where;
use crate::operate::administration::request::{KeyRequest, Request};

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// List the keys that are published.
    List {
        #[command(flatten)]
        at: Where,
    },
    /// Sign with a new key from now on; the old one stays published until all that it signed is over.
    Rotate {
        #[command(flatten)]
        at: Where,
    },
}

impl KeyCommand {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let (at, request) = match self {
            KeyCommand::List { at } => (at, KeyRequest::List),
            KeyCommand::Rotate { at } => (at, KeyRequest::Rotate),
        };
        at.administer(Request::Key(request))
    }
}
