//! The tables of tasks: endpoints, functions, submits, tasks, results, and the outboxes.
//!
//! They may read tables of `identity`; never the other way round, but to end what an identity holds.

pub(crate) mod assignments;
mod containers;
mod counters;
mod endpoint_lists;
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
mod unused_user_endpoints;

pub use assignments::{AcknowledgeAssignments, Assignment};
pub use containers::{AddContainer, Container};
pub use counters::Counters;
pub use endpoint_lists::{EndpointSummary, ListedEndpoint, VisibleAs, Which};
pub use endpoints::{
    ChangeEndpoint, DeleteEndpoint, Endpoint, LockEndpoint, RegisterEndpoint, RegistrationResult,
    RequestedConfiguration, Run, UnlockEndpoint, UserEndpoint,
};
pub use functions::{AddFunction, DeleteFunction, Function, FunctionAccess};
pub use open_tasks::{OpenTask, OpenTaskFilter};
pub use reports::{EndReason, Progress, Report};
pub use results::{
    AcknowledgeDeliveries, DeleteTasks, Delivery, ExpireResults, RecordResults, Recorded, RecordedResults,
    ReportedResult,
};
pub use retried_submits::{
    Accepted, AnswersInFlight, DeleteAnsweredSubmits, DeleteSubmitRecords, SubmitFingerprint,
};
pub use submit_request::{NewTask, Submit, SubmitResult};
pub use task_groups::TaskGroup;
pub use task_rows::{Page, TaskRow};
pub use unused_user_endpoints::ForgetUserEndpoint;
