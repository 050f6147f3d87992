//! HTTP below the routes: listens, serves connections, and limits how many one client may have and how slow it may be.
//!
//! Nothing here knows a route or a task.

pub mod broker_address;
pub mod certificates;
pub mod client_pace;
pub mod connections;
pub mod failure;
pub mod in_progress;
pub mod listeners;
pub mod quick_ack;
pub mod server;
