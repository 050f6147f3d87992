//! Tests of submitting and of reading tasks over REST, without an endpoint.

use serde_json::{Value, json};

use crate::support::{CODE, Farcall, PAYLOAD};

const ID: &str = "00000000-0000-4000-8000-000000000000";

#[tokio::test]
async fn every_form_of_version() {
    let service = Farcall::start();
    assert_eq!(service.get("/v2/version").await.ok(), "1.50.0");
    assert_eq!(service.get("/v2/version?service=api").await.ok(), "1.50.0");
    let all = service.get("/v2/version?service=all").await.ok();
    assert_eq!(all["api"], "1.50.0");
    assert!(all["min_sdk_version"].is_string() && all["min_ep_version"].is_string());
}

#[tokio::test]
async fn a_task_group_that_the_client_made_up_is_theirs() {
    let service = Farcall::start();
    let (client, other) = (service.client().await, service.client().await);
    let (function, foreign) = (client.function().await, other.function().await);
    let registration = client.register().await;
    let mut endpoint = crate::support::FakeEndpoint::connect(&registration).await;
    let own = "0b9e3a52-5d4f-4e6a-b7c9-6f3f6c0a7d11";
    client.get(&format!("/v2/taskgroup/{own}")).await.refused(404, "TASK_GROUP_NOT_FOUND");
    // Its results are waited for before anything is sent to it.
    let mut results = client.results(own).await;
    for _ in 0..2 {
        let submitted = client.submit_to_group(registration.id(), &function, 1, Some(own)).await;
        assert_eq!(submitted.group, own);
        let task = endpoint.take().await;
        endpoint.finish(&task, "done", false).await;
        assert_eq!(results.take(1).await, submitted.tasks);
    }
    let group = client.get(&format!("/v2/taskgroup/{own}")).await.ok();
    assert_eq!(group["tasks"].as_array().unwrap().len(), 2);
    // Nobody else's.
    let theirs = other.register().await;
    let body = json!({"tasks": {&foreign: [PAYLOAD]}, "task_group_id": own});
    let path = format!("/v3/endpoints/{}/submit", theirs.id());
    other.post(&path, body).await.refused(404, "TASK_GROUP_NOT_FOUND");
    other.get(&format!("/v2/taskgroup/{own}")).await.refused(404, "TASK_GROUP_NOT_FOUND");
}

#[tokio::test]
async fn what_was_submitted_is_known_at_once() {
    let service = Farcall::start();
    let (client, other) = (service.client().await, service.client().await);
    let function = client.function().await;
    let endpoint = client.register().await;
    let first = client.submit(endpoint.id(), &function, 2).await;
    let second = client.submit_to_group(endpoint.id(), &function, 1, Some(&first.group)).await;
    assert_eq!(first.group, second.group);

    let group = client.get(&format!("/v2/taskgroup/{}", first.group)).await.ok();
    assert_eq!(group["taskgroup_id"], json!(first.group));
    let ids: Vec<_> =
        group["tasks"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [&first.tasks[0], &first.tasks[1], &second.tasks[0]]);

    let pending = json!({"task_id": first.tasks[0], "status": "waiting-for-ep"});
    assert_eq!(client.task(&first.tasks[0]).await, pending);
    let body = json!({"task_ids": [first.tasks[0], ID]});
    let batch = client.post("/v2/batch_status", body.clone()).await.ok();
    assert_eq!(batch["response"], "batch");
    assert_eq!(batch["results"][&first.tasks[0]], pending);
    let unknown = json!({"task_id": ID, "status": "failed", "reason": "Unknown task id"});
    assert_eq!(batch["results"][ID], unknown);

    // To others none of it exists.
    let theirs = other.post("/v2/batch_status", body).await.ok();
    assert_eq!(theirs["results"][&first.tasks[0]]["reason"], "Unknown task id");
    other.get(&format!("/v2/tasks/{}", first.tasks[0])).await.refused(404, "TASK_NOT_FOUND");
    other.get(&format!("/v2/taskgroup/{}", first.group)).await.refused(404, "TASK_GROUP_NOT_FOUND");
}

#[tokio::test]
async fn a_bad_submit_is_refused_whole_with_the_item_named() {
    let service = Farcall::start();
    let (client, other) = (service.client().await, service.client().await);
    let function = client.function().await;
    let foreign = other.function().await;
    let endpoint = client.register().await;
    let restricted = {
        let mut body = crate::support::endpoint_body();
        body["allowed_functions"] = json!([ID]);
        client.post("/v3/endpoints", body).await.ok()["endpoint_id"].as_str().unwrap().to_owned()
    };
    let (foreign_endpoint, own_group) =
        (other.register().await, client.submit(endpoint.id(), &function, 1).await.group);
    let submit = |endpoint: &str| format!("/v3/endpoints/{endpoint}/submit");
    let call = |function: &str| json!({function: [PAYLOAD]});
    let table: [(&str, Value, u16, &str, &str); 15] = [
        (endpoint.id(), json!({}), 400, "REQUEST_MALFORMED", "tasks"),
        (endpoint.id(), json!({"tasks": {}}), 400, "REQUEST_MALFORMED", "tasks"),
        (endpoint.id(), json!({"tasks": {&function: []}}), 400, "REQUEST_MALFORMED", "tasks"),
        (endpoint.id(), json!({"tasks": {&function: "x"}}), 400, "REQUEST_MALFORMED", &function),
        (endpoint.id(), json!({"tasks": {&function: [1]}}), 400, "REQUEST_MALFORMED", &function),
        (endpoint.id(), json!({"tasks": {"me": [PAYLOAD]}}), 400, "REQUEST_MALFORMED", "tasks"),
        (
            endpoint.id(),
            json!({"tasks": call(&function), "create_queue": "yes"}),
            400,
            "REQUEST_MALFORMED",
            "create_queue",
        ),
        (
            endpoint.id(),
            json!({"tasks": call(&function), "task_group_id": "me"}),
            400,
            "REQUEST_MALFORMED",
            "task_group_id",
        ),
        (endpoint.id(), json!({"tasks": call(ID)}), 404, "FUNCTION_NOT_FOUND", ID),
        (
            endpoint.id(),
            json!({"tasks": {&function: [PAYLOAD], &foreign: [PAYLOAD]}}),
            404,
            "FUNCTION_NOT_FOUND",
            &foreign,
        ),
        (
            endpoint.id(),
            json!({"tasks": call(&function), "user_endpoint_config": {"x": 1}}),
            422,
            "SEMANTICALLY_INVALID",
            "user_endpoint_config",
        ),
        (&restricted, json!({"tasks": call(&function)}), 403, "FUNCTION_NOT_PERMITTED", &function),
        (
            foreign_endpoint.id(),
            json!({"tasks": call(&function)}),
            404,
            "ENDPOINT_NOT_FOUND",
            foreign_endpoint.id(),
        ),
        (ID, json!({"tasks": call(&function)}), 404, "ENDPOINT_NOT_FOUND", ID),
        ("me", json!({"tasks": call(&function)}), 400, "INVALID_UUID", "me"),
    ];
    for (endpoint, body, status, code, named) in table {
        let refused = client.post(&submit(endpoint), body).await.refused(status, code);
        assert!(refused["message"].as_str().unwrap().contains(named), "{named}: {refused}");
    }
    let text = format!("Function {function} not permitted on endpoint {restricted}");
    let refused = client.post(&submit(&restricted), json!({"tasks": call(&function)})).await;
    assert_eq!(refused.body["message"], text);
    // Another's group is as unknown as none.
    let public = json!({"function_name": "f", "function_code": CODE, "public": true});
    let public =
        client.post("/v3/functions", public).await.ok()["function_uuid"].as_str().unwrap().to_owned();
    let body = json!({"tasks": call(&public), "task_group_id": own_group});
    other.post(&submit(foreign_endpoint.id()), body).await.refused(404, "TASK_GROUP_NOT_FOUND");
    // Many functions cost a clear answer.
    let many: serde_json::Map<_, _> =
        (0..10_000).map(|n| (format!("00000000-0000-4000-8000-{n:012x}"), json!([PAYLOAD]))).collect();
    client.post(&submit(endpoint.id()), json!({"tasks": many})).await.refused(413, "BATCH_RUN_TOO_LARGE");

    let group = client.get(&format!("/v2/taskgroup/{own_group}")).await.ok();
    assert_eq!(group["tasks"].as_array().unwrap().len(), 1, "nothing of all that was written");
}

#[tokio::test]
async fn bad_questions_are_refused() {
    let service = Farcall::start();
    let client = service.client().await;
    client.get(&format!("/v2/tasks/{ID}")).await.refused(404, "TASK_NOT_FOUND");
    client.get("/v2/tasks/me").await.refused(400, "INVALID_UUID");
    client.get("/v2/taskgroup/me").await.refused(400, "INVALID_UUID");
    for body in [json!({}), json!({"task_ids": "x"}), json!({"task_ids": ["x"]}), json!({"task_ids": [null]})]
    {
        client.post("/v2/batch_status", body).await.refused(400, "REQUEST_MALFORMED");
    }
    let none = client.post("/v2/batch_status", json!({"task_ids": []})).await.ok();
    assert_eq!(none["results"], json!({}));
    let many = json!({"task_ids": vec![ID; 10_001]});
    client.post("/v2/batch_status", many).await.refused(413, "BATCH_RUN_TOO_LARGE");
}
