//! The commands `farcall user …`: manage people. Passwords are asked for, or read from standard input.

use clap::Subcommand;

use super::administer::Where;
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
        at: Where,
    },
    /// List people.
    List {
        #[command(flatten)]
        at: Where,
    },
    /// Show one person.
    Show {
        /// A username or an id.
        user: String,
        #[command(flatten)]
        at: Where,
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
        at: Where,
    },
    /// Let a person in again.
    Enable {
        user: String,
        #[command(flatten)]
        at: Where,
    },
    /// Let a person in no longer; their sessions and tokens end at once.
    Disable {
        user: String,
        #[command(flatten)]
        at: Where,
    },
    /// Give a person a new password; their sessions and tokens end at once.
    Reset {
        user: String,
        #[command(flatten)]
        at: Where,
    },
    /// Link USER with another: whoever signs in as USER acts as that one from then on.
    Link {
        /// A person, or the id of a client.
        user: String,
        /// The one that USER is linked with.
        with: String,
        #[command(flatten)]
        at: Where,
    },
    /// Take USER out of its set: it acts for itself again.
    Unlink {
        user: String,
        #[command(flatten)]
        at: Where,
    },
    /// Forget a person. What they own stays and belongs to nobody.
    Remove {
        user: String,
        #[command(flatten)]
        at: Where,
    },
}

impl UserCommand {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let (at, request) = match self {
            UserCommand::Add { username, name, email, organization, administrator, no_password, at } => {
                at.check()?;
                let password = if no_password { None } else { Some(password::new(&username)?) };
                (at, UserRequest::Add { username, name, email, organization, administrator, password })
            }
            UserCommand::List { at } => (at, UserRequest::List),
            UserCommand::Show { user, at } => (at, UserRequest::Show { user }),
            UserCommand::Edit { user, name, email, organization, administrator, at } => {
                (at, UserRequest::Edit { user, name, email, organization, administrator })
            }
            UserCommand::Enable { user, at } => (at, UserRequest::Enable { user }),
            UserCommand::Disable { user, at } => (at, UserRequest::Disable { user }),
            UserCommand::Reset { user, at } => {
                at.check()?;
                let password = password::new(&user)?;
                (at, UserRequest::Reset { user, password })
            }
            UserCommand::Link { user, with, at } => (at, UserRequest::Link { user, with }),
            UserCommand::Unlink { user, at } => (at, UserRequest::Unlink { user }),
            UserCommand::Remove { user, at } => (at, UserRequest::Remove { user }),
        };
        at.administer(Request::User(request))
    }
}
