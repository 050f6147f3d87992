//! Reports to the module that starts user endpoints what endpoints do at the broker.
//!
//! Permissions are answered in [`broker_access`](super::broker_access) and change nothing; allowed operations are reported here.

use std::fmt::Debug;

use broker::Operation;
use wire::EndpointId;
use wire::message::Liveness;
use wire::queue::Name;

/// Receives what endpoints do at the broker. Called while the broker's state is locked: it must not block.
pub trait EndpointObserver: Debug + Send + Sync {
    /// `manager` consumes its queue of commands from now on.
    fn reads_commands(&self, manager: EndpointId);

    /// `endpoint` has sent a heartbeat under the credential with this number.
    fn reported(&self, endpoint: EndpointId, credential: i64, liveness: Liveness);
}

/// Reports an operation that `endpoint` was allowed.
pub(super) fn note(observer: &dyn EndpointObserver, endpoint: EndpointId, operation: &Operation<'_>) {
    if let Operation::Consume { queue } = operation
        && let Some(Name::Commands(_)) = Name::parse(queue)
    {
        observer.reads_commands(endpoint);
    }
}
