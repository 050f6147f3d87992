//! Bad requests for tokens, about tokens, and with tokens.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::Method;
use serde_json::json;

use super::Said::{Compute, Ignored, Inactive, OAuth, Problem};
use super::{Case, NOT_FOR_LOGS, access_token, by, each, form, play};
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
    let cases = [
        each(
            OAuth(401, "invalid_client"),
            [
                ("no client", token(grant.clone())),
                ("wrong secret", token(grant.clone()).basic_auth(id, Some(NOT_FOR_LOGS))),
                ("empty secret", token(grant.clone()).basic_auth(id, Some(""))),
                ("no secret at all", token(grant.clone()).basic_auth(id, None::<&str>)),
                ("a secret cut short", token(grant.clone()).basic_auth(id, Some(&secret[..42]))),
                (
                    "a secret with something behind it",
                    token(grant.clone()).basic_auth(id, Some(format!("{secret}x"))),
                ),
                ("a very long secret", token(grant.clone()).basic_auth(id, Some(NOT_FOR_LOGS.repeat(500)))),
                ("another client's secret", token(grant.clone()).basic_auth(&other.id, Some(secret))),
                ("a client that isn't there", token(grant.clone()).basic_auth(STRANGER, Some(secret))),
                ("a name for an id", token(grant.clone()).basic_auth("tester", Some(secret))),
                (
                    "a statement for an id",
                    token(grant.clone()).basic_auth(format!("{id}' OR '1'='1"), Some(NOT_FOR_LOGS)),
                ),
                (
                    "the hash of the secret",
                    token(grant.clone()).basic_auth(
                        id,
                        Some(URL_SAFE_NO_PAD.encode(<sha2::Sha256 as sha2::Digest>::digest(secret))),
                    ),
                ),
                ("two headers", by(by(token(grant.clone()), &client), &other)),
                ("a header that isn't base64", header(format!("Basic {NOT_FOR_LOGS}!"))),
                (
                    "a header that isn't UTF-8",
                    header(format!("Basic {}", STANDARD.encode([0xff, b':', 0xfe]))),
                ),
                ("a bearer where a client belongs", token(grant.clone()).bearer_auth(&client.token)),
                (
                    "wrong secret in the form",
                    token(format!("{grant}&client_id={id}&client_secret={NOT_FOR_LOGS}")),
                ),
                ("only the id of a client with a secret", token(format!("{grant}&client_id={id}"))),
                ("only a secret", token(format!("{grant}&client_secret={secret}"))),
                (
                    "a native application with a made-up secret",
                    token(format!("{grant}&client_id={NATIVE}&client_secret={NOT_FOR_LOGS}")),
                ),
                ("a native application by Basic", token(grant.clone()).basic_auth(NATIVE, Some(""))),
            ],
        ),
        each(
            OAuth(400, "unauthorized_client"),
            [
                ("a native application for itself", token(format!("{grant}&client_id={NATIVE}"))),
                (
                    "dependent tokens for no resource server",
                    own(&format!("{DEPENDENT}&token={}", client.token)),
                ),
            ],
        ),
        each(
            OAuth(400, "invalid_request"),
            [
                (
                    "swapped ids: one in the header, another in the form",
                    own(&format!("{grant}&client_id={}", other.id)),
                ),
                (
                    "two ways to show who it is",
                    own(&format!("{grant}&client_id={id}&client_secret={secret}")),
                ),
                ("no grant", own("scope=openid")),
                ("an empty grant", own("grant_type=&scope=openid")),
                ("the scope twice", own(&format!("{grant}&scope=openid"))),
                ("the grant twice, alike", own(&format!("{grant}&grant_type=client_credentials"))),
                ("the grant twice, once in other letters", own(&format!("{grant}&grant%5Ftype=password"))),
                ("parameters in the URL", by(form(&service, &format!("{TOKEN}?{grant}"), ""), &client)),
                (
                    "parameters in the URL besides",
                    by(form(&service, &format!("{TOKEN}?scope=openid"), grant.clone()), &client),
                ),
                ("a hundred parameters", own(&format!("{grant}{many}"))),
                ("too long", own(&format!("{grant}&x={}", "x".repeat(70_000)))),
                ("nothing", own("")),
                ("bytes", own("\u{0}\u{1}%ff%zz&&==&")),
                (
                    "JSON",
                    by(service.request(Method::POST, TOKEN), &client)
                        .json(&json!({"grant_type": "client_credentials", "scope": COMPUTE})),
                ),
                (
                    "a form that says it is something else",
                    by(service.request(Method::POST, TOKEN), &client)
                        .header("content-type", "text/plain")
                        .body(grant.clone()),
                ),
            ],
        ),
        each(
            OAuth(400, "unsupported_grant_type"),
            [
                (
                    "a grant that OAuth 2.1 dropped",
                    own(&format!("grant_type=password&username=a&password={NOT_FOR_LOGS}&scope=openid")),
                ),
                ("a grant nobody knows", own("grant_type=urn:x&scope=openid")),
            ],
        ),
        each(
            OAuth(400, "invalid_scope"),
            [
                ("no scope", own("grant_type=client_credentials")),
                ("an unknown scope", own("grant_type=client_credentials&scope=all")),
                ("a known and an unknown scope", own("grant_type=client_credentials&scope=openid+all")),
                (
                    "a scope that only looks like one",
                    own(&format!("grant_type=client_credentials&scope={COMPUTE}/")),
                ),
            ],
        ),
    ]
    .into_iter()
    .flatten()
    .collect();
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
    let cases = [
        each(
            OAuth(401, "invalid_client"),
            [
                ("introspection by nobody", form(&service, INTROSPECT, about.clone())),
                (
                    "introspection with a wrong secret",
                    form(&service, INTROSPECT, about.clone()).basic_auth(&server.id, Some(NOT_FOR_LOGS)),
                ),
                (
                    "introspection by a native application",
                    form(&service, INTROSPECT, format!("{about}&client_id={NATIVE}")),
                ),
                ("revoking by nobody", revoke(about.clone())),
                (
                    "revoking with a wrong secret",
                    revoke(about.clone()).basic_auth(&client.id, Some(NOT_FOR_LOGS)),
                ),
            ],
        ),
        each(
            Inactive,
            [
                (
                    "introspection by a client that is no resource server",
                    by(form(&service, INTROSPECT, about.clone()), &other),
                ),
                (
                    "introspection of a token for another resource server",
                    introspect(format!("token={openid}")),
                ),
                ("introspection of a token that never was", introspect(format!("token={NOT_FOR_LOGS}"))),
                ("introspection of a secret", introspect(format!("token={}", client.secret))),
                ("introspection of a token with something behind it", introspect(format!("{about}x"))),
            ],
        ),
        each(
            OAuth(400, "invalid_request"),
            [
                ("introspection of nothing", introspect("include=identity_set".to_owned())),
                ("introspection of two", introspect(format!("{about}&token={openid}"))),
                ("dependent tokens for nothing", dependent("scope=openid".to_owned())),
                ("revoking nothing", by(revoke(String::new()), &client)),
                ("revoking two", by(revoke(format!("{about}&token={openid}")), &client)),
            ],
        ),
        each(
            OAuth(400, "invalid_grant"),
            [
                ("dependent tokens for one that never was", dependent(format!("token={NOT_FOR_LOGS}"))),
                ("dependent tokens for another resource server's", dependent(format!("token={openid}"))),
            ],
        ),
        each(
            OAuth(400, "invalid_scope"),
            [
                ("dependent tokens that reach further", dependent(format!("{about}&scope={COMPUTE}"))),
                (
                    "dependent tokens that administer",
                    dependent(format!(
                        "{about}&scope=openid+urn:globus:auth:scope:auth.globus.org:manage_projects"
                    )),
                ),
            ],
        ),
        each(
            Ignored,
            [
                ("revoking another's", by(revoke(about.clone()), &other)),
                ("revoking another's as a native application", revoke(format!("{about}&client_id={NATIVE}"))),
            ],
        ),
    ]
    .into_iter()
    .flatten()
    .collect();
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
    cases.extend(
        [
            each(
                Compute(401, "USER_UNAUTHENTICATED"),
                [
                    (
                        "a token in the URL",
                        service.request(Method::GET, &format!("{tasks}?access_token={}", client.token)),
                    ),
                    ("two tokens", with(&tasks, &client.token).bearer_auth(&client.token)),
                ],
            ),
            each(
                Compute(403, "INSUFFICIENT_AUTH_SCOPE"),
                [("a token of the identity service at compute", with(&tasks, &openid))],
            ),
            each(
                Problem(403, "FORBIDDEN"),
                [
                    ("a token of compute at the identity service", with(&who, &client.token)),
                    ("who is it, without openid", with(&who, &projects)),
                    ("identities with openid alone", with(&identities, &openid)),
                    ("identities with all that is about oneself", with(&identities, &email)),
                ],
            ),
            each(
                Problem(401, "UNAUTHORIZED"),
                [("identities without a token", service.request(Method::GET, &identities))],
            ),
            each(
                Problem(400, "BAD_REQUEST"),
                [
                    ("identities twice", with(&format!("{identities}&ids={STRANGER}"), &names)),
                    ("identities by both", with(&format!("{identities}&usernames=a@b"), &names)),
                    ("identities by a statement", with("/v2/api/identities?ids='%20OR%201=1", &names)),
                    (
                        "a thousand identities",
                        with(&format!("/v2/api/identities?ids={}", [STRANGER; 1000].join(",")), &names),
                    ),
                ],
            ),
        ]
        .into_iter()
        .flatten(),
    );
    let secrets =
        [client.secret.as_str(), &client.token, &openid, &id_token, &projects, &names, &email, &revoked];
    play(&service, cases, &secrets).await;
}
