//! The Farcall service: identity, REST, rules, store; hosts the embedded broker; carries tasks out and results back.
//!
//! | module | does |
//! |---|---|
//! | [`serve`] | opens the parts and runs them |
//! | [`doors`], [`certificates`], [`prompt`] | sockets, what is spoken at each, TLS |
//! | [`front`] | HTTP connections, request ids |
//! | [`rest`] | the compute routes |
//! | [`rules`] | who may do what |
//! | [`management`] | what those who manage an endpoint do with it |
//! | [`user_endpoint`] | the endpoints that managers start |
//! | [`presence`] | what an endpoint is doing, as pure state |
//! | [`post`] | ties the store to the broker |
//! | [`up`] | a service and an endpoint on this machine, with one command |
//! | [`connect`] | a client's own forwarder to a service elsewhere |
//! | [`attended`] | a command that runs meanwhile, with every process that comes of it |
//! | [`backup`] | copies of a data directory |
//! | [`retention`], [`limits`] | how long and how much |
//! | [`shares`], [`connections`], [`pace`] | how much one of many may take, and how slow a client may be |
//! | [`client_environment`], [`doctor`], [`obstacle`] | what clients must set, and what is wrong with an installation |
//! | [`health`], [`figures`] | is it well, and how much is there |
//! | [`directory`], [`config`], [`admin`], [`cli`] | the operator's side |
//!
//! A new route is a file in `rest/` and a line in its router; a new command a file in `cli/`; a new table a migration
//! and a file in the crate `store`.

pub mod cli;
pub mod client_side;
pub mod clock;
pub mod dispatch;
pub mod endpoint_management;
pub mod fair_shares;
pub mod http;
pub mod limits;
pub mod log_throttle;
pub mod metrics;
pub mod operate;
pub mod permissions;
pub mod random;
pub mod rest;
pub mod tasks;
pub mod up;
pub mod user_endpoint;
