//! Runs tasks: a scheduling core that decides without IO, providers, launchers, the node and the Python worker.
//!
//! ```text
//!  endpoint ── Submission ──► engine ── script ──► provider ──► block ──► launcher ──► node ──► workers
//!           ◄── Event ───────    ▲                                                       │
//!                                └────────────── link (TLS, per-run keys) ◄──────────────┘
//! ```
//!
//! The endpoint submits tasks. It answers each [`Event::Assigned`] with [`Handle::begin`] once its journal says that
//! these tasks have begun; no task reaches a node before that. Every task ends in exactly one [`Event::Ended`], or is
//! handed back by [`Event::Returned`] when the engine stops before the task has begun.
//!
//! The engine must not know AMQP, REST or YAML, and must not decode payloads: their bytes pass unchanged.

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
