//! HTTP below the routes: where the service listens, how connections are served, and how much of them one client may have.
//!
//! No route is known here, and no task.

pub mod broker_address;
pub mod certificates;
pub mod client_pace;
pub mod connections;
pub mod failure;
pub mod in_progress;
pub mod listeners;
pub mod quick_ack;
pub mod server;
