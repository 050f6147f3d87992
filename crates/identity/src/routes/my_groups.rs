//! `GET /v2/groups/my_groups`: the groups of the token's identity; a resource server calls it with a dependent token.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use serde_json::{Value, json};
use wire::rest::auth::{GROUPS_RESOURCE_SERVER, VIEW_GROUPS_SCOPE};

use crate::Identity;
use crate::clock;
use crate::failure::Failure;
use crate::http::authorization_header;
use store::Token;

pub(super) async fn list(
    State(identity): State<Identity>,
    headers: HeaderMap,
) -> Result<Json<Value>, Failure> {
    let bearer = authorization_header::bearer(&headers).ok_or_else(Failure::unauthorized)?;
    let token: Arc<Token> = identity.check(bearer, clock::now()).await?.ok_or_else(Failure::unauthorized)?;
    if token.resource_server != GROUPS_RESOURCE_SERVER || !token.covers(VIEW_GROUPS_SCOPE) {
        return Err(Failure::forbidden());
    }
    let groups = identity.user_groups_of(token.identity).await?;
    let described = groups.into_iter().map(|(group, members)| {
        let memberships = members.into_iter().map(|member| {
            json!({
                "group_id": group.id, "identity_id": member.id, "username": member.username,
                "role": "member", "status": "active",
            })
        });
        json!({
            "id": group.id, "name": group.name, "description": group.description, "group_type": "regular",
            "my_memberships": memberships.collect::<Vec<_>>(),
        })
    });
    Ok(Json(described.collect()))
}
