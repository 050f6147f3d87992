//! Tests of resource servers: introspection, dependent tokens, and the signing keys.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, COMPUTE, Client, Farcall, send};

const GROUPS: &str = "urn:globus:auth:scope:groups.api.globus.org:view_my_groups_and_memberships";

async fn introspect(service: &Farcall, by: &Client, form: &[(&str, &str)]) -> Answer {
    let request = service.request(Method::POST, "/v2/oauth2/token/introspect").form(form);
    send(request.basic_auth(&by.id, Some(&by.secret))).await
}

async fn dependent(service: &Farcall, by: &Client, token: &str, scope: Option<&str>) -> Answer {
    let mut form = vec![("grant_type", "urn:globus:auth:grant_type:dependent_token"), ("token", token)];
    form.extend(scope.map(|scope| ("scope", scope)));
    let request = service.request(Method::POST, "/v2/oauth2/token").form(&form);
    send(request.basic_auth(&by.id, Some(&by.secret))).await
}

#[tokio::test]
async fn introspection_says_what_a_token_stands_for() {
    let service = Farcall::start();
    let client = service.client().await;
    let server = service.resource_server("funcx_service").await;
    let told = introspect(&service, &server, &[("token", &client.token)]).await;
    assert_eq!(told.headers["cache-control"], "no-store");
    let told = told.ok();
    let (issued, ends) = (told["iat"].as_i64().unwrap(), told["exp"].as_i64().unwrap());
    assert_eq!(ends - issued, 172_800);
    assert_eq!(
        told,
        json!({
            "active": true, "token_type": "Bearer", "scope": COMPUTE, "client_id": client.id, "sub": client.id,
            "username": format!("{}@clients.auth.globus.org", client.id), "name": "tester", "email": null,
            "iat": issued, "nbf": issued, "exp": ends, "iss": service.http,
            "aud": ["funcx_service", "facd7ccc-c5f4-42aa-916b-a0e270e2c2a9"],
        })
    );
    let form = [("token", client.token.as_str()), ("include", "identity_set,identity_set_detail")];
    let told = introspect(&service, &server, &form).await.ok();
    assert_eq!(told["identity_set"], json!([client.id]));
    assert_eq!(told["identity_set_detail"][0]["sub"], client.id.as_str());

    let revoke = service.request(Method::POST, "/v2/oauth2/token/revoke").form(&[("token", &client.token)]);
    send(revoke.basic_auth(&client.id, Some(&client.secret))).await.ok();
    let told = introspect(&service, &server, &form).await.ok();
    assert_eq!(told, json!({"active": false}), "and nothing else");
}

#[tokio::test]
async fn dependent_tokens_act_for_the_same_person_and_end_with_what_they_were_given_for() {
    let service = Farcall::start();
    let client = service.client().await;
    let server = service.resource_server("funcx_service").await;
    let all = dependent(&service, &server, &client.token, None).await;
    assert_eq!(all.headers["cache-control"], "no-store");
    let all = all.ok();
    let servers: Vec<_> = all.as_array().unwrap().iter().map(|token| &token["resource_server"]).collect();
    assert_eq!(servers, ["groups.api.globus.org", "auth.globus.org"]);
    let one = dependent(&service, &server, &client.token, Some("openid")).await.ok();
    assert_eq!(one.as_array().unwrap().len(), 1);
    assert_eq!((&one[0]["scope"], &one[0]["token_type"]), (&json!("openid"), &json!("Bearer")));
    assert!(one[0]["expires_in"].as_u64().unwrap() <= 172_800);

    let as_client = client.with_token(&one[0]["access_token"]);
    assert_eq!(as_client.get("/v2/oauth2/userinfo").await.ok()["sub"], client.id.as_str());
    // Whose it is to end: the resource server's, which asked for it.
    let revoke = async |by: &Client, token: &Value| {
        let form = [("token", token.as_str().unwrap())];
        let request = service.request(Method::POST, "/v2/oauth2/token/revoke").form(&form);
        send(request.basic_auth(&by.id, Some(&by.secret))).await.ok();
    };
    revoke(&client, &one[0]["access_token"]).await;
    as_client.get("/v2/oauth2/userinfo").await.ok();
    revoke(&client, &json!(client.token)).await;
    assert_eq!(as_client.get("/v2/oauth2/userinfo").await.status, 401, "it ends with what it was given for");
    let groups = client.with_token(&all[0]["access_token"]);
    assert_eq!(all[0]["scope"], GROUPS);
    assert_eq!(groups.get("/v2/groups/my_groups").await.status, 401);
}

#[tokio::test]
async fn a_new_key_signs_and_the_old_one_still_verifies() {
    let mut service = Farcall::start();
    let client = service.client().await;
    let before = client.grant("openid").await.ok()["id_token"].as_str().unwrap().to_owned();
    let old = service.get("/jwk.json").await.ok()["keys"][0].clone();
    let keys = service.administer(&["key", "rotate"], "");
    assert_eq!((keys.as_array().unwrap().len(), &keys[1]["kid"]), (2, &old["kid"]));
    assert!(keys[1]["published_until"].is_string() && keys[0]["published_until"].is_null());
    let after = client.grant("openid").await.ok()["id_token"].as_str().unwrap().to_owned();

    for restarted in [false, true] {
        let published = service.get("/jwk.json").await.ok()["keys"].clone();
        assert_eq!(published[0]["kid"], keys[0]["kid"], "stock clients look at the first one only");
        assert_eq!(published[1], old);
        let verifies = |token: &str, key: &Value| {
            let key: jsonwebtoken::jwk::Jwk = serde_json::from_value(key.clone()).unwrap();
            let key = jsonwebtoken::DecodingKey::from_jwk(&key).unwrap();
            let mut checks = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::RS512);
            checks.set_audience(&[&client.id]);
            jsonwebtoken::decode::<Value>(token, &key, &checks).is_ok()
        };
        assert!(verifies(&after, &published[0]) && verifies(&before, &published[1]));
        assert!(!verifies(&before, &published[0]) && !verifies(&after, &published[1]));
        if !restarted {
            service.stop();
            service.start_again();
        }
    }
    service.stop();
    let offline = service.administer(&["key", "rotate"], "");
    assert_eq!(offline.as_array().unwrap().len(), 3, "also when it does not run");
}

#[tokio::test]
async fn identities_are_looked_up_by_ids_and_by_usernames() {
    let service = Farcall::start();
    let client = service.client().await;
    let alice = service.administer(
        &["user", "add", "alice@example.edu", "--name", "Alice", "--email", "a@example.edu"],
        "correct horse battery",
    );
    let scope = "urn:globus:auth:scope:auth.globus.org:view_identities";
    let auth = client.with_token(&client.grant(scope).await.ok()["access_token"]);
    let found = auth
        .get("/v2/api/identities?usernames=ALICE@example.edu,nobody@example.edu&provision=false&include=identity_provider")
        .await
        .ok();
    assert_eq!(
        found,
        json!({"identities": [{
            "id": alice["id"], "username": "alice@example.edu", "name": "Alice", "email": null,
            "organization": null, "status": "used", "identity_provider": null, "identity_type": "login",
        }], "included": {"identity_providers": []}}),
        "an e-mail is told to its owner only"
    );
    let before = service.administer(&["user", "list"], "");
    auth.get("/v2/api/identities?usernames=new@example.edu&provision=true").await.ok();
    assert_eq!(service.administer(&["user", "list"], ""), before, "asking makes nobody");
    let none = auth.get("/v2/api/identities?ids=").await.ok();
    assert_eq!(none, json!({"identities": []}));
}

#[tokio::test]
async fn projects_own_policies_and_belong_to_their_administrators() {
    let service = Farcall::start();
    let (client, other) = (service.client().await, service.client().await);
    let manage = "urn:globus:auth:scope:auth.globus.org:manage_projects";
    let own = client.with_token(&client.grant(manage).await.ok()["access_token"]);
    let others = other.with_token(&other.grant(manage).await.ok()["access_token"]);
    assert_eq!(own.get("/v2/api/projects").await.ok(), json!({"projects": []}));

    let project = json!({"project": {"display_name": "P", "contact_email": "p@example.edu",
        "admin_ids": [client.id], "admin_group_ids": []}});
    let made = own.post("/v2/api/projects", project).await.ok()["project"].clone();
    assert_eq!((&made["display_name"], &made["admin_ids"]), (&json!("P"), &json!([client.id])));
    assert_eq!(made["admins"]["identities"][0]["id"], client.id.as_str());
    assert_eq!(own.get("/v2/api/projects").await.ok(), json!({"projects": [made]}));

    let policy = json!({"policy": {"project_id": made["id"], "display_name": "Q", "description": "d",
        "high_assurance": true, "required_mfa": true, "authentication_assurance_timeout": 600,
        "domain_constraints_include": ["Example.EDU", "*.example.org"]}});
    let policy = own.post("/v2/api/policies", policy).await.ok()["policy"].clone();
    assert_eq!(policy["domain_constraints_include"], json!(["example.edu", "*.example.org"]));
    assert_eq!(policy["authentication_assurance_timeout"], 600);
    let path = format!("/v2/api/policies/{}", policy["id"].as_str().unwrap());
    assert_eq!(own.get(&path).await.ok(), json!({"policy": policy}));
    assert_eq!(own.get("/v2/api/policies").await.ok(), json!({"policies": [policy]}));

    assert_eq!(others.get("/v2/api/policies").await.ok(), json!({"policies": []}));
    assert_eq!(others.get("/v2/api/projects").await.ok(), json!({"projects": []}));
    assert_eq!(others.get(&path).await.status, 404);

    // Through a group as well.
    let group = service.administer(&["group", "add", "admins"], "");
    service.administer(&["group", "members", "admins", "--add", &client.id, "--add", &other.id], "");
    let shared = json!({"project": {"display_name": "S", "contact_email": "p@example.edu",
        "admin_ids": [], "admin_group_ids": [group["id"]]}});
    own.post("/v2/api/projects", shared).await.ok();
    assert_eq!(others.get("/v2/api/projects").await.ok()["projects"][0]["display_name"], "S");
}
