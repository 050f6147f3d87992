//! `GET /v2/get_amqp_result_connection_url`: where a client finds its results.
//!
//! Called at every (re)connection. Programs of one identity get the same address while its credential is young: so an
//! answer costs one read, and however often it is asked for, an identity has few credentials. What is connected stays so.

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

/// How long a credential is handed out.
const YOUNG: SignedDuration = SignedDuration::from_hours(2);
/// How long it opens connections: a day from the last time that it was handed out.
const LIFE: SignedDuration = SignedDuration::from_hours(26);
/// Identities whose credentials are remembered.
const REMEMBERED: usize = 20_000;

/// The credentials that are handed out at this time. Clones share them.
#[derive(Clone, Default)]
pub struct Addresses(Arc<Mutex<HashMap<IdentityId, Handed>>>);

#[derive(Clone)]
struct Handed {
    number: i64,
    secret: String,
    made: Timestamp,
}

impl fmt::Debug for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // They hold secrets.
        f.debug_struct("Addresses").finish_non_exhaustive()
    }
}

impl Addresses {
    fn young(&self, identity: IdentityId, now: Timestamp) -> Option<Handed> {
        self.handed().get(&identity).filter(|it| is_young(it, now)).cloned()
    }

    fn remember(&self, identity: IdentityId, handed: &Handed) {
        let mut all = self.handed();
        if all.len() >= REMEMBERED && !all.contains_key(&identity) {
            all.retain(|_, it| is_young(it, handed.made));
            if all.len() >= REMEMBERED {
                all.clear();
            }
        }
        all.insert(identity, handed.clone());
    }

    fn handed(&self) -> MutexGuard<'_, HashMap<IdentityId, Handed>> {
        // A panic while it was held cannot have left it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_young(handed: &Handed, now: Timestamp) -> bool {
    now >= handed.made && now.duration_since(handed.made) < YOUNG
}

pub(super) async fn url(
    State(app): State<App>,
    by: CallerToken,
    Extension(arrival): Extension<Arrival>,
) -> Result<Json<ResultConnection>, Failure> {
    let caller = by.token.identity;
    let Handed { number, secret, .. } = credential(&app, &by).await?;
    let url = ConnectionUrl { holder: Holder::Client(caller), number, secret: &secret };
    Ok(Json(ResultConnection {
        queue_prefix: queue::client_prefix(caller),
        connection_url: url.at(&app.amqp.base(arrival)),
    }))
}

/// The credential that a caller is handed now.
async fn credential(app: &App, by: &CallerToken) -> Result<Handed, Failure> {
    let caller = by.token.identity;
    let now = clock::now();
    if let Some(handed) = app.addresses.young(caller, now) {
        // It may have been ended meanwhile, with all that its holder had, or the token that this caller has shown may have.
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
        expires: now + LIFE,
    };
    let number = app.store.write(command).await?.ok_or_else(Failure::shut_out)?;
    let handed = Handed { number, secret, made: now };
    app.addresses.remember(caller, &handed);
    Ok(handed)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_credential_is_handed_out_while_it_is_young() {
        let addresses = Addresses::default();
        let [one, other] = [1, 2].map(|id| IdentityId::from_uuid(Uuid::from_u128(id)));
        let made = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(100);
        addresses.remember(one, &Handed { number: 7, secret: "s".into(), made });
        let young = |identity, after| addresses.young(identity, made + after).map(|it| it.number);
        let second = SignedDuration::from_secs(1);
        assert_eq!((young(one, SignedDuration::ZERO), young(one, YOUNG - second)), (Some(7), Some(7)));
        assert_eq!((young(one, YOUNG), young(one, -second), young(other, second)), (None, None, None));
        for id in 3..30_000 {
            let identity = IdentityId::from_uuid(Uuid::from_u128(id));
            addresses.remember(identity, &Handed { number: 1, secret: "s".into(), made });
            assert!(addresses.handed().len() <= REMEMBERED);
        }
    }
}
