//! Tests of endpoints: registration, visibility, connections, deletion.

use lapin::ErrorKind;
use lapin::options::{BasicPublishOptions, ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use serde_json::{Value, json};

use crate::support::{
    FakeEndpoint, Farcall, connection_ends, consume, endpoint_body, open, result, service_with_endpoint,
    until,
};

fn closed(error: &lapin::Error, code: u16) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(it) if it.get_id() == code)
}

#[tokio::test]
async fn a_registration_names_all_queues_and_they_exist() {
    let service = Farcall::start();
    let client = service.client().await;
    let registration = client.register().await;
    let id = registration.id();
    let info = &registration.0;
    let url = registration.url();
    assert!(url.starts_with(&format!("amqp://ep.{id}.1:")), "{url}");
    assert!(url.ends_with(&format!("@127.0.0.1:{}/%2F", service.amqp.rsplit(':').next().unwrap())), "{url}");
    assert_eq!(info["task_queue_info"]["queue"], format!("{id}.tasks"));
    assert_eq!(info["command_queue_info"]["queue"], format!("{id}.commands"));
    let result = &info["result_queue_info"]["queue_publish_kwargs"];
    assert_eq!(result["routing_key"], format!("{id}.results"));
    assert_eq!(result["properties"], json!({"delivery_mode": 2}));

    // As upstream's publishers and consumers come.
    let (_connection, channel) = open(url).await;
    let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    for exchange in ["results", "heartbeats", "tasks", "commands"] {
        let kind = lapin::ExchangeKind::Direct;
        channel.exchange_declare(exchange.into(), kind, passive, FieldTable::default()).await.unwrap();
    }
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    for queue in ["results", "heartbeats", &format!("{id}.tasks"), &format!("{id}.commands")] {
        channel.queue_declare(queue.into(), passive, FieldTable::default()).await.unwrap();
    }
    consume(&channel, &format!("{id}.tasks"), true).await.unwrap();
    consume(&channel, &format!("{id}.commands"), false).await.unwrap();
}

#[tokio::test]
async fn a_credential_opens_its_own_queues_only() {
    let service = Farcall::start();
    let client = service.client().await;
    let (own, other) = (client.register().await, client.register().await);
    let answer = client.get("/v2/get_amqp_result_connection_url").await.ok();
    let client_url = answer["connection_url"].as_str().unwrap();
    let group = "00000000-0000-4000-8000-000000000000";
    let prefix = answer["queue_prefix"].as_str().unwrap();
    let stranger = service.client().await;
    let refused = [
        (own.url(), format!("{}.tasks", other.id())),
        (own.url(), format!("{}.commands", other.id())),
        (own.url(), "results".to_owned()),
        (own.url(), format!("{prefix}{group}")),
        (client_url, format!("{}.tasks", own.id())),
        (client_url, "results".to_owned()),
        (client_url, format!("client.{}.{group}", stranger.id)),
    ];
    for (url, queue) in refused {
        let (_connection, channel) = open(url).await;
        let error = consume(&channel, &queue, false).await.unwrap_err();
        assert!(closed(&error, 403), "{queue}: {error}");
    }
    // One's own group need not exist yet, nor have a queue.
    let (_connection, channel) = open(client_url).await;
    consume(&channel, &format!("{prefix}{group}"), false).await.unwrap();

    let forged = [
        (own.url(), "results", format!("{}.results", other.id())),
        (own.url(), "heartbeats", format!("{}.heartbeats", other.id())),
        (own.url(), "heartbeats", format!("{}.results", own.id())),
        (own.url(), "tasks", format!("{}.tasks", own.id())),
        (own.url(), "", "results".to_owned()),
        (client_url, "results", format!("{}.results", own.id())),
        (client_url, "", format!("{prefix}{group}")),
    ];
    for (url, exchange, key) in forged {
        let (_connection, channel) = open(url).await;
        let options = BasicPublishOptions::default();
        let body = result(group, "forged", false);
        let properties = BasicProperties::default();
        let sent =
            channel.basic_publish(exchange.into(), key.as_str().into(), options, &body, properties).await;
        drop(sent);
        // A publish is refused by closing the channel, which the next call notices.
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let error =
            channel.queue_declare("results".into(), passive, FieldTable::default()).await.unwrap_err();
        assert!(!channel.status().connected(), "{exchange} {key}: {error}");
    }
}

#[tokio::test]
async fn wrong_credentials_open_nothing() {
    let service = Farcall::start();
    let client = service.client().await;
    let registration = client.register().await;
    let host = service.amqp.strip_prefix("amqp://").unwrap();
    let (id, other) = (registration.id(), "00000000-0000-4000-8000-000000000000");
    let password = registration.url().split_once(':').unwrap().1.split(['@', ':']).nth(1).unwrap();
    let users = [
        format!("ep.{id}.1:wrong"),
        format!("ep.{id}.2:{password}"),
        format!("ep.{other}.1:{password}"),
        format!("client.{id}.1:{password}"),
        "guest:guest".to_owned(),
    ];
    for user in users {
        let refused =
            Connection::connect(&format!("amqp://{user}@{host}/%2F"), ConnectionProperties::default()).await;
        assert!(refused.is_err(), "{user}");
    }
    let vhost = registration.url().replace("%2F", "other");
    assert!(Connection::connect(&vhost, ConnectionProperties::default()).await.is_err());
}

#[tokio::test]
async fn a_newer_credential_ends_the_older_ones_once_it_is_used() {
    let service = Farcall::start();
    let client = service.client().await;
    let first = client.register().await;
    let (connection, _channel) = open(first.url()).await;
    let second = client.register_again(first.id()).await;
    assert!(second.url().contains(".2:"), "{}", second.url());
    // Cut before the answer; only our own side has yet to notice.
    connection_ends(&connection).await;
    // Its answer may have been lost: the older one still opens, until the newer has.
    open(first.url()).await;
    open(second.url()).await;
    assert!(Connection::connect(first.url(), ConnectionProperties::default()).await.is_err());
    open(second.url()).await;
}

#[tokio::test]
async fn an_endpoint_that_is_connected_and_alive_is_not_replaced() {
    let service = Farcall::start();
    let client = service.client().await;
    let registration = client.register().await;
    let path = format!("/v3/endpoints/{}", registration.id());
    let endpoint = FakeEndpoint::connect(&registration).await;
    endpoint.heartbeat(json!({"heartbeat_period": 30, "active": true})).await;
    client.put(&path, endpoint_body()).await.refused(409, "RESOURCE_CONFLICT");
    endpoint.heartbeat(json!({"heartbeat_period": 30, "active": false})).await;
    client.put(&path, endpoint_body()).await.ok();
}

/// As the SDK's `update_endpoint(id, {"display_name": …})` sends it.
#[tokio::test]
async fn what_is_said_of_an_endpoint_changes_without_registering_it() {
    let service = Farcall::start();
    let (client, other) = (service.client().await, service.client().await);
    let registration = client.register().await;
    let path = format!("/v3/endpoints/{}", registration.id());
    let endpoint = FakeEndpoint::connect(&registration).await;
    endpoint.heartbeat(json!({"heartbeat_period": 30, "active": true})).await;
    let changed = client.put(&path, json!({"display_name": "Debug queue"})).await.ok();
    assert_eq!((&changed["display_name"], &changed["name"]), (&json!("Debug queue"), &json!("ep")));
    assert_eq!(changed["endpoint_config"], "engine: {}");
    client.put(&path, json!({"public": true, "admins": [other.id]})).await.ok();
    let seen = client.get(&format!("/v2/endpoints/{}", registration.id())).await.ok();
    assert_eq!((&seen["display_name"], &seen["public"]), (&json!("Debug queue"), &json!(true)));
    assert_eq!(other.get(&format!("/v2/endpoints/{}", registration.id())).await.ok()["hostname"], "h");
    // It runs on, and its credential opens.
    assert!(endpoint.is_connected().await);
    open(registration.url()).await;
    for (body, named) in [
        (json!({"display_name": "x".repeat(129)}), "display_name"),
        (json!({"display_name": "x", "metadata": {}}), "endpoint_name"),
        (json!({"display_name": "x", "endpoint_name": null}), "endpoint_name"),
        (json!({"high_assurance": true}), "endpoint_name"),
    ] {
        let refused = client.put(&path, body).await.refused(400, "REQUEST_MALFORMED");
        assert!(refused["message"].as_str().unwrap().contains(named), "{refused}");
    }
    other.put(&path, json!({"display_name": "mine"})).await.refused(403, "ENDPOINT_ACCESS_FORBIDDEN");
    let hidden = client.register().await;
    let hidden = format!("/v3/endpoints/{}", hidden.id());
    other.put(&hidden, json!({"display_name": "mine"})).await.refused(404, "ENDPOINT_NOT_FOUND");
    let unknown = "/v3/endpoints/00000000-0000-4000-8000-000000000000";
    client.put(unknown, json!({"display_name": "new"})).await.refused(404, "ENDPOINT_NOT_FOUND");
}

#[tokio::test]
async fn heartbeats_say_whether_it_is_online() {
    let service = Farcall::start();
    let client = service.client().await;
    let registration = client.register().await;
    let path = format!("/v2/endpoints/{}/status", registration.id());
    let none = json!({"waiting": 0, "taken": 0, "succeeded": 0, "failed": 0, "late": 0});
    let standing = json!({"consuming": false, "tasks": none});
    let expected = json!({"status": "offline", "details": {}, "farcall": standing});
    assert_eq!(client.get(&path).await.ok(), expected);
    let endpoint = FakeEndpoint::connect(&registration).await;
    endpoint.heartbeat(json!({"heartbeat_period": 30, "active": true, "total_workers": 2})).await;
    let status = client.get(&path).await.ok();
    assert_eq!((status["status"].as_str(), &status["details"]["total_workers"]), (Some("online"), &json!(2)));
    // One that speaks for another is not believed.
    let other = client.register().await;
    let report = json!({"message_type": "ep_status_report", "data": {"endpoint_id": other.id(),
        "global_state": {"heartbeat_period": 30}, "task_statuses": {}}});
    let body = [&[1], report.to_string().as_bytes()].concat();
    endpoint.publish("heartbeats", &format!("{}.heartbeats", registration.id()), &body).await.unwrap();
    let status = client.get(&format!("/v2/endpoints/{}/status", other.id())).await.ok();
    assert_eq!(status["status"], "offline");
    endpoint.heartbeat(json!({"heartbeat_period": 0})).await;
    assert_eq!(client.get(&path).await.ok()["status"], "offline");
}

#[tokio::test]
async fn what_others_may_see() {
    let service = Farcall::start();
    let (owner, other, admin) = (service.client().await, service.client().await, service.client().await);
    let mut body = endpoint_body();
    body["admins"] = json!([admin.id]);
    let id = owner.post("/v3/endpoints", body.clone()).await.ok()["endpoint_id"].as_str().unwrap().to_owned();
    let path = format!("/v2/endpoints/{id}");
    let status = format!("{path}/status");
    let again = format!("/v3/endpoints/{id}");
    assert_eq!(owner.get(&path).await.ok()["endpoint_config"], "engine: {}");
    assert_eq!(admin.get(&path).await.ok()["hostname"], "h");
    for refused in [
        other.get(&path).await,
        other.get(&status).await,
        other.put(&again, body.clone()).await,
        other.delete(&path).await,
    ] {
        let refused = refused.refused(404, "ENDPOINT_NOT_FOUND");
        assert_eq!(refused["error_args"], json!([id]));
    }
    admin.put(&again, body.clone()).await.refused(403, "ENDPOINT_ACCESS_FORBIDDEN");

    body["public"] = json!(true);
    owner.put(&again, body.clone()).await.ok();
    let seen = other.get(&path).await.ok();
    assert_eq!(
        (&seen["name"], &seen["endpoint_config"], &seen["hostname"]),
        (&json!("ep"), &Value::Null, &Value::Null)
    );
    assert_eq!(other.get(&status).await.ok()["details"], json!({}));
    other.put(&again, body).await.refused(403, "ENDPOINT_ACCESS_FORBIDDEN");
    other.delete(&path).await.refused(403, "ENDPOINT_ACCESS_FORBIDDEN");
    assert_eq!(owner.delete(&path).await.ok(), json!({"result": 302}));
    owner.get(&path).await.refused(404, "ENDPOINT_NOT_FOUND");
}

#[tokio::test]
async fn a_deleted_endpoint_is_cut_off_and_its_open_tasks_end() {
    let (_service, client, function, registration) = service_with_endpoint().await;
    let mut endpoint = FakeEndpoint::connect(&registration).await;
    let submitted = client.submit(registration.id(), &function, 3).await;
    let taken = endpoint.take().await;
    endpoint.finish(&taken, "5\n00\nab", false).await;
    client.delete(&format!("/v2/endpoints/{}", registration.id())).await.ok();
    assert_eq!(client.task(&taken).await["status"], "success");
    for task in submitted.tasks.iter().filter(|&task| *task != taken) {
        let document = client.task(task).await;
        assert_eq!(document["status"], "failed");
        assert!(document["exception"].as_str().unwrap().contains("was deleted"), "{document}");
    }
    assert!(Connection::connect(registration.url(), ConnectionProperties::default()).await.is_err());
    let path = format!("/v3/endpoints/{}/submit", registration.id());
    client.post(&path, json!({"tasks": {function: ["x"]}})).await.refused(404, "ENDPOINT_NOT_FOUND");
    // Who has set it up anew may use its name again.
    let again = client.register_again(registration.id()).await;
    open(again.url()).await;
}

/// Other people's submits would go to whoever took it.
#[tokio::test]
async fn the_id_of_a_deleted_endpoint_stays_its_owners() {
    let mut service = Farcall::start();
    let (owner, stranger) = (service.client().await, service.client().await);
    let registration = owner.register().await;
    let id = registration.id();
    let unused = "5f0c8e1e-7c0b-4d1c-9a55-d0a1c7a5e001";
    let manager = json!({"endpoint_name": "ep", "multi_user": true,
        "metadata": {"user_config_template": "engine: {}"}});
    owner.delete(&format!("/v2/endpoints/{id}")).await.ok();
    for restarted in [false, true] {
        for body in [endpoint_body(), manager.clone()] {
            let refused = stranger.put(&format!("/v3/endpoints/{id}"), body).await;
            let refused = refused.refused(404, "ENDPOINT_NOT_FOUND");
            assert_eq!(refused["message"], format!("Endpoint {id} could not be resolved"));
        }
        for path in [format!("/v2/endpoints/{id}"), format!("/v2/endpoints/{id}/status")] {
            stranger.get(&path).await.refused(404, "ENDPOINT_NOT_FOUND");
            owner.get(&path).await.refused(404, "ENDPOINT_NOT_FOUND");
        }
        if !restarted {
            service.stop();
            service.start_again();
        }
    }
    stranger.register_again(unused).await;

    // The owner may use it again. Its credentials are numbered on: none of an earlier life passes for one of this.
    let again = owner.register_again(id).await;
    assert!(again.url().contains(&format!("ep.{id}.2:")), "{}", again.url());
    let mut endpoint = FakeEndpoint::connect(&again).await;
    let function = owner.function().await;
    let submitted = owner.submit(id, &function, 1).await;
    assert_eq!(endpoint.take().await, submitted.tasks[0]);
    stranger.put(&format!("/v3/endpoints/{id}"), manager).await.refused(404, "ENDPOINT_NOT_FOUND");

    // A lock is not lifted by deleting what it is on.
    owner.post(&format!("/v3/endpoints/{id}/lock"), json!({})).await.ok();
    owner.delete(&format!("/v2/endpoints/{id}")).await.ok();
    owner.put(&format!("/v3/endpoints/{id}"), endpoint_body()).await.refused(423, "RESOURCE_LOCKED");
    stranger.put(&format!("/v3/endpoints/{id}"), endpoint_body()).await.refused(404, "ENDPOINT_NOT_FOUND");
}

#[tokio::test]
async fn what_is_wrong_or_not_served_is_refused_by_name() {
    let service = Farcall::start();
    let client = service.client().await;
    let id = "00000000-0000-4000-8000-000000000000";
    let table = [
        ("endpoint_name", json!(null), 400, "REQUEST_MALFORMED"),
        ("endpoint_name", json!(""), 400, "REQUEST_MALFORMED"),
        ("endpoint_name", json!("x".repeat(129)), 400, "REQUEST_MALFORMED"),
        ("display_name", json!("x".repeat(129)), 400, "REQUEST_MALFORMED"),
        ("metadata", json!([]), 400, "REQUEST_MALFORMED"),
        ("allowed_functions", json!(["me"]), 400, "REQUEST_MALFORMED"),
        ("high_assurance", json!(true), 422, "SEMANTICALLY_INVALID"),
        ("authentication_policy", json!(id), 422, "SEMANTICALLY_INVALID"),
        ("subscription_uuid", json!(id), 422, "SEMANTICALLY_INVALID"),
        ("multi_user", json!(true), 422, "SEMANTICALLY_INVALID"),
    ];
    for (member, value, status, code) in table {
        let mut body = endpoint_body();
        body[member] = value;
        for answer in [
            client.post("/v3/endpoints", body.clone()).await,
            client.put(&format!("/v3/endpoints/{id}"), body.clone()).await,
        ] {
            let refused = answer.refused(status, code);
            assert!(refused["message"].as_str().unwrap().contains(member), "{refused}");
        }
    }
    client.get(&format!("/v2/endpoints/{id}")).await.refused(404, "ENDPOINT_NOT_FOUND");
    client.put("/v3/endpoints/me", endpoint_body()).await.refused(400, "INVALID_UUID");
}

/// It says that it lives, and takes nothing: its status says so after a while, and no more once it takes.
#[tokio::test]
async fn one_that_is_online_and_takes_nothing_is_shown_as_such() {
    let service = Farcall::configured("limits:\n  idle_seconds: 1\n");
    let client = service.client().await;
    let registration = client.register().await;
    let path = format!("/v2/endpoints/{}/status", registration.id());
    let notice = async || client.get(&path).await.ok()["farcall"]["notice"].clone();
    // Its consumer is cancelled, its connection stays.
    let mut endpoint = FakeEndpoint::connect(&registration).await;
    endpoint.heartbeat(json!({"heartbeat_period": 30, "active": true})).await;
    assert_eq!(notice().await, Value::Null);
    endpoint.rest().await;
    endpoint.heartbeat(json!({"heartbeat_period": 30, "active": true})).await;
    let said = until("a notice", async || Some(notice().await).filter(|said| !said.is_null())).await;
    let said = said.as_str().unwrap();
    assert!(said.starts_with("The endpoint is online and has taken nothing from its queue since "), "{said}");
    let status = client.get(&path).await.ok();
    assert_eq!((&status["status"], &status["farcall"]["consuming"]), (&json!("online"), &json!(false)));
    let page = service.request(reqwest::Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    assert!(page.contains("\nfarcall_endpoints_online_taking_nothing 1\n"), "{page}");
    endpoint.work_again(&registration).await;
    assert_eq!(notice().await, Value::Null);
    let function = client.function().await;
    let submitted = client.submit(registration.id(), &function, 1).await;
    assert_eq!(endpoint.take().await, submitted.tasks[0]);
}
