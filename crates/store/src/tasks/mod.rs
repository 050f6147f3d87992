//! The tables of tasks: endpoints, functions, submits, tasks, results, and what is on its way.
//!
//! They may read tables of `identity`; never the other way round, but to end what an identity holds.

pub(crate) mod assignments;
mod containers;
mod counters;
mod endpoints;
mod functions;
pub(crate) mod large_submits;
mod open_tasks;
mod reports;
pub(crate) mod results;
mod retried_submits;
pub mod state;
pub(crate) mod submit;
mod submit_request;
mod task_groups;
mod task_rows;

pub use assignments::{Acknowledge, Assignment};
pub use containers::{AddContainer, Container};
pub use counters::Counters;
pub use endpoints::{
    ChangeEndpoint, Choices, DeleteEndpoint, Endpoint, EndpointLine, ListedEndpoint, LockEndpoint,
    RegisterEndpoint, Registered, Run, Seen, UnlockEndpoint, UserEndpoint,
};
pub use functions::{AddFunction, DeleteFunction, Function, FunctionAccess};
pub use open_tasks::{OpenTask, Which};
pub use reports::{Progress, Report};
pub use results::{
    Delivered, Delivery, ExpireResults, ForgetTasks, RecordResults, Recorded, RecordedResults, ReportedResult,
};
pub use retried_submits::{Accepted, Answered, AnswersInFlight, Fingerprint, ForgetSubmissions};
pub use submit_request::{NewTask, Submission, Submit};
pub use task_groups::TaskGroup;
pub use task_rows::{Page, TaskRow};
