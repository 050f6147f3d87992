//! The commands `farcall group …`: manage groups.

use clap::Subcommand;

use super::administer::Where;
use crate::operate::administration::request::{GroupRequest, Request};

#[derive(Debug, Subcommand)]
pub(super) enum GroupCommand {
    /// Add a group.
    Add {
        name: String,
        #[arg(long)]
        description: Option<String>,
        #[command(flatten)]
        at: Where,
    },
    /// List groups.
    List {
        #[command(flatten)]
        at: Where,
    },
    /// Show who is in a group, and change it.
    Members {
        /// A name or an id.
        group: String,
        /// Take this user or client in; may be given more than once.
        #[arg(long, value_name = "USER")]
        add: Vec<String>,
        /// Take this user or client out; may be given more than once.
        #[arg(long, value_name = "USER")]
        remove: Vec<String>,
        #[command(flatten)]
        at: Where,
    },
    /// Forget a group. What was shared with it is shared no more.
    Remove {
        group: String,
        #[command(flatten)]
        at: Where,
    },
}

impl GroupCommand {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let (at, request) = match self {
            GroupCommand::Add { name, description, at } => (at, GroupRequest::Add { name, description }),
            GroupCommand::List { at } => (at, GroupRequest::List),
            GroupCommand::Members { group, add, remove, at } => {
                (at, GroupRequest::Members { group, add, remove })
            }
            GroupCommand::Remove { group, at } => (at, GroupRequest::Remove { group }),
        };
        at.administer(Request::Group(request))
    }
}
