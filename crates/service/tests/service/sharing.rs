//! Tests of sharing: functions, endpoints in lists, locks.

use serde_json::{Value, json};
use store::{AddMember, AddUserGroup, UserGroup};

use crate::support::{CODE, Client, FakeEndpoint, Farcall, PAYLOAD, endpoint_body, service_with_endpoint};

/// A group with these members.
async fn group(service: &mut Farcall, members: &[&Client]) -> String {
    service.stop();
    let store = service.store().await;
    let id = uuid::Uuid::from_u128(77).into();
    let created = jiff::Timestamp::UNIX_EPOCH;
    let group = UserGroup { id, name: "lab".into(), description: None, created };
    store.write(AddUserGroup(group)).await.unwrap().unwrap();
    for member in members {
        let identity = member.id.parse().unwrap();
        store.write(AddMember { group: id, identity }).await.unwrap();
    }
    store.close().await;
    service.start_again();
    id.to_string()
}

async fn function(client: &Client, member: &str, value: Value) -> String {
    let mut body = json!({"function_name": "f", "function_code": CODE});
    body[member] = value;
    client.post("/v3/functions", body).await.ok()["function_uuid"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_function_is_called_by_its_owner_its_group_or_everybody() {
    let mut service = Farcall::start();
    let (owner, member, stranger) = (service.client().await, service.client().await, service.client().await);
    let group = group(&mut service, &[&owner, &member]).await;
    let private = owner.function().await;
    let shared = function(&owner, "group", json!(group)).await;
    let public = function(&owner, "public", json!(true)).await;
    // who, which, may
    let table = [
        (&owner, &private, true),
        (&owner, &shared, true),
        (&owner, &public, true),
        (&member, &private, false),
        (&member, &shared, true),
        (&member, &public, true),
        (&stranger, &private, false),
        (&stranger, &shared, false),
        (&stranger, &public, true),
    ];
    for (client, function, may) in table {
        let endpoint = client.register().await;
        let call = json!({"tasks": {function: [PAYLOAD]}});
        let answer = client.post(&format!("/v3/endpoints/{}/submit", endpoint.id()), call).await;
        let seen = client.get(&format!("/v2/functions/{function}")).await;
        if may {
            answer.ok();
            seen.ok();
        } else {
            answer.refused(404, "FUNCTION_NOT_FOUND");
            seen.refused(404, "FUNCTION_NOT_FOUND");
        }
    }
    // Only members share with a group.
    let body = json!({"function_name": "f", "function_code": CODE, "group": group});
    stranger.post("/v3/functions", body).await.refused(404, "AUTH_GROUP_NOT_FOUND");
    // Others may not delete what they may call, nor learn of the rest.
    let path = |function: &str| format!("/v2/functions/{function}");
    member.delete(&path(&shared)).await.refused(403, "FUNCTION_ACCESS_FORBIDDEN");
    stranger.delete(&path(&public)).await.refused(403, "FUNCTION_ACCESS_FORBIDDEN");
    stranger.delete(&path(&shared)).await.refused(404, "FUNCTION_NOT_FOUND");
    stranger.delete(&path(&private)).await.refused(404, "FUNCTION_NOT_FOUND");
    assert_eq!(owner.delete(&path(&private)).await.ok(), json!({"result": 302}));
    owner.get(&path(&private)).await.refused(404, "FUNCTION_NOT_FOUND");
}

#[tokio::test]
async fn a_task_of_a_function_that_was_deleted_ends() {
    let (_service, client, function, registration) = service_with_endpoint().await;
    let submitted = client.submit(registration.id(), &function, 1).await;
    client.delete(&format!("/v2/functions/{function}")).await.ok();
    let _endpoint = FakeEndpoint::connect(&registration).await;
    let document = client.task_until(&submitted.tasks[0], |it| it["status"] == "failed").await;
    assert!(document["exception"].as_str().unwrap().contains("was deleted"), "{document}");
}

#[tokio::test]
async fn lists_show_what_one_may_see() {
    let service = Farcall::start();
    let (owner, admin, other) = (service.client().await, service.client().await, service.client().await);
    let register = async |name: &str, public: bool, admins: Value| {
        let mut body = endpoint_body();
        (body["endpoint_name"], body["public"], body["admins"]) = (json!(name), json!(public), admins);
        let answer = owner.post("/v3/endpoints", body).await.ok();
        answer["endpoint_id"].as_str().unwrap().to_owned()
    };
    let private = register("a private", false, json!([])).await;
    register("b public", true, json!([])).await;
    register("c administered", false, json!([admin.id])).await;
    let names = async |client: &Client, query: &str| -> Vec<String> {
        let list = client.get(&format!("/v2/endpoints{query}")).await.ok();
        list.as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap().to_owned()).collect()
    };
    for query in ["", "?role=owner", "?role=any"] {
        assert_eq!(names(&owner, query).await, ["a private", "b public", "c administered"], "{query}");
    }
    for query in ["", "?role=owner"] {
        assert!(names(&admin, query).await.is_empty() && names(&other, query).await.is_empty());
    }
    // Those one has more to do with come first.
    assert_eq!(names(&admin, "?role=any").await, ["c administered", "b public"]);
    assert_eq!(names(&other, "?role=any").await, ["b public"]);
    owner.get("/v2/endpoints?role=all").await.refused(400, "REQUEST_MALFORMED");
    let first = owner.get("/v2/endpoints").await.ok()[0].clone();
    let expected = json!({"uuid": private, "name": "a private", "display_name": null, "owner": owner.id});
    assert_eq!(first, expected);
}

#[tokio::test]
async fn an_allow_list_is_told_and_holds() {
    let service = Farcall::start();
    let (client, other) = (service.client().await, service.client().await);
    let (allowed, refused) = (client.function().await, client.function().await);
    let mut body = endpoint_body();
    body["allowed_functions"] = json!([allowed]);
    let id = client.post("/v3/endpoints", body).await.ok()["endpoint_id"].as_str().unwrap().to_owned();
    let path = format!("/v3/endpoints/{id}/allowed_functions");
    let expected = json!({"endpoint_id": id, "restricted": true, "functions": [allowed]});
    assert_eq!(client.get(&path).await.ok(), expected);
    other.get(&path).await.refused(404, "ENDPOINT_NOT_FOUND");
    let submit = format!("/v3/endpoints/{id}/submit");
    client.post(&submit, json!({"tasks": {&allowed: [PAYLOAD]}})).await.ok();
    let mixed = json!({"tasks": {&allowed: [PAYLOAD], &refused: [PAYLOAD]}});
    let refusal = client.post(&submit, mixed).await.refused(403, "FUNCTION_NOT_PERMITTED");
    assert_eq!(refusal["message"], format!("Function {refused} not permitted on endpoint {id}"));
    assert_eq!(refusal["error_args"], json!([refused, id]));
    let open = client.register().await;
    let answer = client.get(&format!("/v3/endpoints/{}/allowed_functions", open.id())).await.ok();
    assert_eq!(answer, json!({"endpoint_id": open.id(), "restricted": false, "functions": []}));
}

#[tokio::test]
async fn a_locked_endpoint_is_cut_off_and_does_not_come_back_before_its_time() {
    let mut service = Farcall::configured("limits:\n  lock_seconds: 3600\n");
    let (owner, admin, other) = (service.client().await, service.client().await, service.client().await);
    let function = owner.function().await;
    let mut body = endpoint_body();
    body["admins"] = json!([admin.id]);
    body["public"] = json!(true);
    let registration = crate::support::Registration(owner.post("/v3/endpoints", body.clone()).await.ok());
    let id = registration.id().to_owned();
    let endpoint = FakeEndpoint::connect(&registration).await;
    endpoint.heartbeat(json!({"heartbeat_period": 30, "active": true})).await;
    other
        .post(&format!("/v3/endpoints/{id}/lock"), json!({}))
        .await
        .refused(403, "ENDPOINT_ACCESS_FORBIDDEN");
    // Without a body, as newer SDKs send it.
    let lock = admin.request(reqwest::Method::POST, &format!("/v3/endpoints/{id}/lock"));
    let locked = crate::support::send(lock).await.ok();
    assert_eq!(locked["endpoint_id"], json!(id));
    let until = locked["lock_expiration_timestamp"].as_str().unwrap();
    assert_eq!(until.len(), "2021-07-01T00:00:00.000000".len());
    assert!(!endpoint.is_connected_after_a_while().await);
    let connect = || lapin::Connection::connect(registration.url(), lapin::ConnectionProperties::default());
    assert!(connect().await.is_err());
    let again = format!("/v3/endpoints/{id}");
    owner.put(&again, body.clone()).await.refused(423, "RESOURCE_LOCKED");
    assert_eq!(owner.get(&format!("/v2/endpoints/{id}/status")).await.ok()["status"], "offline");
    // Its tasks wait.
    let submitted = owner.submit(&id, &function, 1).await;
    assert_eq!(owner.task(&submitted.tasks[0]).await["status"], "waiting-for-ep");

    service.kill();
    service.start_again();
    owner.put(&again, body.clone()).await.refused(423, "RESOURCE_LOCKED");
    assert!(connect().await.is_err());
    let mut database = service.database().await;
    database.execute("UPDATE endpoints SET locked_until_us = 1", []).await;
    let registration = crate::support::Registration(owner.put(&again, body).await.ok());
    let mut endpoint = FakeEndpoint::connect(&registration).await;
    assert_eq!(endpoint.take().await, submitted.tasks[0]);
    // As older SDKs ask for it.
    owner.post(&format!("/v2/endpoints/{id}/lock"), json!({})).await.ok();
}

#[tokio::test]
async fn one_owner_per_endpoint_whoever_is_first() {
    let service = Farcall::start();
    let clients = [service.client().await, service.client().await];
    let path = "/v3/endpoints/00000000-0000-4000-8000-00000000000a";
    let answers =
        futures_util::future::join_all(clients.iter().map(|it| it.put(path, endpoint_body()))).await;
    let won: Vec<_> = answers.iter().map(|answer| answer.status == 200).collect();
    assert!(won == [true, false] || won == [false, true], "{answers:?}");
    for (client, won) in clients.iter().zip(won) {
        let answer = client.put(path, endpoint_body()).await;
        if won { drop(answer.ok()) } else { drop(answer.refused(404, "ENDPOINT_NOT_FOUND")) }
    }
}
