//! Tests of functions: registration, reading, sharing, refusals.

use reqwest::Method;
use serde_json::json;

use crate::support::{CODE, Farcall, send};

#[tokio::test]
async fn a_function_is_what_was_registered() {
    let service = Farcall::start();
    let client = service.client().await;
    let meta = json!({"python_version": "3.11.7", "sdk_version": "4.19.0", "serde_identifier": "01"});
    let body =
        json!({"function_name": "<lambda>", "function_code": CODE, "meta": meta, "description": "does it"});
    let id = client.post("/v3/functions", body).await.ok()["function_uuid"].as_str().unwrap().to_owned();
    let known = client.get(&format!("/v2/functions/{id}")).await.ok();
    assert_eq!(
        known,
        json!({"function_uuid": id, "function_name": "<lambda>", "function_code": CODE, "description": "does it",
            "metadata": meta})
    );
}

#[tokio::test]
async fn source_is_wrapped_for_the_worker() {
    let service = Farcall::start();
    let client = service.client().await;
    let body = json!({"function_name": "f", "function_code": "def f(): return 'ü'", "serialized": false, "meta": {}});
    let id = client.post("/v3/functions", body).await.ok()["function_uuid"].as_str().unwrap().to_owned();
    let known = client.get(&format!("/v2/functions/{id}")).await.ok();
    assert_eq!(known["function_code"], "24\nst\nf:def f(): return 'ü'");
}

#[tokio::test]
async fn others_see_what_is_public() {
    let service = Farcall::start();
    let (owner, other) = (service.client().await, service.client().await);
    let private = owner.function().await;
    let body = json!({"function_name": "f", "function_code": CODE, "public": true});
    let public = owner.post("/v3/functions", body).await.ok()["function_uuid"].as_str().unwrap().to_owned();
    other.get(&format!("/v2/functions/{public}")).await.ok();
    let refused = other.get(&format!("/v2/functions/{private}")).await.refused(404, "FUNCTION_NOT_FOUND");
    assert_eq!(refused["error_args"], json!([private]));
}

#[tokio::test]
async fn what_is_wrong_or_not_served_is_refused_by_name() {
    let service = Farcall::start();
    let client = service.client().await;
    let id = "00000000-0000-4000-8000-000000000000";
    let table = [
        (json!({}), 400, "REQUEST_MALFORMED", "function_name"),
        (json!([]), 400, "REQUEST_MALFORMED", ""),
        (json!({"function_name": "f"}), 400, "REQUEST_MALFORMED", "function_code"),
        (json!({"function_name": 1, "function_code": CODE}), 400, "REQUEST_MALFORMED", "function_name"),
        (json!({"function_name": "", "function_code": CODE}), 400, "REQUEST_MALFORMED", "function_name"),
        (
            json!({"function_name": "f".repeat(2000), "function_code": CODE}),
            400,
            "REQUEST_MALFORMED",
            "function_name",
        ),
        (json!({"function_name": "f", "function_code": null}), 400, "REQUEST_MALFORMED", "function_code"),
        (
            json!({"function_name": "f", "function_code": "no buffer"}),
            400,
            "REQUEST_MALFORMED",
            "function_code",
        ),
        (
            json!({"function_name": "f", "function_code": "99\n01\nshort"}),
            400,
            "REQUEST_MALFORMED",
            "function_code",
        ),
        (
            json!({"function_name": "f", "function_code": CODE, "public": "yes"}),
            400,
            "REQUEST_MALFORMED",
            "public",
        ),
        (
            json!({"function_name": "f", "function_code": CODE, "ha_endpoint_id": id}),
            422,
            "SEMANTICALLY_INVALID",
            "ha_endpoint_id",
        ),
        (json!({"function_name": "f", "function_code": CODE, "group": id}), 404, "AUTH_GROUP_NOT_FOUND", id),
    ];
    for (body, status, code, named) in table {
        let shown: String = body.to_string().chars().take(100).collect();
        let refused = client.post("/v3/functions", body).await.refused(status, code);
        assert!(refused["message"].as_str().unwrap().contains(named), "{shown}: {refused}");
    }
    for text in ["", "{", "\"", "nul", "{\"function_name\":\"f\",\"function_code\":\"\\ud800\"}"] {
        send(client.request(Method::POST, "/v3/functions").body(text))
            .await
            .refused(400, "REQUEST_MALFORMED");
    }
    let bytes = send(client.request(Method::POST, "/v3/functions").body(vec![b'"', 0xff, b'"'])).await;
    bytes.refused(400, "REQUEST_MALFORMED");
    client.get("/v2/functions/me").await.refused(400, "INVALID_UUID");
    client.get(&format!("/v2/functions/{id}")).await.refused(404, "FUNCTION_NOT_FOUND");
}
