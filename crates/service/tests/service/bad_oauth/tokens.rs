//! Bad requests for tokens, about tokens, and with tokens.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::Method;
use serde_json::json;

use super::Said::{Compute, Ignored, Inactive, OAuth, Problem};
use super::{Case, NOT_FOR_LOGS, access_token, by, form, play};
use crate::support::{COMPUTE, Farcall};

const TOKEN: &str = "/v2/oauth2/token";
const REVOKE: &str = "/v2/oauth2/token/revoke";
const INTROSPECT: &str = "/v2/oauth2/token/introspect";
const NATIVE: &str = wire::rest::auth::NATIVE_CLIENT;
const DEPENDENT: &str = "grant_type=urn:globus:auth:grant_type:dependent_token";
const STRANGER: &str = "00000000-0000-4000-8000-000000000000";

#[tokio::test]
async fn bad_requests_for_tokens() {
    let service = Farcall::start();
    let (client, other) = (service.client().await, service.client().await);
    let (id, secret) = (client.id.as_str(), client.secret.as_str());
    let grant = format!("grant_type=client_credentials&scope={COMPUTE}");
    let token = |body: String| form(&service, TOKEN, body);
    let own = |body: &str| by(form(&service, TOKEN, body), &client);
    let many: String = (0..100).map(|n| format!("&p{n}=1")).collect();
    let header = |value: String| token(grant.clone()).header("authorization", value);
    let cases = vec![
        Case { what: "no client", request: token(grant.clone()), said: OAuth(401, "invalid_client") },
        Case {
            what: "wrong secret",
            request: token(grant.clone()).basic_auth(id, Some(NOT_FOR_LOGS)),
            said: OAuth(401, "invalid_client"),
        },
        Case {
            what: "empty secret",
            request: token(grant.clone()).basic_auth(id, Some("")),
            said: OAuth(401, "invalid_client"),
        },
        Case {
            what: "no secret at all",
            request: token(grant.clone()).basic_auth(id, None::<&str>),
            said: OAuth(401, "invalid_client"),
        },
        Case {
            what: "a secret cut short",
            request: token(grant.clone()).basic_auth(id, Some(&secret[..42])),
            said: OAuth(401, "invalid_client"),
        },
        Case {
            what: "a secret with something behind it",
            request: token(grant.clone()).basic_auth(id, Some(format!("{secret}x"))),
            said: OAuth(401, "invalid_client"),
        },
        Case {
            what: "a very long secret",
            request: token(grant.clone()).basic_auth(id, Some(NOT_FOR_LOGS.repeat(500))),
            said: OAuth(401, "invalid_client"),
        },
        Case {
            what: "another client's secret",
            request: token(grant.clone()).basic_auth(&other.id, Some(secret)),
            said: OAuth(401, "invalid_client"),
        },
        Case {
            what: "a client that isn't there",
            request: token(grant.clone()).basic_auth(STRANGER, Some(secret)),
            said: OAuth(401, "invalid_client"),
        },
        Case {
            what: "a name for an id",
            request: token(grant.clone()).basic_auth("tester", Some(secret)),
            said: OAuth(401, "invalid_client"),
        },
        Case {
            what: "a statement for an id",
            request: token(grant.clone()).basic_auth(format!("{id}' OR '1'='1"), Some(NOT_FOR_LOGS)),
            said: OAuth(401, "invalid_client"),
        },
        Case {
            what: "the hash of the secret",
            request: token(grant.clone())
                .basic_auth(id, Some(URL_SAFE_NO_PAD.encode(<sha2::Sha256 as sha2::Digest>::digest(secret)))),
            said: OAuth(401, "invalid_client"),
        },
        Case {
            what: "two headers",
            request: by(by(token(grant.clone()), &client), &other),
            said: OAuth(401, "invalid_client"),
        },
        Case {
            what: "a header that isn't base64",
            request: header(format!("Basic {NOT_FOR_LOGS}!")),
            said: OAuth(401, "invalid_client"),
        },
        Case {
            what: "a header that isn't UTF-8",
            request: header(format!("Basic {}", STANDARD.encode([0xff, b':', 0xfe]))),
            said: OAuth(401, "invalid_client"),
        },
        Case {
            what: "a bearer where a client belongs",
            request: token(grant.clone()).bearer_auth(&client.token),
            said: OAuth(401, "invalid_client"),
        },
        Case {
            what: "wrong secret in the form",
            request: token(format!("{grant}&client_id={id}&client_secret={NOT_FOR_LOGS}")),
            said: OAuth(401, "invalid_client"),
        },
        Case {
            what: "only the id of a client with a secret",
            request: token(format!("{grant}&client_id={id}")),
            said: OAuth(401, "invalid_client"),
        },
        Case {
            what: "only a secret",
            request: token(format!("{grant}&client_secret={secret}")),
            said: OAuth(401, "invalid_client"),
        },
        Case {
            what: "a native application with a made-up secret",
            request: token(format!("{grant}&client_id={NATIVE}&client_secret={NOT_FOR_LOGS}")),
            said: OAuth(401, "invalid_client"),
        },
        Case {
            what: "a native application by Basic",
            request: token(grant.clone()).basic_auth(NATIVE, Some("")),
            said: OAuth(401, "invalid_client"),
        },
        Case {
            what: "a native application for itself",
            request: token(format!("{grant}&client_id={NATIVE}")),
            said: OAuth(400, "unauthorized_client"),
        },
        Case {
            what: "swapped ids: one in the header, another in the form",
            request: own(&format!("{grant}&client_id={}", other.id)),
            said: OAuth(400, "invalid_request"),
        },
        Case {
            what: "two ways to show who it is",
            request: own(&format!("{grant}&client_id={id}&client_secret={secret}")),
            said: OAuth(400, "invalid_request"),
        },
        Case { what: "no grant", request: own("scope=openid"), said: OAuth(400, "invalid_request") },
        Case {
            what: "an empty grant",
            request: own("grant_type=&scope=openid"),
            said: OAuth(400, "invalid_request"),
        },
        Case {
            what: "a grant that OAuth 2.1 dropped",
            request: own(&format!("grant_type=password&username=a&password={NOT_FOR_LOGS}&scope=openid")),
            said: OAuth(400, "unsupported_grant_type"),
        },
        Case {
            what: "a grant nobody knows",
            request: own("grant_type=urn:x&scope=openid"),
            said: OAuth(400, "unsupported_grant_type"),
        },
        Case {
            what: "no scope",
            request: own("grant_type=client_credentials"),
            said: OAuth(400, "invalid_scope"),
        },
        Case {
            what: "an unknown scope",
            request: own("grant_type=client_credentials&scope=all"),
            said: OAuth(400, "invalid_scope"),
        },
        Case {
            what: "a known and an unknown scope",
            request: own("grant_type=client_credentials&scope=openid+all"),
            said: OAuth(400, "invalid_scope"),
        },
        Case {
            what: "a scope that only looks like one",
            request: own(&format!("grant_type=client_credentials&scope={COMPUTE}/")),
            said: OAuth(400, "invalid_scope"),
        },
        Case {
            what: "the scope twice",
            request: own(&format!("{grant}&scope=openid")),
            said: OAuth(400, "invalid_request"),
        },
        Case {
            what: "the grant twice, alike",
            request: own(&format!("{grant}&grant_type=client_credentials")),
            said: OAuth(400, "invalid_request"),
        },
        Case {
            what: "the grant twice, once in other letters",
            request: own(&format!("{grant}&grant%5Ftype=password")),
            said: OAuth(400, "invalid_request"),
        },
        Case {
            what: "parameters in the URL",
            request: by(form(&service, &format!("{TOKEN}?{grant}"), ""), &client),
            said: OAuth(400, "invalid_request"),
        },
        Case {
            what: "parameters in the URL besides",
            request: by(form(&service, &format!("{TOKEN}?scope=openid"), grant.clone()), &client),
            said: OAuth(400, "invalid_request"),
        },
        Case {
            what: "a hundred parameters",
            request: own(&format!("{grant}{many}")),
            said: OAuth(400, "invalid_request"),
        },
        Case {
            what: "too long",
            request: own(&format!("{grant}&x={}", "x".repeat(70_000))),
            said: OAuth(400, "invalid_request"),
        },
        Case { what: "nothing", request: own(""), said: OAuth(400, "invalid_request") },
        Case { what: "bytes", request: own("\u{0}\u{1}%ff%zz&&==&"), said: OAuth(400, "invalid_request") },
        Case {
            what: "JSON",
            request: by(service.request(Method::POST, TOKEN), &client)
                .json(&json!({"grant_type": "client_credentials", "scope": COMPUTE})),
            said: OAuth(400, "invalid_request"),
        },
        Case {
            what: "a form that says it is something else",
            request: by(service.request(Method::POST, TOKEN), &client)
                .header("content-type", "text/plain")
                .body(grant.clone()),
            said: OAuth(400, "invalid_request"),
        },
        Case {
            what: "dependent tokens for no resource server",
            request: own(&format!("{DEPENDENT}&token={}", client.token)),
            said: OAuth(400, "unauthorized_client"),
        },
    ];
    play(&service, cases, &[secret, &other.secret, &client.token, &other.token]).await;
}

#[tokio::test]
async fn bad_requests_about_tokens() {
    let service = Farcall::start();
    let (client, other) = (service.client().await, service.client().await);
    let server = service.resource_server("funcx_service").await;
    let openid = access_token(&client.grant("openid").await.ok());
    let introspect = |body: String| by(form(&service, INTROSPECT, body), &server);
    let dependent = |body: String| by(form(&service, TOKEN, format!("{DEPENDENT}&{body}")), &server);
    let revoke = |body: String| form(&service, REVOKE, body);
    let about = format!("token={}", client.token);
    let cases = vec![
        Case {
            what: "introspection by nobody",
            request: form(&service, INTROSPECT, about.clone()),
            said: OAuth(401, "invalid_client"),
        },
        Case {
            what: "introspection with a wrong secret",
            request: form(&service, INTROSPECT, about.clone()).basic_auth(&server.id, Some(NOT_FOR_LOGS)),
            said: OAuth(401, "invalid_client"),
        },
        Case {
            what: "introspection by a native application",
            request: form(&service, INTROSPECT, format!("{about}&client_id={NATIVE}")),
            said: OAuth(401, "invalid_client"),
        },
        Case {
            what: "introspection by a client that is no resource server",
            request: by(form(&service, INTROSPECT, about.clone()), &other),
            said: Inactive,
        },
        Case {
            what: "introspection of a token for another resource server",
            request: introspect(format!("token={openid}")),
            said: Inactive,
        },
        Case {
            what: "introspection of a token that never was",
            request: introspect(format!("token={NOT_FOR_LOGS}")),
            said: Inactive,
        },
        Case {
            what: "introspection of a secret",
            request: introspect(format!("token={}", client.secret)),
            said: Inactive,
        },
        Case {
            what: "introspection of a token with something behind it",
            request: introspect(format!("{about}x")),
            said: Inactive,
        },
        Case {
            what: "introspection of nothing",
            request: introspect("include=identity_set".to_owned()),
            said: OAuth(400, "invalid_request"),
        },
        Case {
            what: "introspection of two",
            request: introspect(format!("{about}&token={openid}")),
            said: OAuth(400, "invalid_request"),
        },
        Case {
            what: "dependent tokens for one that never was",
            request: dependent(format!("token={NOT_FOR_LOGS}")),
            said: OAuth(400, "invalid_grant"),
        },
        Case {
            what: "dependent tokens for another resource server's",
            request: dependent(format!("token={openid}")),
            said: OAuth(400, "invalid_grant"),
        },
        Case {
            what: "dependent tokens that reach further",
            request: dependent(format!("{about}&scope={COMPUTE}")),
            said: OAuth(400, "invalid_scope"),
        },
        Case {
            what: "dependent tokens that administer",
            request: dependent(format!(
                "{about}&scope=openid+urn:globus:auth:scope:auth.globus.org:manage_projects"
            )),
            said: OAuth(400, "invalid_scope"),
        },
        Case {
            what: "dependent tokens for nothing",
            request: dependent("scope=openid".to_owned()),
            said: OAuth(400, "invalid_request"),
        },
        Case {
            what: "revoking by nobody",
            request: revoke(about.clone()),
            said: OAuth(401, "invalid_client"),
        },
        Case {
            what: "revoking with a wrong secret",
            request: revoke(about.clone()).basic_auth(&client.id, Some(NOT_FOR_LOGS)),
            said: OAuth(401, "invalid_client"),
        },
        Case { what: "revoking another's", request: by(revoke(about.clone()), &other), said: Ignored },
        Case {
            what: "revoking another's as a native application",
            request: revoke(format!("{about}&client_id={NATIVE}")),
            said: Ignored,
        },
        Case {
            what: "revoking nothing",
            request: by(revoke(String::new()), &client),
            said: OAuth(400, "invalid_request"),
        },
        Case {
            what: "revoking two",
            request: by(revoke(format!("{about}&token={openid}")), &client),
            said: OAuth(400, "invalid_request"),
        },
    ];
    let secrets = [client.secret.as_str(), &client.token, &other.token, &openid, &server.secret];
    play(&service, cases, &secrets).await;
}

/// A token in the form of a JWT, with any header.
fn forged(header: serde_json::Value, claims: &serde_json::Value, signature: &str) -> String {
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{signature}", part(&header), part(claims))
}

#[tokio::test]
async fn bad_tokens() {
    let service = Farcall::start();
    let client = service.client().await;
    let granted = client.grant("openid").await.ok();
    let (openid, id_token) = (access_token(&granted), granted["id_token"].as_str().unwrap().to_owned());
    let projects =
        access_token(&client.grant("urn:globus:auth:scope:auth.globus.org:manage_projects").await.ok());
    let names =
        access_token(&client.grant("urn:globus:auth:scope:auth.globus.org:view_identities").await.ok());
    let email = access_token(&client.grant("openid email profile").await.ok());
    let revoked = access_token(&client.grant(COMPUTE).await.ok());
    super::send(by(form(&service, REVOKE, format!("token={revoked}")), &client)).await.ok();
    let claims = json!({"sub": client.id, "aud": client.id, "scope": COMPUTE, "exp": 9_999_999_999_u64});
    let key = service.get("/jwk.json").await.ok()["keys"][0].clone();
    let hmac = {
        // The classic: the public key as the key of an HMAC.
        let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS512);
        let secret = jsonwebtoken::EncodingKey::from_secret(key.to_string().as_bytes());
        jsonwebtoken::encode(&header, &claims, &secret).unwrap()
    };
    let with = |path: &str, token: &str| service.request(Method::GET, path).bearer_auth(token);
    let (tasks, who, identities) = (
        format!("/v2/tasks/{STRANGER}"),
        "/v2/oauth2/userinfo".to_owned(),
        format!("/v2/api/identities?ids={}", client.id),
    );
    let none = forged(json!({"alg": "none", "typ": "JWT"}), &claims, "");
    let none_in_capitals = forged(json!({"alg": "NONE"}), &claims, "");
    let unsigned = forged(json!({"alg": "RS512", "kid": key["kid"]}), &claims, "");
    let made_up = forged(json!({"alg": "RS512", "kid": key["kid"]}), &claims, "AAAA");
    let own_key = forged(json!({"alg": "RS512", "jwk": key}), &claims, "AAAA");
    let elsewhere = forged(json!({"alg": "RS512", "jku": "http://127.0.0.1:1/jwk.json"}), &claims, "AAAA");
    let mut cases = Vec::new();
    for (what, token) in [
        ("signed with none", none.as_str()),
        ("signed with NONE", &none_in_capitals),
        ("without a signature", &unsigned),
        ("a made-up signature", &made_up),
        ("a key of its own", &own_key),
        ("a key from elsewhere", &elsewhere),
        ("the public key as an HMAC's", &hmac),
        ("an id token for an access token", &id_token),
        ("a secret for a token", &client.secret),
        ("a revoked token", &revoked),
        ("a token in other letters", &client.token.to_ascii_uppercase()),
    ] {
        cases.push(Case { what, request: with(&tasks, token), said: Compute(401, "INVALID_AUTH_TOKEN") });
        cases.push(Case { what, request: with(&who, token), said: Problem(401, "UNAUTHORIZED") });
    }
    cases.extend([
        Case {
            what: "a token in the URL",
            request: service.request(Method::GET, &format!("{tasks}?access_token={}", client.token)),
            said: Compute(401, "USER_UNAUTHENTICATED"),
        },
        Case {
            what: "two tokens",
            request: with(&tasks, &client.token).bearer_auth(&client.token),
            said: Compute(401, "USER_UNAUTHENTICATED"),
        },
        Case {
            what: "a token of the identity service at compute",
            request: with(&tasks, &openid),
            said: Compute(403, "INSUFFICIENT_AUTH_SCOPE"),
        },
        Case {
            what: "a token of compute at the identity service",
            request: with(&who, &client.token),
            said: Problem(403, "FORBIDDEN"),
        },
        Case {
            what: "who is it, without openid",
            request: with(&who, &projects),
            said: Problem(403, "FORBIDDEN"),
        },
        Case {
            what: "identities without a token",
            request: service.request(Method::GET, &identities),
            said: Problem(401, "UNAUTHORIZED"),
        },
        Case {
            what: "identities with openid alone",
            request: with(&identities, &openid),
            said: Problem(403, "FORBIDDEN"),
        },
        Case {
            what: "identities with all that is about oneself",
            request: with(&identities, &email),
            said: Problem(403, "FORBIDDEN"),
        },
        Case {
            what: "identities twice",
            request: with(&format!("{identities}&ids={STRANGER}"), &names),
            said: Problem(400, "BAD_REQUEST"),
        },
        Case {
            what: "identities by both",
            request: with(&format!("{identities}&usernames=a@b"), &names),
            said: Problem(400, "BAD_REQUEST"),
        },
        Case {
            what: "identities by a statement",
            request: with("/v2/api/identities?ids='%20OR%201=1", &names),
            said: Problem(400, "BAD_REQUEST"),
        },
        Case {
            what: "a thousand identities",
            request: with(&format!("/v2/api/identities?ids={}", [STRANGER; 1000].join(",")), &names),
            said: Problem(400, "BAD_REQUEST"),
        },
    ]);
    let secrets =
        [client.secret.as_str(), &client.token, &openid, &id_token, &projects, &names, &email, &revoked];
    play(&service, cases, &secrets).await;
}
