//! Bad requests for projects and policies.

use reqwest::Method;
use serde_json::{Value, json};

use super::Said::Problem;
use super::{Case, access_token, play};
use crate::support::Farcall;

const MANAGE: &str = "urn:globus:auth:scope:auth.globus.org:manage_projects";
const STRANGER: &str = "00000000-0000-4000-8000-000000000000";

#[tokio::test]
async fn bad_projects_and_policies() {
    let service = Farcall::start();
    let (client, other) = (service.client().await, service.client().await);
    let manage = access_token(&client.grant(MANAGE).await.ok());
    let others = access_token(&other.grant(MANAGE).await.ok());
    let openid = access_token(&client.grant("openid").await.ok());
    let body = json!({"project": {"display_name": "P", "contact_email": "p@example.edu"}});
    let own = client.with_token(&json!(manage));
    let project = own.post("/v2/api/projects", body.clone()).await.ok()["project"]["id"].clone();
    let policy = json!({"policy": {"project_id": project, "display_name": "Q", "description": ""}});

    let post = |path: &str, token: &str, body: &Value| {
        service.request(Method::POST, path).bearer_auth(token).json(body)
    };
    let bad_project = |what: &'static str, member: &str, value: Value| {
        let mut body = body.clone();
        body["project"][member] = value;
        let request = post("/v2/api/projects", &manage, &body);
        Case { what, request, said: Problem(400, "BAD_REQUEST") }
    };
    let bad_policy = |what: &'static str, member: &str, value: Value| {
        let mut body = policy.clone();
        body["policy"][member] = value;
        let request = post("/v2/api/policies", &manage, &body);
        Case { what, request, said: Problem(400, "BAD_REQUEST") }
    };
    let many: Vec<String> = (0..101).map(|n| format!("d{n}.example")).collect();
    let cases = vec![
        Case {
            what: "projects without a token",
            request: service.request(Method::POST, "/v2/api/projects").json(&body),
            said: Problem(401, "UNAUTHORIZED"),
        },
        Case {
            what: "projects without the scope",
            request: post("/v2/api/projects", &openid, &body),
            said: Problem(403, "FORBIDDEN"),
        },
        Case {
            what: "policies without the scope",
            request: post("/v2/api/policies", &openid, &policy),
            said: Problem(403, "FORBIDDEN"),
        },
        Case {
            what: "a policy in another's project",
            request: post("/v2/api/policies", &others, &policy),
            said: Problem(404, "NOT_FOUND"),
        },
        Case {
            what: "a policy as a form",
            request: super::form(&service, "/v2/api/policies", "policy=1").bearer_auth(&manage),
            said: Problem(400, "BAD_REQUEST"),
        },
        Case {
            what: "a huge project",
            request: post("/v2/api/projects", &manage, &json!({"x": "x".repeat(1 << 20)})),
            said: Problem(400, "BAD_REQUEST"),
        },
        Case {
            what: "a policy by a name",
            request: service.request(Method::GET, "/v2/api/policies/mine").bearer_auth(&manage),
            said: Problem(400, "BAD_REQUEST"),
        },
        bad_project("a project without a name", "display_name", json!("")),
        bad_project("a name of two lines", "display_name", json!("a\nb")),
        bad_project("a very long name", "display_name", json!("x".repeat(300))),
        bad_project("no address", "contact_email", json!("nobody")),
        bad_project("an administrator that isn't there", "admin_ids", json!([client.id, STRANGER])),
        bad_project("an administrator that is no id", "admin_ids", json!(["me"])),
        bad_project("a group that isn't there", "admin_group_ids", json!([STRANGER])),
        bad_project("a project for somebody else", "admin_ids", json!([other.id])),
        bad_project("too many administrators", "admin_ids", json!(vec![&client.id; 101])),
        bad_policy("a timeout below a minute", "authentication_assurance_timeout", json!(59)),
        bad_policy("a negative timeout", "authentication_assurance_timeout", json!(-1)),
        bad_policy("a timeout beyond all time", "authentication_assurance_timeout", json!(u64::MAX)),
        bad_policy("a second factor without high assurance", "required_mfa", json!(true)),
        bad_policy("a domain that is none", "domain_constraints_include", json!(["exa mple"])),
        bad_policy("an empty domain", "domain_constraints_exclude", json!([""])),
        bad_policy("too many domains", "domain_constraints_include", json!(many)),
        bad_policy("a policy without a name", "display_name", json!(null)),
        bad_policy("a very long description", "description", json!("x".repeat(5000))),
        bad_policy("a project that is no id", "project_id", json!("x")),
    ];
    play(&service, cases, &[&client.secret, &manage, &others, &openid]).await;
}
