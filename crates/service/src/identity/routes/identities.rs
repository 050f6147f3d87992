//! `GET /v2/api/identities?ids=…`: names of identities.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use wire::IdentityId;
use wire::rest::auth::AUTH_RESOURCE_SERVER;
use wire::rest::auth::identity::{self as body, Identities};

use super::failure::Failure;
use crate::ambient;
use crate::identity::Identity;
use crate::proof;

/// How many may be asked for at once.
const MOST: usize = 100;

pub(super) async fn identities(
    State(identity): State<Identity>,
    headers: HeaderMap,
    query: Result<Query<body::Query>, QueryRejection>,
) -> Result<Json<Identities>, Failure> {
    let bearer = proof::bearer(&headers).ok_or_else(Failure::unauthorized)?;
    let token = identity.check(bearer, ambient::now()).await?.ok_or_else(Failure::unauthorized)?;
    if token.resource_server != AUTH_RESOURCE_SERVER {
        return Err(Failure::forbidden());
    }
    let Query(query) = query.map_err(|error| Failure::bad_parameter(error.body_text()))?;
    let ids = query.ids.ok_or_else(|| Failure::bad_parameter("the parameter ids is missing"))?;
    let ids: Vec<IdentityId> = ids
        .split(',')
        .map(|id| id.parse().map_err(|_| Failure::bad_parameter("ids: not a list of UUIDs")))
        .collect::<Result<_, _>>()?;
    if ids.len() > MOST {
        return Err(Failure::bad_parameter(format!("ids: more than {MOST}")));
    }
    let mut identities = Vec::with_capacity(ids.len());
    for id in ids {
        // An unknown one is left out, as the original does.
        if let Some(client) = identity.known(id).await? {
            identities.push(body::Identity {
                id: client.id,
                username: client.username,
                name: Some(client.name),
                email: None,
                organization: None,
                status: "used".to_owned(),
                identity_provider: None,
                identity_type: Some("client".to_owned()),
            });
        }
    }
    Ok(Json(Identities { identities }))
}
