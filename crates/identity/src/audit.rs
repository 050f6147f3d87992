//! What is written down of logins, tokens and administration: who, what, when, and never a secret.
//!
//! Lines carry the target `farcall::audit`, so that a site can send them where it keeps such things. Only ids, names of
//! scopes and names of errors go in: what somebody typed into a field could be a password.

use std::fmt;

use wire::rest::auth::error::OAuthError;
use wire::{ClientId, IdentityId};

use super::tokens::Issued;

/// The target of every line.
pub const TARGET: &str = "farcall::audit";

/// Who did something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// A user of this machine, through `admin.sock` or on the data directory itself.
    Operator { uid: u32 },
    /// Over HTTP.
    Identity(IdentityId),
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            By::Operator { uid } => write!(f, "operator with uid {uid}"),
            By::Identity(identity) => write!(f, "{identity}"),
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

/// `identity` is named only if there is one: what was typed instead might be a password.
pub fn sign_in_refused(identity: Option<IdentityId>, how: &str, why: &str) {
    let identity = identity.map(|identity| identity.to_string());
    tracing::warn!(target: TARGET, act = "sign-in refused", identity, how, why);
}

/// `what` names the command, `subject` whom or what it was about.
pub fn administered(what: &str, subject: &str, by: By) {
    tracing::info!(target: TARGET, act = "administered", what, subject, %by);
}

/// Connections to the broker were ended, and their credentials with them: those of `holder`.
pub fn cut_off(holder: &str, connections: usize, by: By) {
    tracing::info!(target: TARGET, act = "cut off", holder, connections, %by);
}

/// A person let an application act for them.
pub fn consented(identity: IdentityId, client: ClientId, scope: &str) {
    tracing::info!(target: TARGET, act = "consented", %identity, %client, scope);
}

/// Somebody had a code twice: all that came from it has ended.
pub fn code_reused(client: ClientId, identity: IdentityId) {
    tracing::warn!(target: TARGET, act = "code reused", %client, %identity);
}

/// Somebody has a copy of a refresh token: all that came from the same sign-in has ended.
pub fn refresh_token_reused(client: ClientId, identity: IdentityId) {
    tracing::warn!(target: TARGET, act = "refresh token reused", %client, %identity);
}

/// An upstream's name for somebody was bound to an identity.
pub fn bound(identity: IdentityId, upstream: &str) {
    tracing::info!(target: TARGET, act = "bound to an upstream", %identity, upstream);
}
