//! Decides who may start what, as which local user, with which configuration.
//!
//! A manager runs as root and parses what strangers send. This crate holds every decision it makes, without AMQP, REST or
//! an async runtime, so that a site's security officer can read it in an afternoon.
//!
//! # One start, privilege by privilege
//!
//! ```text
//! service ──start command──► MANAGER            ──► LAUNCHER                             ──exec──► USER ENDPOINT
//!                            root                   root, then the user                            the user
//!                            threads, network       one thread, no network
//!                            reads, maps, decides   looks up the user, PAM, drops every            runs the tasks
//!                                                   privilege, then renders the template
//! ```
//!
//! 1. **As root, in the manager: read.** A start command comes from the service's queue. [`command`] checks its size, its
//!    age, its name, its identities and its credentials. Nobody but the service can put a command there; what a
//!    submitter chose in it (options, names of identities) is data and stays data until step 6. A command that is refused
//!    gets a notice: a text for the submitter, sent with the credentials that came in the command.
//! 2. **As root, in the manager: map.** [`mapping`] turns the submitter's linked identities into the *name* of a local
//!    user, by expressions with bounded steps or by the administrator's programs (5 s, ended with their process group).
//!    The superuser is refused here by name. A manager that can't change users maps nobody: it serves the identities of
//!    the person who registered it, as that person's own user.
//! 3. **As root, in the manager: decide.** [`core`] allows one user endpoint a name, a bounded number at a time and in all,
//!    fair between local users. A command for a user endpoint that runs starts nothing: it is kept for the grace period
//!    ([`children`]), and its credentials replace the old ones. A user endpoint never passes to another local user.
//! 4. **As root, in the launcher: look up and ask.** The manager has threads and a network, so it never forks and goes on:
//!    it executes its own file again as the [`launch`]er, whose request lies in a sealed memory file. The launcher looks up
//!    the user (and refuses uid 0 and the manager's own), reads the administrator's files, and asks PAM if configured.
//! 5. **From root to the user, once.** Groups, then ids, then every capability set; without PAM also the bounding set and
//!    no-new-privileges. The launcher checks that it can't become root again.
//! 6. **As the user: render.** Only now the submitter's options meet the administrator's [`template`], in a sandbox, with
//!    bounds in time, memory and output; [`schema`] checks them first, and each arrives as one value. The directory and the
//!    log below the user's home are opened with the user's own rights. [`environment`] is the administrator's, not root's.
//! 7. **As the user: exec.** The user endpoint's program, found by the user's `PATH`, replaces the launcher, with its
//!    configuration and credentials on its standard input. The manager is its parent and waits for it.
//!
//! With PAM, a process of root's stays between manager and user endpoint: it holds the session, ends the user endpoint when
//! the manager dies, and closes the session once.
//!
//! # What is kept where
//!
//! | what | where | who can read it |
//! |---|---|---|
//! | the manager's credentials | memory | root |
//! | a user endpoint's credentials | memory; a memory file that the manager rewrites | root, and that user |
//! | who ran which function when | the audit log ([`audit`]) | root |
//! | what a hot restart hands over ([`restart`]) | a memory file, until the next program has read it | root |
//!
//! # Which file to read
//!
//! | file | decides |
//! |---|---|
//! | [`command`] | what a start command may be |
//! | [`mapping`] | which local user a person is |
//! | [`core`], [`children`] | what is started, kept, refused, ended |
//! | [`launch`] | the stages between root and the user |
//! | [`template`], [`schema`], [`environment`] | what a user endpoint is configured with |
//! | [`ownership`] | who may change the files that decide all this |
//! | [`audit`] | the lines of the audit log |
//! | [`restart`] | the state that a manager hands to its next program |

pub mod arguments;
pub mod audit;
pub mod children;
pub mod command;
pub mod core;
pub mod environment;
mod fair_queue;
pub mod launch;
pub mod mapping;
pub mod ownership;
mod printable;
pub mod restart;
pub mod schema;
mod site_files;
pub mod template;
pub mod waiting;
