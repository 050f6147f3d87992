//! Tests that kill the service at each stage: nothing accepted is lost, nothing is done twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::support::{FakeEndpoint, Farcall, service_with_endpoint};

#[tokio::test]
async fn between_a_submit_and_its_result() {
    let (mut service, client, function, registration) = service_with_endpoint().await;
    let mut endpoint = FakeEndpoint::connect(&registration).await;
    let submitted = client.submit(registration.id(), &function, 5).await;
    let [taken, finished] = [endpoint.take().await, endpoint.take().await];
    endpoint.finish(&finished, "finished", false).await;
    // The acknowledgement is written in its own time; a status shows it.
    client.task_until(&taken, |it| it["status"] == "running").await;
    service.kill();
    drop(endpoint);
    service.start_again();

    // With the credential it had; and of the five, only the three that it has not taken.
    let mut endpoint = FakeEndpoint::connect(&registration).await;
    for expected in &submitted.tasks[2..] {
        let task = endpoint.take().await;
        assert_eq!(task, *expected);
        endpoint.finish(&task, "later", false).await;
    }
    endpoint.finish(&taken, "kept by the endpoint", false).await;
    assert_eq!(client.task(&finished).await["result"], "finished");
    assert_eq!(client.task(&taken).await["result"], "kept by the endpoint");
    let mut ended = client.results(&submitted.group).await.take(5).await;
    ended.sort();
    assert_eq!(ended, submitted.tasks);
}

#[tokio::test]
async fn a_result_that_the_client_has_not_acknowledged_comes_again() {
    let (mut service, client, function, registration) = service_with_endpoint().await;
    let mut endpoint = FakeEndpoint::connect(&registration).await;
    let submitted = client.submit(registration.id(), &function, 1).await;
    let task = endpoint.take().await;
    endpoint.finish(&task, "5\n00\nab", false).await;
    let mut results = client.results(&submitted.group).await;
    let (_, first) = results.next().await;
    service.kill();
    service.start_again();
    let mut results = client.results(&submitted.group).await;
    assert_eq!(results.next().await.1, first);
}

#[tokio::test]
async fn under_submits_every_accepted_task_is_there_afterwards() {
    let (mut service, client, function, registration) = service_with_endpoint().await;
    let body = json!({"tasks": {&function: ["x", "y"]}});
    let path = format!("/v3/endpoints/{}/submit", registration.id());
    let over = Arc::new(AtomicBool::new(false));
    let submitting = (0..8).map(|_| {
        let over = over.clone();
        let (client, path, body, function) = (client.clone(), path.clone(), body.clone(), function.clone());
        tokio::spawn(async move {
            let mut accepted: Vec<String> = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let request = client.request(reqwest::Method::POST, &path).json(&body).send().await;
                let Ok(answer) = request else { break };
                let Ok(answer) = answer.json::<serde_json::Value>().await else { break };
                let tasks = answer["tasks"][&function].as_array().unwrap();
                accepted.extend(tasks.iter().map(|id| id.as_str().unwrap().to_owned()));
            }
            accepted
        })
    });
    let submitting: Vec<_> = submitting.collect();
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    over.store(true, Ordering::Relaxed);
    service.kill();
    service.start_again();
    let mut accepted = Vec::new();
    for submitter in submitting {
        accepted.extend(submitter.await.unwrap());
    }
    assert!(!accepted.is_empty());
    for tasks in accepted.chunks(1000) {
        let batch = client.post("/v2/batch_status", json!({"task_ids": tasks})).await.ok();
        for task in tasks {
            assert_eq!(batch["results"][task]["status"], "waiting-for-ep", "{task}");
        }
    }
}

#[tokio::test]
async fn what_an_endpoints_earlier_run_took_and_never_reported_is_lost() {
    let mut service = Farcall::start();
    let client = service.client().await;
    let function = client.function().await;
    let run = |n: u32| json!({"heartbeat_period": 30, "active": true, "start_unix": 1.5, "posix_pid": n});
    let registration = client.register().await;
    let mut first = FakeEndpoint::connect(&registration).await;
    first.heartbeat(run(1)).await;
    let submitted = client.submit(registration.id(), &function, 4).await;
    let [lost, spooled] = [first.take().await, first.take().await];
    client.task_until(&spooled, |it| it["status"] == "running").await;
    first.leave().await;

    let again = client.register_again(registration.id()).await;
    let mut second = FakeEndpoint::connect(&again).await;
    second.heartbeat(run(2)).await;
    let running = second.take().await;
    client.task_until(&running, |it| it["status"] == "running").await;
    second.finish(&spooled, "spooled", false).await;
    service.stop();

    // Let the minute that a new run has be over.
    let mut database = service.database().await;
    let later = "UPDATE endpoints SET run_since_us = run_since_us - 61000000 WHERE run_credential = 2";
    let changed = database.execute(later, []).await;
    assert_eq!(changed, 1, "the second run is the one that is remembered");
    database.close().await;
    service.start_again();

    let document = client.task_until(&lost, |it| it.get("completion_t").is_some()).await;
    assert!(document["exception"].as_str().unwrap().contains("loss of endpoint"), "{document}");
    assert_eq!(client.task(&spooled).await["result"], "spooled");
    assert_eq!(client.task(&running).await["status"], "running", "it belongs to the run that lives");
    assert_eq!(client.task(&submitted.tasks[3]).await["status"], "waiting-for-ep");
}
