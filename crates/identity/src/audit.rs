//! The audit log of logins, tokens and administration: who, what, when, and never a secret.
//!
//! Lines have the target `farcall::audit`, so that a site can send them to a log of their own. They contain only ids, names
//! of scopes and names of errors: text that a person typed into a field could be a password.

use std::fmt;

use wire::rest::auth::error::OAuthError;
use wire::{ClientId, IdentityId};

use super::tokens::Issued;

/// The target of every line.
pub const TARGET: &str = "farcall::audit";

/// Who performed an administrative action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initiator {
    /// A user of this machine, through `admin.sock` or on the data directory itself.
    Operator { uid: u32 },
    /// Over HTTP.
    Identity(IdentityId),
}

impl fmt::Display for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Initiator::Operator { uid } => write!(f, "operator with uid {uid}"),
            Initiator::Identity(identity) => write!(f, "{identity}"),
        }
    }
}

/// `how` is the name of the grant.
pub fn tokens_issued(how: &str, issued: &[Issued]) {
    for Issued { token, .. } in issued {
        tracing::info!(
            target: TARGET, act = "token issued", how, identity = %token.identity, client = %token.client,
            scope = token.scope, until = %token.expires,
        );
    }
}

pub fn token_refused(how: &str, client: Option<ClientId>, error: OAuthError) {
    let client = client.map(|client| client.to_string());
    tracing::warn!(target: TARGET, act = "token refused", how, client, error = error.name());
}

pub fn token_revoked(client: ClientId) {
    tracing::info!(target: TARGET, act = "token revoked", %client);
}

pub fn signed_in(identity: IdentityId, how: &str) {
    tracing::info!(target: TARGET, act = "signed in", %identity, how);
}

/// `identity` is named only if it exists: text typed as a username might be a password.
pub fn sign_in_refused(identity: Option<IdentityId>, how: &str, why: &str) {
    let identity = identity.map(|identity| identity.to_string());
    tracing::warn!(target: TARGET, act = "sign-in refused", identity, how, why);
}

/// `what` names the command, `subject` its object.
pub fn administered(what: &str, subject: &str, by: Initiator) {
    tracing::info!(target: TARGET, act = "administered", what, subject, %by);
}

/// The broker connections of `holder` were closed, and its credentials removed.
pub fn cut_off(holder: &str, connections: usize, by: Initiator) {
    tracing::info!(target: TARGET, act = "cut off", holder, connections, %by);
}

/// A person allowed an application to act for them.
pub fn consented(identity: IdentityId, client: ClientId, scope: &str) {
    tracing::info!(target: TARGET, act = "consented", %identity, %client, scope);
}

/// A code was exchanged twice: all its tokens were ended.
pub fn code_reused(client: ClientId, identity: IdentityId) {
    tracing::warn!(target: TARGET, act = "code reused", %client, %identity);
}

/// A refresh token was copied: all tokens of the same code were ended.
pub fn refresh_token_reused(client: ClientId, identity: IdentityId) {
    tracing::warn!(target: TARGET, act = "refresh token reused", %client, %identity);
}

/// A subject of an identity provider was bound to an identity.
pub fn bound(identity: IdentityId, upstream: &str) {
    tracing::info!(target: TARGET, act = "bound to an upstream", %identity, upstream);
}
