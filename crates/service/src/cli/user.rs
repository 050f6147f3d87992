//! The commands `farcall user …`: manage people. Passwords are asked for, or read from standard input.

use clap::Subcommand;

use super::administer::AdminArgs;
use super::password;
use crate::operate::administration::request::{Request, UserRequest};

#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// Add a person; asks for a password, or reads it from standard input.
    Add {
        /// In the form name@domain.
        username: String,
        #[arg(long)]
        name: Option<String>,
        #[arg(long)]
        email: Option<String>,
        #[arg(long)]
        organization: Option<String>,
        /// They may administer the service.
        #[arg(long)]
        administrator: bool,
        /// They sign in through the site's own identity provider only.
        #[arg(long)]
        no_password: bool,
        #[command(flatten)]
        args: AdminArgs,
    },
    /// List people.
    List {
        #[command(flatten)]
        args: AdminArgs,
    },
    /// Show one person.
    Show {
        /// A username or an id.
        user: String,
        #[command(flatten)]
        args: AdminArgs,
    },
    /// Change what is said of a person.
    Edit {
        user: String,
        #[arg(long)]
        name: Option<String>,
        #[arg(long)]
        email: Option<String>,
        #[arg(long)]
        organization: Option<String>,
        /// Whether they may administer the service.
        #[arg(long, value_name = "true|false")]
        administrator: Option<bool>,
        #[command(flatten)]
        args: AdminArgs,
    },
    /// Let a person in again.
    Enable {
        user: String,
        #[command(flatten)]
        args: AdminArgs,
    },
    /// Let a person in no longer; their sessions and tokens end at once.
    Disable {
        user: String,
        #[command(flatten)]
        args: AdminArgs,
    },
    /// Give a person a new password; their sessions and tokens end at once.
    Reset {
        user: String,
        #[command(flatten)]
        args: AdminArgs,
    },
    /// Link USER with another: whoever signs in as USER acts as that one from then on.
    Link {
        /// A person, or the id of a client.
        user: String,
        /// The one that USER is linked with.
        with: String,
        #[command(flatten)]
        args: AdminArgs,
    },
    /// Take USER out of its set: it acts for itself again.
    Unlink {
        user: String,
        #[command(flatten)]
        args: AdminArgs,
    },
    /// Forget a person. What they own stays and belongs to nobody.
    Remove {
        user: String,
        #[command(flatten)]
        args: AdminArgs,
    },
}

impl UserCommand {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let (args, request) = match self {
            UserCommand::Add { username, name, email, organization, administrator, no_password, args } => {
                args.check()?;
                let password = if no_password { None } else { Some(password::new(&username)?) };
                (args, UserRequest::Add { username, name, email, organization, administrator, password })
            }
            UserCommand::List { args } => (args, UserRequest::List),
            UserCommand::Show { user, args } => (args, UserRequest::Show { user }),
            UserCommand::Edit { user, name, email, organization, administrator, args } => {
                (args, UserRequest::Edit { user, name, email, organization, administrator })
            }
            UserCommand::Enable { user, args } => (args, UserRequest::Enable { user }),
            UserCommand::Disable { user, args } => (args, UserRequest::Disable { user }),
            UserCommand::Reset { user, args } => {
                args.check()?;
                let password = password::new(&user)?;
                (args, UserRequest::Reset { user, password })
            }
            UserCommand::Link { user, with, args } => (args, UserRequest::Link { user, with }),
            UserCommand::Unlink { user, args } => (args, UserRequest::Unlink { user }),
            UserCommand::Remove { user, args } => (args, UserRequest::Remove { user }),
        };
        args.administer(Request::User(request))
    }
}
