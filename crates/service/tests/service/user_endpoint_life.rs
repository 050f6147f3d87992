//! Tests of the life of user endpoints: set-ups that take long, the limit for each person, why they ended, and when they are
//! forgotten.

use serde_json::{Value, json};

use crate::support::{Answer, Client, FakeEndpoint, Farcall, PAYLOAD, Registration, until};
use crate::user_endpoints::{FakeManager, come_up, register, submit};

const DAY: i64 = 86_400_000_000;

/// A submit in a task of its own.
fn submitting(client: &Client, manager: &str, config: Value) -> tokio::task::JoinHandle<Answer> {
    let (client, manager) = (client.clone(), manager.to_owned());
    tokio::spawn(async move { submit(&client, &manager, config).await })
}

/// The user endpoint as it reports while its set-up runs. A user endpoint does not consume its tasks then.
async fn set_up(command: &Value) -> FakeEndpoint {
    let registration = Registration(command["kwargs"]["amqp_creds"].clone());
    let mut endpoint = FakeEndpoint::connect(&registration).await;
    endpoint.rest().await;
    let report = json!({"heartbeat_period": 5, "farcall": {"set_up": {"seconds": 7, "output": "Solving"}}});
    endpoint.heartbeat(report).await;
    endpoint
}

fn id_of(command: &Value) -> String {
    command["kwargs"]["amqp_creds"]["endpoint_id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn submits_during_a_set_up_join_it_and_its_tasks_run_once() {
    let service = Farcall::start();
    let client = service.client().await;
    let mut manager = FakeManager::connect(register(&client, false).await).await;
    let id = manager.id().to_owned();
    let first = submitting(&client, &id, json!({}));
    let (_, command) = manager.command().await;
    let mut endpoint = set_up(&command).await;
    let status = format!("/v2/endpoints/{}/status", endpoint.id);
    let told = async || client.get(&status).await.ok()["details"]["farcall"]["set_up"]["output"] == "Solving";
    until("its owner sees how far it is", async || told().await.then_some(())).await;
    let second = submitting(&client, &id, json!({}));
    assert!(manager.idle().await, "nothing is started twice");
    endpoint.work_again(&Registration(command["kwargs"]["amqp_creds"].clone())).await;
    endpoint.heartbeat(json!({"heartbeat_period": 30, "active": true})).await;
    let mut submitted = Vec::new();
    for submit in [first, second] {
        let answer = submit.await.unwrap().ok();
        assert_eq!(answer["endpoint_id"], endpoint.id.as_str());
        submitted.extend(
            answer["tasks"].as_object().unwrap().values().next().unwrap().as_array().unwrap().clone(),
        );
    }
    let mut taken = [endpoint.take().await, endpoint.take().await].map(Value::from);
    taken.sort_by_key(Value::to_string);
    submitted.sort_by_key(Value::to_string);
    assert_eq!(taken[..], submitted[..]);
    assert!(manager.idle().await);
}

#[tokio::test]
async fn a_set_up_that_fails_is_told_to_who_waits_and_otherwise_to_the_next_submit() {
    let service = Farcall::start();
    let client = service.client().await;
    let mut manager = FakeManager::connect(register(&client, false).await).await;
    let id = manager.id().to_owned();
    let failure = json!({"heartbeat_period": 3, "error": "(SystemExit) 78\nno such package"});
    let waiting = submitting(&client, &id, json!({}));
    let (_, command) = manager.command().await;
    let endpoint = set_up(&command).await;
    endpoint.heartbeat(failure.clone()).await;
    let told = waiting.await.unwrap().refused(422, "SEMANTICALLY_INVALID");
    let text = "Request payload failed validation: (SystemExit) 78\nno such package";
    assert_eq!(told["message"], text);
    endpoint.leave().await;

    // The client gives up, and the set-up fails after that.
    let gone = submitting(&client, &id, json!({}));
    let (_, command) = manager.command().await;
    let endpoint = set_up(&command).await;
    gone.abort();
    let _ = gone.await;
    let path = format!("/v3/endpoints/{id}/user_endpoints");
    // The service notices the end of the client's connection some time.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    endpoint.heartbeat(failure).await;
    endpoint.leave().await;
    let ended = async || client.get(&path).await.ok()[0]["last_end"]["reason"].as_str().map(str::to_owned);
    let reason = until("the reason is listed", ended).await;
    assert!(reason.ends_with("no such package"), "{reason}");
    let told = submit(&client, &id, json!({})).await.refused(422, "SEMANTICALLY_INVALID");
    let told = told["message"].as_str().unwrap();
    assert!(told.starts_with(text) && told.contains("Submit again to start it anew"), "{told}");
    assert!(manager.idle().await, "it was not started for that");

    let again = submitting(&client, &id, json!({}));
    let (_, command) = manager.command().await;
    come_up(&command).await;
    again.await.unwrap().ok();
}

#[tokio::test]
async fn who_has_as_many_user_endpoints_as_allowed_is_told_at_a_submit() {
    let service = Farcall::configured("limits:\n  endpoints_per_identity: 2\n");
    let (client, other) = (service.client().await, service.client().await);
    let mut manager = FakeManager::connect(register(&client, true).await).await;
    let id = manager.id().to_owned();
    let mut ids = Vec::new();
    for number in 0..2 {
        let accepted = submitting(&client, &id, json!({"number": number}));
        let (_, command) = manager.command().await;
        come_up(&command).await.leave().await;
        accepted.await.unwrap().ok();
        ids.push(id_of(&command));
    }
    let refused = submit(&client, &id, json!({"number": 2})).await.refused(409, "RESOURCE_CONFLICT");
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("You have 2 user endpoints") && message.contains("delete one"), "{message}");
    assert!(manager.idle().await);
    // It is a limit for each person, and for new ones.
    for (client, number) in [(&other, 2), (&client, 1)] {
        let accepted = submitting(client, &id, json!({"number": number}));
        let (_, command) = manager.command().await;
        come_up(&command).await.leave().await;
        accepted.await.unwrap().ok();
    }
    client.delete(&format!("/v2/endpoints/{}", ids[0])).await.ok();
    let accepted = submitting(&client, &id, json!({"number": 2}));
    let (_, command) = manager.command().await;
    come_up(&command).await.leave().await;
    accepted.await.unwrap().ok();
}

#[tokio::test]
async fn why_a_user_endpoint_ended_is_listed_after_a_restart_too() {
    let mut service = Farcall::start();
    let client = service.client().await;
    let mut manager = FakeManager::connect(register(&client, false).await).await;
    let id = manager.id().to_owned();
    let path = format!("/v3/endpoints/{id}/user_endpoints");
    let reason = async || client.get(&path).await.ok()[0]["last_end"]["reason"].as_str().map(str::to_owned);
    let submitted = submitting(&client, &id, json!({}));
    let (_, command) = manager.command().await;
    let mut endpoint = come_up(&command).await;
    submitted.await.unwrap().ok();
    let task = endpoint.take().await;
    assert_eq!(reason().await, None);
    endpoint.finish(&task, "5\n00\nab", false).await;
    let run = json!({"run": "00000000-0000-4000-8000-000000000001"});
    endpoint.heartbeat(json!({"heartbeat_period": 30, "farcall": run})).await;
    let last = json!({"run": run["run"], "end": {"reason": "It was idle"}});
    endpoint.heartbeat(json!({"heartbeat_period": 30, "active": false, "farcall": last})).await;
    until("the reason", async || (reason().await.as_deref() == Some("It was idle")).then_some(())).await;

    // A new run that vanishes: its heartbeat is overdue.
    let run = json!({"run": "00000000-0000-4000-8000-000000000002"});
    endpoint.heartbeat(json!({"heartbeat_period": 1, "farcall": run})).await;
    until("it is online", async || (client.get(&path).await.ok()[0]["status"] == "online").then_some(()))
        .await;
    assert_eq!(reason().await.as_deref(), Some("It was idle"), "the last end that is known");
    endpoint.leave().await;
    until("it is missed", async || {
        reason().await.is_some_and(|it| it.starts_with("It sent no last report")).then_some(())
    })
    .await;
    service.kill();
    service.start_again();
    assert_eq!(reason().await.as_deref(), Some("It was idle"));
    let at = client.get(&path).await.ok()[0]["last_end"]["at"].as_str().unwrap().to_owned();
    assert!(at.ends_with('Z'), "{at}");
}

#[tokio::test]
async fn a_user_endpoint_that_nobody_uses_is_forgotten_after_its_time() {
    let mut service = Farcall::configured("limits:\n  user_endpoint_days: 3\n");
    let client = service.client().await;
    let mut manager = FakeManager::connect(register(&client, false).await).await;
    let id = manager.id().to_owned();
    let mut started = Vec::new();
    for name in ["old", "young", "open"] {
        let submitted = submitting(&client, &id, json!({"name": name}));
        let (_, command) = manager.command().await;
        let mut endpoint = come_up(&command).await;
        let answer = submitted.await.unwrap().ok();
        let task = endpoint.take().await;
        if name != "open" {
            endpoint.finish(&task, "5\n00\nab", false).await;
        }
        endpoint.heartbeat(json!({"heartbeat_period": 30, "active": false})).await;
        endpoint.leave().await;
        started.push((id_of(&command), task, answer["task_group_id"].clone()));
    }
    service.stop();
    let mut database = service.database().await;
    for (user_endpoint, days) in [(&started[0].0, 4), (&started[1].0, 2), (&started[2].0, 4)] {
        let key: uuid::Uuid = user_endpoint.parse().unwrap();
        let older = "UPDATE endpoint_tasks SET used_us = used_us - $1 WHERE endpoint_id = $2";
        assert_eq!(database.execute(older, [(days * DAY).into(), key.into()]).await, 1);
    }
    drop(database);
    service.start_again();
    let left = async || {
        let listed = client.get(&format!("/v3/endpoints/{id}/user_endpoints")).await.ok();
        let mut left: Vec<_> =
            listed.as_array().unwrap().iter().map(|it| it["uuid"].as_str().unwrap().to_owned()).collect();
        left.sort();
        left
    };
    let mut expected = vec![started[1].0.clone(), started[2].0.clone()];
    expected.sort();
    until("the old one is forgotten", async || (left().await == expected).then_some(())).await;
    client.get(&format!("/v2/endpoints/{}/status", started[0].0)).await.refused(404, "ENDPOINT_NOT_FOUND");
    assert_eq!(client.task(&started[0].1).await["status"], "success", "results stay");

    // The next submit makes it again, with the same id.
    let mut manager = FakeManager::connect(manager.registration).await;
    let submitted = submitting(&client, &id, json!({"name": "old"}));
    let command = loop {
        // The one with an open task is started again, too.
        let (_, command) = manager.command().await;
        if id_of(&command) == started[0].0 {
            break command;
        }
    };
    let mut endpoint = come_up(&command).await;
    submitted.await.unwrap().ok();
    endpoint.take().await;
}

#[tokio::test]
async fn an_endpoint_without_a_template_names_the_command_that_gives_it_one() {
    let service = Farcall::start();
    let client = service.client().await;
    let registration = client.register().await;
    let function = client.function().await;
    let path = format!("/v3/endpoints/{}/submit", registration.id());
    let body = json!({"tasks": {&function: [PAYLOAD]}, "user_endpoint_config": {"x": 1}});
    let refused = client.post(&path, body).await.refused(422, "SEMANTICALLY_INVALID");
    let name = client.get(&format!("/v2/endpoints/{}", registration.id())).await.ok()["name"].clone();
    let command = format!("`globus-compute-endpoint migrate-to-template-capable {}`", name.as_str().unwrap());
    assert!(refused["message"].as_str().unwrap().contains(&command), "{refused}");
    // Without options there is nothing to refuse.
    let body = json!({"tasks": {&function: [PAYLOAD]}, "user_endpoint_config": {}});
    client.post(&path, body).await.ok();
}

#[tokio::test]
async fn people_on_other_platforms_share_a_user_endpoint_unless_the_template_reads_the_platform() {
    let service = Farcall::start();
    let client = service.client().await;
    let function = client.function().await;
    for (template, shared) in [("engine: {}", true), ("x: {{ user_runtime.platform.machine }}", false)] {
        let metadata = json!({"endpoint_version": "4.19.0", "user_config_template": template});
        let body = json!({"endpoint_name": "manager", "metadata": metadata});
        let registration = Registration(client.post("/v3/endpoints", body).await.ok());
        let mut manager = FakeManager::connect(registration).await;
        let mut used = Vec::new();
        for machine in ["x86_64", "aarch64"] {
            let runtime = json!({"python": {"version": "3.11.7"}, "platform": {"machine": machine}});
            let body = json!({"tasks": {&function: [PAYLOAD]}, "user_runtime": runtime});
            let path = format!("/v3/endpoints/{}/submit", manager.id());
            let submitted = tokio::spawn({
                let client = client.clone();
                async move { client.post(&path, body).await.ok() }
            });
            let (_, command) = manager.command().await;
            let mut endpoint = come_up(&command).await;
            used.push(submitted.await.unwrap()["endpoint_id"].clone());
            let task = endpoint.take().await;
            endpoint.finish(&task, "5\n00\nab", false).await;
            endpoint.heartbeat(json!({"heartbeat_period": 30, "active": false})).await;
            endpoint.leave().await;
        }
        assert_eq!(used[0] == used[1], shared, "{template}");
    }
}
