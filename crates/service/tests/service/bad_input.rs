//! Every member of every body wrong in type, size and encoding: a documented refusal or an honest acceptance, never a
//! failure of ours, and nothing written by what was refused.

use serde_json::{Value, json};

use crate::support::{CODE, Farcall, PAYLOAD, endpoint_body, send, service_with_endpoint};

/// Tables that requests of the compute routes write to.
const TABLES: [&str; 8] = [
    "functions",
    "function_code",
    "endpoints",
    "credentials",
    "task_groups",
    "tasks",
    "assignments",
    "containers",
];

fn wrong_values() -> Vec<Value> {
    let mut deep = json!([]);
    for _ in 0..100 {
        deep = json!([deep]);
    }
    vec![
        json!(null),
        json!(true),
        json!(-1),
        json!(1.5),
        json!(1e300),
        json!(""),
        json!("x"),
        json!("\u{0}"),
        json!("00000000-0000-4000-8000-000000000000"),
        json!("x".repeat(200 << 10)),
        json!([]),
        json!([1]),
        json!(["x"]),
        json!([null]),
        json!({}),
        json!({"x": 1}),
        json!({"x": ["y"]}),
        json!({"00000000-0000-4000-8000-000000000000": ["y"]}),
        deep,
    ]
}

#[tokio::test]
async fn every_member_of_every_body_wrong() {
    let (service, client, function, endpoint) = service_with_endpoint().await;
    let mut database = service.database().await;
    let mut rows = async || -> i64 {
        let mut rows = 0;
        for table in TABLES {
            rows += database.read(format!("SELECT count(*) FROM {table}")).await.unwrap();
        }
        rows
    };
    let submit = json!({"create_queue": true, "tasks": {&function: [PAYLOAD]}, "task_group_id": null,
        "resource_specification": null, "user_endpoint_config": null, "result_serializers": null, "user_runtime": null});
    let mut register = endpoint_body();
    for member in [
        "display_name",
        "multi_user",
        "allowed_functions",
        "authentication_policy",
        "subscription_uuid",
        "public",
        "admins",
    ] {
        register[member] = json!(null);
    }
    let bodies = [
        (
            "/v3/functions".to_owned(),
            json!({"function_name": "f", "function_code": CODE, "meta": {}, "description": null,
            "public": null, "group": null, "ha_endpoint_id": null, "serialized": true}),
        ),
        (format!("/v3/endpoints/{}/submit", endpoint.id()), submit),
        ("/v3/endpoints".to_owned(), register),
        ("/v2/batch_status".to_owned(), json!({"task_ids": []})),
        (
            "/v2/containers".to_owned(),
            json!({"name": "", "location": "l", "description": "", "type": "docker"}),
        ),
        (
            "/v2/containers/build".to_owned(),
            json!({"name": "", "description": "", "apt": [], "pip": [], "conda": [],
            "payload_url": null}),
        ),
    ];
    let mut refusals = 0;
    for (path, valid) in bodies {
        let members: Vec<String> = valid.as_object().unwrap().keys().cloned().collect();
        for member in members {
            for wrong in wrong_values() {
                let mut body = valid.clone();
                body[&member] = wrong.clone();
                let before = rows().await;
                let answer = client.post(&path, body).await;
                let shown: String = wrong.to_string().chars().take(60).collect();
                match answer.status.as_u16() {
                    200 => {}
                    400 | 403 | 404 | 413 | 422 => {
                        refusals += 1;
                        let text = answer.body["message"].as_str().unwrap_or_default();
                        assert!(
                            !text.is_empty() && text.len() < 1000,
                            "{path} {member} {shown}: {text:.200}"
                        );
                        assert_eq!(rows().await, before, "{path} {member} {shown}");
                    }
                    other => panic!("{path} {member} {shown}: {other} {}", answer.body),
                }
            }
        }
        let before = rows().await;
        for text in [
            &b""[..],
            b"{",
            b"null",
            b"[]",
            b"\"x\"",
            b"{\"a\":1}garbage",
            b"\xff\xfe",
            b"{\"\xff\":1}",
            b"\xef\xbb\xbf{}",
            b"{\"task_ids\":[\"\\ud800\"]}",
        ] {
            let request = client.request(reqwest::Method::POST, &path).body(text.to_vec());
            let answer = send(request).await;
            let built = path.ends_with("build") && answer.status == 422;
            assert!(answer.status == 400 || built, "{path} {text:?}: {} {}", answer.status, answer.body);
        }
        assert_eq!(rows().await, before, "{path}");
    }
    assert!(refusals > 200, "{refusals}");
    assert!(!service.read_log().contains("panicked"));
}

/// PostgreSQL cannot store the character NUL in a text: it is refused by name, on both databases.
#[tokio::test]
async fn the_character_nul_is_refused_by_name() {
    let (service, client, function, endpoint) = service_with_endpoint().await;
    let nul = "a\u{0}b";
    let functions =
        json!({"function_name": "f", "function_code": CODE, "meta": {"python_version": "3.11.7"}});
    let endpoint_path = format!("/v3/endpoints/{}", endpoint.id());
    let source = json!({"function_name": "f", "function_code": nul, "serialized": false});
    client.post("/v3/functions", source).await.refused(400, "REQUEST_MALFORMED");
    for (path, valid, member) in [
        ("/v3/functions", &functions, "function_name"),
        ("/v3/functions", &functions, "description"),
        ("/v3/functions", &functions, "meta.python_version"),
        ("/v3/endpoints", &endpoint_body(), "endpoint_name"),
        ("/v3/endpoints", &endpoint_body(), "display_name"),
        (&endpoint_path, &json!({}), "display_name"),
        ("/v2/containers", &json!({"location": "l", "type": "docker"}), "name"),
        ("/v2/containers", &json!({"location": "l", "type": "docker"}), "description"),
        ("/v2/containers", &json!({"location": "l", "type": "docker"}), "location"),
        ("/v2/containers", &json!({"location": "l", "type": "docker"}), "type"),
    ] {
        let mut body = valid.clone();
        match member.split_once('.') {
            Some((object, member)) => body[object][member] = json!(nul),
            None => body[member] = json!(nul),
        }
        let answer = match path == endpoint_path {
            true => client.put(path, body).await,
            false => client.post(path, body).await,
        };
        let refused = answer.refused(400, "REQUEST_MALFORMED");
        let text = format!("{member}: holds the character NUL (U+0000), which cannot be stored");
        assert_eq!(refused["message"], text, "{path}");
    }
    // Where any JSON may stand it is kept: as the escape it came as.
    let mut register = endpoint_body();
    register["metadata"]["note"] = json!(nul);
    client.post("/v3/endpoints", register).await.ok();
    let submit = json!({"tasks": {&function: [nul]}, "resource_specification": {"x": nul}});
    client.post(&format!("{endpoint_path}/submit"), submit).await.ok();
    // A look-up stores nothing, and fails no less clearly.
    let token = client.grant("openid urn:globus:auth:scope:auth.globus.org:view_identities").await;
    let token = client.with_token(&token.ok()["access_token"]);
    assert_eq!(token.get("/v2/api/identities?usernames=a%00b").await.status, 400);
    let form = [("grant_type", "client_credentials"), ("scope", "open\u{0}id")];
    let request = client.request(reqwest::Method::POST, "/v2/oauth2/token").form(&form);
    let refused = send(request.basic_auth(&client.id, Some(&client.secret))).await;
    assert_eq!(refused.status, 400);
    assert!(refused.body.to_string().contains("holds the character NUL"), "{}", refused.body);
    assert!(!service.read_log().contains("ERROR"), "{}", service.read_log());
}

#[tokio::test]
async fn ids_in_paths_that_are_none() {
    let service = Farcall::start();
    let client = service.client().await;
    let paths = [
        "/v2/functions/{}",
        "/v2/tasks/{}",
        "/v2/taskgroup/{}",
        "/v2/endpoints/{}",
        "/v2/endpoints/{}/status",
        "/v3/endpoints/{}/allowed_functions",
        "/v2/containers/{}/docker",
        "/v2/containers/build/{}",
    ];
    for path in paths {
        for id in ["me", "%00", "..%2f", "%ff", "0", "{}", &"1".repeat(2000)] {
            let answer = client.get(&path.replace("{}", id)).await;
            assert_eq!(answer.status, 400, "{path} {id:.20}: {}", answer.body);
        }
    }
}
