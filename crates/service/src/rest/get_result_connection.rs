//! `GET /v2/get_amqp_result_connection_url`: the broker's address and a credential, for a client's results.
//!
//! Clients call it at each connection. Programs of one identity get the same credential for two hours: so an answer costs one
//! read of the store, and an identity has few credentials however often it asks. Open connections outlive the credential.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Json;
use axum::extract::{Extension, State};
use jiff::{SignedDuration, Timestamp};
use wire::IdentityId;
use wire::queue::{self, ResultConnection};

use super::App;
use super::caller::CallerToken;
use super::route::{Method, Route};
use crate::clock;
use crate::dispatch::broker_user::ConnectionUrl;
use crate::http::failure::Failure;
use identity::http::arrival::Arrival;
use store::secret::{self, Hash};
use store::{Holder, NewClientCredential};

pub(super) const ROUTE: Route = Route::new(
    Method::Get,
    "/v2/get_amqp_result_connection_url",
    "get_result_connection",
    "ResultConnection",
    "Where the results of one's task groups are delivered",
);

/// How long the same credential is handed out.
const HANDED_OUT: SignedDuration = SignedDuration::from_hours(2);
/// How long it opens connections: a day after it was handed out for the last time.
const VALID: SignedDuration = SignedDuration::from_hours(26);
/// Identities whose credentials are remembered.
const REMEMBERED: usize = 20_000;

/// The credentials that are handed out at present. Clones share them.
#[derive(Clone, Default)]
pub struct ResultCredentials(Arc<Mutex<HashMap<IdentityId, Credential>>>);

#[derive(Clone)]
struct Credential {
    number: i64,
    secret: String,
    made: Timestamp,
}

impl fmt::Debug for ResultCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // They hold secrets.
        f.debug_struct("ResultCredentials").finish_non_exhaustive()
    }
}

impl ResultCredentials {
    fn recent(&self, identity: IdentityId, now: Timestamp) -> Option<Credential> {
        self.all().get(&identity).filter(|it| is_recent(it, now)).cloned()
    }

    fn remember(&self, identity: IdentityId, handed: &Credential) {
        let mut all = self.all();
        if all.len() >= REMEMBERED && !all.contains_key(&identity) {
            all.retain(|_, it| is_recent(it, handed.made));
            if all.len() >= REMEMBERED {
                all.clear();
            }
        }
        all.insert(identity, handed.clone());
    }

    fn all(&self) -> MutexGuard<'_, HashMap<IdentityId, Credential>> {
        // A panic while it was held cannot have left it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_recent(handed: &Credential, now: Timestamp) -> bool {
    now >= handed.made && now.duration_since(handed.made) < HANDED_OUT
}

pub(super) async fn url(
    State(app): State<App>,
    by: CallerToken,
    Extension(arrival): Extension<Arrival>,
) -> Result<Json<ResultConnection>, Failure> {
    let caller = by.token.identity;
    let Credential { number, secret, .. } = credential(&app, &by).await?;
    let url = ConnectionUrl { holder: Holder::Client(caller), number, secret: &secret };
    Ok(Json(ResultConnection {
        queue_prefix: queue::client_prefix(caller),
        connection_url: url.at(&app.amqp.base(arrival)),
    }))
}

/// The credential to hand out now.
async fn credential(app: &App, by: &CallerToken) -> Result<Credential, Failure> {
    let caller = by.token.identity;
    let now = clock::now();
    if let Some(handed) = app.result_credentials.recent(caller, now) {
        // It may have ended since, with the caller's token: when the caller was disabled, for example.
        let known = app.store.client_credential(caller, handed.number, by.hash).await?;
        if known.is_some_and(|known| known.admits(&handed.secret)) {
            return Ok(handed);
        }
    }
    let secret = secret::fresh();
    let command = NewClientCredential {
        identity: caller,
        token: Some(by.hash),
        secret: Hash::of(&secret),
        now,
        expires: now + VALID,
    };
    let number = app.store.write(command).await?.ok_or_else(Failure::login_ended)?;
    let handed = Credential { number, secret, made: now };
    app.result_credentials.remember(caller, &handed);
    Ok(handed)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_credential_is_handed_out_while_it_is_young() {
        let credentials = ResultCredentials::default();
        let [one, other] = [1, 2].map(|id| IdentityId::from_uuid(Uuid::from_u128(id)));
        let made = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(100);
        credentials.remember(one, &Credential { number: 7, secret: "s".into(), made });
        let recent = |identity, after| credentials.recent(identity, made + after).map(|it| it.number);
        let second = SignedDuration::from_secs(1);
        assert_eq!((recent(one, SignedDuration::ZERO), recent(one, HANDED_OUT - second)), (Some(7), Some(7)));
        assert_eq!(
            (recent(one, HANDED_OUT), recent(one, -second), recent(other, second)),
            (None, None, None)
        );
        for id in 3..30_000 {
            let identity = IdentityId::from_uuid(Uuid::from_u128(id));
            credentials.remember(identity, &Credential { number: 1, secret: "s".into(), made });
            assert!(credentials.all().len() <= REMEMBERED);
        }
    }
}
