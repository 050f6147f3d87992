//! Runs tasks: a scheduling core that decides without IO, providers, launchers, the node and the Python worker.
//!
//! ```text
//!  owner ── Submission ──► engine ── script ──► provider ──► block ──► launcher ──► node ──► workers
//!        ◄── Event ───────   ▲                                                       │
//!                            └────────────── link (TLS, per-run keys) ◄──────────────┘
//! ```
//!
//! The owner (the endpoint's interchange) submits tasks and answers each [`Event::Assigned`] with
//! [`Handle::begin`] once it has written down that these tasks have begun; nothing reaches a node before. Every
//! task submitted ends in exactly one [`Event::Ended`], or is handed back by [`Event::Returned`] when the engine
//! stops before the task has begun.
//!
//! It may never know AMQP, REST or YAML, and it never looks into a payload: bytes go through as they came.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, reason = "a failed unwrap is a failed test"))]

mod allowlist;
mod clock;
mod config;
mod core;
mod driver;
mod engine;
mod error_results;
mod exit_report;
mod handle;
mod launcher;
mod link;
pub mod node;
mod processes;
mod provider;
mod quote;
mod random;
mod report;
mod settings;
mod throughput;

pub use allowlist::{InvalidAllowlist, check_allowlist};
pub use config::{
    AcceleratorName, Accelerators, Address, AddressFinder, BlockOptions, ContainerType, CpuAffinity,
    EngineConfig, EngineKind, InvalidOptions, LocalOptions, Options, ProviderKind, ProviderOptions,
};
pub use engine::{Engine, StartError};
pub use handle::{Event, Events, Handle, Stopped, Submission};
pub use launcher::Launcher;
pub use provider::{
    CancelError, Job, JobId, JobOutput, JobState, Provider, ProviderFuture, QueryError, Secret, Staging,
    StagingKind, SubmitError,
};
pub use report::{MachineInfo, NodeInfo, Report};
