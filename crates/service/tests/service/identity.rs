//! Tests of tokens, id tokens and user information.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, COMPUTE, Client, Farcall, send};

const PROJECTS: &str = "urn:globus:auth:scope:auth.globus.org:manage_projects";

impl Answer {
    /// A refusal in OAuth's form.
    #[track_caller]
    pub fn oauth(self, status: u16, error: &str) {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.body["error"], error);
        assert!(self.body["error_description"].is_string());
        assert!(self.body.get("access_token").is_none());
    }
}

/// A form posted to the token route, with HTTP Basic or without.
async fn post(service: &Farcall, basic: Option<(&str, &str)>, form: &str) -> Answer {
    let mut request = service.request(Method::POST, "/v2/oauth2/token");
    if let Some((user, password)) = basic {
        request = request.basic_auth(user, Some(password));
    }
    send(request.header("content-type", "application/x-www-form-urlencoded").body(form.to_owned())).await
}

#[tokio::test]
async fn a_token_for_each_resource_server_and_each_scope_once() {
    let service = Farcall::start();
    let client = service.client().await;
    let one = client.grant(&format!("{COMPUTE} {COMPUTE}")).await;
    assert_eq!(one.headers["cache-control"], "no-store");
    let one = one.ok();
    assert_eq!(one["scope"], COMPUTE);
    assert_eq!(one["resource_server"], "funcx_service");
    assert_eq!(one["other_tokens"], json!([]));
    assert_eq!(one["token_type"], "Bearer");
    assert_eq!(one["expires_in"], 172_800);
    assert!(one.get("id_token").is_none());

    let both = client.grant(&format!("openid {PROJECTS} {COMPUTE} openid")).await.ok();
    assert_eq!(both["resource_server"], "auth.globus.org");
    assert_eq!(both["scope"], format!("openid {PROJECTS}"));
    assert_eq!(both["other_tokens"][0]["resource_server"], "funcx_service");
    assert_ne!(both["other_tokens"][0]["access_token"], both["access_token"]);
    assert!(both["id_token"].is_string());
}

#[tokio::test]
async fn an_id_token_is_verified_as_the_stock_client_does() {
    let service = Farcall::start();
    let client = service.client().await;
    let discovery = service.get("/.well-known/openid-configuration").await.ok();
    let algorithms: Vec<jsonwebtoken::Algorithm> =
        serde_json::from_value(discovery["id_token_signing_alg_values_supported"].clone()).unwrap();
    let keys = discovery["jwks_uri"].as_str().unwrap();
    let keys = service.get(keys.strip_prefix(&service.http).unwrap()).await.ok();
    let key: jsonwebtoken::jwk::Jwk = serde_json::from_value(keys["keys"][0].clone()).unwrap();
    let key = jsonwebtoken::DecodingKey::from_jwk(&key).unwrap();

    let token = client.grant("openid").await.ok()["id_token"].as_str().unwrap().to_owned();
    let mut checks = jsonwebtoken::Validation::new(algorithms[0]);
    checks.set_audience(&[&client.id]);
    let claims = jsonwebtoken::decode::<Value>(&token, &key, &checks).unwrap().claims;
    assert_eq!(claims["sub"], client.id);
    assert_eq!(claims["iss"], service.http);
    assert_eq!(claims["preferred_username"], format!("{}@clients.auth.globus.org", client.id));
}

#[tokio::test]
async fn who_somebody_is() {
    let service = Farcall::start();
    let client = service.client().await;
    let auth = client.with_token(&client.grant("openid").await.ok()["access_token"]);
    let info = auth.get("/v2/oauth2/userinfo").await.ok();
    assert_eq!(info["sub"], client.id);
    assert_eq!(info["identity_set"][0]["sub"], client.id);
    assert_eq!(info["name"], "tester");
    let other = service.client().await;
    let unknown = "00000000-0000-4000-8000-000000000000";
    let path = format!("/v2/api/identities?ids={},{},{unknown}", client.id, other.id);
    let view = "urn:globus:auth:scope:auth.globus.org:view_identities";
    // The scopes of the stock SDK and endpoint are for oneself: `whoami` asks so.
    let stock = format!("openid {PROJECTS}");
    let both = [client.id.as_str(), &other.id];
    for (scope, seen) in [(view, &both[..]), (&stock, &both[..1]), (PROJECTS, &both[..1])] {
        let some = client.with_token(&client.grant(scope).await.ok()["access_token"]);
        let found = some.get(&path).await.ok();
        let ids: Vec<_> =
            found["identities"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap()).collect();
        assert_eq!(ids, seen, "{scope}");
        let usernames = format!("/v2/api/identities?usernames={}@clients.auth.globus.org", other.id);
        let found = some.get(&usernames).await.ok();
        assert_eq!(found["identities"].as_array().unwrap().len(), seen.len() - 1, "{scope}");
        assert_eq!(some.get("/v2/api/identities?ids=me").await.status, 400);
        assert_eq!(some.get("/v2/api/identities").await.status, 400);
    }
    for scope in ["openid", "email", "profile", "openid email profile"] {
        let some = client.with_token(&client.grant(scope).await.ok()["access_token"]);
        let refused = some.get(&path).await;
        assert_eq!(refused.status, 403, "{scope}");
        assert!(refused.body.to_string().contains(view), "{}", refused.body);
    }
    // A token for the compute routes says nothing here, and nobody's says less.
    assert_eq!(client.get("/v2/oauth2/userinfo").await.status, 403);
    assert_eq!(client.get(&format!("/v2/api/identities?ids={}", client.id)).await.status, 403);
    assert_eq!(service.get("/v2/oauth2/userinfo").await.status, 401);
    // And one without `openid` does not say who it is.
    let projects = client.with_token(&client.grant(PROJECTS).await.ok()["access_token"]);
    assert_eq!(projects.get("/v2/oauth2/userinfo").await.status, 403);
}

#[tokio::test]
async fn bad_requests_for_tokens_are_refused_in_oauths_form() {
    let service = Farcall::start();
    let client = service.client().await;
    let own = Some((client.id.as_str(), client.secret.as_str()));
    let grant = "grant_type=client_credentials&scope=openid";
    let twice = format!("{grant}&scope={COMPUTE}");
    let in_form = format!("{grant}&client_id={}&client_secret={}", client.id, client.secret);
    assert_eq!(post(&service, None, &in_form).await.status, 200, "the form will do as well");

    let stranger = "00000000-0000-4000-8000-000000000000";
    let wrong_in_form = format!("{grant}&client_id={}&client_secret=x", client.id);
    let long = format!("{grant}&x={}", "x".repeat(70_000));
    type Basic<'a> = Option<(&'a str, &'a str)>;
    let table: [(&str, Basic<'_>, &str, u16, &str); 15] = [
        ("no client", None, grant, 401, "invalid_client"),
        ("wrong secret", Some((&client.id, "x")), grant, 401, "invalid_client"),
        ("empty secret", Some((&client.id, "")), grant, 401, "invalid_client"),
        ("another's id", Some((stranger, &client.secret)), grant, 401, "invalid_client"),
        ("no id at all", Some(("me", &client.secret)), grant, 401, "invalid_client"),
        ("wrong secret in the form", None, &wrong_in_form, 401, "invalid_client"),
        ("no grant", own, "scope=openid", 400, "invalid_request"),
        ("unknown grant", own, "grant_type=password", 400, "unsupported_grant_type"),
        ("unknown refresh token", own, "grant_type=refresh_token&refresh_token=x", 400, "invalid_grant"),
        ("no scope", own, "grant_type=client_credentials", 400, "invalid_scope"),
        ("unknown scope", own, "grant_type=client_credentials&scope=all", 400, "invalid_scope"),
        (
            "a known and an unknown",
            own,
            "grant_type=client_credentials&scope=openid+all",
            400,
            "invalid_scope",
        ),
        ("twice", own, &twice, 400, "invalid_request"),
        ("nothing", own, "", 400, "invalid_request"),
        ("too long", own, &long, 400, "invalid_request"),
    ];
    for (what, basic, form, status, error) in table {
        let answer = post(&service, basic, form).await;
        println!("{what}");
        answer.oauth(status, error);
    }
    let json =
        service.request(Method::POST, "/v2/oauth2/token").json(&json!({"grant_type": "client_credentials"}));
    send(json).await.oauth(400, "invalid_request");
    assert!(!service.read_log().contains(&client.secret), "no secret is logged");
}

#[tokio::test]
async fn a_revoked_token_ends_at_once_and_only_its_own_client_revokes_it() {
    let service = Farcall::start();
    let (client, other) = (service.client().await, service.client().await);
    let revoke = async |by: &Client, token: &str| {
        let request = service.request(Method::POST, "/v2/oauth2/token/revoke");
        send(request.basic_auth(&by.id, Some(&by.secret)).form(&[("token", token)])).await
    };
    let path = "/v2/tasks/00000000-0000-4000-8000-000000000000";
    client.get(path).await.refused(404, "TASK_NOT_FOUND");
    assert_eq!(revoke(&other, &client.token).await.ok(), json!({"active": false}), "it says nothing of it");
    client.get(path).await.refused(404, "TASK_NOT_FOUND");
    assert_eq!(revoke(&client, &client.token).await.ok(), json!({"active": false}));
    client.get(path).await.refused(401, "INVALID_AUTH_TOKEN");
    assert_eq!(revoke(&client, "no such token").await.ok(), json!({"active": false}));
    let nobody = service.request(Method::POST, "/v2/oauth2/token/revoke").form(&[("token", "x")]);
    send(nobody).await.oauth(401, "invalid_client");
}

#[tokio::test]
async fn the_key_and_the_tokens_outlive_the_process() {
    let mut service = Farcall::start();
    let client = service.client().await;
    let key = service.get("/jwk.json").await.ok();
    service.kill();
    service.start_again();
    assert_eq!(service.get("/jwk.json").await.ok(), key);
    client.get("/v2/tasks/00000000-0000-4000-8000-000000000000").await.refused(404, "TASK_NOT_FOUND");
}

#[tokio::test]
async fn the_compute_routes_ask_for_a_token_of_their_scope() {
    let service = Farcall::start();
    let client = service.client().await;
    let openid = client.grant("openid").await.ok()["access_token"].as_str().unwrap().to_owned();
    let routes = [
        (Method::POST, "/v3/functions"),
        (Method::GET, "/v2/functions/x"),
        (Method::POST, "/v3/endpoints"),
        (Method::PUT, "/v3/endpoints/x"),
        (Method::GET, "/v2/endpoints/x"),
        (Method::DELETE, "/v2/endpoints/x"),
        (Method::GET, "/v2/endpoints/x/status"),
        (Method::POST, "/v3/endpoints/x/submit"),
        (Method::GET, "/v2/tasks/x"),
        (Method::POST, "/v2/batch_status"),
        (Method::GET, "/v2/taskgroup/x"),
        (Method::GET, "/v2/get_amqp_result_connection_url"),
    ];
    for (method, path) in routes {
        let request = || service.request(method.clone(), path);
        send(request()).await.refused(401, "USER_UNAUTHENTICATED");
        send(request().header("authorization", "Bearer")).await.refused(401, "USER_UNAUTHENTICATED");
        send(request().basic_auth(&client.id, Some(&client.secret)))
            .await
            .refused(401, "USER_UNAUTHENTICATED");
        send(request().bearer_auth("x")).await.refused(401, "INVALID_AUTH_TOKEN");
        send(request().bearer_auth(&openid)).await.refused(403, "INSUFFICIENT_AUTH_SCOPE");
    }
}
