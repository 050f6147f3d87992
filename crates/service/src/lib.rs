//! The Farcall service: REST, permissions, dispatch, administration; hosts the embedded broker; carries tasks out and results
//! back. People and their logins are in the crate `identity`, what is on disk in the crate `store`.
//!
//! | module | does |
//! |---|---|
//! | [`http`] | listens, serves HTTP connections, bounds what one client may use |
//! | [`rest`] | the compute routes, one file each |
//! | [`permissions`] | decides who may do what; pure |
//! | [`endpoint_management`] | locks, deletes and unlocks an endpoint, drops its waiting tasks |
//! | [`tasks`] | whether endpoints are online; ends tasks; deletes what has expired |
//! | [`dispatch`] | carries tasks and results between the store and the broker |
//! | [`user_endpoint`] | starts and restarts the endpoints that managers run |
//! | [`operate`] | configuration, start, administration, health, backup, doctor |
//! | [`up`] | a service and an endpoint on this machine, with one command |
//! | [`client_side`] | the forwarder to a service elsewhere, the environment of the SDK |
//! | [`cli`] | the command line |
//! | [`limits`] | the limits of an operator |
//! | [`metrics`], [`log_throttle`] | numbers for `/metrics`, and a limit on repeated log lines |
//! | [`clock`], [`random`] | the only places that read the clock and make ids |
//!
//! No two of these import each other. A new route is a file in `rest/` and a line in its router; a new field of an answer its
//! type in `wire::rest` and `rest/schemas.json`; a new command a file in `cli/`; a new table a migration and a file in the crate
//! `store`.

pub mod cli;
pub mod client_side;
pub mod clock;
pub mod dispatch;
pub mod endpoint_management;
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
