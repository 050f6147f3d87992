//! The commands `farcall group …`: manage groups.

use clap::Subcommand;

use super::administer::AdminArgs;
use crate::operate::administration::request::{GroupRequest, Request};

#[derive(Debug, Subcommand)]
pub(super) enum GroupCommand {
    /// Add a group.
    Add {
        name: String,
        #[arg(long)]
        description: Option<String>,
        #[command(flatten)]
        args: AdminArgs,
    },
    /// List groups.
    List {
        #[command(flatten)]
        args: AdminArgs,
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
        args: AdminArgs,
    },
    /// Forget a group. What was shared with it is shared no more.
    Remove {
        group: String,
        #[command(flatten)]
        args: AdminArgs,
    },
}

impl GroupCommand {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let (args, request) = match self {
            GroupCommand::Add { name, description, args } => (args, GroupRequest::Add { name, description }),
            GroupCommand::List { args } => (args, GroupRequest::List),
            GroupCommand::Members { group, add, remove, args } => {
                (args, GroupRequest::Members { group, add, remove })
            }
            GroupCommand::Remove { group, args } => (args, GroupRequest::Remove { group }),
        };
        args.administer(Request::Group(request))
    }
}
