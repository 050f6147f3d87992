//! Names the caller in the log line of the request that is being answered.

use tracing::field;
use wire::{ClientId, IdentityId};

/// Names `identity` as the caller.
pub fn record_identity(identity: IdentityId) {
    tracing::Span::current().record("identity", field::display(identity));
}

/// Names `client`, an application that authenticated with its secret, as the caller.
pub fn record_client(client: ClientId) {
    tracing::Span::current().record("client", field::display(client));
}
