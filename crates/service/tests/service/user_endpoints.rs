//! Tests of user endpoints. The test plays the manager that gets the commands to start them.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::BasicAckOptions;
use lapin::{Channel, Connection, Consumer};
use serde_json::{Value, json};

use crate::support::{
    Answer, Client, FakeEndpoint, Farcall, PAYLOAD, Registration, consume, open, until, within,
};

/// A manager's AMQP side.
pub struct FakeManager {
    pub registration: Registration,
    _connection: Connection,
    _channel: Channel,
    commands: Consumer,
}

impl FakeManager {
    pub async fn connect(registration: Registration) -> FakeManager {
        let (connection, channel) = open(registration.url()).await;
        let queue = registration.0["command_queue_info"]["queue"].as_str().unwrap();
        let commands = consume(&channel, queue, false).await.unwrap();
        FakeManager { registration, _connection: connection, _channel: channel, commands }
    }

    pub fn id(&self) -> &str {
        self.registration.id()
    }

    pub async fn command(&mut self) -> (Delivery, Value) {
        let delivery =
            within("a command in the manager's queue", self.commands.next()).await.unwrap().unwrap();
        delivery.ack(BasicAckOptions::default()).await.unwrap();
        let body = serde_json::from_slice(&delivery.data).unwrap();
        (delivery, body)
    }

    /// Whether a command comes within a moment.
    pub async fn idle(&mut self) -> bool {
        tokio::time::timeout(Duration::from_millis(300), self.commands.next()).await.is_err()
    }
}

pub async fn register(client: &Client, multi_user: bool) -> Registration {
    let metadata = json!({"endpoint_version": "4.19.0", "user_config_template": "engine: {}",
        "user_config_schema": {"type": "object"}});
    let mut body = json!({"endpoint_name": "manager", "metadata": metadata, "high_assurance": false});
    if multi_user {
        body["multi_user"] = json!(true);
    }
    Registration(client.post("/v3/endpoints", body).await.ok())
}

pub async fn submit(client: &Client, manager: &str, config: Value) -> Answer {
    let function = client.function().await;
    let body = json!({"tasks": {function: [PAYLOAD]}, "user_endpoint_config": config,
        "user_runtime": {"globus_compute_sdk_version": "4.19.0", "python_version": "3.11.7 (main)"}});
    client.post(&format!("/v3/endpoints/{manager}/submit"), body).await
}

/// The user endpoint as it comes up by the credentials in a command.
pub async fn come_up(command: &Value) -> FakeEndpoint {
    let endpoint = FakeEndpoint::connect(&Registration(command["kwargs"]["amqp_creds"].clone())).await;
    endpoint.heartbeat(json!({"heartbeat_period": 30, "active": true})).await;
    endpoint
}

#[tokio::test]
async fn a_submit_starts_it_once_and_goes_to_it() {
    let service = Farcall::start();
    let client = service.client().await;
    let mut manager = FakeManager::connect(register(&client, false).await).await;
    let id = manager.id().to_owned();

    let several: Vec<_> = (0..5)
        .map(|_| {
            let (client, id) = (client.clone(), id.clone());
            tokio::spawn(
                async move { submit(&client, &id, json!({"b": [1, {"y": 1, "x": 2}], "a": "é"})).await },
            )
        })
        .collect();
    let (delivery, command) = manager.command().await;
    let properties = &delivery.properties;
    assert_eq!(properties.content_type().as_ref().unwrap().as_str(), "application/json");
    assert_eq!(properties.content_encoding().as_ref().unwrap().as_str(), "utf-8");
    assert_eq!(properties.expiration().as_ref().unwrap().as_str(), "10000");
    assert!(properties.timestamp().is_some());
    assert_eq!(command["command"], "cmd_start_endpoint");
    assert_eq!(command["globus_effective_identity"], client.id.as_str());
    assert_eq!(command["globus_identity_set"][0]["sub"], client.id.as_str());
    assert_eq!(command["globus_username"], command["globus_identity_set"][0]["username"]);
    let user_endpoint = command["kwargs"]["amqp_creds"]["endpoint_id"].as_str().unwrap().to_owned();
    assert_eq!(command["kwargs"]["name"], format!("uep.{id}.{user_endpoint}"));
    assert_eq!(command["kwargs"]["user_opts"], json!({"b": [1, {"y": 1, "x": 2}], "a": "é"}));
    assert_eq!(command["kwargs"]["user_runtime"]["globus_compute_sdk_version"], "4.19.0");
    assert!(manager.idle().await, "five submits share one start");

    let mut endpoint = come_up(&command).await;
    for submit in several {
        let answer = submit.await.unwrap().ok();
        assert_eq!(answer["endpoint_id"], user_endpoint);
        let task = endpoint.take().await;
        endpoint.finish(&task, "done", false).await;
    }

    // It runs: another submit goes to it at once, however the configuration is spelled.
    let answer = submit(&client, &id, json!({"a": "\u{e9}", "b": [1, {"x": 2, "y": 1}]})).await.ok();
    assert_eq!(answer["endpoint_id"], user_endpoint);
    assert!(manager.idle().await);

    // It is its user's endpoint, and listed among them as the manager is its owner's.
    let listed = client.get("/v2/endpoints").await.ok();
    let listed: Vec<_> = listed.as_array().unwrap().iter().map(|it| it["uuid"].as_str().unwrap()).collect();
    assert_eq!(listed.len(), 2);
    assert!(listed.contains(&id.as_str()) && listed.contains(&user_endpoint.as_str()));

    // Another configuration is another user endpoint.
    let other = {
        let (client, id) = (client.clone(), id.clone());
        tokio::spawn(async move { submit(&client, &id, json!({})).await })
    };
    let (_, command) = manager.command().await;
    assert_ne!(command["kwargs"]["amqp_creds"]["endpoint_id"], user_endpoint.as_str());
    come_up(&command).await;
    other.await.unwrap().ok();

    // Nobody takes a user endpoint's place by registering its id.
    let body = json!({"endpoint_name": "x", "metadata": {}});
    client.put(&format!("/v3/endpoints/{user_endpoint}"), body).await.refused(409, "RESOURCE_CONFLICT");

    // With its manager it goes.
    client.delete(&format!("/v2/endpoints/{id}")).await.ok();
    client.get(&format!("/v2/endpoints/{user_endpoint}/status")).await.refused(404, "ENDPOINT_NOT_FOUND");
}

#[tokio::test]
async fn a_user_endpoint_has_the_functions_that_its_manager_allows_at_that_moment() {
    let service = Farcall::start();
    let client = service.client().await;
    let (one, other) = (client.function().await, client.function().await);
    let metadata = json!({"endpoint_version": "4.19.0", "user_config_template": "engine: {}"});
    let body = json!({"endpoint_name": "manager", "metadata": metadata, "allowed_functions": [one]});
    let registration = Registration(client.post("/v3/endpoints", body.clone()).await.ok());
    let mut manager = FakeManager::connect(registration).await;
    let id = manager.id().to_owned();
    let first = {
        let (client, path, one) = (client.clone(), format!("/v3/endpoints/{id}/submit"), one.clone());
        tokio::spawn(async move { client.post(&path, json!({"tasks": {one: [PAYLOAD]}})).await })
    };
    let (_, command) = manager.command().await;
    let _endpoint = come_up(&command).await;
    let user_endpoint = first.await.unwrap().ok()["endpoint_id"].as_str().unwrap().to_owned();
    let list = format!("/v3/endpoints/{user_endpoint}/allowed_functions");
    let told = |functions: &[&String]| json!({"endpoint_id": user_endpoint, "restricted": true, "functions": functions});
    assert_eq!(client.get(&list).await.ok(), told(&[&one]));

    // Both ways to change a manager.
    client.put(&format!("/v3/endpoints/{id}"), json!({"allowed_functions": [other]})).await.ok();
    assert_eq!(client.get(&list).await.ok(), told(&[&other]));
    let submit = format!("/v3/endpoints/{user_endpoint}/submit");
    let refused = client
        .post(&submit, json!({"tasks": {&one: [PAYLOAD]}}))
        .await
        .refused(403, "FUNCTION_NOT_PERMITTED");
    assert_eq!(refused["message"], format!("Function {one} not permitted on endpoint {user_endpoint}"));
    client.post(&submit, json!({"tasks": {&other: [PAYLOAD]}})).await.ok();
    drop(manager);
    let mut body = body;
    body["allowed_functions"] = json!([]);
    client.put(&format!("/v3/endpoints/{id}"), body).await.ok();
    assert_eq!(client.get(&list).await.ok(), told(&[]));
}

/// The id follows from manager, person and configuration: others can compute it before it is there.
#[tokio::test]
async fn nobody_takes_the_id_of_a_user_endpoint_before_it_is_there_or_after() {
    let service = Farcall::start();
    let (client, stranger) = (service.client().await, service.client().await);
    let mut manager = FakeManager::connect(register(&client, false).await).await;
    let id = manager.id().to_owned();
    let start = |client: &Client, id: &str| {
        let (client, id) = (client.clone(), id.to_owned());
        tokio::spawn(async move { submit(&client, &id, json!({"a": 1})).await })
    };
    let first = start(&client, &id);
    let (_, command) = manager.command().await;
    let user_endpoint = command["kwargs"]["amqp_creds"]["endpoint_id"].as_str().unwrap().to_owned();
    come_up(&command).await.leave().await;
    let task = first.await.unwrap().ok()["tasks"].as_object().unwrap().values().next().unwrap()[0].clone();
    let path = format!("/v3/endpoints/{user_endpoint}");
    stranger.put(&path, json!({"endpoint_name": "x"})).await.refused(404, "ENDPOINT_NOT_FOUND");
    client.delete(&format!("/v2/endpoints/{user_endpoint}")).await.ok();
    assert_eq!(client.task(task.as_str().unwrap()).await["status"], "failed");
    // As if it never had been.
    let mut database = service.database().await;
    database.execute("DELETE FROM retired_endpoints", []).await;
    stranger.put(&path, json!({"endpoint_name": "x"})).await.refused(404, "ENDPOINT_NOT_FOUND");
    client.put(&path, json!({"endpoint_name": "x"})).await.refused(404, "ENDPOINT_NOT_FOUND");

    // One that took it when that was possible is sent nothing, although it takes tasks.
    let taken = stranger.register().await;
    let thief = FakeEndpoint::connect(&taken).await;
    let again = start(&client, &id);
    let (_, command) = manager.command().await;
    let user_endpoint = come_up(&command).await;
    again.await.unwrap().ok();
    user_endpoint.leave().await;
    let identity = uuid::Uuid::parse_str(&stranger.id).unwrap();
    let taken = "UPDATE endpoints SET owner_id = $1, manager_id = NULL WHERE manager_id IS NOT NULL";
    database.execute(taken, [identity.into()]).await;
    let passing = FakeEndpoint::connect(&Registration(command["kwargs"]["amqp_creds"].clone())).await;
    submit(&client, &id, json!({"a": 1})).await.refused(503, "SERVICE_UNAVAILABLE");
    passing.leave().await;
    thief.leave().await;
}

#[tokio::test]
async fn what_the_manager_reports_is_the_answer_and_nothing_is_written() {
    let service = Farcall::start();
    let client = service.client().await;
    let mut manager = FakeManager::connect(register(&client, false).await).await;
    let id = manager.id().to_owned();
    let refused = {
        let (client, id) = (client.clone(), id.clone());
        tokio::spawn(async move { submit(&client, &id, json!({"a": 1})).await })
    };
    let (_, command) = manager.command().await;
    // As the manager's temporary child sends it: the user endpoint's credentials, no properties.
    let notice = FakeEndpoint::connect(&Registration(command["kwargs"]["amqp_creds"].clone())).await;
    notice.heartbeat(json!({"error": "Unable to start user endpoint", "heartbeat_period": 3})).await;
    let body = refused.await.unwrap().refused(422, "SEMANTICALLY_INVALID");
    assert_eq!(body["message"], "Request payload failed validation: Unable to start user endpoint");
    notice.leave().await;

    // The next one tries again, with another credential.
    let again = {
        let (client, id) = (client.clone(), id.clone());
        tokio::spawn(async move { submit(&client, &id, json!({"a": 1})).await })
    };
    let (_, command) = manager.command().await;
    let mut endpoint = come_up(&command).await;
    let answer = again.await.unwrap().ok();
    let tasks = answer["tasks"].as_object().unwrap().values().next().unwrap();
    assert_eq!(endpoint.take().await, tasks[0], "the only task there is");
}

#[tokio::test]
async fn a_manager_that_comes_back_in_time_gets_the_command() {
    let service = Farcall::start();
    let client = service.client().await;
    let registration = register(&client, false).await;
    let id = registration.id().to_owned();
    let waiting = {
        let (client, id) = (client.clone(), id.clone());
        tokio::spawn(async move { submit(&client, &id, json!({})).await })
    };
    // Nobody reads commands yet: none must be published, or it would be too old later.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut manager = FakeManager::connect(registration).await;
    let (_, command) = manager.command().await;
    come_up(&command).await;
    waiting.await.unwrap().ok();
}

#[tokio::test]
async fn who_may_use_a_manager() {
    let service = Farcall::start();
    let (owner, stranger) = (service.client().await, service.client().await);
    let unprivileged = register(&owner, false).await;
    submit(&stranger, unprivileged.id(), json!({})).await.refused(404, "ENDPOINT_NOT_FOUND");

    let mine = owner.get(&format!("/v2/endpoints/{}", unprivileged.id())).await.ok();
    assert_eq!(mine["user_config_template"], "engine: {}");

    let mut privileged = FakeManager::connect(register(&owner, true).await).await;
    let id = privileged.id().to_owned();
    let shown = stranger.get(&format!("/v2/endpoints/{id}")).await.ok();
    assert_eq!(shown["user_config_schema"], json!({"type": "object"}), "who may use it knows what it takes");
    assert_eq!(shown["user_config_template"], Value::Null);
    let theirs = {
        let stranger = stranger.clone();
        tokio::spawn(async move { submit(&stranger, &id, json!({})).await })
    };
    let (_, command) = privileged.command().await;
    assert_eq!(command["globus_effective_identity"], stranger.id.as_str());
    let endpoint = come_up(&command).await;
    theirs.await.unwrap().ok();
    // It is the stranger's, and the manager's owner sees nothing of it.
    let path = format!("/v2/endpoints/{}/status", endpoint.id);
    stranger.get(&path).await.ok();
    owner.get(&path).await.refused(404, "ENDPOINT_NOT_FOUND");
    // But that it is there, whose it is, and how it is.
    let path = format!("/v3/endpoints/{}/user_endpoints", privileged.id());
    let listed = owner.get(&path).await.ok();
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!(listed[0]["uuid"], endpoint.id.as_str());
    assert_eq!((&listed[0]["owner"], &listed[0]["status"]), (&json!(stranger.id), &json!("online")));
    assert_eq!((&listed[0]["last_failure"], &listed[0]["waiting"]), (&Value::Null, &json!(1)));
    stranger.get(&path).await.refused(403, "ENDPOINT_ACCESS_FORBIDDEN");
    endpoint.heartbeat(json!({"heartbeat_period": 3, "error": "no such partition"})).await;
    let failed = async || owner.get(&path).await.ok()[0]["last_failure"] == "no such partition";
    while !failed().await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(owner.get(&path).await.ok()[0]["status"], "offline");
}

/// A manager that serves everybody maps people to accounts of its machine by all their identities.
#[tokio::test]
async fn a_privileged_manager_is_told_all_identities_of_whoever_submits() {
    use crate::visitor::{log_in, person};
    let (work, home) = ("alice@example.edu", "alice@lab.example.org");
    let service = Farcall::start();
    let owner = service.client().await;
    let mut manager = FakeManager::connect(register(&owner, true).await).await;
    let (alice, second) = (person(&service, work), person(&service, home));
    service.administer(&["user", "link", home, work], "");
    let given = log_in(&service, work, &[]).await.ok();
    let client = owner.with_token(&given["other_tokens"][0]["access_token"]);
    let id = manager.id().to_owned();
    let hers = {
        let client = client.clone();
        tokio::spawn(async move { submit(&client, &id, json!({})).await })
    };
    let (_, command) = manager.command().await;
    assert_eq!(command["globus_effective_identity"], alice);
    assert_eq!(command["globus_username"], work);
    let set = command["globus_identity_set"].as_array().unwrap();
    let told: Vec<_> =
        set.iter().map(|it| (it["sub"].as_str().unwrap(), it["username"].as_str().unwrap())).collect();
    assert_eq!(told, [(alice.as_str(), work), (second.as_str(), home)]);
    assert!(
        set.iter().all(|it| it["sub"] == it["id"] && it["name"] == "Somebody" && it["status"] == "used"),
        "{set:?}"
    );
    assert!(set[0]["last_authentication"].is_i64(), "she has signed in as that one: {}", set[0]);
    let mut endpoint = come_up(&command).await;
    let answer = hers.await.unwrap().ok();
    assert_eq!(answer["endpoint_id"], endpoint.id.as_str());
    endpoint.take().await;
}

/// Submits two tasks to a user endpoint that is there, and lets it leave without them.
async fn left_alone(service: &Farcall) -> (Client, FakeManager, Value, Vec<String>) {
    let client = service.client().await;
    let mut manager = FakeManager::connect(register(&client, false).await).await;
    let id = manager.id().to_owned();
    let first = {
        let (client, id) = (client.clone(), id.clone());
        tokio::spawn(async move { submit(&client, &id, json!({"queue": "short"})).await })
    };
    let (_, command) = manager.command().await;
    let mut endpoint = come_up(&command).await;
    first.await.unwrap().ok();
    endpoint.take().await;
    endpoint.rest().await;
    // It is there and consumes no more: what it is sent now waits.
    let function = client.function().await;
    let body = json!({"tasks": {&function: [PAYLOAD, PAYLOAD]}});
    let answer = client.post(&format!("/v3/endpoints/{}/submit", endpoint.id), body).await.ok();
    let tasks = answer["tasks"][&function].as_array().unwrap();
    let tasks = tasks.iter().map(|id| id.as_str().unwrap().to_owned()).collect();
    endpoint.heartbeat(json!({"heartbeat_period": 0})).await;
    endpoint.leave().await;
    (client, manager, command, tasks)
}

#[tokio::test]
async fn one_that_leaves_tasks_behind_is_started_again() {
    let mut service = Farcall::start();
    let (client, mut manager, before, tasks) = left_alone(&service).await;
    let (_, command) = manager.command().await;
    for same in ["name", "user_opts", "user_runtime"] {
        assert_eq!(command["kwargs"][same], before["kwargs"][same], "{same}");
    }
    assert_eq!(command["globus_effective_identity"], before["globus_effective_identity"]);
    assert_ne!(command["kwargs"]["amqp_creds"], before["kwargs"]["amqp_creds"]);
    // The service dies before anything comes of it, and its manager comes back.
    service.kill();
    service.start_again();
    let id = before["kwargs"]["amqp_creds"]["endpoint_id"].as_str().unwrap();
    let status = client.get(&format!("/v2/endpoints/{id}/status")).await.ok();
    assert_eq!(status["farcall"]["notice"], "Its tasks wait until its manager is online");
    let mut manager = FakeManager::connect(manager.registration).await;
    let (_, command) = manager.command().await;
    let mut endpoint = come_up(&command).await;
    assert_eq!([endpoint.take().await, endpoint.take().await], tasks[..]);
    for task in &tasks {
        endpoint.finish(task, "5\n00\nab", false).await;
        assert_eq!(client.task(task).await["status"], "success");
    }
}

#[tokio::test]
async fn one_that_never_comes_up_again_is_given_up_and_its_tasks_say_so() {
    let service = Farcall::configured("limits:\n  restarts: 2\n");
    let (client, mut manager, command, tasks) = left_alone(&service).await;
    let path =
        format!("/v2/endpoints/{}/status", command["kwargs"]["amqp_creds"]["endpoint_id"].as_str().unwrap());
    for tried in 1..=2 {
        let (_, command) = manager.command().await;
        let notice = FakeEndpoint::connect(&Registration(command["kwargs"]["amqp_creds"].clone())).await;
        notice.heartbeat(json!({"error": "the partition is closed", "heartbeat_period": 3})).await;
        notice.leave().await;
        // Told until it has been tried once more and given up.
        let said = |notice: &Value| {
            notice.as_str().is_some_and(|it| it.contains("of 2 failed: the partition is closed"))
        };
        if tried == 1 {
            let noticed = async || said(&client.get(&path).await.ok()["farcall"]["notice"]);
            until("a notice of the restart", async || noticed().await.then_some(())).await;
        }
    }
    for task in &tasks {
        let document = client.task_until(task, |it| it["status"] == "failed").await;
        let why = document["exception"].as_str().unwrap();
        assert!(why.contains("did not start in 2 attempts: the partition is closed"), "{document}");
    }
    assert!(manager.idle().await);
    let counted = client.get(&path).await.ok()["farcall"]["tasks"].clone();
    assert_eq!((&counted["waiting"], &counted["taken"]), (&json!(0), &json!(0)), "{counted}");
}
