//! `GET /v2/api/identities?ids=…` or `?usernames=…`: looks up identities.
//!
//! The token needs the scope that the consent page describes as seeing other people's names. A token for managing projects
//! sees the caller's own identities, because the stock endpoint's `whoami` uses one. Any other scope is refused. E-mail
//! and organization are shown for the caller's own identities only. Unknown identities are left out, as the original does;
//! a look-up never adds an identity (`provision` is accepted and ignored).

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde_json::{Value, json};
use wire::IdentityId;
use wire::rest::auth::identity::{self as body};
use wire::rest::auth::{MANAGE_PROJECTS_SCOPE, VIEW_IDENTITIES_SCOPE};

use super::bearer::Bearer;
use crate::Identity;
use crate::clock;
use crate::failure::Failure;
use crate::form;
use store::{Kind, Profile};

/// The most identities in one request.
const MOST: usize = 100;

pub(super) async fn identities(
    State(identity): State<Identity>,
    Bearer(token): Bearer,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Json<Value>, Failure> {
    let everybody = token.covers(VIEW_IDENTITIES_SCOPE);
    if !everybody && !token.covers(MANAGE_PROJECTS_SCOPE) {
        return Err(Failure::needs(VIEW_IDENTITIES_SCOPE));
    }
    let Query(query) = query.map_err(|error| Failure::bad_parameter(error.body_text()))?;
    form::once(&query).map_err(Failure::bad_parameter)?;
    let get = |name: &str| query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let mut found: Vec<Profile> = Vec::new();
    match (get("ids"), get("usernames")) {
        (Some(ids), None) => {
            let ids: Vec<IdentityId> = list(ids, "ids")?
                .map(|id| id.parse().map_err(|_| Failure::bad_parameter("ids: not a list of UUIDs")))
                .collect::<Result<_, _>>()?;
            for id in ids {
                found.extend(identity.profile(id).await?);
            }
        }
        (None, Some(usernames)) => {
            for username in list(usernames, "usernames")? {
                found.extend(identity.profile_named(username).await?);
            }
        }
        (Some(_), Some(_)) => return Err(Failure::bad_parameter("ids or usernames, not both")),
        (None, None) => return Err(Failure::bad_parameter("one of ids and usernames is needed")),
    }
    let own = identity.set_of(token.identity, clock::now()).await?;
    let identities: Vec<body::Identity> = found
        .into_iter()
        .map(|profile| (own.iter().any(|own| own.id == profile.id), profile))
        .filter(|(mine, _)| everybody || *mine)
        .map(|(mine, profile)| describe(profile, mine))
        .collect();
    let mut answer = json!({ "identities": identities });
    if get("include").is_some_and(|include| include.split(',').any(|it| it == "identity_provider")) {
        answer["included"] = json!({ "identity_providers": [] });
    }
    Ok(Json(answer))
}

fn list<'a>(text: &'a str, name: &str) -> Result<impl Iterator<Item = &'a str>, Failure> {
    if text.split(',').count() > MOST {
        return Err(Failure::bad_parameter(format!("{name}: more than {MOST}")));
    }
    Ok(text.split(',').map(str::trim).filter(|part| !part.is_empty()))
}

fn describe(profile: Profile, mine: bool) -> body::Identity {
    body::Identity {
        id: profile.id,
        username: profile.username,
        name: Some(profile.name),
        email: profile.email.filter(|_| mine),
        organization: profile.organization.filter(|_| mine),
        status: if profile.disabled { "closed" } else { "used" }.to_owned(),
        identity_provider: None,
        identity_type: Some(match profile.kind {
            Kind::Person => "login".to_owned(),
            Kind::Client => "client".to_owned(),
        }),
    }
}
